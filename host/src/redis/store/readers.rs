//! What the consumer groups of a stream have not read when it is trimmed. This file does not say when that is worth a word.

use redis::streams::StreamInfoGroupsReply;
use redis::{RedisError, cmd};

use super::look::{Stream, prepare, streams};
use crate::redis::client::connector::LibraryConnection;

/// A consumer group, and what it has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Name of the group.
    pub name: String,
    /// Id of the last entry that it was given.
    pub last: String,
    /// Entries that it was given, as far as Redis knows.
    pub read: Option<u64>,
}

/// The facts of a stream, and its readers.
///
/// # Errors
/// Errors of the network or the server; `NOPERM` where the user may not look.
pub async fn readers(connection: &mut LibraryConnection, key: &str) -> Result<(Stream, Vec<Reader>), RedisError> {
    let groups: Result<StreamInfoGroupsReply, _> = cmd("XINFO").arg("GROUPS").arg(key).query_async(connection).await;
    let groups = match groups {
        // There is no stream yet.
        Err(error) if error.code() == Some("ERR") => return Ok((Stream::default(), Vec::new())),
        groups => groups?.groups,
    };
    let stream = match streams(connection, &[key]).await {
        Err(error) if error.code() == Some("NOSCRIPT") => {
            prepare(connection).await?;
            streams(connection, &[key]).await?
        }
        streams => streams?,
    };
    let stream = stream.into_iter().next().unwrap_or_default();
    let reader = |group: redis::streams::StreamInfoGroup| Reader {
        name: group.name,
        last: group.last_delivered_id,
        read: group.entries_read.and_then(|read| u64::try_from(read).ok()),
    };
    Ok((stream, groups.into_iter().map(reader).collect()))
}
