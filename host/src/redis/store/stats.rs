//! Figures about the whole group from Redis, for the report.

use std::sync::LazyLock;

use redis::{Pipeline, RedisError, Value, from_redis_value};

use super::keys::Keys;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::script::Source;

/// Figures about the group.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupStats {
    /// Messages that the hosts of the group have settled, wherever the results went, since the first of them started.
    pub processed: u64,
    /// Inbox entries waiting or in progress.
    pub inbox: u64,
    /// Dead letters with a message id.
    pub dead_with_id: u64,
    /// Waiting retries.
    pub retries_waiting: u64,
    /// Memory in use by Redis, in bytes.
    pub memory_bytes: u64,
    /// Memory limit of Redis, in bytes; 0 is no limit.
    pub memory_bytes_max: u64,
}

static TALLY: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/tally.lua")));

/// Reads the figures, and adds this host's own number of settled messages to the group's.
///
/// # Errors
/// Errors of the network or the server.
pub async fn group_stats(
    connection: &mut LibraryConnection,
    keys: &Keys,
    host_id: &str,
    processed: u64,
) -> Result<GroupStats, RedisError> {
    let mut tally = TALLY.command(&[&keys.descriptor]);
    tally.arg(host_id).arg(processed);
    let processed = from_redis_value(TALLY.run(connection, &tally).await?)?;
    let mut pipeline = Pipeline::new();
    for stream in [&keys.inbox, &keys.dead, &keys.dead_index] {
        pipeline.cmd("XLEN").arg(stream);
    }
    pipeline.cmd("ZCARD").arg(&keys.retry);
    pipeline.cmd("INFO").arg("memory");
    let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    let [inbox, dead, without_id, retries, memory]: [Value; 5] = replies
        .try_into()
        .map_err(|_| RedisError::from((redis::ErrorKind::UnexpectedReturnType, "too few replies")))?;
    let memory: String = from_redis_value(memory.extract_error()?)?;
    let number = |reply: Value| Ok::<u64, RedisError>(from_redis_value(reply.extract_error()?)?);
    Ok(GroupStats {
        processed,
        inbox: number(inbox)?,
        dead_with_id: number(dead)?.saturating_sub(number(without_id)?),
        retries_waiting: number(retries)?,
        memory_bytes: info_number(&memory, "used_memory"),
        memory_bytes_max: info_number(&memory, "maxmemory"),
    })
}

/// One line of an `INFO` reply.
#[must_use]
pub fn info_text<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// A number in an `INFO` reply; 0 when it is missing.
#[must_use]
pub fn info_number(info: &str, name: &str) -> u64 {
    info_text(info, name).and_then(|text| text.parse().ok()).unwrap_or(0)
}
