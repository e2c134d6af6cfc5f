//! Operations on the stream of dead letters: read page by page, replay, delete. This file does not know why.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use redis::{RedisError, from_redis_value};

use super::entry::FORMAT;
use super::keys::Keys;
pub use super::pages::Order;
use super::pages::{Entry, Pages};
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::script::Source;
use crate::time::millis;

static REPLAY: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/replay.lua")));

/// Maximum number of dead letters in one read or change; each letter may be as long as a message.
pub const PAGE: usize = 100;

/// A dead letter in Redis.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Id of the entry: the time of writing, by the server's clock.
    pub entry_id: String,
    /// Fields in order. Only the payload may be no text.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Letter {
    /// The value of a field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice())
    }
}

impl From<Entry> for Letter {
    fn from((entry_id, fields): Entry) -> Letter {
        Letter { entry_id, fields }
    }
}

/// Reads dead letters page by page, up to the last letter at the beginning of the read: replayed messages that fail
/// again do not extend the read.
#[derive(Debug)]
pub struct Reader(Pages);

impl Reader {
    /// A reader for letters written at `since` or later.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn new(
        connection: &mut LibraryConnection,
        keys: &Keys,
        since: Option<SystemTime>,
        order: Order,
    ) -> Result<Reader, RedisError> {
        let since = since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        Ok(Reader(Pages::new(connection, &keys.dead, millis(since), order, PAGE).await?))
    }

    /// Reads only letters before this one.
    #[must_use]
    pub fn before(self, entry_id: &str) -> Reader {
        Reader(self.0.before(entry_id))
    }

    /// The next page; empty at the end.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn next(&mut self, connection: &mut LibraryConnection) -> Result<Vec<Letter>, RedisError> {
        Ok(self.0.next(connection).await?.into_iter().map(Letter::from).collect())
    }
}

/// The letter with this id, if there is one.
///
/// # Errors
/// Errors of the network or the server.
pub async fn get(
    connection: &mut LibraryConnection,
    keys: &Keys,
    entry_id: &str,
) -> Result<Option<Letter>, RedisError> {
    let mut command = redis::cmd("XRANGE");
    command.arg(&keys.dead).arg(entry_id).arg(entry_id);
    let found: Vec<Entry> = command.query_async(connection).await?;
    Ok(found.into_iter().next().map(Letter::from))
}

/// Number of dead letters.
///
/// # Errors
/// Errors of the network or the server.
pub async fn count(connection: &mut LibraryConnection, keys: &Keys) -> Result<u64, RedisError> {
    redis::cmd("XLEN").arg(&keys.dead).query_async(connection).await
}

/// The server's clock, from which the ids of entries come.
///
/// # Errors
/// Errors of the network or the server.
pub async fn server_time(connection: &mut LibraryConnection) -> Result<SystemTime, RedisError> {
    let (seconds, micros): (u64, u32) = redis::cmd("TIME").query_async(connection).await?;
    Ok(SystemTime::UNIX_EPOCH + Duration::new(seconds, 0) + Duration::from_micros(micros.into()))
}

/// Result of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Returned to the inbox.
    pub replayed: u64,
    /// Already gone: another command has replayed or deleted the letters.
    pub gone: u64,
    /// Kept, because letters without id and token are no messages.
    pub unfit: u64,
    /// Kept, because their format is newer than this program.
    pub newer: u64,
}

/// Returns dead letters to the inbox.
///
/// # Errors
/// Errors of the network or the server. The dead letters may be replayed or not, and the call may be repeated.
pub async fn replay(
    connection: &mut LibraryConnection,
    keys: &Keys,
    entry_ids: &[&str],
) -> Result<Replayed, RedisError> {
    let mut command = REPLAY.command(&[&keys.dead, &keys.inbox]);
    command.arg(FORMAT).arg(FORMAT).arg(entry_ids);
    let (replayed, gone, unfit, newer) = from_redis_value(REPLAY.run(connection, &command).await?)?;
    Ok(Replayed { replayed, gone, unfit, newer })
}

/// Deletes dead letters, and returns the number of deleted letters.
///
/// # Errors
/// Errors of the network or the server. Some of the dead letters may be deleted then.
pub async fn purge(connection: &mut LibraryConnection, keys: &Keys, entry_ids: &[&str]) -> Result<u64, RedisError> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("XDEL").arg(&keys.dead).arg(entry_ids);
    pipeline.cmd("XDEL").arg(&keys.dead_index).arg(entry_ids).ignore();
    let (deleted,) = pipeline.query_async(connection).await?;
    Ok(deleted)
}
