//! Consumers that live elsewhere and speak HTTP. `membership` knows which of them belong to this host, `distribute` hands
//! messages to them, `desk` processes messages that arrive over HTTP, `worker` is such a consumer itself. A message that is
//! processed over HTTP waits among the retries meanwhile; whoever removes it from there settles it. This room answers no request.

pub mod address;
pub mod client;
pub mod desk;
pub mod distribute;
pub mod membership;
pub mod worker;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::{Config, Token};
use crate::consumer::Workplace;
use crate::redis::store::entry::{FORMAT, History};
use desk::Desk;
use membership::Remotes;

/// Name of the header with which a host tells a consumer how the message waits, so that the consumer can settle it.
pub const WAITING_HEADER: &str = "host-waiting";

/// How long a message waits until it goes back to the inbox, unless somebody extends the time: the delay after the death of the
/// process that extends it.
pub const DUE_IN: Duration = Duration::from_secs(10);

/// Time between two extensions. Two of them may fail.
const EXTENSION_INTERVAL: Duration = Duration::from_secs(3);

/// What the HTTP listener needs of this room.
#[derive(Clone, Debug)]
pub struct Remote {
    /// The remote consumers of this host; `None` in a worker, which has none.
    pub remotes: Option<Arc<Remotes>>,
    /// Processes messages that arrive over HTTP.
    pub desk: Arc<Desk>,
}

/// A setting of this room that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The file with the token.
    #[error("cannot use {} of --remote-token-file: {problem}", path.display())]
    TokenFile {
        /// Path of the file.
        path: PathBuf,
        /// A clause with the reason.
        problem: String,
    },
}

/// What a host with an HTTP listener needs; `None` without one.
///
/// # Errors
/// When the token cannot be read.
pub fn of_host(config: &Config, workplace: &Arc<Workplace>, workers: &Handle) -> Result<Option<Remote>, RemoteError> {
    if config.http.address.is_none() {
        return Ok(None);
    }
    let remotes = Remotes::new(workplace.group.clone(), config, token(config)?);
    let desk = Desk::of_host(workplace.clone(), config, workers.clone());
    Ok(Some(Remote { remotes: Some(Arc::new(remotes)), desk: Arc::new(desk) }))
}

/// The token that requests to the other side carry.
///
/// # Errors
/// When the file cannot be used.
pub fn token(config: &Config) -> Result<Option<Token>, RemoteError> {
    let Some(path) = &config.remote.token_file else { return Ok(None) };
    Token::from_file(path).map(Some).map_err(|problem| RemoteError::TokenFile { path: path.clone(), problem })
}

/// How a message waits that another process has handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The format in which the message was written.
    pub format: u32,
    /// The history of the message.
    pub history: History,
}

impl Fence {
    /// The value of the header.
    #[must_use]
    pub fn text(&self) -> String {
        format!("v{} {}", self.format, self.history.note())
    }

    /// Reads the value of the header; `None` for any other text, and for a format that this program cannot read.
    #[must_use]
    pub fn read(text: &str) -> Option<Fence> {
        let (format, history) = text.strip_prefix('v')?.split_once(' ')?;
        let format = format.parse().ok().filter(|format| *format <= FORMAT)?;
        Some(Fence { format, history: History::read(history.as_bytes())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_read_as_it_was_written_and_nothing_else_is() {
        let fence = Fence { format: 1, history: History { attempt: 2, token: "5-a".into(), crashes: 0 } };
        assert_eq!(fence.text(), "v1 2 5-a 0");
        assert_eq!(Fence::read(&fence.text()), Some(fence));
        for wrong in ["", "v1", "1 2 5-a 0", "v1 2 5-a", "v1 2 5-a 0 0", "vx 2 5-a 0", "v99 2 5-a 0"] {
            assert_eq!(Fence::read(wrong), None, "{wrong:?}");
        }
    }
}
