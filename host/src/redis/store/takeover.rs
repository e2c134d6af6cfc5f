//! Takeover: the owners of deliveries, and the transfer of a dead host's deliveries to another owner.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::{RedisError, Value, from_redis_value};

use super::entry::{Delivery, FORMAT, delivery};
use super::handed::Handed;
use super::keys::{GROUP, Keys, about};
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::resp::{Commands, Cursor};
use crate::redis::client::script::Source;
use crate::redis::client::shared::SharedConnection;

static TAKE_OVER: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/take_over.lua")));

/// Number of deaths at which a delivery becomes a suspect. One or two deaths may be a coincidence.
pub const SUSPECT_FROM: u32 = 3;

/// Delivery count that marks an entry on trial; no entry is really delivered this often.
pub(super) const TRIAL: u32 = 1_000_000;

/// Maximum number of deliveries isolated by one call; each may become 128 entries.
const ISOLATIONS_MAX: usize = 8;

/// Prefix of the names under which entries of a newer format wait for a newer host.
const NEWER_PREFIX: &str = "format:";

/// The name under which entries of this format wait.
#[must_use]
pub fn name_of_newer(format: u32) -> String {
    format!("{NEWER_PREFIX}{format}")
}

/// Whether deliveries under this name have a format that this program cannot read.
#[must_use]
pub fn is_newer(name: &str) -> bool {
    name.strip_prefix(NEWER_PREFIX).is_some_and(|format| format.parse().is_ok_and(|format: u32| format > FORMAT))
}

/// An owner: a name under which deliveries were fetched.
#[derive(Debug)]
pub struct Owner {
    /// Id of the host at the time of the fetch.
    pub name: String,
    /// Number of fetched and unsettled deliveries.
    pub pending: usize,
}

/// All owners in this inbox.
///
/// # Errors
/// Errors of the network or the server.
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

/// Result of taking over a dead host's deliveries. If it is empty, the host had none, and its name is removed.
#[derive(Debug)]
pub struct TakenOver {
    /// Deliveries that this host owns now.
    pub deliveries: Vec<Delivery>,
    /// Number of suspect deliveries. Their messages are back in the inbox, each as an entry of its own.
    pub isolated: usize,
}

/// Takes over up to `count` deliveries of a dead host, and isolates suspects in entries of this format.
///
/// # Errors
/// Errors of the network or the server.
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

/// Marks a suspect delivery as on trial: if its host dies now, the delivery is blamed. A server without this delivery is left
/// as it is.
///
/// # Errors
/// Errors of the network or the server. The call may be repeated.
pub async fn begin_trial(
    connection: &SharedConnection,
    keys: &Keys,
    host_id: &str,
    handed: Handed<'_>,
) -> Result<(), RedisError> {
    if !handed.is_known_to(connection, keys).await? {
        return Ok(());
    }
    let (trial, entry_id) = (TRIAL.to_string(), &handed.delivery.entry_id);
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
