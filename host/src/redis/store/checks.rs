//! What is looked at before a host starts: whether Redis is there, lets us in, is new enough, gives the rights
//! that are needed and holds nothing else under our names.

use redis::{ErrorKind, Pipeline, RedisError, Value, from_redis_value};

use super::keys::Keys;
use super::marks::marks_channel;
use super::stats::{info_number, info_text};
use crate::redis::client::connector::{Connector, LibraryConnection};

/// Oldest server that can be used: `SET` with `NX` and `GET` together came with it.
const VERSION_MIN: (u32, u32) = (7, 0);

/// Why a host cannot start on this Redis.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Nobody answers.
    #[error("cannot reach Redis at {address}: {error}; is it running, and is --redis right?")]
    Unreachable {
        /// Where.
        address: String,
        /// What the network said.
        error: RedisError,
    },
    /// Wrong user or password, or none given.
    #[error(
        "Redis at {address} refused the login: {error}; give user and password in the URL, redis://user:password@host:6379/0"
    )]
    Refused {
        /// Where.
        address: String,
        /// What the server said.
        error: RedisError,
    },
    /// The server is too old.
    #[error("Redis at {address} is version {version}; host needs 7.0 or newer, or Valkey")]
    TooOld {
        /// Where.
        address: String,
        /// What it says it is.
        version: String,
    },
    /// One of many servers, each with a part of the keys.
    #[error(
        "Redis at {0} is a node of a Redis Cluster, which host cannot use yet; name a server that runs without cluster-enabled"
    )]
    ClusterNode(String),
    /// A server that knows of others and keeps nothing.
    #[error(
        "Redis at {0} is a Sentinel, which host cannot use yet; ask it for the primary with `redis-cli … SENTINEL masters`, and name that server"
    )]
    Sentinel(String),
    /// Rights are missing.
    #[error("the Redis user has no right to {}; host/docs/operating.md has the least rule that works (ACL SETUSER …)", .0.join(", "))]
    MissingRights(Vec<String>),
    /// Something else lies under one of our names.
    #[error(
        "the Redis key {key} is a {found} but must be a {wanted}; rename or delete it, or choose another name in [keys]"
    )]
    WrongType {
        /// Which key.
        key: String,
        /// Its type.
        found: String,
        /// The type it must have.
        wanted: &'static str,
    },
    /// Anything else that Redis says.
    #[error("checking Redis at {address} failed: {error}")]
    Other {
        /// Where.
        address: String,
        /// What the server said.
        error: RedisError,
    },
}

/// What is worth telling about a Redis that can be used.
#[derive(Debug)]
pub struct Checked {
    /// Name and version.
    pub server: String,
    /// The eviction policy, when it may evict claims.
    pub evicting_policy: Option<String>,
}

/// Checks the server, the user's rights and the keys.
///
/// # Errors
/// The first thing that makes a start useless.
pub async fn check(connector: &Connector, keys: &Keys) -> Result<Checked, CheckError> {
    let address = connector.address();
    let mut connection = connector.connect().await.map_err(|error| classify(address, error))?;
    let server = version(&mut connection, address).await?;
    rights(connector, keys).await.map_err(|error| error.at(address))?;
    types(&mut connection, keys).await.map_err(|error| error.at(address))?;
    let memory = info(&mut connection, "memory").await.map_err(|error| classify(address, error))?;
    let policy = info_text(&memory, "maxmemory_policy").unwrap_or("noeviction");
    let evicts = info_number(&memory, "maxmemory") > 0 && policy != "noeviction";
    Ok(Checked { server, evicting_policy: evicts.then(|| policy.to_string()) })
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
    // Valkey has another name for it, unless it is told to be as compatible as possible.
    match info_text(&info, "redis_mode").or_else(|| info_text(&info, "server_mode")) {
        Some("cluster") => return Err(CheckError::ClusterNode(address.into())),
        Some("sentinel") => return Err(CheckError::Sentinel(address.into())),
        _ => {}
    }
    // Valkey says which Redis it is compatible with, and its own version beside it.
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

/// Either a finished finding, or an error that still needs the address.
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

/// A command that a host will send, with what it is allowed to touch.
struct Needed<'a> {
    /// The command and, where rights are given for it, its subcommand.
    command: &'static str,
    /// The key or the channel.
    object: &'a str,
    /// The other arguments, as many as the command must have.
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
        // A host does not read these backwards, but `host dead` does, as the same user.
        needs("XREVRANGE", &keys.dead, &["+", "-"]),
        needs("XDEL", &keys.dead, &["0-1"]),
        needs("XRANGE", &keys.inbox, &["-", "+"]),
        needs("XREVRANGE", &keys.inbox, &["+", "-"]),
        needs("XGROUP CREATE", &keys.inbox, &["x", "0"]),
        needs("XGROUP DELCONSUMER", &keys.inbox, &["x", "x"]),
        needs("XACK", &keys.inbox, &["x", "0-1"]),
        needs("XDEL", &keys.inbox, &["0-1"]),
        needs("XPENDING", &keys.inbox, &["x"]),
        needs("XCLAIM", &keys.inbox, &["x", "x", "0", "0-1"]),
        needs("XINFO CONSUMERS", &keys.inbox, &["x"]),
        needs("XINFO STREAM", &keys.output, &[]),
        needs("XLEN", &keys.inbox, &[]),
        needs("TYPE", &keys.output, &[]),
        needs("ZCARD", &keys.retry, &[]),
        needs("ZADD", &keys.retry, &["1", "x"]),
        needs("ZREM", &keys.retry, &["x"]),
        needs("ZRANGE", &keys.retry, &["0", "-1"]),
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

/// Queues every command that a host will send and executes none: Redis checks rights when it queues, and what is
/// queued goes with the connection.
async fn rights(connector: &Connector, keys: &Keys) -> Result<(), Finding> {
    let mut connection = connector.connect().await?;
    let mut missing = Vec::new();
    // Without these three nothing can be queued, and WATCH and EXEC cannot be queued themselves.
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
        let needed = needed(keys, &marks_channel, &claim, &permit);
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

/// Adds what the reply says is missing, if it says so.
fn note_refusal(reply: Value, command: &str, object: &str, missing: &mut Vec<String>) -> Result<(), RedisError> {
    let Err(error) = reply.extract_error() else { return Ok(()) };
    let text = error.to_string();
    let what = match error.code() {
        // Queued after MULTI was refused; the refusal itself is noted.
        Some("ERR" | "EXECABORT") if !missing.is_empty() => return Ok(()),
        // Rights come first. A host starts on a full Redis as it goes on when Redis becomes full: it waits.
        Some("OOM") => return Ok(()),
        // First, because a command's name is in the text and may have anything in it, as HKEYS has.
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

/// Every key has its type or does not exist.
async fn types(connection: &mut LibraryConnection, keys: &Keys) -> Result<(), Finding> {
    let wanted: [(&String, &'static str); 11] = [
        (&keys.consumer_ids, "list"),
        (&keys.heartbeat, "zset"),
        (&keys.hosts, "hash"),
        (&keys.descriptor, "hash"),
        (&keys.output, "stream"),
        (&keys.inbox, "stream"),
        (&keys.retry, "zset"),
        (&keys.dead, "stream"),
        (&keys.intake, "string"),
        (&keys.marks, "hash"),
        (&keys.covered, "string"),
    ];
    let mut pipeline = Pipeline::new();
    for (key, _) in wanted {
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
