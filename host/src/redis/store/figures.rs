//! The figures that a host writes into its status with every heartbeat, for whoever looks at the group from outside.
//! This file knows their form, and neither where they come from nor who reads them.

use serde::{Deserialize, Serialize};

/// Consumers of a host whose figures are announced, at most. The figures of a consumer take some 14 bytes.
pub const CONSUMERS_MAX: usize = 1_000;

/// What a host says of itself. Counters count from the start of the host. A field that an older host does not write has its
/// default value.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Figures {
    /// Version of the program.
    pub version: String,
    /// Start of the host, RFC 3339.
    pub started: String,
    /// Validity of a heartbeat, in ms. With the expiry of the heartbeat it gives the heartbeat's age.
    pub beat_ttl_ms: u64,
    /// What the intake is: active, standby, owing or deaf.
    pub intake: String,
    /// Messages that the host has heard and that are not known to be in the inbox.
    pub position_lag: u64,
    /// Messages a second that the host settled between its last heartbeats.
    pub messages_per_second: f64,
    /// Messages settled.
    pub processed: u64,
    /// Messages dropped because their id was already claimed.
    pub duplicates: u64,
    /// Dead letters written.
    pub dead_letters: u64,
    /// Dead letters that were trimmed.
    pub dead_letters_trimmed: u64,
    /// Results that were trimmed.
    pub results_trimmed: u64,
    /// Retries scheduled.
    pub retries: u64,
    /// Messages that found the intake's buffer full.
    pub shed: u64,
    /// Times that no host was subscribed, counted by the host that found out.
    pub gaps: u64,
    /// Their length together, in ms.
    pub gap_ms: u64,
    /// Connections opened again after a failure.
    pub reconnects: u64,
    /// Deliveries taken over from dead hosts.
    pub taken_over: u64,
    /// Whether a command has paused the host.
    pub paused: bool,
    /// Messages settled by each of the first [`CONSUMERS_MAX`] consumers, in the order of their numbers.
    pub consumers_processed: Vec<u64>,
    /// The same a second, between the last heartbeats.
    pub consumers_per_second: Vec<f64>,
}
