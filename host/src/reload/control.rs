//! Who can ask a running host for changes, and what comes of that.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, mpsc, oneshot};

use crate::config::{Config, ConfigError};
use crate::fleet::Waiting;
use crate::service_manager::ServiceManager;

/// Sources of changes for a running host.
pub struct Control {
    /// Reads the configuration again, from the same sources as at the start.
    pub reread: Box<dyn Fn() -> Result<Config, ConfigError> + Send>,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Notified by a request for a reload, such as SIGHUP.
    pub asked: Arc<Notify>,
    /// Start of the process.
    pub started: Instant,
    /// Hears of the start, of reloads and of the stop.
    pub manager: ServiceManager,
}

impl Control {
    /// For a host with a fixed configuration.
    #[must_use]
    pub fn fixed(config: Config) -> Control {
        Control {
            reread: Box::new(move || Ok(config.clone())),
            file: None,
            asked: Arc::default(),
            started: Instant::now(),
            manager: ServiceManager::default(),
        }
    }
}

/// A request of somebody who talks to the running host.
#[derive(Debug)]
pub enum Request {
    /// Try what the files have now.
    Reload {
        /// Whether to try also a version that was rolled back, here or by another host, and to wait for no canary.
        force: bool,
        /// Gets what came of it.
        answer: oneshot::Sender<Reloaded>,
    },
    /// The wanted number of consumers may have changed.
    Resize,
}

/// What came of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The version with this digest came into use.
    Swapped(String),
    /// The version with this digest was in use, and is.
    Unchanged(String),
    /// The version is loaded, and waits for the canary of the group.
    Waits(Waiting),
    /// The version or the configuration was refused, for this reason.
    Refused(String),
}

/// Requests that wait, at most. Further ones wait for a place.
const REQUESTS_MAX: usize = 16;

/// A channel for requests.
#[must_use]
pub fn requests() -> (mpsc::Sender<Request>, mpsc::Receiver<Request>) {
    mpsc::channel(REQUESTS_MAX)
}
