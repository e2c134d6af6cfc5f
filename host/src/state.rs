//! The state of plugins for the consumers of a host: reads go to Redis, and what is held back becomes part of a settlement. This
//! file does not know when a delivery is settled.

use std::sync::Arc;

use bytes::Bytes;

use crate::config::Buckets;
use crate::group::Group;
use crate::plugin::state::{Answer, Page, Session, Source};
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::client::shared::SharedConnection;
use crate::redis::store::state::{page, read};

/// A delivery that its state makes larger is split.
const BYTES_MAX: usize = 8 << 20;
const KEYS_MAX: usize = 4_096;

/// How often a delivery is processed again because of conflicts, before its messages wait for another attempt.
pub const CONFLICTS_MAX: u32 = 100;

/// After this number of conflicts fewer messages are tried at once: half of them, then a quarter.
const PATIENCE: u32 = 4;

/// The state of plugins in Redis.
struct InRedis {
    group: Arc<Group>,
    connection: Arc<Reconnecting<SharedConnection>>,
}

impl Source for InRedis {
    fn read<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Option<Bytes>>> {
        Box::pin(self.connection.repeat("read the state of the plugin", move |connection| async move {
            read(&connection, &self.group.keys, names).await
        }))
    }

    fn list<'a>(&'a self, bucket: &'a str, cursor: Option<&'a str>) -> Answer<'a, Result<Page, String>> {
        Box::pin(async move {
            let cursor = match cursor.map(str::parse::<u64>) {
                None => 0,
                Some(Ok(cursor)) => cursor,
                Some(Err(_)) => return Err("the cursor is none that a list has returned".to_owned()),
            };
            let list = self.connection.repeat("list the state of the plugin", move |connection| async move {
                page(&connection, &self.group.keys, bucket, cursor).await
            });
            let (keys, next) = list.await;
            Ok((keys, next.map(|next| next.to_string())))
        })
    }
}

/// A session for a consumer with this connection; none if no bucket is granted.
#[must_use]
pub fn session(
    group: &Arc<Group>,
    buckets: &Buckets,
    connection: &Arc<Reconnecting<SharedConnection>>,
) -> Option<Arc<Session>> {
    let source = InRedis { group: group.clone(), connection: connection.clone() };
    (!buckets.is_empty()).then(|| Arc::new(Session::new(Box::new(source), Arc::new(buckets.clone()))))
}

/// Whether the state that a delivery has used is so much that the delivery is split.
#[must_use]
pub fn is_large(session: &Session) -> bool {
    let (bytes, keys) = session.size();
    bytes > BYTES_MAX || keys > KEYS_MAX
}

/// How many of the messages are tried at once after this number of conflicts.
#[must_use]
pub fn at_once(messages: usize, conflicts: u32) -> usize {
    messages.checked_shr(conflicts / PATIENCE).unwrap_or(0).max(1)
}
