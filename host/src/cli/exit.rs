//! Exit codes, and the failures that lead to them.

use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::config::{ConfigError, masked};
use crate::host::RunError;
use crate::plugin::LoadError;
use crate::printable::escaped_lines;
use crate::redis::embedded::EmbeddedError;
use crate::redis::running::FindError;

/// Reason for the end of the process, as an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// A clean stop.
    Clean = 0,
    /// Any other failure.
    Other = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Redis: unreachable, login refused, missing rights, too old, key of a wrong type.
    Redis = 3,
    /// The plugin: missing, not a component, wrong world, does not start.
    Plugin = 4,
    /// A stop left messages behind that were received, that Redis did not take, and that no other host has heard.
    Lost = 5,
    /// `host status`: the group does not work. No host is alive, no intake is active, or Redis is full.
    Unhealthy = 6,
    /// A part of the process has panicked and could not be replaced; the process has stopped in order.
    Part = 7,
    /// A second Ctrl-C or SIGTERM ended the process at once.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Failure of a command: exit code, and error for standard error.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub exit: Exit,
    /// The error with its causes.
    pub error: anyhow::Error,
}

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let exit = match &error {
            RunError::NoPlugin
            | RunError::Cases(_)
            | RunError::Connector(_)
            | RunError::Misfit(_)
            | RunError::Http(_)
            | RunError::Remote(_) => Exit::Usage,
            RunError::Redis(_) => Exit::Redis,
            RunError::Plugin(_) | RunError::Consumers(_) => Exit::Plugin,
            RunError::Threads(_) => Exit::Other,
            RunError::Part(_) => Exit::Part,
        };
        Failure { exit, error: error.into() }
    }
}

impl From<FindError> for Failure {
    fn from(error: FindError) -> Self {
        Failure { exit: Exit::Redis, error: error.into() }
    }
}

impl From<EmbeddedError> for Failure {
    fn from(error: EmbeddedError) -> Self {
        Failure { exit: Exit::Redis, error: error.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure { exit: Exit::Usage, error: error.into() }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Failure { exit: Exit::Plugin, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure { exit: Exit::Other, error }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure { exit: Exit::Other, error: error.into() }
    }
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Failure { exit: Exit::Other, error: error.into() }
    }
}

/// Writing to standard output failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {0}")]
pub struct OutputError(#[from] io::Error);

impl Failure {
    /// Whether the reader of the output has closed it (`host config | head`), which is not a failure.
    pub fn is_closed_output(&self) -> bool {
        let output = self.error.downcast_ref::<OutputError>().map(|OutputError(error)| error);
        let error = output.or_else(|| self.error.downcast_ref::<io::Error>());
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The error and its causes, without passwords. Some errors already contain the text of their cause; such a cause is
/// not repeated.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for cause in self.error.chain() {
            let cause = cause.to_string();
            if text.is_empty() {
                text = cause;
            } else if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        f.write_str(&escaped_lines(&masked(&text)))
    }
}
