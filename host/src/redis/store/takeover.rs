//! Deliveries of hosts that are dead: whose they are, and how they come into other hands.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::{RedisError, Value, from_redis_value};

use super::entry::{Delivery, FORMAT, delivery};
use super::keys::{GROUP, Keys, about};
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::resp::{Commands, Cursor};
use crate::redis::client::script::Source;
use crate::redis::client::shared::SharedConnection;

static TAKE_OVER: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/take_over.lua")));

/// Deaths from which on a delivery is suspected to have caused them. One is bad luck, two may be.
pub const SUSPECT_FROM: u32 = 3;

/// Delivery count that marks an entry on trial; no entry is delivered so often.
pub(super) const TRIAL: u32 = 1_000_000;

/// Deliveries isolated by one call: each may become 128 entries.
const ISOLATIONS_MAX: usize = 8;

/// What the name begins with under which entries of a newer format wait for a host that can read them.
const NEWER_PREFIX: &str = "format:";

/// The name under which entries of this format wait.
#[must_use]
pub fn name_of_newer(format: u32) -> String {
    format!("{NEWER_PREFIX}{format}")
}

/// Whether deliveries under this name are of a format that this program cannot read.
#[must_use]
pub fn is_newer(name: &str) -> bool {
    name.strip_prefix(NEWER_PREFIX).is_some_and(|format| format.parse().is_ok_and(|format: u32| format > FORMAT))
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
pub async fn owners(connection: &mut LibraryConnection, keys: &Keys) -> Result<Vec<Owner>, RedisError> {
    let consumers: Vec<HashMap<String, Value>> = redis::cmd("XINFO")
        .arg("CONSUMERS")
        .arg(&keys.inbox)
        .arg(GROUP)
        .query_async(connection)
        .await
        .map_err(|error| about(&keys.inbox, error))?;
    let owner = |mut consumer: HashMap<String, Value>| {
        let name = from_redis_value(consumer.remove("name")?).ok()?;
        let pending = from_redis_value(consumer.remove("pending")?).ok()?;
        Some(Owner { name, pending })
    };
    Ok(consumers.into_iter().filter_map(owner).collect())
}

/// What came of a look at a dead host's deliveries. Nothing: it had none and is forgotten.
#[derive(Debug)]
pub struct TakenOver {
    /// Deliveries that are this host's now.
    pub deliveries: Vec<Delivery>,
    /// Deliveries that were suspected to have killed their hosts; their messages are back in the inbox, each alone.
    pub isolated: usize,
}

/// Takes up to `count` deliveries of a dead host over, and isolates those under suspicion in entries of this format.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn take_over(
    connection: &mut LibraryConnection,
    keys: &Keys,
    dead_host_id: &str,
    host_id: &str,
    count: usize,
    format: u32,
) -> Result<TakenOver, RedisError> {
    let permit = format!("{}{}", keys.permit_prefix, dead_host_id);
    let mut command = TAKE_OVER.command(&[&keys.inbox, &permit]);
    command.arg(GROUP).arg(dead_host_id).arg(host_id).arg(count);
    command.arg(SUSPECT_FROM).arg(TRIAL).arg(ISOLATIONS_MAX).arg(format).arg(FORMAT);
    let (entries, isolated): (Vec<Value>, usize) = from_redis_value(TAKE_OVER.run(connection, &command).await?)?;
    Ok(TakenOver { deliveries: entries.into_iter().filter_map(delivery).collect(), isolated })
}

/// Marks a suspect delivery as on trial: should its host die now, it is to blame.
///
/// # Errors
/// Whatever the network or the server says; marking again does no harm.
pub async fn begin_trial(
    connection: &SharedConnection,
    keys: &Keys,
    host_id: &str,
    entry_id: &str,
) -> Result<(), RedisError> {
    let trial = TRIAL.to_string();
    let words = ["XCLAIM", &keys.inbox, GROUP, host_id, "0", entry_id, "RETRYCOUNT", &trial, "JUSTID"];
    let mut commands = Commands::default();
    commands.command(&words.map(str::as_bytes));
    Cursor::new(&connection.ask(commands).await?, 0).value().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_newer_format_is_left_to_others() {
        assert!(is_newer(&name_of_newer(FORMAT + 1)));
        for name in [&name_of_newer(FORMAT), "format:x", "web1-1-00000000", "web1-1-00000000/handed-back"] {
            assert!(!is_newer(name), "{name}");
        }
    }
}
