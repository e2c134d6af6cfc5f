//! Deliveries in Redis: fetched from the inbox, claimed message by message, settled in one step, taken over from the dead.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, Value, from_redis_value};

use super::connection::Connection;
use super::entries::Entries;
use super::keys::{self, Keys};
use super::script::Source;
use crate::config::OutputConfig;

static SETTLE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/settle.lua")));
static TAKE_OVER: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/take_over.lua")));

/// One inbox entry handed to one consumer.
#[derive(Debug)]
pub struct Delivery {
    /// Id of the inbox entry, and the token of its claims.
    pub entry_id: String,
    /// Its messages, 1 to 128.
    pub messages: Vec<Message>,
}

/// A message of a delivery.
#[derive(Debug)]
pub struct Message {
    /// Its `message_id`.
    pub id: String,
    /// The JSON text as it was published.
    pub body: String,
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
    while let (Some(id), Some(body)) = (values.next(), values.next()) {
        messages.push(Message { id: text(id), body: text(body) });
    }
    Some(Delivery { entry_id, messages })
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
/// A claim that carries our own token is ours from an earlier try.
///
/// # Errors
/// Whatever the network or the server says; then any number of the claims may have been made, under our token.
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
            .arg(&delivery.entry_id)
            .arg("NX")
            .arg("GET")
            .arg("PX")
            .arg(&window_ms);
    }
    let replies = connection.send_packed_commands(&pipeline, 0, wanted.len()).await?;
    replies
        .into_iter()
        .map(|reply| match reply.extract_error()? {
            Value::BulkString(token) => Ok(token == delivery.entry_id.as_bytes()),
            _ => Ok(true),
        })
        .collect()
}

/// Settles a delivery. `false`: somebody else had settled it, and nothing was written.
///
/// # Errors
/// Whatever the network or the server says; then it may have been settled or not, and may be tried again.
pub async fn settle(
    connection: &mut Connection,
    keys: &Keys,
    output: &OutputConfig,
    entry_id: &str,
    results: &Entries,
    dead_letters: &Entries,
) -> Result<bool, RedisError> {
    let mut command = SETTLE.command(&[&keys.inbox, &keys.output, &keys.dead]);
    command.arg(&keys.group).arg(entry_id).arg(output.length_max).arg(output.dead_length_max);
    results.write_to(&mut command);
    dead_letters.write_to(&mut command);
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

/// Takes up to `count` deliveries of a dead host over. Nothing: the dead host had none and is forgotten.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn take_over(
    connection: &mut Connection,
    keys: &Keys,
    dead_host_id: &str,
    host_id: &str,
    count: usize,
) -> Result<Vec<Delivery>, RedisError> {
    let mut command = TAKE_OVER.command(&[&keys.inbox]);
    command.arg(&keys.group).arg(dead_host_id).arg(host_id).arg(count);
    let entries: Vec<Value> = from_redis_value(TAKE_OVER.run(connection, &command).await?)?;
    Ok(entries.into_iter().filter_map(delivery).collect())
}

#[cfg(test)]
mod properties;
