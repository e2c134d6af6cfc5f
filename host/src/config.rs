//! Every setting of a host in one validated value: flags beat environment beat file beat defaults.
//! It knows names, units, bounds and defaults; it opens no connection and reads no plugin.

use std::path::PathBuf;
use std::time::Duration;

/// The effective configuration of a host.
#[derive(Clone, Debug)]
pub struct Config {
    /// The plugin's file, a Wasm component. `None` only in commands that need no plugin.
    pub plugin: Option<PathBuf>,
    /// Consumers of this host, 1 to 10,000.
    pub consumers: u32,
    /// Time between two report lines.
    pub report_interval: Duration,
    /// How long a stop waits for deliveries in work before it hands them back.
    pub drain_timeout: Duration,
    /// How long a message id is remembered, counted from its claim.
    pub dedup_window: Duration,
    /// Log lines and report as text or JSON.
    pub log_format: LogFormat,
    /// Least severe level that is logged, or a `tracing` filter directive.
    pub log_level: String,
    /// Where Redis is and how to get in.
    pub redis: RedisConfig,
    /// Names in Redis.
    pub keys: KeysConfig,
    /// What is written to the output stream.
    pub output: OutputConfig,
    /// Receiving from Pub/Sub.
    pub intake: IntakeConfig,
    /// How messages are cut into deliveries.
    pub delivery: DeliveryConfig,
    /// What a plugin may use.
    pub plugin_limits: PluginLimits,
    /// What a message may be.
    pub message: MessageLimits,
    /// Heartbeats and takeover.
    pub registry: RegistryConfig,
}

/// Form of log lines and report lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where Redis is and how to get in.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// `redis://`, `rediss://` or `unix://` with user, password and database, or the word `embedded`.
    pub url: String,
    /// PEM file with the certificate authority that signed Redis's certificate, when the system does not know it.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate, for Redis servers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the client certificate's key.
    pub key_file: Option<PathBuf>,
}

/// Names in Redis.
#[derive(Clone, Debug)]
pub struct KeysConfig {
    /// Pub/Sub channel, `messages:published`.
    pub channel: String,
    /// List of the consumers alive, `consumer:ids`.
    pub consumer_ids: String,
    /// Sorted set of hosts by expiry, `{consumer:ids}:heartbeat`.
    pub heartbeat: String,
    /// Output stream, `messages:processed`.
    pub output: String,
    /// Stream of deliveries, `{messages:processed}:inbox`.
    pub inbox: String,
    /// Redis consumer group on the inbox, `host`.
    pub group: String,
    /// What a claim's key begins with, `{messages:processed}:claim:`.
    pub claim_prefix: String,
    /// Sorted set of messages waiting for another attempt, `{messages:processed}:retry`.
    pub retry: String,
    /// Stream of dead letters, `{messages:processed}:dead`.
    pub dead: String,
    /// Lease of the active intake, `{messages:processed}:intake`.
    pub intake: String,
}

/// Form of an output entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputFormat {
    /// One field for each top-level property.
    #[default]
    Fields,
    /// The whole result as JSON text in the field `json`.
    Json,
}

/// What is written to the output stream.
#[derive(Clone, Debug)]
pub struct OutputConfig {
    /// Form of an entry.
    pub format: OutputFormat,
    /// Entries kept, approximately; 0 keeps all.
    pub length_max: u64,
    /// Dead letters kept, approximately; 0 keeps all.
    pub dead_length_max: u64,
}

/// Receiving from Pub/Sub.
#[derive(Clone, Debug)]
pub struct IntakeConfig {
    /// Memory for messages between the socket and Redis, in bytes; past it messages are shed.
    pub buffer_bytes_max: usize,
    /// Memory of a standby's replay buffer, in bytes.
    pub standby_bytes_max: usize,
    /// Age up to which a standby keeps messages.
    pub standby_age_max: Duration,
    /// Validity of the active intake's lease.
    pub lease_ttl: Duration,
    /// Time between two pings on the subscription.
    pub ping_interval: Duration,
    /// Silence after which a subscription counts as dead.
    pub silence_max: Duration,
}

/// How messages are cut into deliveries.
#[derive(Clone, Debug)]
pub struct DeliveryConfig {
    /// Messages in a delivery, 1 to 128.
    pub messages_max: u32,
    /// Bytes in a delivery, unless a single message is larger.
    pub bytes_max: usize,
    /// Time that a delivery should take a slow plugin.
    pub time_target: Duration,
}

/// What a plugin may use.
#[derive(Clone, Debug)]
pub struct PluginLimits {
    /// Time for one message, and for starting an instance.
    pub time_max: Duration,
    /// Memory of an instance, in bytes.
    pub memory_bytes_max: usize,
    /// Length of one result, in bytes.
    pub result_bytes_max: usize,
}

/// What a message may be.
#[derive(Clone, Debug)]
pub struct MessageLimits {
    /// Length of a message, in bytes.
    pub bytes_max: usize,
    /// Objects and arrays inside each other.
    pub depth_max: u32,
}

/// Heartbeats and takeover.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Time between two heartbeats.
    pub beat_interval: Duration,
    /// Validity of a heartbeat: a host that is silent for longer counts as dead.
    pub beat_ttl: Duration,
    /// Time between two looks for deliveries of dead hosts.
    pub takeover_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Config {
            plugin: None,
            consumers: 10,
            report_interval: seconds(3),
            drain_timeout: seconds(10),
            dedup_window: seconds(300),
            log_format: LogFormat::Text,
            log_level: "info".into(),
            redis: RedisConfig {
                url: "redis://127.0.0.1:6379".into(),
                ca_file: None,
                cert_file: None,
                key_file: None,
            },
            keys: KeysConfig {
                channel: "messages:published".into(),
                consumer_ids: "consumer:ids".into(),
                heartbeat: "{consumer:ids}:heartbeat".into(),
                output: "messages:processed".into(),
                inbox: "{messages:processed}:inbox".into(),
                group: "host".into(),
                claim_prefix: "{messages:processed}:claim:".into(),
                retry: "{messages:processed}:retry".into(),
                dead: "{messages:processed}:dead".into(),
                intake: "{messages:processed}:intake".into(),
            },
            output: OutputConfig {
                format: OutputFormat::Fields,
                length_max: 0,
                dead_length_max: 0,
            },
            intake: IntakeConfig {
                buffer_bytes_max: 256 << 20,
                standby_bytes_max: 64 << 20,
                standby_age_max: seconds(10),
                lease_ttl: seconds(3),
                ping_interval: seconds(1),
                silence_max: seconds(3),
            },
            delivery: DeliveryConfig {
                messages_max: 128,
                bytes_max: 256 << 10,
                time_target: Duration::from_millis(50),
            },
            plugin_limits: PluginLimits {
                time_max: seconds(1),
                memory_bytes_max: 256 << 20,
                result_bytes_max: 4 << 20,
            },
            message: MessageLimits {
                bytes_max: 1 << 20,
                depth_max: 128,
            },
            registry: RegistryConfig {
                beat_interval: seconds(2),
                beat_ttl: seconds(7),
                takeover_interval: seconds(1),
            },
        }
    }
}
