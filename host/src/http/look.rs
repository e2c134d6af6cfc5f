//! One look at the group for everybody who asks: the scraper of metrics, the API, and every open page. Nobody asks, nothing
//! is read. This file knows no path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::answer::Problem;
use crate::config::Outputs;
use crate::group::Group;
use crate::observe::Observer;
use crate::observe::status::GroupStatus;

/// Age up to which a look serves for the next question, too.
const AGE_MAX: Duration = Duration::from_secs(1);

/// Longest time for a look. A scraper waits 10 s by default, and wants the figures of the host also without Redis.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Reason why nothing is known about the group at present.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LookError {
    /// An error of the network or the server.
    #[error("cannot read the state of the group from Redis at {address}: {problem}")]
    Redis {
        /// Where Redis is, without credentials.
        address: String,
        /// The error.
        problem: String,
    },
    /// No answer in time.
    #[error("cannot read the state of the group: Redis at {address} has not answered within {LOOK_TIMEOUT:?}")]
    Timeout {
        /// Where Redis is, without credentials.
        address: String,
    },
}

impl From<LookError> for Problem {
    fn from(error: LookError) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

/// The group as Redis shows it, at most 1 s old.
pub(super) struct Look {
    group: Arc<Group>,
    outputs: Outputs,
    /// Locked during a look, so that those who ask meanwhile wait for its result.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Absent before the first look and after one that failed, or was given up in the middle.
    observer: Option<Observer>,
    last: Option<(Instant, Result<Arc<GroupStatus>, LookError>)>,
}

impl Look {
    /// A look at this group, whose hosts may also write to these named outputs. This call reads nothing.
    pub(super) fn new(group: Arc<Group>, outputs: Outputs) -> Look {
        Look { group, outputs, state: Mutex::default() }
    }

    /// The state of the group, at most 1 s old. A failure is kept as long, so that Redis is not asked more often then.
    ///
    /// # Errors
    /// When Redis cannot be reached, or does not answer in time.
    pub(super) async fn group(&self) -> Result<Arc<GroupStatus>, LookError> {
        let mut state = self.state.lock().await;
        if let Some((at, last)) = &state.last
            && at.elapsed() < AGE_MAX
        {
            return last.clone();
        }
        let mut observer = state.observer.take().unwrap_or_else(|| self.observer());
        // Of the time before the look: what it shows may be as old.
        let at = Instant::now();
        let looked = match timeout(LOOK_TIMEOUT, observer.look()).await {
            Ok(Ok(status)) => {
                state.observer = Some(observer);
                Ok(Arc::new(status))
            }
            Ok(Err(error)) => Err(LookError::Redis { address: self.address(), problem: error.to_string() }),
            Err(_) => Err(LookError::Timeout { address: self.address() }),
        };
        // A failure counts from its end: otherwise a long one would be followed by the next one at once.
        let at = if looked.is_ok() { at } else { Instant::now() };
        state.last = Some((at, looked.clone()));
        looked
    }

    fn observer(&self) -> Observer {
        Observer::new(self.group.connector.clone(), self.group.keys.clone(), &self.outputs)
    }

    fn address(&self) -> String {
        self.group.connector.address().to_owned()
    }
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Look").finish_non_exhaustive()
    }
}
