//! The status of a host's plugin as a value.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fleet::{Compared, Verdict, Waiting};

/// Status of a host's plugin, for Redis and for reports.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Status {
    /// Number of the version in use, +1 at every swap.
    pub generation: u64,
    /// SHA-256 of the plugin's bytes.
    pub digest: String,
    /// State of the version in use.
    pub state: State,
    /// Time at which the version came into use, RFC 3339.
    pub since: String,
    /// Number of consumers of the host.
    pub consumers: u32,
    /// Number of changes of the version in use, including rollbacks.
    pub swaps: u64,
    /// Number of refused versions and configurations.
    pub refusals: u64,
    /// Number of rollbacks.
    pub rollbacks: u64,
    /// The last refused version.
    pub refused: Option<Refused>,
    /// The version that waits for the canary of the group.
    pub waiting: Option<Waiting>,
    /// What another host says of the version in use, which it has rolled back.
    pub verdict: Option<Verdict>,
    /// What the version in use takes for a message, compared with the version before.
    #[serde(default)]
    pub compared: Option<Compared>,
}

/// State of the version in use.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The version is trusted.
    Steady,
    /// The version is on probation.
    Probation,
    /// The version is trusted, and is in use again because the next version failed.
    RolledBack,
    /// The version fails nearly everything, and gets single messages only.
    Failing,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Steady => "steady",
            State::Probation => "on probation",
            State::RolledBack => "restored",
            State::Failing => "failing",
        })
    }
}

/// A version that was refused.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Refused {
    /// SHA-256 of the plugin's bytes, if the file could be read.
    pub digest: Option<String>,
    /// The reason, as a sentence.
    pub reason: String,
    /// Time of the refusal, RFC 3339.
    pub time: String,
}
