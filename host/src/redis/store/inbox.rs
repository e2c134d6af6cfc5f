//! The inbox as its readers see it: made, fetched from, handed back to.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, Value, from_redis_value};

use super::entry::{Delivery, delivery, fetched};
use super::keys::{GROUP, Keys, about};
use super::takeover::TRIAL;
use crate::redis::client::connection::Connection;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::resp::Commands;
use crate::redis::client::script::Source;

static HAND_BACK: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/hand_back.lua")));

/// Creates the inbox and its consumer group, unless they are there.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn ensure_group(connection: &mut LibraryConnection, keys: &Keys) -> Result<(), RedisError> {
    let mut command = redis::cmd("XGROUP");
    command.arg("CREATE").arg(&keys.inbox).arg(GROUP).arg("0").arg("MKSTREAM");
    match command.query_async(connection).await {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        created => created.map_err(|error| about(&keys.inbox, error)),
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
    let (count, block_ms) = (count.to_string(), block.as_millis().to_string());
    let words =
        ["XREADGROUP", "GROUP", GROUP, host_id, "COUNT", &count, "BLOCK", &block_ms, "STREAMS", &keys.inbox, ">"];
    let mut commands = Commands::default();
    commands.command(&words.map(str::as_bytes));
    let reply = connection.ask(&commands, block).await?;
    fetched(&reply).map_err(|error| about(&keys.inbox, error))
}

/// Everything fetched under this name and not settled, oldest first.
///
/// # Errors
/// Whatever the network or the server says.
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

/// Which deliveries of a host go back to the others.
#[derive(Clone, Copy, Debug)]
pub enum HandBack<'a> {
    /// These, which no consumer has begun. The host goes on settling others.
    Unbegun(&'a [String]),
    /// Everything that the host has fetched and not settled, begun or not. The host settles nothing more under its permit.
    Everything,
}

/// Gives deliveries of this host to a name that is no host's, so that others take them over at once, and says how many they
/// were. It is no death: the number of hosts that died with a delivery stays as it is.
///
/// # Errors
/// Whatever the network or the server says; asking again does no harm.
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
    if let HandBack::Unbegun(entry_ids) = what {
        command.arg(entry_ids);
    }
    Ok(from_redis_value(HAND_BACK.run(connection, &command).await?)?)
}
