//! Lua scripts: loaded once a connection needs them, called by their digest.
//! It knows nothing of what they do; each says so in its own header.

use redis::{Cmd, RedisError, Script, Value};

use super::connection::Connection;

/// A script and its digest.
#[derive(Debug)]
pub struct Source {
    script: Script,
}

impl Source {
    /// A script from its text.
    #[must_use]
    pub fn new(text: &str) -> Source {
        Source { script: Script::new(text) }
    }

    /// `EVALSHA` with the keys; arguments are added by the caller.
    #[must_use]
    pub fn command(&self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.script.get_hash()).arg(keys.len()).arg(keys);
        command
    }

    /// Runs a command made by [`Source::command`], loading the script when the server does not have it.
    ///
    /// # Errors
    /// Whatever the network, the server or the script says.
    pub async fn run(&self, connection: &mut Connection, command: &Cmd) -> Result<Value, RedisError> {
        match connection.send_packed_command(command).await.and_then(Value::extract_error) {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                self.script.load_async(connection).await?;
                connection.send_packed_command(command).await.and_then(Value::extract_error)
            }
            reply => reply,
        }
    }
}
