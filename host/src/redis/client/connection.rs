//! A connection that is written and read directly. Every message passes over such connections several times, and a general
//! client spends more on taking commands and replies apart, value by value, than the host on the messages.
//! It belongs to one user, who sends commands and reads their replies; [`super::shared`] shares one.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use redis::RedisError;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::connector::{CONNECT_TIMEOUT, Connector, RESPONSE_TIMEOUT};
use super::resp::{Commands, Cursor};
use super::transport::Transport;

/// Bytes read at once, at least.
const READ_BYTES: usize = 64 << 10;

/// A connection of its own to Redis, logged in.
pub struct Connection {
    input: Input,
    output: WriteHalf<Transport>,
}

/// The side of a connection that is read.
pub(in crate::redis) struct Input {
    stream: ReadHalf<Transport>,
    arrived: BytesMut,
}

/// Nothing of what goes over it.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("arrived_bytes", &self.input.arrived.len()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// Whatever the network or the server says; a timeout when neither says anything.
    pub async fn open(connector: &Connector) -> Result<Connection, RedisError> {
        let open = async {
            let (stream, output) = tokio::io::split(connector.stream().await?);
            let mut wire = Connection { input: Input { stream, arrived: BytesMut::new() }, output };
            let login = connector.login();
            let mut commands = Commands::default();
            if let Some(password) = login.password() {
                let words = ["AUTH"].into_iter().chain(login.username()).chain([password]);
                commands.command(&words.map(str::as_bytes).collect::<Vec<_>>());
            }
            if login.db() != 0 {
                commands.command(&[b"SELECT", login.db().to_string().as_bytes()]);
            }
            let replies = wire.ask(&commands, Duration::ZERO).await?;
            let mut replies = Cursor::new(&replies, 0);
            for _ in 0..commands.len() {
                replies.value()?;
            }
            Ok(wire)
        };
        timeout(CONNECT_TIMEOUT, open).await.unwrap_or_else(|_| Err(timed_out("no connection", CONNECT_TIMEOUT)))
    }

    /// Sends commands and reads their replies, one after the other, within the usual time beyond `block`.
    ///
    /// # Errors
    /// Whatever the network says, or the lack of an answer. What the server refuses is in the replies.
    pub(in crate::redis) async fn ask(&mut self, commands: &Commands, block: Duration) -> Result<Bytes, RedisError> {
        let limit = block + RESPONSE_TIMEOUT;
        let asked = async {
            // A server that waits for its replies to be read would not read on.
            let replies = async {
                let (mut at, mut pending) = (0, commands.len());
                loop {
                    if let Some(replies) = self.input.take(&mut at, &mut pending)? {
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

    /// Sends commands whose replies are read otherwise.
    ///
    /// # Errors
    /// Whatever the network says.
    pub(in crate::redis) async fn send(&mut self, commands: &Commands) -> Result<(), RedisError> {
        self.output.write_all(commands.bytes()).await?;
        Ok(self.output.flush().await?)
    }

    /// What arrives.
    pub(in crate::redis) fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    /// Both sides, each to be used by itself.
    pub(in crate::redis) fn split(self) -> (Input, WriteHalf<Transport>) {
        (self.input, self.output)
    }
}

impl Input {
    /// Reads on. May be dropped and called again.
    ///
    /// # Errors
    /// Whatever the network says, or when the connection has ended.
    pub(in crate::redis) async fn read(&mut self) -> Result<(), RedisError> {
        self.arrived.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.arrived).await? {
            0 => Err(ended()),
            _ => Ok(()),
        }
    }

    /// What has arrived and was not taken.
    pub(in crate::redis) fn arrived(&self) -> &[u8] {
        &self.arrived
    }

    /// Takes the first bytes of what has arrived.
    pub(in crate::redis) fn take_bytes(&mut self, length: usize) -> Bytes {
        self.arrived.split_to(length).freeze()
    }

    /// Takes `pending` values, if all of them have arrived. If not, `at` and `pending` say how far they have.
    ///
    /// # Errors
    /// When it is not what the protocol says.
    pub(in crate::redis) fn take(&mut self, at: &mut usize, pending: &mut usize) -> Result<Option<Bytes>, RedisError> {
        let mut cursor = Cursor::new(&self.arrived, *at);
        cursor.skip(pending)?;
        *at = cursor.at();
        Ok((*pending == 0).then(|| self.take_bytes(*at)))
    }
}

/// The connection is of no use any more.
pub(in crate::redis) fn ended() -> RedisError {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into()
}

pub(in crate::redis) fn timed_out(what: &str, after: Duration) -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {after:?}")).into()
}
