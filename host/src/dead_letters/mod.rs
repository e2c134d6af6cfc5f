//! What can be done with dead letters: read, counted, put back into the inbox, deleted.
//! It knows no command line and no terminal; how dead letters lie in Redis is the business of `redis::store::dead`.

mod filter;

use std::time::SystemTime;

use redis::RedisError;

pub use self::filter::Filter;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::store::dead::{self, Order, Reader};
pub use crate::redis::store::dead::{Letter, Replayed};
use crate::redis::store::keys::Keys;

/// The dead letters of one output stream.
///
/// Every function ends with an error when the network or the server says so; what was done before stays done, and
/// each may be called again.
#[expect(missing_debug_implementations, reason = "a connection has none")]
pub struct DeadLetters {
    connection: LibraryConnection,
    keys: Keys,
}

/// How far something is that goes through all dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Dead letters that were looked at.
    pub seen: u64,
    /// Those of them with which it was done.
    pub done: u64,
}

/// Dead letters that are being listed, newest first.
#[expect(missing_debug_implementations, reason = "a connection has none")]
pub struct Listing<'a> {
    letters: &'a mut DeadLetters,
    filter: &'a Filter,
    reader: Reader,
    left: usize,
    has_more: bool,
}

impl DeadLetters {
    /// The dead letters that this connection reaches.
    #[must_use]
    pub fn new(connection: LibraryConnection, keys: Keys) -> DeadLetters {
        DeadLetters { connection, keys }
    }

    /// The server's clock, by which [`Filter::since`] counts.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn server_time(&mut self) -> Result<SystemTime, RedisError> {
        dead::server_time(&mut self.connection).await
    }

    /// How many there are altogether.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn total(&mut self) -> Result<u64, RedisError> {
        dead::count(&mut self.connection, &self.keys).await
    }

    /// Lists the newest that the filter lets through, `limit` at most, in pages: payloads can be long.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn list<'a>(&'a mut self, filter: &'a Filter, limit: usize) -> Result<Listing<'a>, RedisError> {
        let reader = self.reader(filter, Order::Newest).await?;
        Ok(Listing { letters: self, filter, reader, left: limit, has_more: false })
    }

    /// All with this id, of the message or of the entry, newest first.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn find(&mut self, id: &str) -> Result<Vec<Letter>, RedisError> {
        let filter = Filter::of_id(id);
        let mut listing = self.list(&filter, usize::MAX).await?;
        let mut found = Vec::new();
        while let Some(page) = listing.next().await? {
            found.extend(page);
        }
        Ok(found)
    }

    /// How many the filter lets through.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn count(&mut self, filter: &Filter) -> Result<u64, RedisError> {
        let mut reader = self.reader(filter, Order::Oldest).await?;
        let mut count = 0;
        loop {
            let page = reader.next(&mut self.connection).await?;
            if page.is_empty() {
                return Ok(count);
            }
            count += page.iter().filter(|letter| filter.matches(letter)).count() as u64;
        }
    }

    /// Puts what the filter lets through back into the inbox, oldest first, and tells `progress` after each page.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn replay(
        &mut self,
        filter: &Filter,
        mut progress: impl FnMut(Progress),
    ) -> Result<Replayed, RedisError> {
        let mut reader = self.reader(filter, Order::Oldest).await?;
        let (mut total, mut seen) = (Replayed::default(), 0);
        loop {
            let page = reader.next(&mut self.connection).await?;
            if page.is_empty() {
                return Ok(total);
            }
            let ids = chosen(&page, filter);
            if !ids.is_empty() {
                let done = dead::replay(&mut self.connection, &self.keys, &ids).await?;
                total.replayed += done.replayed;
                total.gone += done.gone;
                total.unfit += done.unfit;
                total.newer += done.newer;
            }
            seen += page.len() as u64;
            progress(Progress { seen, done: total.replayed });
        }
    }

    /// Deletes what the filter lets through for good, oldest first, tells `progress` after each page, and says how many
    /// were deleted.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn purge(&mut self, filter: &Filter, mut progress: impl FnMut(Progress)) -> Result<u64, RedisError> {
        let mut reader = self.reader(filter, Order::Oldest).await?;
        let mut total = Progress::default();
        loop {
            let page = reader.next(&mut self.connection).await?;
            if page.is_empty() {
                return Ok(total.done);
            }
            let ids = chosen(&page, filter);
            if !ids.is_empty() {
                total.done += dead::purge(&mut self.connection, &self.keys, &ids).await?;
            }
            total.seen += page.len() as u64;
            progress(total);
        }
    }

    async fn reader(&mut self, filter: &Filter, order: Order) -> Result<Reader, RedisError> {
        Reader::new(&mut self.connection, &self.keys, filter.since, order).await
    }
}

impl Listing<'_> {
    /// The next ones; `None` at the end.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn next(&mut self) -> Result<Option<Vec<Letter>>, RedisError> {
        while !self.has_more {
            let page = self.reader.next(&mut self.letters.connection).await?;
            if page.is_empty() {
                break;
            }
            let mut chosen: Vec<Letter> = page.into_iter().filter(|letter| self.filter.matches(letter)).collect();
            self.has_more = chosen.len() > self.left;
            chosen.truncate(self.left);
            self.left -= chosen.len();
            if !chosen.is_empty() {
                return Ok(Some(chosen));
            }
        }
        Ok(None)
    }

    /// Whether there are more than the limit; known at the end.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_more
    }
}

fn chosen<'a>(page: &'a [Letter], filter: &Filter) -> Vec<&'a str> {
    page.iter().filter(|letter| filter.matches(letter)).map(|letter| &*letter.entry_id).collect()
}
