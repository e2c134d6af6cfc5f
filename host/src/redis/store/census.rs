//! Counts the data in Redis, for summaries and benchmarks, never on the path of a message.

use redis::{Pipeline, RedisError, cmd};

use super::keys::Keys;
use super::pages::{Order, Pages};
use crate::redis::client::connector::LibraryConnection;

/// Number of entries in one read.
const PAGE_ENTRIES: usize = 5_000;

/// Progress of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Deliveries waiting or in progress.
    pub inbox: u64,
    /// Results in the output stream.
    pub results: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

/// Reads the progress of the group.
///
/// # Errors
/// Errors of the network or the server.
pub async fn progress(connection: &mut LibraryConnection, keys: &Keys) -> Result<Progress, RedisError> {
    let mut pipeline = Pipeline::new();
    for key in [&keys.inbox, &keys.output, &keys.dead] {
        pipeline.cmd("XLEN").arg(key);
    }
    let (inbox, results, dead_letters) = pipeline.query_async(connection).await?;
    Ok(Progress { inbox, results, dead_letters })
}

/// Number of connections subscribed to `channel`.
///
/// # Errors
/// Errors of the network or the server.
pub async fn subscribers(connection: &mut LibraryConnection, channel: &str) -> Result<u64, RedisError> {
    let (_, subscribers): (String, u64) = cmd("PUBSUB").arg("NUMSUB").arg(channel).query_async(connection).await?;
    Ok(subscribers)
}

/// Calls `each` with the `message_id` of every entry of `stream` that has one, and with the entry's `plugin_digest`, in
/// order.
///
/// # Errors
/// Errors of the network or the server.
pub async fn message_ids(
    connection: &mut LibraryConnection,
    stream: &str,
    mut each: impl FnMut(&str, Option<String>),
) -> Result<(), RedisError> {
    let mut pages = Pages::new(connection, stream, 0, Order::Oldest, PAGE_ENTRIES).await?;
    loop {
        let page = pages.next(connection).await?;
        if page.is_empty() {
            return Ok(());
        }
        for (_, fields) in &page {
            let text = |name| {
                let (_, value) = fields.iter().find(|(field, _)| field == name)?;
                Some(String::from_utf8_lossy(value).into_owned())
            };
            if let Some(id) = text("message_id") {
                each(&id, text("plugin_digest"));
            }
        }
    }
}
