//! The dead letters as somebody who looks after them needs them: read page by page, put back, deleted.
//! It knows the stream and nothing of who asks or why.

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

/// Dead letters read or changed at once; each may be as long as a message.
pub const PAGE: usize = 100;

/// One dead letter as it lies in Redis.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Id of its entry: when it was written, by the server's clock.
    pub entry_id: String,
    /// Its fields in order. Only the payload may be anything but text.
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

/// Reads dead letters page by page, up to what was there when it began: replayed messages that fail again do not keep it
/// going for ever.
#[derive(Debug)]
pub struct Reader(Pages);

impl Reader {
    /// A reader for what was written at `since` or later.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn new(
        connection: &mut LibraryConnection,
        keys: &Keys,
        since: Option<SystemTime>,
        order: Order,
    ) -> Result<Reader, RedisError> {
        let since = since.and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok()).unwrap_or_default();
        Ok(Reader(Pages::new(connection, &keys.dead, millis(since), order, PAGE).await?))
    }

    /// The next page; empty at the end.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn next(&mut self, connection: &mut LibraryConnection) -> Result<Vec<Letter>, RedisError> {
        Ok(self.0.next(connection).await?.into_iter().map(Letter::from).collect())
    }
}

/// How many dead letters there are.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn count(connection: &mut LibraryConnection, keys: &Keys) -> Result<u64, RedisError> {
    redis::cmd("XLEN").arg(&keys.dead).query_async(connection).await
}

/// The server's clock, by which entries are numbered.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn server_time(connection: &mut LibraryConnection) -> Result<SystemTime, RedisError> {
    let (seconds, micros): (u64, u32) = redis::cmd("TIME").query_async(connection).await?;
    Ok(SystemTime::UNIX_EPOCH + Duration::new(seconds, 0) + Duration::from_micros(micros.into()))
}

/// What became of dead letters that were to be put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Put back into the inbox.
    pub replayed: u64,
    /// Not there any more: somebody else was quicker.
    pub gone: u64,
    /// Still there, because without id and token they are no messages.
    pub unfit: u64,
    /// Still there, because they are of a format that this program cannot read.
    pub newer: u64,
}

/// Puts dead letters back into the inbox.
///
/// # Errors
/// Whatever the network or the server says; then they were put back or not, and asking again does no harm.
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

/// Deletes dead letters for good; the answer says how many were there.
///
/// # Errors
/// Whatever the network or the server says; then any number may have been deleted.
pub async fn purge(connection: &mut LibraryConnection, keys: &Keys, entry_ids: &[&str]) -> Result<u64, RedisError> {
    redis::cmd("XDEL").arg(&keys.dead).arg(entry_ids).query_async(connection).await
}
