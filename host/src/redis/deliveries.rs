//! Deliveries in Redis: fetched from the inbox, claimed message by message, settled in one step, taken over from the dead.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, Value, from_redis_value};

use super::connection::Connection;
use super::entries::Entries;
use super::keys::{self, Keys};
use super::retries::{HISTORY_FIELD, History, Retries};
use super::script::Source;
use crate::config::OutputConfig;

static SETTLE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/settle.lua")));
static TAKE_OVER: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/take_over.lua")));

/// Deaths from which on a delivery is suspected to have caused them. One is bad luck, two may be.
pub const SUSPECT_FROM: u32 = 3;

/// Delivery count that marks an entry on trial; no entry is delivered so often.
const TRIAL: u32 = 1_000_000;

/// Deliveries isolated by one call: each may become 128 entries.
const ISOLATIONS_MAX: usize = 8;

/// One inbox entry handed to one consumer.
#[derive(Debug)]
pub struct Delivery {
    /// Id of the inbox entry.
    pub entry_id: String,
    /// Its messages, 1 to 128.
    pub messages: Vec<Message>,
    /// Hosts that died with it in hand, when it is suspected to have caused that. Then it has one message.
    pub crashes: u32,
}

impl Delivery {
    /// The token of a message's claim: the id of the inbox entry that first carried it.
    #[must_use]
    pub fn token<'a>(&'a self, message: &'a Message) -> &'a str {
        message.history.as_ref().map_or(&self.entry_id, |history| &history.token)
    }
}

/// A message of a delivery.
#[derive(Debug)]
pub struct Message {
    /// Its `message_id`.
    pub id: String,
    /// The JSON text as it was published.
    pub body: String,
    /// What happened to it before; nothing in its first delivery.
    pub history: Option<Box<History>>,
}

impl Message {
    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.history.as_ref().map_or(1, |history| history.attempt)
    }
}

/// Creates the inbox and its group, unless they are there.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn ensure_group(connection: &mut Connection, keys: &Keys) -> Result<(), RedisError> {
    let created: Result<(), RedisError> = redis::cmd("XGROUP")
        .arg("CREATE")
        .arg(&keys.inbox)
        .arg(&keys.group)
        .arg("0")
        .arg("MKSTREAM")
        .query_async(connection)
        .await;
    match created {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        other => other,
    }
}

/// Waits up to `block` for deliveries and takes at most `count`.
///
/// # Errors
/// Whatever the network or the server says; `NOGROUP` when the inbox has been deleted.
pub async fn fetch(
    connection: &mut Connection,
    keys: &Keys,
    host_id: &str,
    count: usize,
    block: Duration,
) -> Result<Vec<Delivery>, RedisError> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(&keys.group).arg(host_id).arg("COUNT").arg(count);
    command.arg("BLOCK").arg(block.as_millis().to_string());
    command.arg("STREAMS").arg(&keys.inbox).arg(">");
    read(connection, &command).await
}

/// An entry as `XREADGROUP` and `XCLAIM` give it: id and a flat list of fields and values.
fn delivery(entry: Value) -> Option<Delivery> {
    let Value::Array(entry) = entry else {
        return None;
    };
    let mut entry = entry.into_iter();
    let entry_id = text(entry.next()?);
    let Some(Value::Array(values)) = entry.next() else {
        return None;
    };
    let mut messages = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    let (mut history, mut crashes) = (None, 0);
    while let (Some(id), Some(body)) = (values.next(), values.next()) {
        if is_history(&id) {
            history = read_history(&body);
            continue;
        }
        let history: Option<Box<History>> = history.take();
        crashes = crashes.max(history.as_ref().map_or(0, |history| history.crashes));
        messages.push(Message { id: text(id), body: text(body), history });
    }
    Some(Delivery { entry_id, messages, crashes })
}

fn is_history(field: &Value) -> bool {
    matches!(field, Value::BulkString(name) if name == HISTORY_FIELD)
}

fn read_history(value: &Value) -> Option<Box<History>> {
    let Value::BulkString(header) = value else { return None };
    History::read(header).map(Box::new)
}

/// The intake writes only UTF-8; should anybody else have written, the plugin gets replacement characters.
fn text(value: Value) -> String {
    match value {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
        }
        _ => String::new(),
    }
}

/// Claims every message of a delivery that `wanted` names; the answer says which are ours.
/// A claim that carries the message's own token is ours from an earlier try or attempt.
///
/// # Errors
/// Whatever the network or the server says; then any number of the claims may have been made, under their tokens.
pub async fn claim(
    connection: &mut Connection,
    keys: &Keys,
    delivery: &Delivery,
    wanted: &[usize],
    window: Duration,
) -> Result<Vec<bool>, RedisError> {
    let mut pipeline = redis::Pipeline::with_capacity(wanted.len());
    let window_ms = window.as_millis().to_string();
    for index in wanted {
        let message = &delivery.messages[*index];
        pipeline
            .cmd("SET")
            .arg(keys::claim(keys, &message.id))
            .arg(delivery.token(message))
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(&window_ms);
    }
    let replies = connection.send_packed_commands(&pipeline, 0, wanted.len()).await?;
    let token = |index: &usize| delivery.token(&delivery.messages[*index]).as_bytes();
    replies
        .into_iter()
        .zip(wanted)
        .map(|(reply, index)| match reply.extract_error()? {
            Value::BulkString(holder) => Ok(holder == token(index)),
            _ => Ok(true),
        })
        .collect()
}

/// What a delivery has come to.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    /// Id of the inbox entry.
    pub entry_id: &'a str,
    /// Entries for the output stream.
    pub results: &'a Entries,
    /// Entries for the dead letters.
    pub dead_letters: &'a Entries,
    /// Messages to try again.
    pub retries: &'a Retries,
}

/// Settles a delivery. `false`: somebody else had settled it, and nothing was written.
///
/// # Errors
/// Whatever the network or the server says; then it may have been settled or not, and may be tried again.
pub async fn settle(
    connection: &mut Connection,
    keys: &Keys,
    output: &OutputConfig,
    dedup_window: Duration,
    settled: Settled<'_>,
) -> Result<bool, RedisError> {
    let Settled { entry_id, results, dead_letters, retries } = settled;
    let mut command = if retries.is_empty() {
        SETTLE.command(&[&keys.inbox, &keys.output, &keys.dead])
    } else {
        let claims: Vec<String> = retries.message_ids().map(|id| keys::claim(keys, id)).collect();
        let mut all = vec![keys.inbox.as_str(), &keys.output, &keys.dead, &keys.retry];
        all.extend(claims.iter().map(String::as_str));
        SETTLE.command(&all)
    };
    command.arg(&keys.group).arg(entry_id).arg(output.length_max).arg(output.dead_length_max);
    results.write_to(&mut command);
    dead_letters.write_to(&mut command);
    retries.write_to(&mut command, dedup_window);
    let settled: u8 = from_redis_value(SETTLE.run(connection, &command).await?)?;
    Ok(settled == 1)
}

/// A name under which deliveries were fetched.
#[derive(Debug)]
pub struct Owner {
    /// The id of the host at that time.
    pub name: String,
    /// Deliveries fetched and not settled.
    pub pending: usize,
}

/// Names under which deliveries were fetched from this inbox.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn owners(connection: &mut Connection, keys: &Keys) -> Result<Vec<Owner>, RedisError> {
    let consumers: Vec<HashMap<String, Value>> =
        redis::cmd("XINFO").arg("CONSUMERS").arg(&keys.inbox).arg(&keys.group).query_async(connection).await?;
    let owner = |mut consumer: HashMap<String, Value>| {
        let name = text(consumer.remove("name")?);
        let pending = from_redis_value(consumer.remove("pending")?).ok()?;
        Some(Owner { name, pending })
    };
    Ok(consumers.into_iter().filter_map(owner).collect())
}

/// Everything fetched under this name and not settled, oldest first.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn fetched_before(
    connection: &mut Connection,
    keys: &Keys,
    host_id: &str,
) -> Result<Vec<Delivery>, RedisError> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(&keys.group).arg(host_id).arg("STREAMS").arg(&keys.inbox).arg("0");
    read(connection, &command).await
}

/// The deliveries in a reply of `XREADGROUP`: `[[stream, entries]]`, or nil when there are none.
async fn read(connection: &mut Connection, command: &redis::Cmd) -> Result<Vec<Delivery>, RedisError> {
    let streams: Option<Vec<(Value, Vec<Value>)>> = command.query_async(connection).await?;
    let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
    Ok(entries.filter_map(delivery).collect())
}

/// Gives deliveries of a host that stops to a name that nobody has, so that others take them over at once.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn hand_back(
    connection: &mut Connection,
    keys: &Keys,
    host_id: &str,
    entry_ids: &[String],
) -> Result<(), RedisError> {
    let nobody = format!("{host_id}/handed-back");
    let mut command = redis::cmd("XCLAIM");
    command.arg(&keys.inbox).arg(&keys.group).arg(nobody).arg(0).arg(entry_ids).arg("JUSTID");
    command.query_async(connection).await
}

/// What came of a look at a dead host's deliveries. Nothing: it had none and is forgotten.
#[derive(Debug)]
pub struct TakenOver {
    /// Deliveries that are this host's now.
    pub deliveries: Vec<Delivery>,
    /// Deliveries that were suspected to have killed their hosts; their messages are back in the inbox, each alone.
    pub isolated: usize,
}

/// Takes up to `count` deliveries of a dead host over, and isolates those under suspicion.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn take_over(
    connection: &mut Connection,
    keys: &Keys,
    dead_host_id: &str,
    host_id: &str,
    count: usize,
) -> Result<TakenOver, RedisError> {
    let mut command = TAKE_OVER.command(&[&keys.inbox]);
    command.arg(&keys.group).arg(dead_host_id).arg(host_id).arg(count);
    command.arg(SUSPECT_FROM).arg(TRIAL).arg(ISOLATIONS_MAX);
    let (entries, isolated): (Vec<Value>, usize) = from_redis_value(TAKE_OVER.run(connection, &command).await?)?;
    Ok(TakenOver { deliveries: entries.into_iter().filter_map(delivery).collect(), isolated })
}

/// Marks a suspect delivery as on trial: should its host die now, it is to blame.
///
/// # Errors
/// Whatever the network or the server says; marking again does no harm.
pub async fn begin_trial(
    connection: &mut Connection,
    keys: &Keys,
    host_id: &str,
    entry_id: &str,
) -> Result<(), RedisError> {
    let mut command = redis::cmd("XCLAIM");
    command.arg(&keys.inbox).arg(&keys.group).arg(host_id).arg(0).arg(entry_id);
    command.arg("RETRYCOUNT").arg(TRIAL).arg("JUSTID").query_async(connection).await
}

#[cfg(test)]
mod properties;
