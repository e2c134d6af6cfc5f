//! Deliveries in Redis: fetched from the inbox, claimed message by message, settled in one step, taken over from the dead.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, Value, from_redis_value};

use super::connection::Connection;
use super::entries::Entries;
use super::keys::Keys;
use super::lane::Lane;
use super::resp::{Commands, Cursor, Head, malformed};
use super::retries::{HISTORY_FIELD, History, Retries};
use super::script::Source;
use super::wire::Wire;
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
    /// Token of its claims, when they were made as it was appended.
    pub claimed_with: Option<String>,
}

impl Delivery {
    /// A delivery that came without claims.
    #[must_use]
    pub fn new(entry_id: String, messages: Vec<Message>) -> Delivery {
        Delivery { entry_id, messages, crashes: 0, claimed_with: None }
    }

    /// Adds a pair of the entry: a message, the history of the message after it, or in the first place the token of all.
    fn add(&mut self, id: &[u8], body: &[u8], history: &mut Option<Box<History>>) {
        if id == HISTORY_FIELD {
            *history = History::read(body).map(Box::new);
            if history.is_none() && self.messages.is_empty() {
                self.claimed_with = Some(text(body));
            }
            return;
        }
        let history = history.take();
        self.crashes = self.crashes.max(history.as_ref().map_or(0, |history| history.crashes));
        self.messages.push(Message { id: text(id), body: text(body), history });
    }

    /// The token of a message's claim.
    #[must_use]
    pub fn token<'a>(&'a self, message: &'a Message) -> &'a str {
        let own = self.claimed_with.as_ref().unwrap_or(&self.entry_id);
        message.history.as_ref().map_or(own, |history| &history.token)
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
    wire: &mut Wire,
    keys: &Keys,
    host_id: &str,
    count: usize,
    block: Duration,
) -> Result<Vec<Delivery>, RedisError> {
    let (count, block_ms) = (count.to_string(), block.as_millis().to_string());
    let words =
        ["XREADGROUP", "GROUP", &keys.group, host_id, "COUNT", &count, "BLOCK", &block_ms, "STREAMS", &keys.inbox, ">"];
    let mut commands = Commands::default();
    commands.command(&words.map(str::as_bytes));
    fetched(&wire.ask(&commands, block).await?)
}

/// The deliveries in a reply of `XREADGROUP`: `[[stream, entries]]`, or nil when there are none.
fn fetched(reply: &[u8]) -> Result<Vec<Delivery>, RedisError> {
    let mut reply = Cursor::new(reply, 0);
    let streams = match reply.value()? {
        Head::Array(streams) => streams,
        Head::Nil => 0,
        _ => return Err(malformed()),
    };
    let mut deliveries = Vec::new();
    for _ in 0..streams {
        reply.array()?;
        reply.bulk()?;
        for _ in 0..reply.array()? {
            reply.array()?;
            let entry_id = text(reply.bulk()?);
            match reply.value()? {
                Head::Array(values) => {
                    let mut delivery = Delivery::new(entry_id, Vec::with_capacity(values / 2));
                    let mut history = None;
                    for _ in 0..values / 2 {
                        delivery.add(reply.bulk()?, reply.bulk()?, &mut history);
                    }
                    deliveries.push(delivery);
                }
                // Somebody has deleted it.
                Head::Nil => {}
                _ => return Err(malformed()),
            }
        }
    }
    Ok(deliveries)
}

/// An entry as `XCLAIM` gives it: id and a flat list of fields and values.
fn delivery(entry: Value) -> Option<Delivery> {
    let Value::Array(entry) = entry else {
        return None;
    };
    let [Value::BulkString(entry_id), Value::Array(values)] = &entry[..] else {
        return None;
    };
    let mut delivery = Delivery::new(text(entry_id), Vec::with_capacity(values.len() / 2));
    let mut history = None;
    for pair in values.chunks_exact(2) {
        if let [Value::BulkString(id), Value::BulkString(body)] = pair {
            delivery.add(id, body, &mut history);
        }
    }
    Some(delivery)
}

/// The intake writes only UTF-8; should anybody else have written, the plugin gets replacement characters.
fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// The claims of the messages of a delivery that `wanted` names, as they are sent.
fn claims(keys: &Keys, delivery: &Delivery, wanted: &[usize], window: Duration) -> Commands {
    let mut commands = Commands::default();
    let window_ms = window.as_millis().to_string();
    for index in wanted {
        let message = &delivery.messages[*index];
        commands.begin(7);
        commands.word("SET");
        commands.prefixed(&keys.claim_prefix, &message.id);
        for word in [delivery.token(message), "NX", "GET", "PX", &window_ms] {
            commands.word(word);
        }
    }
    commands
}

/// Claims every message of a delivery that `wanted` names; the answer says which are ours.
/// A claim that carries the message's own token is ours from an earlier try or attempt.
///
/// # Errors
/// Whatever the network or the server says; then any number of the claims may have been made, under their tokens.
pub async fn claim(
    lane: &Lane,
    keys: &Keys,
    delivery: &Delivery,
    wanted: &[usize],
    window: Duration,
) -> Result<Vec<bool>, RedisError> {
    let replies = lane.ask(claims(keys, delivery, wanted, window)).await?;
    let mut replies = Cursor::new(&replies, 0);
    let mut is_ours = |index: &usize| match replies.value()? {
        Head::Bulk(holder) => Ok(holder == delivery.token(&delivery.messages[*index]).as_bytes()),
        _ => Ok(true),
    };
    wanted.iter().map(&mut is_ours).collect()
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
    lane: &Lane,
    keys: &Keys,
    output: &OutputConfig,
    dedup_window: Duration,
    settled: Settled<'_>,
) -> Result<bool, RedisError> {
    let commands = || settlement(keys, output, dedup_window, settled);
    let mut reply = lane.ask(commands()).await?;
    if let Err(error) = Cursor::new(&reply, 0).value()
        && error.code() == Some("NOSCRIPT")
    {
        SETTLE.load(lane).await?;
        reply = lane.ask(commands()).await?;
    }
    Ok(Cursor::new(&reply, 0).value()? == Head::Line(b":1"))
}

/// The call of the script that settles a delivery, as it is sent.
fn settlement(keys: &Keys, output: &OutputConfig, dedup_window: Duration, settled: Settled<'_>) -> Commands {
    let Settled { entry_id, results, dead_letters, retries } = settled;
    let mut commands = Commands::default();
    let waiting_keys = if retries.is_empty() { 0 } else { 1 + retries.len() };
    let arguments = 4 + results.arguments() + dead_letters.arguments() + retries.arguments();
    SETTLE.begin(&mut commands, 3 + waiting_keys, arguments);
    for key in [&keys.inbox, &keys.output, &keys.dead] {
        commands.word(key);
    }
    if !retries.is_empty() {
        commands.word(&keys.retry);
        for id in retries.message_ids() {
            commands.prefixed(&keys.claim_prefix, id);
        }
    }
    commands.word(&keys.group);
    commands.word(entry_id);
    commands.number(output.length_max);
    commands.number(output.dead_length_max);
    results.write_to(&mut commands);
    dead_letters.write_to(&mut commands);
    retries.write_to(&mut commands, dedup_window);
    commands
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
        let name = from_redis_value(consumer.remove("name")?).ok()?;
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
    let streams: Option<Vec<(Value, Vec<Value>)>> = command.query_async(connection).await?;
    let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
    Ok(entries.filter_map(delivery).collect())
}

/// Gives deliveries of a host that stops to a name that nobody has, so that others take them over at once. Nobody may have
/// begun them: the host's permit goes on, for what it still finishes.
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
    let permit = format!("{}{}", keys.permit_prefix, dead_host_id);
    let mut command = TAKE_OVER.command(&[&keys.inbox, &permit]);
    command.arg(&keys.group).arg(dead_host_id).arg(host_id).arg(count);
    command.arg(SUSPECT_FROM).arg(TRIAL).arg(ISOLATIONS_MAX);
    let (entries, isolated): (Vec<Value>, usize) = from_redis_value(TAKE_OVER.run(connection, &command).await?)?;
    Ok(TakenOver { deliveries: entries.into_iter().filter_map(delivery).collect(), isolated })
}

/// Marks a suspect delivery as on trial: should its host die now, it is to blame.
///
/// # Errors
/// Whatever the network or the server says; marking again does no harm.
pub async fn begin_trial(lane: &Lane, keys: &Keys, host_id: &str, entry_id: &str) -> Result<(), RedisError> {
    let trial = TRIAL.to_string();
    let words = ["XCLAIM", &keys.inbox, &keys.group, host_id, "0", entry_id, "RETRYCOUNT", &trial, "JUSTID"];
    let mut commands = Commands::default();
    commands.command(&words.map(str::as_bytes));
    Cursor::new(&lane.ask(commands).await?, 0).value().map(drop)
}

#[cfg(test)]
mod properties;
