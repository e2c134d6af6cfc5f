//! The state of a group as values. Their JSON is a contract with scripts and programs: names stay, and new ones may come.
//! What is not known is `null`; times are RFC 3339, durations are in ms.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use crate::fleet::{Compared, Verdict, Waiting};

/// The state of a group at one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GroupStatus {
    /// The server's time.
    pub timestamp: String,
    /// Whether there is no problem.
    pub healthy: bool,
    /// What keeps the group from processing messages.
    pub problems: Vec<Finding>,
    /// What a person should know, while the group works.
    pub warnings: Vec<Finding>,
    /// The server.
    pub redis: RedisFacts,
    /// The group.
    pub group: GroupFacts,
    /// Figures of all hosts together.
    pub totals: Totals,
    /// Deliveries in the inbox.
    pub inbox: Inbox,
    /// Retries that wait.
    pub retries: Retries,
    /// Dead letters.
    pub dead_letters: DeadLetterCounts,
    /// The output streams: first the main one.
    pub outputs: Vec<Output>,
    /// The hosts alive, in the order of their ids.
    pub hosts: Vec<Host>,
    /// The consumers alive, host by host: first its own, then those that live elsewhere.
    pub consumers: Vec<Consumer>,
}

/// A problem or a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Finding {
    /// Its kind, for programs: see the chapter on operating.
    pub code: &'static str,
    /// A sentence.
    pub text: String,
}

/// The server.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RedisFacts {
    /// Host and port, or path, without credentials.
    pub address: String,
    /// Name and version.
    pub server: String,
    /// Memory in use, in bytes.
    pub memory_bytes: u64,
    /// The memory limit, in bytes; 0 is no limit.
    pub memory_bytes_max: u64,
}

/// Facts about the group.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct GroupFacts {
    /// The main output stream, which names the group.
    pub output: String,
    /// The channel; `None` when no host is alive.
    pub channel: Option<String>,
    /// Format of entries that the group writes; `None` when no host is alive.
    pub format: Option<u32>,
    /// Id of the host whose intake is active.
    pub active_intake: Option<String>,
}

/// Figures of all hosts alive together. `None` when a host does not announce the figure.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Totals {
    /// Hosts alive.
    pub hosts: u64,
    /// Consumers alive.
    pub consumers: u64,
    /// Those of them that live elsewhere.
    pub remote_consumers: u64,
    /// Messages settled a second.
    pub messages_per_second: Option<f64>,
    /// The largest position lag of a host: messages heard and not known to be in the inbox.
    pub position_lag: Option<u64>,
    /// Messages shed since the start of the hosts.
    pub shed: Option<u64>,
    /// Dead letters trimmed since the start of the hosts.
    pub dead_letters_trimmed: Option<u64>,
    /// Results trimmed since the start of the hosts.
    pub results_trimmed: Option<u64>,
    /// Times without a subscribed host since the start of the hosts.
    pub gaps: Option<u64>,
    /// Their length together.
    pub gap_ms: Option<u64>,
}

/// A host alive. `None` is what an older host does not announce. Counters count from the start of the host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Host {
    /// The host's id.
    pub id: String,
    /// Name of its machine, from the id.
    pub host_name: String,
    /// Version of the program.
    pub version: Option<String>,
    /// Start of the host.
    pub started: Option<String>,
    /// Age of the last heartbeat.
    pub heartbeat_age_ms: Option<u64>,
    /// Time after which the host counts as dead without another heartbeat.
    pub heartbeat_left_ms: u64,
    /// Its own consumers on the list.
    pub consumers: u64,
    /// Consumers that live elsewhere and are registered at this host.
    pub remote_consumers: u64,
    /// What its intake is: active, standby, owing or deaf.
    pub intake: Option<String>,
    /// Messages heard and not known to be in the inbox.
    pub position_lag: Option<u64>,
    /// Messages settled a second, between the last heartbeats.
    pub messages_per_second: Option<f64>,
    /// Messages settled.
    pub processed: Option<u64>,
    /// Messages dropped because their id was already claimed.
    pub duplicates: Option<u64>,
    /// Dead letters written.
    pub dead_letters: Option<u64>,
    /// Dead letters that the host has trimmed.
    pub dead_letters_trimmed: Option<u64>,
    /// Results that the host has trimmed.
    pub results_trimmed: Option<u64>,
    /// Retries scheduled.
    pub retries: Option<u64>,
    /// Messages shed because the intake's buffer was full.
    pub shed: Option<u64>,
    /// Times without a subscribed host that this host found out.
    pub gaps: Option<u64>,
    /// Their length together.
    pub gap_ms: Option<u64>,
    /// Connections opened again after a failure.
    pub reconnects: Option<u64>,
    /// Deliveries taken over from dead hosts.
    pub taken_over: Option<u64>,
    /// Whether a command has paused the host.
    pub paused: Option<bool>,
    /// The plugin.
    pub plugin: Option<Plugin>,
}

/// The plugin of a host.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Plugin {
    /// Number of the version in use, +1 at every swap.
    pub generation: u64,
    /// SHA-256 of the plugin's bytes.
    pub digest: String,
    /// State of the version: steady, probation, rolled-back or failing.
    pub state: String,
    /// Time at which the version came into use.
    #[serde(default)]
    pub since: Option<String>,
    /// Number of changes of the version in use, including rollbacks.
    #[serde(default)]
    pub swaps: u64,
    /// Number of refused versions and configurations.
    #[serde(default)]
    pub refusals: u64,
    /// Number of rollbacks.
    #[serde(default)]
    pub rollbacks: u64,
    /// The version that waits for the canary of the group.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// What another host says of the version in use, which it has rolled back.
    #[serde(default)]
    pub verdict: Option<Verdict>,
    /// What the version in use takes for a message, compared with the version before.
    #[serde(default)]
    pub compared: Option<Compared>,
}

impl Plugin {
    /// State of the version, and whether another version waits or another host has rolled this one back.
    #[must_use]
    pub fn standing(&self) -> String {
        match (&self.waiting, &self.verdict) {
            (Some(_), _) => format!("{}, another waits", self.state),
            (None, Some(_)) => format!("{}, rolled back elsewhere", self.state),
            (None, None) => self.state.clone(),
        }
    }
}

/// A consumer alive. A host announces the figures of its own first 1,000 consumers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Consumer {
    /// The consumer's id.
    pub id: String,
    /// Id of its host: for a remote consumer, the host at which it is registered.
    pub host: String,
    /// Whether it lives elsewhere.
    pub remote: bool,
    /// Messages settled a second, between the last heartbeats.
    pub messages_per_second: Option<f64>,
    /// Messages settled since the start of the host.
    pub processed: Option<u64>,
}

/// Deliveries in the inbox.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Inbox {
    /// Deliveries, of 1 to 128 messages each.
    pub length: u64,
    /// Deliveries that a host has fetched.
    pub in_progress: u64,
    /// Deliveries that no host has fetched.
    pub waiting: u64,
    /// Age of the oldest delivery.
    pub oldest_age_ms: Option<u64>,
}

/// Retries that wait.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Retries {
    /// Number of messages.
    pub waiting: u64,
    /// Time until the next one is due; 0 when it is due.
    pub next_due_in_ms: Option<u64>,
    /// When the next one is due.
    pub next_due: Option<String>,
}

/// Dead letters.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct DeadLetterCounts {
    /// Number of all.
    pub length: u64,
    /// Number of those without a message id, as far as they are bounded.
    pub without_id: u64,
    /// Number of those whose reasons were counted: at most the newest 10,000, and those that came since.
    pub counted: u64,
    /// Number of each reason among them.
    pub reasons: BTreeMap<String, u64>,
}

/// Name of an output.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OutputName {
    /// The main output.
    Main,
    /// A named output.
    Named(String),
}

impl OutputName {
    /// The name; `main` for the main output, which no named output can have.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            OutputName::Main => crate::config::MAIN,
            OutputName::Named(name) => name,
        }
    }
}

impl Serialize for OutputName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// An output stream.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Output {
    /// Name of the output; `main` for the main one.
    #[schema(value_type = String)]
    pub name: OutputName,
    /// The stream.
    pub key: String,
    /// Results in the stream.
    pub length: u64,
    /// Results ever written to the stream.
    pub added: u64,
}
