//! What is looked at before a host starts: whether Redis is there, lets us in, is new enough, gives the rights
//! that are needed and holds nothing else under our names.

use redis::{ErrorKind, Pipeline, RedisError, Value, from_redis_value};

use super::connection::{Connection, Connector};
use super::keys::{self, Keys};
use super::stats::{info_number, info_text};

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
    /// Rights are missing.
    #[error("the Redis user lacks rights: {}; the README has the least rule that works (ACL SETUSER …)", .0.join("; "))]
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
    rights(&mut connection, keys).await.map_err(|error| error.at(address))?;
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

async fn info(connection: &mut Connection, section: &str) -> Result<String, RedisError> {
    redis::cmd("INFO").arg(section).query_async(connection).await
}

async fn version(connection: &mut Connection, address: &str) -> Result<String, CheckError> {
    let info = match info(connection, "server").await {
        Err(error) if error.code() == Some("NOPERM") => {
            return Err(CheckError::MissingRights(vec![error.to_string()]));
        }
        info => info.map_err(|error| classify(address, error))?,
    };
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

/// Queues every command that a host will send and discards the lot: Redis checks rights when it queues.
async fn rights(connection: &mut Connection, keys: &Keys) -> Result<(), Finding> {
    let claim = keys::claim(keys, "x");
    let k = |key: &String| key.clone();
    #[rustfmt::skip]
    let commands: Vec<Vec<String>> = vec![
        vec!["PING".into()],
        vec!["TIME".into()],
        vec!["SUBSCRIBE".into(), k(&keys.channel)],
        vec!["SET".into(), k(&keys.intake), "x".into(), "NX".into(), "PX".into(), "1".into()],
        vec!["GET".into(), k(&keys.intake)],
        vec!["PTTL".into(), k(&keys.intake)],
        vec!["PEXPIRE".into(), k(&keys.intake), "1".into()],
        vec!["DEL".into(), k(&keys.intake)],
        vec!["SET".into(), claim, "x".into(), "NX".into(), "GET".into(), "PX".into(), "1".into()],
        vec!["XADD".into(), k(&keys.inbox), "*".into(), "x".into(), "x".into()],
        vec!["XADD".into(), k(&keys.output), "*".into(), "x".into(), "x".into()],
        vec!["XADD".into(), k(&keys.dead), "*".into(), "x".into(), "x".into()],
        vec!["XRANGE".into(), k(&keys.dead), "-".into(), "+".into()],
        vec!["XGROUP".into(), "CREATE".into(), k(&keys.inbox), k(&keys.group), "0".into()],
        vec!["XGROUP".into(), "DELCONSUMER".into(), k(&keys.inbox), k(&keys.group), "x".into()],
        vec!["XREADGROUP".into(), "GROUP".into(), k(&keys.group), "x".into(), "STREAMS".into(), k(&keys.inbox), ">".into()],
        vec!["XACK".into(), k(&keys.inbox), k(&keys.group), "0-1".into()],
        vec!["XDEL".into(), k(&keys.inbox), "0-1".into()],
        vec!["XPENDING".into(), k(&keys.inbox), k(&keys.group)],
        vec!["XCLAIM".into(), k(&keys.inbox), k(&keys.group), "x".into(), "0".into(), "0-1".into()],
        vec!["XINFO".into(), "CONSUMERS".into(), k(&keys.inbox), k(&keys.group)],
        vec!["XINFO".into(), "STREAM".into(), k(&keys.output)],
        vec!["XLEN".into(), k(&keys.inbox)],
        vec!["ZCARD".into(), k(&keys.retry)],
        vec!["ZADD".into(), k(&keys.heartbeat), "1".into(), "x".into()],
        vec!["ZREM".into(), k(&keys.heartbeat), "x".into()],
        vec!["ZSCORE".into(), k(&keys.heartbeat), "x".into()],
        vec!["ZRANGE".into(), k(&keys.heartbeat), "0".into(), "-1".into()],
        vec!["ZREMRANGEBYSCORE".into(), k(&keys.heartbeat), "-inf".into(), "0".into()],
        vec!["PEXPIREAT".into(), k(&keys.heartbeat), "1".into()],
        vec!["LRANGE".into(), k(&keys.consumer_ids), "0".into(), "-1".into()],
        vec!["RPUSH".into(), k(&keys.consumer_ids), "x".into()],
        vec!["DEL".into(), k(&keys.consumer_ids)],
        vec!["PEXPIREAT".into(), k(&keys.consumer_ids), "1".into()],
        vec!["TYPE".into(), k(&keys.output)],
        vec!["EVALSHA".into(), "x".into(), "0".into()],
        vec!["SCRIPT".into(), "LOAD".into(), "return 1".into()],
        vec!["INFO".into(), "memory".into()],
    ];
    let mut pipeline = Pipeline::new();
    // WATCH cannot be queued.
    pipeline.cmd("WATCH").arg(&keys.intake);
    pipeline.cmd("MULTI");
    for command in &commands {
        pipeline.cmd(&command[0]).arg(&command[1..]);
    }
    pipeline.cmd("DISCARD");
    let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    let mut missing = Vec::new();
    for reply in replies {
        let Err(error) = reply.extract_error() else {
            continue;
        };
        match error.code() {
            Some("NOPERM") => {
                let what = error.detail().unwrap_or("a right").to_string();
                if !missing.contains(&what) {
                    missing.push(what);
                }
            }
            _ => return Err(error.into()),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(Finding::Check(CheckError::MissingRights(missing))) }
}

/// Every key has its type or does not exist.
async fn types(connection: &mut Connection, keys: &Keys) -> Result<(), Finding> {
    let wanted: [(&String, &'static str); 7] = [
        (&keys.consumer_ids, "list"),
        (&keys.heartbeat, "zset"),
        (&keys.output, "stream"),
        (&keys.inbox, "stream"),
        (&keys.retry, "zset"),
        (&keys.dead, "stream"),
        (&keys.intake, "string"),
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
