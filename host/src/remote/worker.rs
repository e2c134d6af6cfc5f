//! Membership of a worker in its group: registers, looks every interval whether the group knows the worker, and leaves at the
//! end. This file processes no messages.

use std::time::Duration;

use bytes::Bytes;
use tracing::{info, warn};

use super::address::Address;
use super::client::{Ask, AskError, Client};
use crate::config::Token;
use crate::redis::client::backoff::Backoff;

/// Longest time for an answer of the group.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for the farewell, so that a group that is away does not delay a stop.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// A worker as its group knows it.
#[derive(Debug)]
pub struct Membership {
    group: Client,
    body: Bytes,
    interval: Duration,
}

impl Membership {
    /// The membership of the worker with this address, looked at every interval.
    #[must_use]
    pub fn new(group: Address, token: Option<Token>, worker: &Address, interval: Duration) -> Membership {
        let body = serde_json::json!({ "consumer_id": worker.as_str() }).to_string().into();
        Membership { group: Client::new(group, token), body, interval }
    }

    /// Registers, and registers again whenever the group does not know the worker, for ever. The future may be dropped at any
    /// moment.
    pub async fn run(&mut self) {
        loop {
            self.register().await;
            loop {
                tokio::time::sleep(self.interval).await;
                match self.ask("/checkMembership", ANSWER_TIMEOUT).await {
                    Ok(200) => {}
                    Ok(404) => {
                        info!(group = %self.group.address(), "the group does not know this worker; registering again");
                        break;
                    }
                    Ok(status) => {
                        warn!(group = %self.group.address(), status, "the group did not say whether this worker is a member; registering again");
                        break;
                    }
                    Err(error) => {
                        warn!("cannot ask the group about the membership; registering again: {error}");
                        break;
                    }
                }
            }
        }
    }

    /// Registers, however often it takes.
    async fn register(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let problem = match self.ask("/register", ANSWER_TIMEOUT).await {
                Ok(200) => return info!(group = %self.group.address(), "registered at the group"),
                Ok(401 | 403) => "it wants a token: name a file with it in --remote-token-file".to_owned(),
                Ok(500) => "it has no free place, or failed".to_owned(),
                Ok(status) => format!("it answered {status}"),
                Err(error) => error.to_string(),
            };
            warn!(group = %self.group.address(), "cannot register at the group, trying again: {problem}");
            tokio::time::sleep(backoff.next_wait().max(Duration::from_millis(200))).await;
        }
    }

    /// Leaves the group.
    pub async fn leave(&mut self) {
        match self.ask("/unregister", FAREWELL_TIMEOUT).await {
            Ok(200) => info!(group = %self.group.address(), "left the group"),
            Ok(status) => warn!(status, "could not leave the group; it removes this worker at its next health check"),
            Err(error) => warn!("could not leave the group; it removes this worker at its next health check: {error}"),
        }
    }

    async fn ask(&mut self, path: &str, bound: Duration) -> Result<u16, AskError> {
        let ask = Ask { path, json: Some(self.body.clone()), fence: None };
        self.group.ask(ask, bound).await.map(|answer| answer.status.as_u16())
    }
}
