//! The inbox for its readers: create, fetch, hand back.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::{RedisError, Value, from_redis_value};

use super::entry::{Delivery, delivery, fetched};
use super::keys::{GROUP, Keys, about};
use super::takeover::TRIAL;
use crate::redis::client::connection::Connection;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::resp::{Commands, Cursor, Head};
use crate::redis::client::script::Source;
use crate::redis::client::shared::SharedConnection;

static HAND_BACK: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/hand_back.lua")));

/// Creates the inbox and its consumer group, if they do not exist.
///
/// # Errors
/// Errors of the network or the server.
pub async fn ensure_group(connection: &mut LibraryConnection, keys: &Keys) -> Result<(), RedisError> {
    let mut command = redis::cmd("XGROUP");
    command.arg("CREATE").arg(&keys.inbox).arg(GROUP).arg("0").arg("MKSTREAM");
    match command.query_async(connection).await {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        created => created.map_err(|error| about(&keys.inbox, error)),
    }
}

/// Number of deliveries in the inbox, waiting or in progress.
///
/// # Errors
/// Errors of the network or the server.
pub async fn inbox_length(connection: &mut LibraryConnection, keys: &Keys) -> Result<u64, RedisError> {
    redis::cmd("XLEN").arg(&keys.inbox).query_async(connection).await
}

/// What came of a fetch.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The deliveries.
    pub deliveries: Vec<Delivery>,
    /// Value of the host's permit to settle, on the server that handed the deliveries out and before it did so.
    pub permit: Option<Arc<str>>,
}

/// Waits up to `block` for deliveries and takes at most `count`.
///
/// # Errors
/// Errors of the network or the server; `NOGROUP` when the inbox was deleted.
pub async fn fetch(
    connection: &mut Connection,
    keys: &Keys,
    host_id: &str,
    count: usize,
    block: Duration,
) -> Result<Fetched, RedisError> {
    let (count, block_ms) = (count.to_string(), block.as_millis().to_string());
    let words =
        ["XREADGROUP", "GROUP", GROUP, host_id, "COUNT", &count, "BLOCK", &block_ms, "STREAMS", &keys.inbox, ">"];
    let mut commands = Commands::default();
    let permit = format!("{}{host_id}", keys.permit_prefix);
    commands.command(&["GET", &permit].map(str::as_bytes));
    commands.command(&words.map(str::as_bytes));
    let reply = connection.ask(&commands, block).await?;
    let mut replies = Cursor::new(&reply, 0);
    let permit = match replies.value() {
        Ok(Head::Bulk(value)) => str::from_utf8(value).ok().map(Arc::from),
        _ => None,
    };
    let deliveries = fetched(&mut replies).map_err(|error| about(&keys.inbox, error))?;
    Ok(Fetched { deliveries, permit })
}

/// Whether the inbox has a delivery that nobody has fetched.
///
/// # Errors
/// Errors of the network or the server; `NOGROUP` when the inbox was deleted.
pub async fn has_waiting(connection: &SharedConnection, keys: &Keys) -> Result<bool, RedisError> {
    let mut commands = Commands::default();
    commands.command(&["XLEN", &keys.inbox].map(str::as_bytes));
    commands.command(&["XPENDING", &keys.inbox, GROUP].map(str::as_bytes));
    let reply = connection.ask(commands).await?;
    let mut replies = Cursor::new(&reply, 0);
    let all = replies.value()?.number()?;
    replies.array()?;
    let fetched = replies.value()?.number()?;
    Ok(all > fetched)
}

/// All deliveries that this name has fetched and not settled, oldest first.
///
/// # Errors
/// Errors of the network or the server.
pub async fn fetched_before(
    connection: &mut LibraryConnection,
    keys: &Keys,
    host_id: &str,
) -> Result<Vec<Delivery>, RedisError> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(GROUP).arg(host_id).arg("STREAMS").arg(&keys.inbox).arg("0");
    let streams: Option<Vec<(Value, Vec<Value>)>> = command.query_async(connection).await?;
    let entries = streams.into_iter().flatten().flat_map(|(_, entries)| entries);
    Ok(entries.filter_map(delivery).collect())
}

/// The deliveries that a host hands back.
#[derive(Clone, Copy, Debug)]
pub enum HandBack<'a> {
    /// These deliveries, which no consumer has begun. The host continues to settle others.
    Unbegun(&'a [String]),
    /// These deliveries, during which a consumer has panicked: this counts as a death. What the host settles under its present
    /// permit is discarded.
    Panicked(&'a [String]),
    /// All fetched and unsettled deliveries, begun or not. The host cannot settle under its permit any more.
    Everything,
}

/// The name under which a host hands deliveries back.
#[must_use]
pub fn handed_back(host_id: &str) -> String {
    format!("{host_id}/handed-back")
}

/// The name under which deliveries count a death although their host is alive.
#[must_use]
pub fn panicked(host_id: &str) -> String {
    format!("{host_id}/panicked")
}

/// Gives deliveries of this host to a name that is not a host's name, so that hosts take them over at once, and
/// returns their number.
///
/// # Errors
/// Errors of the network or the server. The call may be repeated.
pub async fn hand_back(
    connection: &mut LibraryConnection,
    keys: &Keys,
    host_id: &str,
    to: &str,
    what: HandBack<'_>,
) -> Result<usize, RedisError> {
    let permit = format!("{}{host_id}", keys.permit_prefix);
    let mut command = HAND_BACK.command(&[&keys.inbox, &permit]);
    command.arg(GROUP).arg(host_id).arg(to).arg(TRIAL);
    match what {
        HandBack::Unbegun(entry_ids) => command.arg("unbegun").arg(entry_ids),
        HandBack::Panicked(entry_ids) => command.arg("panicked").arg(entry_ids),
        HandBack::Everything => command.arg("everything"),
    };
    Ok(from_redis_value(HAND_BACK.run(connection, &command).await?)?)
}
