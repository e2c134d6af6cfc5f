//! Lua scripts: loaded on demand on a connection, and called by their digest. The header of each script says what the
//! script does.

use bytes::Bytes;
use redis::{Cmd, RedisError, Script, Value};

use super::connector::LibraryConnection;
use super::resp::{Commands, Cursor};
use super::shared::SharedConnection;

/// The text of a script for `EVAL`, without comment lines, because the server hashes the text at every call.
pub(in crate::redis) fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("--")).flat_map(|line| [line, "\n"]).collect()
}

/// A script and its digest.
#[derive(Debug)]
pub struct Source {
    text: &'static str,
    script: Script,
}

impl Source {
    /// A script from its text.
    #[must_use]
    pub fn new(text: &'static str) -> Source {
        Source { text, script: Script::new(text) }
    }

    /// `EVALSHA` with the keys; the caller adds the arguments.
    #[must_use]
    pub fn command(&self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(keys.len()).arg(keys);
        command
    }

    /// Begins the same command among others; the caller adds `keys` and this number of arguments.
    pub(in crate::redis) fn begin(&self, commands: &mut Commands, keys: usize, arguments: usize) {
        commands.begin(3 + keys + arguments);
        commands.word("EVALSHA");
        commands.word(self.script.get_hash());
        commands.number(keys as u64);
    }

    /// Sends commands made with [`Source::begin`]. If the server does not have the script, loads the script and sends
    /// the commands again.
    ///
    /// # Errors
    /// Errors of the network or the server. Refused commands are in the reply.
    pub(in crate::redis) async fn ask(
        &self,
        connection: &SharedConnection,
        commands: impl Fn() -> Commands,
    ) -> Result<Bytes, RedisError> {
        let reply = connection.ask(commands()).await?;
        match Cursor::new(&reply, 0).value() {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                let mut load = Commands::default();
                load.command(&[b"SCRIPT", b"LOAD", self.text.as_bytes()]);
                Cursor::new(&connection.ask(load).await?, 0).value()?;
                connection.ask(commands()).await
            }
            _ => Ok(reply),
        }
    }

    /// Loads the script, for commands among others that cannot load it themselves.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn load(&self, connection: &mut LibraryConnection) -> Result<(), RedisError> {
        self.script.load_async(connection).await.map(drop)
    }

    /// Runs a command made by [`Source::command`]. If the server does not have the script, loads the script first.
    ///
    /// # Errors
    /// Errors of the network, the server or the script.
    pub async fn run(&self, connection: &mut LibraryConnection, command: &Cmd) -> Result<Value, RedisError> {
        match connection.send_packed_command(command).await.and_then(Value::extract_error) {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                self.script.load_async(connection).await?;
                connection.send_packed_command(command).await.and_then(Value::extract_error)
            }
            reply => reply,
        }
    }
}
