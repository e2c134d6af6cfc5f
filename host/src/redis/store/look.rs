//! Reads what the keys of a group say about it, for somebody who is no member: one look takes one round trip, changes
//! nothing, and sends no message of anybody. This file does not judge what it reads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::LazyLock;

use redis::{FromRedisValue, Pipeline, RedisError, Value, cmd, from_redis_value};

use super::group::Received;
use super::keys::{GROUP, Keys, about};
use super::stats::{info_number, info_text};
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::script::Source;

static STREAM: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/stream.lua")));
static WAITING: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/waiting.lua")));
static REASONS: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/reasons.lua")));

/// What a look has found.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// The server's time, in ms since 1970.
    pub now_ms: u64,
    /// Version of the server.
    pub server: String,
    /// Memory in use by the server, in bytes.
    pub memory_bytes: u64,
    /// The server's limit, in bytes; 0 is no limit.
    pub memory_bytes_max: u64,
    /// Hosts alive, with the time at which their heartbeats expire, in ms since 1970.
    pub hosts: Vec<(String, u64)>,
    /// Status of each host, JSON text, by host id.
    pub statuses: HashMap<String, String>,
    /// The list of consumers.
    pub consumer_ids: Vec<String>,
    /// The host of each remote consumer.
    pub remotes: HashMap<String, String>,
    /// Channel of the group.
    pub channel: Option<String>,
    /// Format that the group writes.
    pub format: Option<u32>,
    /// The host whose intake is active.
    pub active: Option<String>,
    /// Deliveries that a host has fetched and not settled.
    pub pending: u64,
    /// The inbox.
    pub inbox: Stream,
    /// The dead letters.
    pub dead: Stream,
    /// Number of those without a message id.
    pub dead_without_id: u64,
    /// Named outputs of the hosts alive that announce theirs: the stream of each name.
    pub outputs: BTreeSet<(String, String)>,
    /// The waiting retries: the one that is due next.
    pub waiting: Waiting,
}

/// A stream without the contents of its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Number of entries.
    pub length: u64,
    /// Number of entries ever added.
    pub added: u64,
    /// Id of the first entry.
    pub first: Option<String>,
    /// Id of the last entry ever added.
    pub last: String,
}

/// A waiting retry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retry {
    /// Id of the message; empty in a format that this program cannot read.
    pub message_id: String,
    /// Number of the attempt.
    pub attempt: u32,
    /// When it is due, in ms since 1970.
    pub due_ms: u64,
}

/// Waiting retries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Number of all.
    pub count: u64,
    /// Some of them, those that are due next.
    pub next: Vec<Retry>,
}

/// Some dead letters, counted by their reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Number of them.
    pub letters: u64,
    /// Id of the last one.
    pub last: String,
    /// Number of each reason.
    pub reasons: HashMap<String, u64>,
}

/// Which dead letters to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The newest ones, or the newest ones that are older than this id.
    Before(Option<&'a str>),
    /// The oldest ones that are newer than this id.
    After(&'a str),
}

/// Loads the scripts of this file. The other calls need them: after `NOSCRIPT`, load them again.
///
/// # Errors
/// Errors of the network or the server.
pub async fn prepare(connection: &mut LibraryConnection) -> Result<(), RedisError> {
    for script in [&*STREAM, &*WAITING, &*REASONS] {
        script.load(connection).await?;
    }
    Ok(())
}

/// Looks at a group.
///
/// # Errors
/// Errors of the network or the server; `NOSCRIPT` before [`prepare`].
pub async fn look(connection: &mut LibraryConnection, keys: &Keys) -> Result<Look, RedisError> {
    let mut pipeline = Pipeline::new();
    // Not in a transaction: a server that is full refuses those.
    pipeline.cmd("TIME");
    pipeline.cmd("ZRANGE").arg(&keys.heartbeat).arg(0).arg(-1).arg("WITHSCORES");
    pipeline.cmd("HGETALL").arg(&keys.hosts);
    pipeline.cmd("LRANGE").arg(&keys.consumer_ids).arg(0).arg(-1);
    pipeline.cmd("HGETALL").arg(&keys.remote);
    pipeline.cmd("HGETALL").arg(&keys.descriptor);
    pipeline.cmd("GET").arg(&keys.intake);
    pipeline.cmd("XPENDING").arg(&keys.inbox).arg(GROUP);
    pipeline.cmd("INFO").arg("server").arg("memory");
    pipeline.add_command(WAITING.command(&[&keys.retry]).arg(1).to_owned());
    pipeline.cmd("XLEN").arg(&keys.dead_index);
    for stream in [&keys.inbox, &keys.dead] {
        pipeline.add_command(STREAM.command(&[stream]));
    }
    let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    let mut replies = Replies(replies.into_iter());
    let (seconds, micros): (u64, u64) = replies.next("")?;
    let now_ms = seconds * 1_000 + micros / 1_000;
    // As text: a score may be a fraction, or infinite.
    let hosts: Vec<(String, f64)> = replies.next(&keys.heartbeat)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time in ms; others saturate")]
    let mut hosts: Vec<(String, u64)> = hosts.into_iter().map(|(host, expiry)| (host, expiry as u64)).collect();
    hosts.retain(|(_, expiry)| *expiry > now_ms);
    let (statuses, consumer_ids) = (replies.next(&keys.hosts)?, replies.next(&keys.consumer_ids)?);
    let remotes = replies.next(&keys.remote)?;
    let descriptor: HashMap<String, String> = replies.next(&keys.descriptor)?;
    let active = replies.next(&keys.intake)?;
    let pending = pending(replies.raw()?, &keys.inbox)?;
    let info: String = replies.next("")?;
    let waiting = read_waiting(replies.next(&keys.retry)?)?;
    let dead_without_id = replies.next(&keys.dead_index)?;
    Ok(Look {
        now_ms,
        server: server(&info),
        memory_bytes: info_number(&info, "used_memory"),
        memory_bytes_max: info_number(&info, "maxmemory"),
        statuses,
        consumer_ids,
        remotes,
        channel: descriptor.get("channel").map(|text| Received::read(text).channel),
        format: descriptor.get("format").and_then(|format| format.parse().ok()),
        active,
        pending,
        inbox: replies.stream(&keys.inbox)?,
        dead: replies.stream(&keys.dead)?,
        dead_without_id,
        outputs: announced(&descriptor, |host| hosts.iter().any(|(id, _)| id == host)),
        hosts,
        waiting,
    })
}

/// The facts of these streams.
///
/// # Errors
/// Errors of the network or the server; `NOSCRIPT` before [`prepare`].
pub async fn streams(connection: &mut LibraryConnection, keys: &[&str]) -> Result<Vec<Stream>, RedisError> {
    // An empty pipeline is an error.
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let mut pipeline = Pipeline::new();
    for key in keys {
        pipeline.add_command(STREAM.command(&[*key]));
    }
    let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    let mut replies = Replies(replies.into_iter());
    keys.iter().map(|key| replies.stream(key)).collect()
}

/// The server's time in ms since 1970, and waiting retries, this number of them at most.
///
/// # Errors
/// Errors of the network or the server; `NOSCRIPT` before [`prepare`].
pub async fn waiting(
    connection: &mut LibraryConnection,
    keys: &Keys,
    retries_max: usize,
) -> Result<(u64, Waiting), RedisError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("TIME");
    pipeline.add_command(WAITING.command(&[&keys.retry]).arg(retries_max).to_owned());
    let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    let mut replies = Replies(replies.into_iter());
    let (seconds, micros): (u64, u64) = replies.next("")?;
    Ok((seconds * 1_000 + micros / 1_000, read_waiting(replies.next(&keys.retry)?)?))
}

/// Named outputs that hosts announce, dead hosts that are still listed included.
///
/// # Errors
/// Errors of the network or the server.
pub async fn outputs(
    connection: &mut LibraryConnection,
    keys: &Keys,
) -> Result<BTreeSet<(String, String)>, RedisError> {
    let descriptor: Result<HashMap<String, String>, _> =
        cmd("HGETALL").arg(&keys.descriptor).query_async(connection).await;
    Ok(announced(&descriptor.map_err(|error| about(&keys.descriptor, error))?, |_| true))
}

/// The named outputs in the descriptor: a field `outputs <host id>` for each host, with the stream of each name.
fn announced(descriptor: &HashMap<String, String>, is_wanted: impl Fn(&str) -> bool) -> BTreeSet<(String, String)> {
    let fields = descriptor.iter().filter_map(|(name, text)| Some((name.strip_prefix("outputs ")?, text)));
    let of_hosts = fields.filter(|(host, _)| is_wanted(host));
    of_hosts.filter_map(|(_, text)| serde_json::from_str::<BTreeMap<String, String>>(text).ok()).flatten().collect()
}

/// Counts some dead letters by their reasons, `count_max` at most.
///
/// # Errors
/// Errors of the network or the server; `NOSCRIPT` before [`prepare`].
pub async fn reasons(
    connection: &mut LibraryConnection,
    keys: &Keys,
    which: Which<'_>,
    count_max: usize,
) -> Result<Counted, RedisError> {
    let mut command = REASONS.command(&[&keys.dead]);
    match which {
        Which::Before(id) => command.arg("before").arg(id.unwrap_or("+")),
        Which::After(id) => command.arg("after").arg(id),
    };
    command.arg(count_max);
    let reply: Vec<Value> = command.query_async(connection).await.map_err(|error| about(&keys.dead, error))?;
    let mut replies = Replies(reply.into_iter());
    let (letters, last) = (replies.next("")?, replies.next("")?);
    let mut reasons = HashMap::new();
    while let Some(reason) = replies.0.next() {
        reasons.insert(from_redis_value(reason)?, replies.next("")?);
    }
    Ok(Counted { letters, last, reasons })
}

/// The replies of a pipeline, one after the other.
struct Replies<I>(I);

impl<I: Iterator<Item = Value>> Replies<I> {
    fn raw(&mut self) -> Result<Value, RedisError> {
        self.0.next().ok_or_else(|| RedisError::from((redis::ErrorKind::UnexpectedReturnType, "too few replies")))
    }

    /// The next reply. An error about a wrong type names this key.
    fn next<T: FromRedisValue>(&mut self, key: &str) -> Result<T, RedisError> {
        let reply = self.raw()?.extract_error().map_err(|error| about(key, error))?;
        Ok(from_redis_value(reply)?)
    }

    fn stream(&mut self, key: &str) -> Result<Stream, RedisError> {
        let (length, added, first, last): (u64, u64, String, String) = self.next(key)?;
        Ok(Stream { length, added, first: Some(first).filter(|id| !id.is_empty()), last })
    }
}

/// The number of a summary; before the first delivery there is no group.
fn pending(reply: Value, inbox: &str) -> Result<u64, RedisError> {
    match reply.extract_error() {
        Ok(Value::Array(summary)) => Ok(summary.into_iter().next().map(from_redis_value).transpose()?.unwrap_or(0)),
        Err(error) if error.code() == Some("NOGROUP") => Ok(0),
        Err(error) => Err(about(inbox, error)),
        Ok(_) => Ok(0),
    }
}

fn read_waiting(reply: Vec<Value>) -> Result<Waiting, RedisError> {
    let mut replies = Replies(reply.into_iter());
    let count = replies.next("")?;
    let mut next = Vec::new();
    while let Some(id) = replies.0.next() {
        // Ids are text, unless somebody else has written into the set.
        let id: Vec<u8> = from_redis_value(id)?;
        let message_id = String::from_utf8_lossy(&id).into_owned();
        next.push(Retry { message_id, attempt: replies.next("")?, due_ms: replies.next("")? });
    }
    Ok(Waiting { count, next })
}

/// Name and version of the server.
fn server(info: &str) -> String {
    match info_text(info, "valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", info_text(info, "redis_version").unwrap_or("of an unknown version")),
    }
}
