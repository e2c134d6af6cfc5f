//! Reads which deliveries are in the inbox, and who has them, without their messages. Nothing is changed.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::{RedisError, Value, cmd, from_redis_value};

use super::keys::{GROUP, Keys, about};
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::script::Source;
use crate::time::stamp_ms;

static INBOX: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/inbox.lua")));

/// Entries that one call of the script reads. A call keeps the server busy, and an entry may be as long as 128 messages.
const CALL_ENTRIES_MAX: usize = 25;

/// A delivery in the inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Id of the entry.
    pub entry_id: String,
    /// Its age by the server's clock.
    pub age_ms: u64,
    /// Number of its messages.
    pub messages: u64,
    /// Who has fetched it: a host, or a name under which a host has handed it back.
    pub owner: Option<String>,
    /// How often it was fetched.
    pub deliveries: Option<u64>,
}

/// The oldest deliveries, `limit` at most, and whether there are more.
///
/// # Errors
/// Errors of the network or the server.
pub async fn oldest(
    connection: &mut LibraryConnection,
    keys: &Keys,
    limit: usize,
) -> Result<(Vec<Waiting>, bool), RedisError> {
    let (seconds, micros): (u64, u64) = cmd("TIME").query_async(connection).await?;
    let now_ms = seconds * 1_000 + micros / 1_000;
    let (mut found, mut from): (Vec<(String, u64)>, String) = (Vec::new(), "-".to_owned());
    // One more than wanted shows that there are more.
    while found.len() <= limit {
        let wanted = CALL_ENTRIES_MAX.min(limit + 1 - found.len());
        let mut command = INBOX.command(&[&keys.inbox]);
        command.arg(&from).arg(wanted);
        let reply = INBOX.run(connection, &command).await.map_err(|error| about(&keys.inbox, error))?;
        let pairs: Vec<(String, u64)> = pairs(from_redis_value(reply)?)?;
        let is_end = pairs.len() < wanted;
        found.extend(pairs);
        match found.last() {
            Some((last, _)) if !is_end => from = format!("({last}"),
            _ => break,
        }
    }
    let has_more = found.len() > limit;
    found.truncate(limit);
    let mut owners = owners(connection, keys, &found).await?;
    let entries = found.into_iter().map(|(entry_id, messages)| {
        let (owner, deliveries) = owners.remove(&entry_id).unzip();
        let age_ms = now_ms.saturating_sub(stamp_ms(&entry_id).unwrap_or(now_ms));
        Waiting { entry_id, age_ms, messages, owner, deliveries }
    });
    Ok((entries.collect(), has_more))
}

fn pairs(flat: Vec<Value>) -> Result<Vec<(String, u64)>, RedisError> {
    let mut flat = flat.into_iter();
    let mut pairs = Vec::with_capacity(flat.len() / 2);
    while let (Some(id), Some(messages)) = (flat.next(), flat.next()) {
        pairs.push((from_redis_value(id)?, from_redis_value(messages)?));
    }
    Ok(pairs)
}

/// Owner and number of deliveries of those that somebody has fetched.
async fn owners(
    connection: &mut LibraryConnection,
    keys: &Keys,
    entries: &[(String, u64)],
) -> Result<HashMap<String, (String, u64)>, RedisError> {
    let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else { return Ok(HashMap::new()) };
    let mut command = cmd("XPENDING");
    command.arg(&keys.inbox).arg(GROUP).arg(first).arg(last).arg(entries.len());
    let pending: Result<Vec<(String, String, u64, u64)>, RedisError> = command.query_async(connection).await;
    match pending {
        Ok(pending) => Ok(pending.into_iter().map(|(id, owner, _, count)| (id, (owner, count))).collect()),
        // Before the first delivery there is no group.
        Err(error) if error.code() == Some("NOGROUP") => Ok(HashMap::new()),
        Err(error) => Err(about(&keys.inbox, error)),
    }
}
