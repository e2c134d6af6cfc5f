//! A connection without the client library. Every message passes over such connections several times, and a general
//! client spends more time on taking commands and replies apart, value by value, than the host spends on the messages.
//! A connection has one user, which sends commands and reads their replies; [`super::shared`] shares a connection.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis::{ConnectionAddr, ErrorKind, RedisConnectionInfo, RedisError};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::connector::{CONNECT_TIMEOUT, Connector, RESPONSE_TIMEOUT, run_id};
use super::part::Part;
use super::resp::{Commands, Cursor, Replies, malformed};
use super::transport::{self, Transport};

/// Minimum number of bytes to read at once.
const READ_BYTES: usize = 64 << 10;

/// A connection to Redis, logged in.
pub struct Connection {
    input: Input,
    output: WriteHalf<Transport>,
}

/// The reading side of a connection.
pub(in crate::redis) struct Input {
    stream: ReadHalf<Transport>,
    arrived: BytesMut,
}

/// The data on the connection is not shown.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("arrived_bytes", &self.input.arrived.len()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Errors of the network or the server, or a timeout.
    pub async fn open(connector: &Connector) -> Result<Connection, RedisError> {
        connector.open().await
    }

    /// Connects to this server, whatever it is, and logs in.
    ///
    /// # Errors
    /// Errors of the network or the server, or a timeout.
    pub(super) async fn at(
        address: &ConnectionAddr,
        tls: Option<&Arc<ClientConfig>>,
        login: &RedisConnectionInfo,
    ) -> Result<Connection, RedisError> {
        let open = async {
            let mut wire = Connection::over(transport::open(address, tls).await?);
            wire.log_in(login).await?;
            Ok(wire)
        };
        timeout(CONNECT_TIMEOUT, open).await.unwrap_or_else(|_| Err(timed_out("no connection", CONNECT_TIMEOUT)))
    }

    /// A connection over a stream on which nothing is under way.
    pub(super) fn over(stream: Transport) -> Connection {
        let (stream, output) = tokio::io::split(stream);
        Connection { input: Input { stream, arrived: BytesMut::new() }, output }
    }

    async fn log_in(&mut self, login: &RedisConnectionInfo) -> Result<(), RedisError> {
        let mut commands = Commands::default();
        if let Some(password) = login.password() {
            let words = ["AUTH"].into_iter().chain(login.username()).chain([password]);
            commands.command(&words.map(str::as_bytes).collect::<Vec<_>>());
        }
        if login.db() != 0 {
            commands.command(&[b"SELECT", login.db().to_string().as_bytes()]);
        }
        let replies = self.ask(&commands, Duration::ZERO).await?;
        let mut replies = Cursor::new(&replies, 0);
        if login.password().is_some() {
            // A server without a password answers with a general error.
            replies.value().map_err(|error| match error.code() {
                Some("ERR") => (ErrorKind::AuthenticationFailed, "the login failed", error.to_string()).into(),
                _ => error,
            })?;
        }
        if login.db() != 0 {
            replies.value()?;
        }
        Ok(())
    }

    /// What the server is among the servers that replicate each other. One that does not grant `INFO` counts as a primary.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub(super) async fn part(&mut self) -> Result<Part, RedisError> {
        let mut commands = Commands::default();
        commands.command(&[b"INFO", b"replication"]);
        let reply = self.ask(&commands, Duration::ZERO).await?;
        match Cursor::new(&reply, 0).bulk() {
            Ok(info) => Ok(Part::of(&String::from_utf8_lossy(info))),
            Err(error) if error.code() == Some("NOPERM") => Ok(Part::Primary),
            Err(error) => Err(error),
        }
    }

    /// The stream in both directions, when nothing is under way.
    pub(super) fn into_stream(self) -> Transport {
        self.input.stream.unsplit(self.output)
    }

    /// Identity of the server at the other end: a new one with every start of a server. Empty when the server does not tell.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn server(&mut self) -> Result<Arc<str>, RedisError> {
        let mut commands = Commands::default();
        commands.command(&[b"INFO", b"server"]);
        let reply = self.ask(&commands, Duration::ZERO).await?;
        Ok(run_id(&String::from_utf8_lossy(Cursor::new(&reply, 0).bulk()?)))
    }

    /// Sends commands and reads their replies in order, within the usual timeout plus `block`.
    ///
    /// # Errors
    /// Errors of the network, or a timeout. Errors of the server are in the replies.
    pub(in crate::redis) async fn ask(&mut self, commands: &Commands, block: Duration) -> Result<Bytes, RedisError> {
        if !self.input.arrived.is_empty() {
            // A reply that nobody asked for would be taken for the first one.
            return Err(malformed());
        }
        let limit = block + RESPONSE_TIMEOUT;
        let asked = async {
            // Write and read at the same time: a server whose replies are not read does not read commands either.
            let replies = async {
                let mut expected = Replies::expected(commands.len());
                loop {
                    if let Some(replies) = self.input.take(&mut expected)? {
                        return Ok(replies);
                    }
                    self.input.read().await?;
                }
            };
            let sent = async {
                self.output.write_all(commands.bytes()).await?;
                self.output.flush().await.map_err(RedisError::from)
            };
            tokio::try_join!(sent, replies).map(|((), replies)| replies)
        };
        timeout(limit, asked).await.unwrap_or_else(|_| Err(timed_out("no reply", limit)))
    }

    /// Sends commands whose replies the caller reads.
    ///
    /// # Errors
    /// Errors of the network.
    pub(in crate::redis) async fn send(&mut self, commands: &Commands) -> Result<(), RedisError> {
        self.output.write_all(commands.bytes()).await?;
        Ok(self.output.flush().await?)
    }

    /// The reading side.
    pub(in crate::redis) fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    /// Both sides, for separate use.
    pub(in crate::redis) fn split(self) -> (Input, WriteHalf<Transport>) {
        (self.input, self.output)
    }
}

impl Input {
    /// Reads more bytes. The future may be dropped, and the call repeated.
    ///
    /// # Errors
    /// Errors of the network, or the end of the connection.
    pub(in crate::redis) async fn read(&mut self) -> Result<(), RedisError> {
        self.arrived.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.arrived).await? {
            0 => Err(ended()),
            _ => Ok(()),
        }
    }

    /// The received bytes that are not consumed yet.
    pub(in crate::redis) fn arrived(&self) -> &[u8] {
        &self.arrived
    }

    /// Consumes the first bytes.
    pub(in crate::redis) fn take_bytes(&mut self, length: usize) -> Bytes {
        self.arrived.split_to(length).freeze()
    }

    /// Consumes the expected replies, if all of them have arrived.
    ///
    /// # Errors
    /// When the bytes violate the protocol, or exceed a bound.
    pub(in crate::redis) fn take(&mut self, expected: &mut Replies) -> Result<Option<Bytes>, RedisError> {
        Ok(expected.end(&self.arrived)?.map(|end| self.take_bytes(end)))
    }
}

/// The error of a connection that cannot be used any more.
pub(in crate::redis) fn ended() -> RedisError {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into()
}

pub(in crate::redis) fn timed_out(what: &str, after: Duration) -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {after:?}")).into()
}
