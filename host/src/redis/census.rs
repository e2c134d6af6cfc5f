//! What lies in Redis, counted: for summaries and benchmarks, never on the path of a message.

use redis::streams::StreamRangeReply;
use redis::{Pipeline, RedisError, cmd};

use super::connection::Connection;
use super::keys::Keys;

/// Entries read at a time.
const PAGE_ENTRIES: usize = 5_000;

/// How far the group has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Deliveries waiting or in work.
    pub inbox: u64,
    /// Results in the output stream.
    pub results: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

/// Reads how far the group has come.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn progress(connection: &mut Connection, keys: &Keys) -> Result<Progress, RedisError> {
    let mut pipeline = Pipeline::new();
    for key in [&keys.inbox, &keys.output, &keys.dead] {
        pipeline.cmd("XLEN").arg(key);
    }
    let (inbox, results, dead_letters) = pipeline.query_async(connection).await?;
    Ok(Progress { inbox, results, dead_letters })
}

/// How many connections are subscribed to `channel`.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn subscribers(connection: &mut Connection, channel: &str) -> Result<u64, RedisError> {
    let (_, subscribers): (String, u64) = cmd("PUBSUB").arg("NUMSUB").arg(channel).query_async(connection).await?;
    Ok(subscribers)
}

/// Hands the `message_id` of every entry of `stream` that has one to `each`, with the entry's `plugin_digest`, in order.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn message_ids(
    connection: &mut Connection,
    stream: &str,
    mut each: impl FnMut(&str, Option<String>),
) -> Result<(), RedisError> {
    let mut from = "-".to_owned();
    loop {
        let page: StreamRangeReply = cmd("XRANGE")
            .arg(stream)
            .arg(&from)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE_ENTRIES)
            .query_async(connection)
            .await?;
        let Some(last) = page.ids.last() else { return Ok(()) };
        // The bracket leaves this entry itself out.
        from = format!("({}", last.id);
        for entry in &page.ids {
            if let Some(id) = entry.get::<String>("message_id") {
                each(&id, entry.get("plugin_digest"));
            }
        }
    }
}
