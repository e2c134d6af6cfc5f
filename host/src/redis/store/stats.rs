//! Figures about the whole group from Redis, for the report.

use redis::{Pipeline, RedisError, Value, from_redis_value};

use super::keys::Keys;
use crate::redis::client::connector::LibraryConnection;

/// Figures about the group.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupStats {
    /// Results ever written to the output stream, by all hosts.
    pub results: u64,
    /// Inbox entries waiting or in progress.
    pub inbox: u64,
    /// Waiting retries.
    pub retries_waiting: u64,
    /// Memory in use by Redis, in bytes.
    pub memory_bytes: u64,
    /// Memory limit of Redis, in bytes; 0 is no limit.
    pub memory_bytes_max: u64,
}

/// Reads the figures.
///
/// # Errors
/// Errors of the network or the server.
pub async fn group_stats(connection: &mut LibraryConnection, keys: &Keys) -> Result<GroupStats, RedisError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("XINFO").arg("STREAM").arg(&keys.output);
    pipeline.cmd("XLEN").arg(&keys.inbox);
    pipeline.cmd("ZCARD").arg(&keys.retry);
    pipeline.cmd("INFO").arg("memory");
    let replies = connection.send_packed_commands(&pipeline, 0, pipeline.len()).await?;
    let [output, inbox, retries, memory]: [Value; 4] = replies
        .try_into()
        .map_err(|_| RedisError::from((redis::ErrorKind::UnexpectedReturnType, "too few replies")))?;
    let memory: String = from_redis_value(memory.extract_error()?)?;
    Ok(GroupStats {
        results: entries_added(output),
        inbox: from_redis_value(inbox.extract_error()?)?,
        retries_waiting: from_redis_value(retries.extract_error()?)?,
        memory_bytes: info_number(&memory, "used_memory"),
        memory_bytes_max: info_number(&memory, "maxmemory"),
    })
}

/// From the flat list of `XINFO STREAM`; an error means that the stream does not exist yet.
fn entries_added(info: Value) -> u64 {
    let Ok(Value::Array(fields)) = info.extract_error() else {
        return 0;
    };
    let is_name = |field: &Value| matches!(field, Value::BulkString(name) if name == b"entries-added");
    match fields.iter().skip_while(|field| !is_name(field)).nth(1) {
        Some(Value::Int(added)) => u64::try_from(*added).unwrap_or(0),
        _ => 0,
    }
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
