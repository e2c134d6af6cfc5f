//! Every setting of a host, in one table: name, flag, documentation, unit, bounds and default.
//! Precedence is flag, environment variable, file, default (`layers`). This room opens no connection and reads no
//! plugin.
//!
//! To add a setting, add a field to the table. The field's name is the key in the file. The environment variable is
//! `HOST_` and the flag in capitals. The field's documentation is the help text. A condition between settings belongs
//! in `rules`. Named outputs and the plugin's own configuration are not part of the table: see `outputs` and
//! `plugin_config`.

mod buckets;
mod file;
mod http;
mod layers;
mod outputs;
mod password;
mod plugin_config;
mod print;
#[cfg(test)]
mod properties;
mod property;
pub mod redis_servers;
mod redis_url;
mod reference;
mod reread;
mod rules;
mod setting;
mod traces;
mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use buckets::{Bucket, Buckets, is_bucket_name};
pub use http::Token;
pub use layers::{ConfigError, Given, Loaded, Source, load};
pub(crate) use outputs::MAIN;
pub use outputs::{NamedOutput, Outputs};
pub use password::Password;
pub use plugin_config::PluginConfig;
pub use property::PropertyPath;
pub use redis_url::masked;
pub use reference::reference;
pub use reread::needing_a_start;
pub use setting::Setting;
pub use traces::Endpoint;
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
    /// From file system events, and from a check every interval in case an event is missed.
    #[default]
    Events,
    /// From a check every interval only.
    Poll,
    /// Only when SIGHUP asks for a check.
    Off,
}

/// Whether a feature is enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd)]
pub enum OnOff {
    /// Enabled.
    #[default]
    On,
    /// Disabled.
    Off,
}

settings! {
    /// The effective configuration of a host.
    #[derive(Clone, Debug)]
    pub struct Config, "Running" {
        /// The plugin: a file with a Wasm component.
        ///
        /// Required by a running host. Commands that process no messages, such as `host config`, work without it.
        pub plugin: Option<PathBuf> = flag("plugin").common();
        /// Number of consumers in this host. Each consumer has its own instance of the plugin.
        ///
        /// With 0 the host only hands messages to remote consumers, and needs `--http`.
        pub consumers: u32 = flag("consumers").default("10").between("0", "10000").common();
        /// Time between two report lines on standard output.
        pub report_interval: Duration = flag("report-interval").default("3s").between("100ms", "1h").common();
        /// How long a stopping host waits for deliveries in progress before it hands them back to the group.
        pub drain_timeout: Duration = flag("drain-timeout").default("10s").between("0s", "1h").common();
        /// How long a message id is remembered after its message was received.
        ///
        /// Another message with the same id within this time is dropped as a duplicate. Redis needs 180 to 210 bytes
        /// for each id: at 10,000 messages a second, 5m costs about 600 MB.
        pub dedup_window: Duration = flag("dedup-window").default("5m").between("1s", "7d").common();
        /// Compile the plugin at every start, without the cache of compiled plugins in the user's cache folder.
        pub no_cache: bool = flag("no-cache").default("false");
        /// Do not check the folders above the cache of compiled plugins.
        ///
        /// By default each must belong to this user or to root, and others must not be able to write to it. For a container,
        /// whose volume everybody may write to while nobody else is there.
        pub trust_cache_folder: bool = flag("trust-cache-folder").default("false");
        /// Format of log lines (standard error) and report lines (standard output).
        pub log_format: LogFormat = flag("log-format").default("text").common();
        /// Least severe level that is logged: error, warn, info, debug, trace or off.
        ///
        /// A comma-separated list of directives such as `warn,host::intake=debug` works as well.
        pub log_level: String = flag("log-level").default("info").also("HOST_LOG").common();
    }

    /// Address of Redis and login.
    #[derive(Clone)]
    pub struct RedisConfig [redis = "redis"], "Redis" {
        /// Address of Redis: a URL with redis://, rediss:// (TLS), unix:// or redis+sentinel://, or the word embedded.
        ///
        /// Examples: `redis://user:password@127.0.0.1:6379/0`, `unix:///run/redis.sock?db=0&user=u&pass=p`.
        /// Percent-encode reserved characters in a password. Put a password into the environment variable: every user
        /// of the machine can read the command line. `embedded` starts a private redis-server or valkey-server from
        /// PATH, which ends with the host; the other commands find the private Redis by the same word. The database
        /// index, `/0`, separates keys but not channels: hosts of all databases receive every published message.
        /// `redis+sentinel://user:password@s1:26379,s2:26379/NAME/0`, or with TLS `rediss+sentinel://`, asks Sentinels for the
        /// primary NAME at every connection.
        pub url: String = flag("redis").default("redis://127.0.0.1:6379").also("REDIS_URL").common().secret();
        /// PEM file with the certificate authority that signed the certificate of Redis.
        ///
        /// Required when the system does not trust that authority. Only with rediss://.
        pub ca_file: Option<PathBuf> = flag("redis-ca-file");
        /// PEM file with the client certificate, for a Redis that requires client certificates.
        pub cert_file: Option<PathBuf> = flag("redis-cert-file");
        /// PEM file with the private key of the client certificate.
        pub key_file: Option<PathBuf> = flag("redis-key-file");
        /// User for the login at the Sentinels, if they have a password. The login in the URL is for the primary.
        pub sentinel_user: String = flag("redis-sentinel-user").default("default");
        /// File whose first line is the password for the Sentinels. It is read again at every login.
        pub sentinel_password_file: Option<PathBuf> = flag("redis-sentinel-password-file");
        /// Password for the Sentinels itself, in place of the file.
        ///
        /// Put it into the environment variable: every user of the machine can read the command line.
        pub sentinel_password: Option<Password> = flag("redis-sentinel-password").secret();
    }

    /// Names in Redis.
    #[derive(Clone, Debug)]
    pub struct KeysConfig [keys = "keys"], "Names in Redis" {
        /// Pub/Sub channel from which the hosts receive messages.
        ///
        /// One name; patterns are not supported. All databases of a Redis server share their channels.
        pub channel: String = flag("channel").default("messages:published");
        /// List with the ids of all consumers alive.
        ///
        /// The heartbeat key and the hosts key derive their names from this name unless they are set.
        pub consumer_ids: String = flag("consumer-ids-key").default("consumer:ids");
        /// Sorted set of hosts by expiry of their heartbeat.
        pub heartbeat: String = flag("heartbeat-key").default("{consumer:ids}:heartbeat");
        /// Hash with the status of each host: plugin version, number of consumers.
        pub hosts: String = flag("hosts-key").default("{consumer:ids}:hosts");
        /// Hash of the remote consumers, each with the host at which it registered.
        pub remote: String = flag("remote-key").default("{consumer:ids}:remote");
        /// Hash with the number of listed consumers of each host, so that a heartbeat need not read the whole list.
        pub sizes: String = flag("sizes-key").default("{consumer:ids}:sizes");
        /// Stream to which results are appended.
        ///
        /// The keys below derive their names from this name unless they are set: with `orders`, the inbox becomes
        /// `{orders}:inbox`. The braces keep all keys of a group in one slot of a Redis Cluster.
        pub output: String = flag("output-key").default("messages:processed");
        /// Stream of received messages that wait for a consumer.
        pub inbox: String = flag("inbox-key").default("{messages:processed}:inbox");
        /// Hash with the facts on which the hosts of a group must agree, such as the channel.
        pub descriptor: String = flag("descriptor-key").default("{messages:processed}:group");
        /// Hash of what the hosts of a group tell each other of versions of the plugin.
        pub versions: String = flag("versions-key").default("{messages:processed}:versions");
        /// Prefix of claim keys; the message id follows.
        pub claim_prefix: String = flag("claim-prefix").default("{messages:processed}:claim:");
        /// Prefix of permit keys, which fence the settling of a host; the host's id follows.
        pub permit_prefix: String = flag("permit-prefix").default("{messages:processed}:permit:");
        /// Prefix of the keys with the state of plugins; bucket, colon and key follow.
        pub state_prefix: String = flag("state-prefix").default("{messages:processed}:state:");
        /// Sorted set of messages that wait for a retry.
        pub retry: String = flag("retry-key").default("{messages:processed}:retry");
        /// Stream of dead letters.
        pub dead: String = flag("dead-key").default("{messages:processed}:dead");
        /// Stream with the entry ids of those dead letters that have no message id.
        pub dead_index: String = flag("dead-index-key").default("{messages:processed}:dead-index");
        /// Lease of the active intake.
        pub intake: String = flag("intake-key").default("{messages:processed}:intake");
        /// Hash with the number of the last mark.
        ///
        /// Marks are published on a channel of the same name, with `/` and the number of the database behind it.
        pub marks: String = flag("marks-key").default("{messages:processed}:marks");
        /// List of what has been appended to the inbox, by position.
        pub covered: String = flag("covered-key").default("{messages:processed}:covered");
    }

    /// What a running host does when the plugin's file or the configuration changes.
    #[derive(Clone, Debug, PartialEq)]
    pub struct ReloadConfig [reload = "reload"], "Reload" {
        /// How the host detects changes of the plugin's file and of the configuration file.
        ///
        /// `events` uses file system events and also checks the files every interval. `poll` only checks the files
        /// every interval. `off` does neither. SIGHUP always reloads.
        pub watch: Watch = flag("watch").default("events").common();
        /// Time between two checks of the files.
        pub interval: Duration = flag("watch-interval").default("2s").between("50ms", "1h");
        /// How long a changed file must stay unchanged before the host reads it.
        pub quiet: Duration = flag("watch-quiet").default("250ms").between("10ms", "1m");
        /// File of cases, as for `host test`, that a new plugin version must pass before the host uses it.
        pub cases: Option<PathBuf> = flag("reload-cases");
        /// Roll back a new plugin version that fails messages which the previous version processes.
        pub rollback: OnOff = flag("rollback").default("on");
        /// Number of regressions at which a new plugin version is rolled back.
        ///
        /// A regression is a message that the new version fails and the previous version processes. If the previous
        /// version had failures of its own, twice that rate is tolerated on top of this number.
        pub rollback_failures: u32 = flag("rollback-failures").default("3").between("1", "1000000");
        /// Roll back a new plugin version that takes this many times as long for a message as the previous version; 0 only warns.
        ///
        /// A version that takes three times as long, and ten microseconds more, is warned of in any case. Less than that rolls
        /// nothing back.
        pub rollback_slowdown: u32 = flag("rollback-slowdown").default("0").between("0", "1000");
        /// Number of messages that a new plugin version must process before its probation ends.
        pub probation_messages: u64 = flag("probation-messages").default("1000").between("1", "1000000000000");
        /// Time that a new plugin version must be in use before its probation ends.
        pub probation_time: Duration = flag("probation-time").default("30s").between("0s", "1d");
        /// How long the previous plugin version is kept after the probation of the new one; 0s does not keep it.
        ///
        /// The host goes back to it by itself when the new version then fails nearly everything. Its compiled code takes memory
        /// until then.
        pub keep_version: Duration = flag("keep-version").default("1d").between("0s", "30d");
        /// Let one host of the group, the canary, use a new plugin version first; the others follow when its probation has ended.
        ///
        /// The canary is the first host with this setting that has loaded the version. The others keep the version in use, and
        /// refuse the new one if the canary rolls it back. Needs `--rollback on`. A host without this setting waits for nobody.
        pub canary: bool = flag("canary").default("false");
    }

    /// Settings of the output stream.
    #[derive(Clone, Debug)]
    pub struct OutputConfig [output = "output"], "Output" {
        /// Format of an output entry: one field for each property of the result, or all of it in the field json.
        pub format: OutputFormat = flag("output-format").default("fields");
        /// Add the field plugin_digest to each output entry: the digest of the plugin version that made the result.
        pub plugin_digest: bool = flag("output-plugin-digest").default("false");
        /// Approximate number of results to keep in the output stream; 0 keeps all.
        ///
        /// A trimmed result is lost. By default the stream is never trimmed, and grows until the reader of the results
        /// trims it.
        pub length_max: u64 = flag("max-output-length").default("0").between("0", "1000000000000").common();
        /// Approximate number of dead letters to keep; 0 keeps all.
        pub dead_length_max: u64 = flag("max-dead-length").default("0").between("0", "1000000000000");
        /// Number of dead letters without a message id to keep; 0 keeps all.
        ///
        /// They never were messages, and cannot be replayed. The oldest are removed beyond this number, and counted. Dead letters
        /// with a message id are never removed for them. What came while all were kept does not count.
        pub dead_without_id_max: u64 = flag("max-dead-without-id").default("100000").between("0", "1000000000000");
        /// Number of dead letters with a message id above which the active host warns, once; 0 never warns.
        pub dead_length_warn: u64 = flag("warn-dead-length").default("100000").between("0", "1000000000000");
    }

    /// Receiving from Pub/Sub.
    #[derive(Clone, Debug)]
    pub struct IntakeConfig [intake = "intake"], "Intake" {
        /// Memory for messages that are received and not yet in Redis.
        ///
        /// When the buffer is full, messages are shed and counted. While more than a quarter of it is used, the host fetches
        /// nothing, so that Redis can accept more appends. What is left of the buffer holds appended messages for 10 s
        /// more, at least 64 MiB of them, in case a replica that lags is promoted.
        pub buffer_bytes_max: usize = flag("intake-buffer").default("384MiB").between("64KiB", "64GiB");
        /// Validity of the active intake's lease.
        ///
        /// A standby takes over when the lease has not been renewed for this long. It is renewed four times a second.
        pub lease_ttl: Duration = flag("intake-lease").default("3s").between("500ms", "1m");
        /// Silence after which a second subscription is opened beside one on which no mark arrives.
        ///
        /// Marks are published four times a second. The silent subscription is closed once the second one hears marks.
        pub silence_max: Duration = flag("max-silence").default("3s").between("1s", "5m");
    }

    /// How messages are grouped into deliveries.
    #[derive(Clone, Debug)]
    pub struct DeliveryConfig [delivery = "delivery"], "Delivery" {
        /// Maximum number of messages in a delivery.
        pub messages_max: u32 = flag("max-delivery-messages").default("128").between("1", "128");
        /// Maximum size of a delivery. A longer message is a delivery of its own.
        pub bytes_max: usize = flag("max-delivery-bytes").default("256KiB").between("1KiB", "64MiB");
        /// Target time for processing a delivery: the slower the plugin, the smaller the deliveries.
        ///
        /// A delivery that takes twice as long is split while another consumer has nothing to do: what is done is written, and the
        /// rest goes back for others.
        pub time_target: Duration = flag("delivery-time").default("50ms").between("1ms", "1m");
    }

    /// How often and when a failed message is tried again.
    #[derive(Clone, Debug)]
    pub struct RetryConfig [retry = "retry"], "Retries" {
        /// Number of attempts at a message before the message becomes a dead letter.
        ///
        /// Errors, traps, exceeded limits and retries that the plugin asks for all count. 1 means no retries.
        pub attempts_max: u32 = flag("max-attempts").default("5").between("1", "1000").common();
        /// Longest wait before the second attempt. The longest wait doubles with every attempt.
        ///
        /// Each wait is a random time up to the longest wait, so that messages that failed together do not return
        /// together.
        pub delay: Duration = flag("retry-delay").default("200ms").between("1ms", "1h");
        /// Upper bound of the longest wait, at which the doubling stops.
        pub delay_max: Duration = flag("max-retry-delay").default("30s").between("1ms", "1d");
        /// Longest retry delay that a plugin may ask for; longer delays are shortened to this one.
        pub plugin_delay_max: Duration = flag("max-plugin-retry-delay").default("1h").between("1ms", "30d");
        /// Number of messages of which nearly all must fail before the host stops giving messages to the plugin; 0 never stops.
        ///
        /// The messages then wait without losing attempts, and a few are tried. Only first attempts count as failures, and
        /// nearly all are 19 in 20.
        pub breaker_messages: u32 = flag("breaker-messages").default("100").between("0", "1000000");
        /// Number of hosts that may die while processing a message before the message becomes a dead letter.
        ///
        /// A pause long enough for a takeover by another host counts as a death. A planned stop does not count. After
        /// the third death the message is processed alone, apart from all other messages.
        pub deliveries_max: u32 = flag("max-deliveries").default("5").between("4", "1000");
    }

    /// What a plugin may use.
    #[derive(Clone, Debug, PartialEq)]
    pub struct PluginLimits [plugin_limits = "limits"], "Plugin limits" {
        /// Time limit for one message, and for the start of an instance.
        pub time_max: Duration = flag("max-plugin-time").default("1s").between("1ms", "1h");
        /// Memory limit of an instance.
        ///
        /// A host may need this memory once for each consumer, and twice for each consumer while it swaps plugins.
        pub memory_bytes_max: usize = flag("max-plugin-memory").default("256MiB").between("64KiB", "4GiB");
        /// Percentage of the memory limit at which an instance whose memory grows is replaced by a fresh one, between two messages.
        ///
        /// An instance that takes this much for its first message is not replaced. With 100 none is.
        pub memory_replace_percent: u32 = flag("replace-at-memory").default("80").between("1", "100");
        /// Maximum length of one result. All results of a message together may be four times as long.
        pub result_bytes_max: usize = flag("max-result-bytes").default("4MiB").between("64", "256MiB");
        /// Maximum number of results of one message.
        pub results_max: u32 = flag("max-results").default("1000").between("1", "100000");
        /// Stack size of an instance; a deeper recursion is a trap.
        pub stack_bytes_max: usize = flag("max-plugin-stack").default("512KiB").between("64KiB", "16MiB");
        /// Maximum number of Wasm tables in an instance.
        pub tables_max: u32 = flag("max-plugin-tables").default("128").between("1", "10000");
        /// Maximum number of elements in all Wasm tables of an instance together, 8 bytes each.
        pub table_elements_max: u32 = flag("max-plugin-table-elements").default("500000").between("100", "100000000");
        /// Maximum number of core Wasm instances in an instance. A linked Python interpreter has some tens.
        pub instances_max: u32 = flag("max-plugin-core-instances").default("128").between("1", "10000");
        /// Maximum number of handles (streams, pollables and the like) that an instance may hold at a time.
        pub handles_max: u32 = flag("max-plugin-handles").default("1000").between("10", "1000000");
        /// Maximum number of log lines for one message; further lines are dropped and counted.
        pub log_lines_max: u32 = flag("max-log-lines").default("100").between("0", "1000000");
        /// Maximum number of log lines a second from all instances together; further lines are dropped and counted.
        pub log_rate_max: u32 = flag("max-log-rate").default("1000").between("1", "1000000");
        /// Maximum length of a log line; longer lines are cut.
        pub log_line_bytes_max: usize = flag("max-log-line-bytes").default("8KiB").between("64", "1MiB");
        /// Number of messages after which an instance is replaced by a fresh one; 0 never replaces it.
        pub instance_messages_max: u64 = flag("max-instance-messages").default("0").between("0", "1000000000000");
        /// Use a fresh instance for every message, so that no state survives from one message to the next.
        ///
        /// Costs about 40 µs a message for a plugin in Rust, and a millisecond or more for a plugin in Python.
        pub instance_per_message: bool = flag("instance-per-message").default("false");
    }

    /// What a plugin may use beside its sandbox. Nothing, unless it is listed here.
    #[derive(Clone, Debug, PartialEq)]
    pub struct AllowConfig [allow = "allow"], "Grants for the plugin" {
        /// Buckets of state (wasi:keyvalue) that the plugin may use, each with or without a time to live: carts,seen=7d.
        ///
        /// The time to live of a key begins anew whenever its value changes.
        pub keyvalue: Buckets = flag("allow-keyvalue");
    }

    /// Reading and compiling a plugin.
    #[derive(Clone, Debug, PartialEq)]
    pub struct LoadConfig [load = "load"], "Loading a plugin" {
        /// Maximum length of the plugin's file; a longer one is refused.
        pub plugin_bytes_max: usize = flag("max-plugin-bytes").default("256MiB").between("1KiB", "4GiB");
        /// Time limit for compiling a plugin; one that takes longer is refused.
        pub compile_time_max: Duration = flag("compile-timeout").default("5m").between("100ms", "1h");
        /// Memory limit of the process that compiles a plugin; one that takes more is refused.
        ///
        /// The process ends when the plugin is compiled, and gives all of its memory back.
        pub compile_memory_bytes_max: usize = flag("compile-memory").default("2GiB").between("128MiB", "64GiB");
    }

    /// What a message is.
    #[derive(Clone, Debug)]
    pub struct MessageConfig [message = "message"], "Messages" {
        /// Property with the id of a message: names with dots between them, or a JSON pointer.
        ///
        /// Examples: `id`, `event.id`, `/event/id`. Only in a JSON pointer may a name have a dot. All hosts of a group must have
        /// the same one.
        pub id_property: PropertyPath = flag("id-property").default("message_id");
        /// Property with the time before which a message is not processed: RFC 3339, or a number of ms since 1970.
        ///
        /// Until then the message waits in Redis as a retry does. Without this setting no property is looked for. All hosts of a
        /// group must have the same one.
        pub deliver_at_property: Option<PropertyPath> = flag("deliver-at-property");
        /// Property with the time for which a message waits, from when it was received: text such as `10m`, or a number of ms.
        ///
        /// Without this setting no property is looked for. All hosts of a group must have the same one.
        pub deliver_after_property: Option<PropertyPath> = flag("deliver-after-property");
        /// Longest time ahead for which a message may wait by such a property; one that asks for more becomes a dead letter.
        pub deliver_delay_max: Duration = flag("max-deliver-delay").default("30d").between("1s", "365d");
        /// Maximum length of a message; longer messages become dead letters.
        pub bytes_max: usize = flag("max-message-bytes").default("1MiB").between("64", "256MiB");
        /// Maximum nesting depth of objects and arrays; deeper messages become dead letters.
        pub depth_max: u32 = flag("max-message-depth").default("128").between("1", "1024");
    }

    /// Heartbeats and takeover.
    #[derive(Clone, Debug)]
    pub struct RegistryConfig [registry = "registry"], "Registry" {
        /// Time between two heartbeats.
        pub beat_interval: Duration = flag("heartbeat-interval").default("2s").between("50ms", "3s");
        /// Validity of a heartbeat: a host without a heartbeat for this long counts as dead.
        ///
        /// Must be more than twice the heartbeat interval, so that one lost heartbeat does not make a host count as
        /// dead. Validity and interval together must be at most 9s: a killed host is detected at most one interval
        /// after its last heartbeat has expired, and the list of consumers must be correct after 10s.
        pub beat_ttl: Duration = flag("heartbeat-ttl").default("7s").between("150ms", "8s");
        /// Time between two searches for deliveries of dead hosts.
        pub takeover_interval: Duration = flag("takeover-interval").default("1s").between("50ms", "1m");
    }

    /// The HTTP listener.
    #[derive(Clone, Debug)]
    pub struct HttpConfig [http = "http"], "HTTP" {
        /// Address on which the host answers HTTP, or only a port for 127.0.0.1. Without it there is no listener.
        ///
        /// Examples: `9090`, `127.0.0.1:9090`, `[::]:9090`. An address that other machines can reach needs a token.
        pub address: Option<SocketAddr> = flag("http").common();
        /// File with the token that every request carries, in the header `Authorization: Bearer TOKEN`.
        ///
        /// `/health` and `/ready` need no token.
        pub token_file: Option<PathBuf> = flag("http-token-file");
        /// The token itself, in place of the file.
        ///
        /// Put it into the environment variable: every user of the machine can read the command line.
        pub token: Option<Token> = flag("http-token").secret();
        /// PEM file with the certificate of the listener and its chain. With it the listener speaks TLS only.
        pub cert_file: Option<PathBuf> = flag("http-cert-file");
        /// PEM file with the private key of the listener's certificate.
        pub key_file: Option<PathBuf> = flag("http-key-file");
        /// Maximum number of open connections. Further ones wait.
        pub connections_max: u32 = flag("max-http-connections").default("1000").between("1", "100000");
        /// Longest wait for a client: for the head of a request, for its body, for the next request of a connection, and for a
        /// client that takes nothing of an answer. Then the connection ends.
        pub timeout: Duration = flag("http-timeout").default("30s").between("100ms", "1h");
    }

    /// Consumers that live elsewhere and speak HTTP.
    #[derive(Clone, Debug)]
    pub struct RemoteConfig [remote = "remote"], "Remote consumers" {
        /// Maximum number of consumers in the group, those of the hosts included; 0 is no bound.
        ///
        /// A registration beyond the bound is refused.
        pub group_size_max: u32 = flag("max-consumer-group-size").default("0").between("0", "1000000");
        /// Time between two health checks of a remote consumer.
        pub health_interval: Duration = flag("consumer-health-interval").default("5m").between("100ms", "1d");
        /// File with the token that this process sends to the other side: a host to remote consumers, a worker to its group.
        ///
        /// Without it requests carry no token.
        pub token_file: Option<PathBuf> = flag("remote-token-file");
    }

    /// Traces of messages.
    #[derive(Clone, Debug)]
    pub struct TracesConfig [traces = "traces"], "Traces" {
        /// Address of a collector that takes spans over OTLP/HTTP. Without it there are no traces.
        ///
        /// An address with a port, such as `http://127.0.0.1:4318`. Spans are posted below it, to `/v1/traces`. Only `http://`:
        /// a collector on the same machine can pass the spans on.
        pub endpoint: Option<Endpoint> = flag("trace-endpoint");
        /// Share of the messages without a traceparent that are traced.
        ///
        /// A message with a traceparent is traced if its publisher has set the flag for it. All hosts of a group should have
        /// the same share.
        pub sample: f64 = flag("trace-sample").default("0.01").between("0", "1");
        /// Property of a message in which its publisher hands a traceparent over.
        pub property: String = flag("trace-property").default("traceparent");
        /// Name of the service in the spans.
        pub service: String = flag("trace-service").default("host").also("OTEL_SERVICE_NAME");
    }

    open sections {
        /// Streams beside the main output, by names that the plugin's results carry.
        pub outputs: Outputs;
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
            .field("sentinel_user", &self.sentinel_user)
            .field("sentinel_password_file", &self.sentinel_password_file)
            .field("sentinel_password", &self.sentinel_password)
            .finish()
    }
}
