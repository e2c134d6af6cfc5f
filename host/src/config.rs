//! Every setting of a host, in one table: name, flag, documentation, unit, bounds and default.
//! Flags beat environment beat file beat defaults (`layers`). It opens no connection and reads no plugin.
//!
//! To add a setting, add a field here. Its key in the file is the field's name, its environment variable is
//! `HOST_` and the flag in capitals, and its help is the documentation. A condition between settings goes
//! to `rules`. The plugin's own configuration is no setting of the host and has no place in the table: `plugin_config`.

mod file;
mod layers;
mod plugin_config;
mod print;
#[cfg(test)]
mod properties;
mod redis_url;
mod reference;
mod reread;
mod rules;
mod setting;
mod value;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

pub use layers::{ConfigError, Given, Loaded, Source, load};
pub use plugin_config::PluginConfig;
pub use redis_url::masked;
pub use reference::reference;
pub use reread::needing_a_start;
pub use setting::Setting;
pub use value::Kind;

use setting::{flag, settings};
use value::Value;

/// Form of log lines and report lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Form of an output entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub enum OutputFormat {
    /// One field for each top-level property.
    #[default]
    Fields,
    /// The whole result as JSON text in the field `json`.
    Json,
}

/// How a host learns that a file has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub enum Watch {
    /// From the system at once, and from a look every interval should the system say nothing.
    #[default]
    Events,
    /// From a look every interval alone.
    Poll,
    /// Not by itself, only when it is told to look.
    Off,
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub enum OnOff {
    /// It is.
    #[default]
    On,
    /// It is not.
    Off,
}

settings! {
    /// The effective configuration of a host.
    #[derive(Clone, Debug)]
    pub struct Config, "Running" {
        /// The plugin: a file with a Wasm component.
        ///
        /// Only `host config` and other commands that process nothing do without it.
        pub plugin: Option<PathBuf> = flag("plugin").common();
        /// Consumers of this host, each with an instance of the plugin of its own.
        pub consumers: u32 = flag("consumers").default("10").between("1", "10000").common();
        /// Time between two report lines on standard output.
        pub report_interval: Duration = flag("report-interval").default("3s").between("100ms", "1h").common();
        /// How long a stop waits for deliveries in work before it hands them back to the group.
        pub drain_timeout: Duration = flag("drain-timeout").default("10s").between("0s", "1h").common();
        /// How long a message id is remembered, from when its message was received.
        ///
        /// A message with the same id within this time is dropped as a duplicate. Redis keeps 180 to 210
        /// bytes for each id: at 10,000 messages a second, 5m cost about 600 MB.
        pub dedup_window: Duration = flag("dedup-window").default("5m").between("1s", "7d").common();
        /// Compile the plugin at every start, instead of keeping compiled plugins in the user's cache folder.
        pub no_cache: bool = flag("no-cache").default("false");
        /// Form of log lines (standard error) and report lines (standard output).
        pub log_format: LogFormat = flag("log-format").default("text").common();
        /// Least severe level that is logged: error, warn, info, debug, trace or off.
        ///
        /// A comma-separated list of directives such as `warn,host::intake=debug` works as well.
        pub log_level: String = flag("log-level").default("info").also("HOST_LOG").common();
    }

    /// Where Redis is and how to get in.
    #[derive(Clone)]
    pub struct RedisConfig [redis = "redis"], "Redis" {
        /// Where Redis is: redis://, rediss:// (TLS) or unix://, or the word embedded.
        ///
        /// `redis://user:password@127.0.0.1:6379/0`, `unix:///run/redis.sock?db=0&user=u&pass=p`. Characters of
        /// a password that a URL reserves are percent-encoded. Better in the environment than on the command
        /// line, where every user of the machine can read it. `embedded` starts a private redis-server or
        /// valkey-server from PATH that ends with the host; the other commands find it by the same word. The index of
        /// a database, `/0`, separates keys but not channels: hosts of all databases receive what is published.
        pub url: String = flag("redis").default("redis://127.0.0.1:6379").also("REDIS_URL").common().secret();
        /// PEM file with the certificate authority that signed Redis's certificate.
        ///
        /// Needed when the system does not know that authority. Only with rediss://.
        pub ca_file: Option<PathBuf> = flag("redis-ca-file");
        /// PEM file with the client certificate, for a Redis that asks for one.
        pub cert_file: Option<PathBuf> = flag("redis-cert-file");
        /// PEM file with the key of the client certificate.
        pub key_file: Option<PathBuf> = flag("redis-key-file");
    }

    /// Names in Redis.
    #[derive(Clone, Debug)]
    pub struct KeysConfig [keys = "keys"], "Names in Redis" {
        /// Pub/Sub channel that is received.
        ///
        /// One name and no pattern. A channel belongs to all databases of a Redis server.
        pub channel: String = flag("channel").default("messages:published");
        /// List of the ids of the consumers alive.
        ///
        /// The heartbeat key follows its name unless it is named itself.
        pub consumer_ids: String = flag("consumer-ids-key").default("consumer:ids");
        /// Sorted set of hosts by expiry.
        pub heartbeat: String = flag("heartbeat-key").default("{consumer:ids}:heartbeat");
        /// Hash of what each host says about itself: plugin version, consumers.
        pub hosts: String = flag("hosts-key").default("{consumer:ids}:hosts");
        /// Stream that results are appended to.
        ///
        /// The keys that go with it follow its name unless they are named themselves: with `orders`, the inbox
        /// becomes `{orders}:inbox`. The braces keep them in one slot of a Redis Cluster.
        pub output: String = flag("output-key").default("messages:processed");
        /// Stream of received messages that wait for a consumer.
        pub inbox: String = flag("inbox-key").default("{messages:processed}:inbox");
        /// Hash in which the hosts of a group write what they must agree on.
        pub descriptor: String = flag("descriptor-key").default("{messages:processed}:group");
        /// What the key of a claim begins with; the message id follows.
        pub claim_prefix: String = flag("claim-prefix").default("{messages:processed}:claim:");
        /// What the key of a host's permit to settle begins with; the host's id follows.
        pub permit_prefix: String = flag("permit-prefix").default("{messages:processed}:permit:");
        /// Sorted set of messages that wait for another attempt.
        pub retry: String = flag("retry-key").default("{messages:processed}:retry");
        /// Stream of dead letters.
        pub dead: String = flag("dead-key").default("{messages:processed}:dead");
        /// Lease of the active intake.
        pub intake: String = flag("intake-key").default("{messages:processed}:intake");
        /// Hash with the number of the last mark.
        ///
        /// Marks are published on a channel of the same name, with `@` and the number of the database behind it.
        pub marks: String = flag("marks-key").default("{messages:processed}:marks");
        /// List of what has been appended to the inbox, by position.
        pub covered: String = flag("covered-key").default("{messages:processed}:covered");
    }

    /// What a host does when the plugin's file or the configuration changes while it runs.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ReloadConfig [reload = "reload"], "Reload" {
        /// How changes of the plugin's file and of the configuration file are noticed.
        ///
        /// `events` asks the system and also looks every interval, `poll` only looks, `off` does neither: then SIGHUP is
        /// the only way. SIGHUP reloads in any case.
        pub watch: Watch = flag("watch").default("events").common();
        /// Time between two looks at the files.
        pub interval: Duration = flag("watch-interval").default("2s").between("50ms", "1h");
        /// How long a changed file must have stayed as it is before it is read.
        pub quiet: Duration = flag("watch-quiet").default("250ms").between("10ms", "1m");
        /// File of cases, as for `host test`, that a new version must pass before it is used.
        pub cases: Option<PathBuf> = flag("reload-cases");
        /// Whether a new version that fails messages which the version before processes is taken back.
        pub rollback: OnOff = flag("rollback").default("on");
        /// Messages that a new version fails and the version before processes, at which it is taken back.
        ///
        /// Not counting twice as many as the version before failed of as many messages in its own time.
        pub rollback_failures: u32 = flag("rollback-failures").default("3").between("1", "1000000");
        /// Messages that a new version must have processed before it is trusted.
        pub probation_messages: u64 = flag("probation-messages").default("1000").between("1", "1000000000000");
        /// Time that a new version must have been in use before it is trusted.
        pub probation_time: Duration = flag("probation-time").default("30s").between("0s", "1d");
    }

    /// What is written to the output stream.
    #[derive(Clone, Debug)]
    pub struct OutputConfig [output = "output"], "Output" {
        /// Form of an entry: one field for each property of the result, or all of it in the field json.
        pub format: OutputFormat = flag("output-format").default("fields");
        /// Write the digest of the plugin version that made it into each entry, in the field plugin_digest.
        pub plugin_digest: bool = flag("output-plugin-digest").default("false");
        /// Results kept in the output stream, approximately; 0 keeps all.
        ///
        /// Trimming results is losing them, so that nothing is trimmed by default and Redis's memory fills up
        /// until somebody consumes and trims the stream.
        pub length_max: u64 = flag("max-output-length").default("0").between("0", "1000000000000").common();
        /// Dead letters kept, approximately; 0 keeps all.
        pub dead_length_max: u64 = flag("max-dead-length").default("0").between("0", "1000000000000");
    }

    /// Receiving from Pub/Sub.
    #[derive(Clone, Debug)]
    pub struct IntakeConfig [intake = "intake"], "Intake" {
        /// Memory for messages between the subscription and Redis; past it messages are shed and counted.
        ///
        /// While more than a quarter of it is taken the host fetches nothing, so that Redis can take in more.
        pub buffer_bytes_max: usize = flag("intake-buffer").default("384MiB").between("64KiB", "64GiB");
        /// Validity of the active intake's lease: a standby takes over so long after its last renewal.
        pub lease_ttl: Duration = flag("intake-lease").default("3s").between("100ms", "1m");
        /// Silence after which a second subscription is opened beside one on which no mark arrives.
        ///
        /// Marks are published four times a second. The silent subscription is closed once the second one hears marks.
        pub silence_max: Duration = flag("max-silence").default("3s").between("1s", "5m");
    }

    /// How messages are cut into deliveries.
    #[derive(Clone, Debug)]
    pub struct DeliveryConfig [delivery = "delivery"], "Delivery" {
        /// Messages in a delivery, at most.
        pub messages_max: u32 = flag("max-delivery-messages").default("128").between("1", "128");
        /// Bytes in a delivery, unless a single message is larger.
        pub bytes_max: usize = flag("max-delivery-bytes").default("256KiB").between("1KiB", "64MiB");
        /// Time that a delivery should take a slow plugin: slower plugins get smaller deliveries.
        pub time_target: Duration = flag("delivery-time").default("50ms").between("1ms", "1m");
    }

    /// How often and when a message is tried again.
    #[derive(Clone, Debug)]
    pub struct RetryConfig [retry = "retry"], "Retries" {
        /// Attempts at a message before it becomes a dead letter.
        ///
        /// Errors, traps, limits and the plugin's own wish for another attempt count. 1 never tries again.
        pub attempts_max: u32 = flag("max-attempts").default("5").between("1", "1000").common();
        /// Longest wait before the second attempt. The bound doubles with every attempt.
        ///
        /// Each wait is a random time up to its bound, so that what failed together does not come back together.
        pub delay: Duration = flag("retry-delay").default("200ms").between("1ms", "1h");
        /// What the bound of the waits grows to.
        pub delay_max: Duration = flag("max-retry-delay").default("30s").between("1ms", "1d");
        /// Longest delay that a plugin may ask for; longer ones are cut to it.
        pub plugin_delay_max: Duration = flag("max-plugin-retry-delay").default("1h").between("1ms", "30d");
        /// Hosts that may die with a message in hand before it becomes a dead letter.
        ///
        /// A pause so long that other hosts take the message over looks like a death and counts. A planned stop does
        /// not. From the third death on the message is processed apart from all others.
        pub deliveries_max: u32 = flag("max-deliveries").default("5").between("4", "1000");
    }

    /// What a plugin may use.
    #[derive(Clone, Debug, PartialEq)]
    pub struct PluginLimits [plugin_limits = "limits"], "Plugin limits" {
        /// Time for one message, and for the start of an instance.
        pub time_max: Duration = flag("max-plugin-time").default("1s").between("1ms", "1h");
        /// Memory of an instance. A host may need it once for every consumer, and twice while it swaps plugins.
        pub memory_bytes_max: usize = flag("max-plugin-memory").default("256MiB").between("64KiB", "4GiB");
        /// Length of one result. All results of a message together may be four times as long.
        pub result_bytes_max: usize = flag("max-result-bytes").default("4MiB").between("64", "256MiB");
        /// Results of one message.
        pub results_max: u32 = flag("max-results").default("1000").between("1", "100000");
        /// Stack of an instance; a deeper recursion is a trap.
        pub stack_bytes_max: usize = flag("max-plugin-stack").default("512KiB").between("64KiB", "16MiB");
        /// Tables of an instance.
        pub tables_max: u32 = flag("max-plugin-tables").default("128").between("1", "10000");
        /// Elements of all tables of an instance together, 8 bytes each.
        pub table_elements_max: u32 = flag("max-plugin-table-elements").default("500000").between("100", "100000000");
        /// Core instances in an instance. One from a linked Python interpreter has some tens.
        pub instances_max: u32 = flag("max-plugin-core-instances").default("128").between("1", "10000");
        /// Handles (streams, pollables and the like) that an instance may hold at a time.
        pub handles_max: u32 = flag("max-plugin-handles").default("1000").between("10", "1000000");
        /// Log lines of one message; further ones are dropped and counted.
        pub log_lines_max: u32 = flag("max-log-lines").default("100").between("0", "1000000");
        /// Log lines a second of all instances together; further ones are dropped and counted.
        pub log_rate_max: u32 = flag("max-log-rate").default("1000").between("1", "1000000");
        /// Length of a log line; longer ones are cut.
        pub log_line_bytes_max: usize = flag("max-log-line-bytes").default("8KiB").between("64", "1MiB");
        /// Messages that an instance processes before a fresh one takes its place; 0 keeps it.
        pub instance_messages_max: u64 = flag("max-instance-messages").default("0").between("0", "1000000000000");
        /// A fresh instance for every message, so that nothing survives from one to the next.
        ///
        /// Costs about 40 µs a message for a plugin in Rust, and a millisecond and more for one in Python.
        pub instance_per_message: bool = flag("instance-per-message").default("false");
    }

    /// What a message may be.
    #[derive(Clone, Debug)]
    pub struct MessageLimits [message = "message"], "Message limits" {
        /// Length of a message; longer ones become dead letters.
        pub bytes_max: usize = flag("max-message-bytes").default("1MiB").between("64", "256MiB");
        /// Objects and arrays inside each other; deeper messages become dead letters.
        pub depth_max: u32 = flag("max-message-depth").default("128").between("1", "1024");
    }

    /// Heartbeats and takeover.
    #[derive(Clone, Debug)]
    pub struct RegistryConfig [registry = "registry"], "Registry" {
        /// Time between two heartbeats.
        pub beat_interval: Duration = flag("heartbeat-interval").default("2s").between("50ms", "3s");
        /// Validity of a heartbeat: a host that is silent for longer counts as dead.
        ///
        /// More than twice the interval, so that one lost beat kills nobody. Together with the interval at most
        /// 9s: a killed host is noticed at the latest one interval after its last beat has expired, and the list
        /// of consumers promises to be true after 10s.
        pub beat_ttl: Duration = flag("heartbeat-ttl").default("7s").between("150ms", "8s");
        /// Time between two looks for deliveries of dead hosts.
        pub takeover_interval: Duration = flag("takeover-interval").default("1s").between("50ms", "1m");
    }

    open section {
        /// The plugin's own configuration, by keys that only the plugin knows.
        pub plugin_config: PluginConfig;
    }
}

/// The URL holds a password, which must not reach a log through a debug print.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &redis_url::shown(&self.url))
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .finish()
    }
}
