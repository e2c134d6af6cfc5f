//! Checks before the start of a host: whether Redis is reachable, accepts the login, is new enough, grants the required
//! rights, and has no other data under the host's keys.

use redis::{ErrorKind, Pipeline, RedisError, Value, from_redis_value};

use super::buffer_limit::BufferLimit;
use super::keys::Keys;
use super::marks::marks_channel;
use super::stats::{info_number, info_text};
use crate::config::Outputs;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::client::part::Part;

/// Oldest usable server: the first version with `SET` with `NX` and `GET` together.
const VERSION_MIN: (u32, u32) = (7, 0);

/// Reason why a host cannot start with this Redis.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Redis cannot be reached.
    #[error("cannot reach Redis at {address}: {error}; check that Redis runs and that --redis is right")]
    Unreachable {
        /// Address of Redis.
        address: String,
        /// The error of the network.
        error: RedisError,
    },
    /// Wrong or missing user or password.
    #[error(
        "Redis at {address} refused the login: {error}; give user and password in the URL, redis://user:password@host:6379/0"
    )]
    Refused {
        /// Address of Redis.
        address: String,
        /// The server's error.
        error: RedisError,
    },
    /// The server is too old.
    #[error("Redis at {address} is version {version}; host needs 7.0 or newer, or Valkey")]
    TooOld {
        /// Address of Redis.
        address: String,
        /// Version of the server.
        version: String,
    },
    /// A node of a cluster, which has only a part of the keys.
    #[error(
        "Redis at {0} is a node of a Redis Cluster, which host does not support yet; use a server without cluster-enabled"
    )]
    ClusterNode(String),
    /// A Sentinel, which has no data.
    #[error(
        "Redis at {0} is a Sentinel, which has no data; use redis+sentinel://{0}/NAME, with the name of the primary in \
         `SENTINEL MASTERS`"
    )]
    Sentinel(String),
    /// A copy of another server.
    #[error(
        "Redis at {address} is a read replica of {primary}, and takes no writes; use the address of the primary, {primary}, or let \
         Sentinels name it (redis+sentinel://…)"
    )]
    Replica {
        /// Address of Redis.
        address: String,
        /// The server that it copies, as it names it.
        primary: String,
    },
    /// Rights are missing.
    #[error("the Redis user has no right to {}; host/docs/operating.md has the minimal rule (ACL SETUSER …)", .0.join(", "))]
    MissingRights(Vec<String>),
    /// A key has data of another type.
    #[error(
        "the Redis key {key} is a {found} but must be a {wanted}; rename or delete it, or choose another name in [keys]"
    )]
    WrongType {
        /// The key.
        key: String,
        /// Type of the data.
        found: String,
        /// Required type.
        wanted: &'static str,
    },
    /// Any other error.
    #[error("checking Redis at {address} failed: {error}")]
    Other {
        /// Address of Redis.
        address: String,
        /// The server's error.
        error: RedisError,
    },
}

/// Findings about a usable Redis.
#[derive(Debug)]
pub struct Checked {
    /// Name and version.
    pub server: String,
    /// The eviction policy, when it may evict claims.
    pub evicting_policy: Option<String>,
    /// How much the server keeps for a slow subscriber.
    pub buffer_limit: BufferLimit,
}

/// Checks the server, the user's rights and the keys.
///
/// # Errors
/// The first problem that prevents a start.
pub async fn check(
    connector: &Connector,
    keys: &Keys,
    outputs: &Outputs,
    has_state: bool,
) -> Result<Checked, CheckError> {
    let address = connector.address();
    let mut connection = connector.connect().await.map_err(|error| classify(address, error))?;
    let server = version(&mut connection, address).await?;
    if let Part::Replica { primary } =
        Connector::part_of(&mut connection).await.map_err(|error| classify(address, error))?
    {
        return Err(CheckError::Replica { address: address.into(), primary });
    }
    rights(connector, keys, outputs, has_state).await.map_err(|error| error.at(address))?;
    types(&mut connection, keys, outputs).await.map_err(|error| error.at(address))?;
    let memory = info(&mut connection, "memory").await.map_err(|error| classify(address, error))?;
    let policy = info_text(&memory, "maxmemory_policy").unwrap_or("noeviction");
    let evicts = info_number(&memory, "maxmemory") > 0 && policy != "noeviction";
    let buffer_limit = BufferLimit::read(&mut connection).await.map_err(|error| classify(address, error))?;
    Ok(Checked { server, evicting_policy: evicts.then(|| policy.to_string()), buffer_limit })
}

fn classify(address: &str, error: RedisError) -> CheckError {
    let address = address.to_string();
    let refused = error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    if refused {
        CheckError::Refused { address, error }
    } else if error.is_io_error() || error.is_timeout() {
        CheckError::Unreachable { address, error }
    } else {
        CheckError::Other { address, error }
    }
}

async fn info(connection: &mut LibraryConnection, section: &str) -> Result<String, RedisError> {
    redis::cmd("INFO").arg(section).query_async(connection).await
}

async fn version(connection: &mut LibraryConnection, address: &str) -> Result<String, CheckError> {
    let info = match info(connection, "server").await {
        Err(error) if error.code() == Some("NOPERM") => {
            return Err(CheckError::MissingRights(vec!["the command INFO".into()]));
        }
        info => info.map_err(|error| classify(address, error))?,
    };
    // Valkey has another name for this field, unless it is configured for full compatibility.
    match info_text(&info, "redis_mode").or_else(|| info_text(&info, "server_mode")) {
        Some("cluster") => return Err(CheckError::ClusterNode(address.into())),
        Some("sentinel") => return Err(CheckError::Sentinel(address.into())),
        _ => {}
    }
    // Valkey reports the compatible version of Redis, and its own version in another field.
    let version = info_text(&info, "redis_version").unwrap_or("0");
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    if (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) < VERSION_MIN {
        return Err(CheckError::TooOld { address: address.into(), version: version.into() });
    }
    Ok(match info_text(&info, "valkey_version") {
        Some(valkey) => format!("Valkey {valkey}"),
        None => format!("Redis {version}"),
    })
}

/// Either a finding, or an error that still needs the address.
enum Finding {
    Check(CheckError),
    Redis(RedisError),
}

impl Finding {
    fn at(self, address: &str) -> CheckError {
        match self {
            Finding::Check(error) => error,
            Finding::Redis(error) => classify(address, error),
        }
    }
}

impl From<RedisError> for Finding {
    fn from(error: RedisError) -> Finding {
        Finding::Redis(error)
    }
}

/// A command of a host, with the key or channel that it may touch.
struct Needed<'a> {
    /// The command and, where rights depend on it, the subcommand.
    command: &'static str,
    /// The key or the channel.
    object: &'a str,
    /// The other arguments, as many as the command requires.
    arguments: &'static [&'static str],
}

/// Every command that a host sends, by itself and in its scripts, with every kind of key that it sends it for.
fn needed<'a>(keys: &'a Keys, marks_channel: &'a str, claim: &'a str, permit: &'a str) -> Vec<Needed<'a>> {
    let needs = |command, object, arguments| Needed { command, object, arguments };
    vec![
        needs("PING", "", &[]),
        needs("UNWATCH", "", &[]),
        needs("TIME", "", &[]),
        needs("INFO", "", &["memory"]),
        needs("EVAL", "", &["return 1", "0"]),
        needs("EVALSHA", "", &["x", "0"]),
        needs("SCRIPT LOAD", "", &["return 1"]),
        needs("SUBSCRIBE", &keys.channel, &[]),
        needs("SUBSCRIBE", marks_channel, &[]),
        needs("PUBLISH", marks_channel, &["x"]),
        needs("UNSUBSCRIBE", "", &[]),
        needs("HMGET", &keys.marks, &["x"]),
        needs("HSET", &keys.marks, &["x", "x"]),
        needs("SET", &keys.covered, &["x"]),
        needs("GET", &keys.covered, &[]),
        needs("SET", &keys.intake, &["x", "NX", "PX", "1"]),
        needs("GET", &keys.intake, &[]),
        needs("PTTL", &keys.intake, &[]),
        needs("PEXPIRE", &keys.intake, &["1"]),
        needs("DEL", &keys.intake, &[]),
        needs("SET", claim, &["x", "NX", "GET", "PX", "1"]),
        needs("PEXPIRE", claim, &["1", "GT"]),
        needs("GET", claim, &[]),
        needs("SET", permit, &["x", "PX", "1"]),
        needs("GET", permit, &[]),
        needs("DEL", permit, &[]),
        needs("XADD", &keys.inbox, &["*", "x", "x"]),
        needs("XADD", &keys.output, &["*", "x", "x"]),
        needs("XADD", &keys.dead, &["*", "x", "x"]),
        needs("XRANGE", &keys.dead, &["-", "+"]),
        // A host does not read streams backwards, but `host dead` does, as the same user.
        needs("XREVRANGE", &keys.dead, &["+", "-"]),
        needs("XDEL", &keys.dead, &["0-1"]),
        needs("XLEN", &keys.dead, &[]),
        needs("XADD", &keys.dead_index, &["*", "x", "x"]),
        needs("XRANGE", &keys.dead_index, &["-", "+"]),
        needs("XDEL", &keys.dead_index, &["0-1"]),
        needs("XLEN", &keys.dead_index, &[]),
        needs("DEL", &keys.dead_index, &[]),
        needs("XRANGE", &keys.inbox, &["-", "+"]),
        needs("XREVRANGE", &keys.inbox, &["+", "-"]),
        needs("XGROUP CREATE", &keys.inbox, &["x", "0"]),
        needs("XGROUP DELCONSUMER", &keys.inbox, &["x", "x"]),
        needs("XACK", &keys.inbox, &["x", "0-1"]),
        needs("XDEL", &keys.inbox, &["0-1"]),
        needs("XPENDING", &keys.inbox, &["x"]),
        needs("XCLAIM", &keys.inbox, &["x", "x", "0", "0-1"]),
        needs("XINFO CONSUMERS", &keys.inbox, &["x"]),
        needs("XLEN", &keys.inbox, &[]),
        needs("TYPE", &keys.output, &[]),
        needs("ZCARD", &keys.retry, &[]),
        needs("ZADD", &keys.retry, &["1", "x"]),
        needs("ZREM", &keys.retry, &["x"]),
        needs("ZRANGE", &keys.retry, &["0", "-1"]),
        needs("ZCARD", &keys.heartbeat, &[]),
        needs("ZADD", &keys.heartbeat, &["1", "x"]),
        needs("ZREM", &keys.heartbeat, &["x"]),
        needs("ZSCORE", &keys.heartbeat, &["x"]),
        needs("ZRANGE", &keys.heartbeat, &["0", "-1"]),
        needs("ZREMRANGEBYSCORE", &keys.heartbeat, &["-inf", "0"]),
        needs("PEXPIREAT", &keys.heartbeat, &["1"]),
        needs("HSET", &keys.hosts, &["x", "x"]),
        needs("HKEYS", &keys.hosts, &[]),
        needs("HDEL", &keys.hosts, &["x"]),
        needs("PEXPIREAT", &keys.hosts, &["1"]),
        needs("HGETALL", &keys.remote, &[]),
        needs("HSET", &keys.remote, &["x", "x"]),
        needs("HDEL", &keys.remote, &["x"]),
        needs("PEXPIREAT", &keys.remote, &["1"]),
        needs("HMGET", &keys.sizes, &["x"]),
        needs("HGETALL", &keys.sizes, &[]),
        needs("HSET", &keys.sizes, &["x", "x"]),
        needs("HDEL", &keys.sizes, &["x"]),
        needs("DEL", &keys.sizes, &[]),
        needs("PEXPIREAT", &keys.sizes, &["1"]),
        needs("HMGET", &keys.versions, &["x"]),
        needs("HGETALL", &keys.versions, &[]),
        needs("HSET", &keys.versions, &["x", "x"]),
        needs("HDEL", &keys.versions, &["x"]),
        needs("PEXPIREAT", &keys.versions, &["1"]),
        needs("HGETALL", &keys.descriptor, &[]),
        needs("HSET", &keys.descriptor, &["x", "x"]),
        needs("HDEL", &keys.descriptor, &["x"]),
        needs("DEL", &keys.descriptor, &[]),
        needs("PEXPIREAT", &keys.descriptor, &["1"]),
        needs("HGETALL", &keys.hosts, &[]),
        needs("LRANGE", &keys.consumer_ids, &["0", "-1"]),
        needs("RPUSH", &keys.consumer_ids, &["x"]),
        needs("DEL", &keys.consumer_ids, &[]),
        needs("PEXPIREAT", &keys.consumer_ids, &["1"]),
    ]
}

/// Queues every command of a host and executes none: Redis checks rights when it queues, and drops the queue with the
/// connection.
async fn rights(connector: &Connector, keys: &Keys, outputs: &Outputs, has_state: bool) -> Result<(), Finding> {
    let mut connection = connector.connect().await?;
    let mut missing = Vec::new();
    // Without these three commands nothing can be queued. WATCH and EXEC themselves cannot be queued.
    let mut transaction = Pipeline::new();
    transaction.cmd("WATCH").arg(&keys.intake).cmd("MULTI").cmd("EXEC").cmd("MULTI");
    let replies = connection.send_packed_commands(&transaction, 0, transaction.len()).await?;
    for (reply, command) in replies.into_iter().zip(["WATCH", "MULTI", "EXEC", "MULTI"]) {
        note_refusal(reply, command, &keys.intake, &mut missing)?;
    }
    if missing.is_empty() {
        let claim = format!("{}x", keys.claim_prefix);
        let permit = format!("{}x", keys.permit_prefix);
        let marks_channel = marks_channel(connector, keys);
        let mut needed = needed(keys, &marks_channel, &claim, &permit);
        for output in outputs.iter() {
            needed.push(Needed { command: "XADD", object: &output.key, arguments: &["*", "x", "x"] });
            needed.push(Needed { command: "TYPE", object: &output.key, arguments: &[] });
        }
        let state = format!("{}x", keys.state_prefix);
        if has_state {
            let of_state: [(&str, &[&str]); 7] = [
                ("MGET", &[]),
                ("GET", &[]),
                ("TYPE", &[]),
                ("SET", &["x"]),
                ("DEL", &[]),
                ("INCRBY", &["1"]),
                ("PEXPIRE", &["1"]),
            ];
            needed.extend(of_state.map(|(command, arguments)| Needed { command, object: &state, arguments }));
            needed.push(Needed { command: "SCAN", object: "", arguments: &["0"] });
        }
        let mut pipeline = Pipeline::new();
        for Needed { command, object, arguments } in &needed {
            let mut words = command.split(' ');
            pipeline.cmd(words.next().unwrap_or_default());
            for word in words {
                pipeline.arg(word);
            }
            if !object.is_empty() {
                pipeline.arg(object);
            }
            pipeline.arg(*arguments);
        }
        pipeline.cmd("XREADGROUP").arg(&["GROUP", "x", "x", "STREAMS", &keys.inbox, ">"]);
        // What lies under a name of the intake and is of another type is set aside.
        pipeline.cmd("RENAME").arg(&keys.marks).arg(format!("{}:set-aside", keys.marks));
        let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
        let sent = needed.iter().map(|needed| (needed.command, needed.object));
        let others = [("XREADGROUP", keys.inbox.as_str()), ("RENAME", keys.marks.as_str())];
        for (reply, (command, object)) in replies.into_iter().zip(sent.chain(others)) {
            note_refusal(reply, command, object, &mut missing)?;
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Finding::Check(CheckError::MissingRights(missing))) }
}

/// Adds the missing right that the reply names, if it names one.
fn note_refusal(reply: Value, command: &str, object: &str, missing: &mut Vec<String>) -> Result<(), RedisError> {
    let Err(error) = reply.extract_error() else { return Ok(()) };
    let text = error.to_string();
    let what = match error.code() {
        // A command was refused after MULTI, and that refusal is already recorded.
        Some("ERR" | "EXECABORT") if !missing.is_empty() => return Ok(()),
        // Rights come first. With a full Redis a host starts and waits, like a running host when Redis becomes full.
        Some("OOM") => return Ok(()),
        // First, because the text contains the command's name, which may contain any of the other words, like HKEYS.
        Some("NOPERM") if text.contains("permissions to run") => format!("the command {command}"),
        Some("NOPERM") if text.contains("channel") => format!("the channel {object}"),
        Some("NOPERM") => format!("the key {object}"),
        _ => return Err(error),
    };
    if !missing.contains(&what) {
        missing.push(what);
    }
    Ok(())
}

/// Checks that every key has its type or does not exist.
async fn types(connection: &mut LibraryConnection, keys: &Keys, outputs: &Outputs) -> Result<(), Finding> {
    let wanted: [(&String, &'static str); 14] = [
        (&keys.consumer_ids, "list"),
        (&keys.heartbeat, "zset"),
        (&keys.hosts, "hash"),
        (&keys.remote, "hash"),
        (&keys.sizes, "hash"),
        (&keys.descriptor, "hash"),
        (&keys.output, "stream"),
        (&keys.inbox, "stream"),
        (&keys.retry, "zset"),
        (&keys.dead, "stream"),
        (&keys.dead_index, "stream"),
        (&keys.intake, "string"),
        (&keys.marks, "hash"),
        (&keys.covered, "string"),
    ];
    let named = outputs.iter().map(|output| (&output.key, "stream"));
    let wanted: Vec<(&String, &'static str)> = wanted.into_iter().chain(named).collect();
    let mut pipeline = Pipeline::new();
    for (key, _) in &wanted {
        pipeline.cmd("TYPE").arg(key);
    }
    let replies: Vec<Value> = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    for (reply, (key, wanted)) in replies.into_iter().zip(wanted) {
        let found: String = from_redis_value(reply.extract_error()?).map_err(RedisError::from)?;
        if found != wanted && found != "none" {
            return Err(Finding::Check(CheckError::WrongType { key: key.clone(), found, wanted }));
        }
    }
    Ok(())
}
