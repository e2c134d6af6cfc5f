//! The dead letters as somebody who looks after them needs them: read page by page, put back, deleted.
//! It knows the stream and nothing of who asks or why.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use redis::{RedisError, from_redis_value};

use super::connection::Connection;
use super::keys::Keys;
use super::script::Source;

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

/// From which end to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Oldest,
    /// Newest first.
    Newest,
}

/// Reads dead letters page by page, up to what was there when it began: what is written meanwhile, such as
/// replayed messages that fail again, does not keep it going for ever.
#[derive(Debug)]
pub struct Reader {
    order: Order,
    /// Where the next page begins and where all ends, oldest first; `None` when there is no further page.
    range: Option<(String, String)>,
}

impl Reader {
    /// A reader for what was written at `since` or later.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn new(
        connection: &mut Connection,
        keys: &Keys,
        since: Option<SystemTime>,
        order: Order,
    ) -> Result<Reader, RedisError> {
        let newest = page(connection, keys, Order::Newest, ("-", "+"), 1).await?.pop();
        let since_ms = since.map(|since| since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis());
        let start = since_ms.map_or("-".to_string(), |ms| ms.to_string());
        Ok(Reader { order, range: newest.map(|newest| (start, newest.entry_id)) })
    }

    /// The next page; empty at the end.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn next(&mut self, connection: &mut Connection, keys: &Keys) -> Result<Vec<Letter>, RedisError> {
        let Some((start, end)) = self.range.take() else { return Ok(Vec::new()) };
        let letters = page(connection, keys, self.order, (&start, &end), PAGE).await?;
        if let Some(last) = letters.last()
            && letters.len() == PAGE
        {
            let beyond = format!("({}", last.entry_id);
            self.range = Some(match self.order {
                Order::Oldest => (beyond, end),
                Order::Newest => (start, beyond),
            });
        }
        Ok(letters)
    }
}

async fn page(
    connection: &mut Connection,
    keys: &Keys,
    order: Order,
    (start, end): (&str, &str),
    count: usize,
) -> Result<Vec<Letter>, RedisError> {
    let mut command = match order {
        Order::Oldest => redis::cmd("XRANGE").arg(&keys.dead).arg(start).arg(end).to_owned(),
        Order::Newest => redis::cmd("XREVRANGE").arg(&keys.dead).arg(end).arg(start).to_owned(),
    };
    type Fields = Vec<(String, Vec<u8>)>;
    let entries: Vec<(String, Fields)> = command.arg("COUNT").arg(count).query_async(connection).await?;
    Ok(entries.into_iter().map(|(entry_id, fields)| Letter { entry_id, fields }).collect())
}

/// How many dead letters there are.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn count(connection: &mut Connection, keys: &Keys) -> Result<u64, RedisError> {
    redis::cmd("XLEN").arg(&keys.dead).query_async(connection).await
}

/// The server's clock, by which entries are numbered.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn server_time(connection: &mut Connection) -> Result<SystemTime, RedisError> {
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
}

/// Puts dead letters back into the inbox.
///
/// # Errors
/// Whatever the network or the server says; then they were put back or not, and asking again does no harm.
pub async fn replay(connection: &mut Connection, keys: &Keys, entry_ids: &[&str]) -> Result<Replayed, RedisError> {
    let mut command = REPLAY.command(&[&keys.dead, &keys.inbox]);
    command.arg(entry_ids);
    let (replayed, gone, unfit) = from_redis_value(REPLAY.run(connection, &command).await?)?;
    Ok(Replayed { replayed, gone, unfit })
}

/// Deletes dead letters for good; the answer says how many were there.
///
/// # Errors
/// Whatever the network or the server says; then any number may have been deleted.
pub async fn purge(connection: &mut Connection, keys: &Keys, entry_ids: &[&str]) -> Result<u64, RedisError> {
    redis::cmd("XDEL").arg(&keys.dead).arg(entry_ids).query_async(connection).await
}
