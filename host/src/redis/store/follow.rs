//! Reads streams as they grow, as a bystander: without a consumer group, and without a trace in Redis.

use std::time::Duration;

use redis::{RedisError, cmd};

use crate::redis::client::connector::LibraryConnection;

/// An entry of a stream: its id, and names and values in order, which may be any bytes.
pub type RawEntry = (String, Vec<(Vec<u8>, Vec<u8>)>);

/// Waits up to `block` for entries behind these ids, and reads at most `count` entries of each stream. The reply names only
/// the streams that have some.
///
/// # Errors
/// Errors of the network or the server.
pub async fn follow(
    connection: &mut LibraryConnection,
    streams: &[(&str, &str)],
    count: usize,
    block: Duration,
) -> Result<Vec<(String, Vec<RawEntry>)>, RedisError> {
    let mut command = cmd("XREAD");
    command.arg("COUNT").arg(count).arg("BLOCK").arg(block.as_millis().max(1).to_string()).arg("STREAMS");
    for (key, _) in streams {
        command.arg(key);
    }
    for (_, after) in streams {
        command.arg(after);
    }
    let found: Option<_> = command.query_async(connection).await?;
    Ok(found.unwrap_or_default())
}
