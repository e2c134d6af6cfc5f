//! Operations on dead letters: read, count, replay, purge. This room knows no command line and no terminal;
//! `redis::store::dead` knows the form in Redis.

mod filter;

use std::time::SystemTime;

use redis::RedisError;

pub use self::filter::Filter;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::store::dead::{self, Order};
pub use crate::redis::store::dead::{Letter, Reader, Replayed};
use crate::redis::store::keys::Keys;

/// The dead letters of one output stream.
///
/// Every operation may fail with an error of the network or the server. Completed pages stay completed, and the
/// operation may be repeated.
#[expect(missing_debug_implementations, reason = "a connection has none")]
pub struct DeadLetters {
    connection: LibraryConnection,
    keys: Keys,
}

/// Progress of an operation over all dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Dead letters that were read.
    pub seen: u64,
    /// Dead letters that were replayed or purged.
    pub done: u64,
}

/// Some dead letters, newest first.
#[derive(Debug, Default)]
pub struct Page {
    /// The letters.
    pub letters: Vec<Letter>,
    /// Id of the entry behind which older letters may be found; `None` at the end.
    pub next: Option<String>,
}

/// A listing of dead letters, newest first.
#[expect(missing_debug_implementations, reason = "a connection has none")]
pub struct Listing<'a> {
    letters: &'a mut DeadLetters,
    filter: &'a Filter,
    reader: Reader,
    left: usize,
    has_more: bool,
}

impl DeadLetters {
    /// The dead letters behind this connection.
    #[must_use]
    pub fn new(connection: LibraryConnection, keys: Keys) -> DeadLetters {
        DeadLetters { connection, keys }
    }

    /// The server's clock, to which [`Filter::since`] refers.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn server_time(&mut self) -> Result<SystemTime, RedisError> {
        dead::server_time(&mut self.connection).await
    }

    /// Number of all dead letters.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn total(&mut self) -> Result<u64, RedisError> {
        dead::count(&mut self.connection, &self.keys).await
    }

    /// Lists the newest matching letters, `limit` at most, in pages, because payloads can be long.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn list<'a>(&'a mut self, filter: &'a Filter, limit: usize) -> Result<Listing<'a>, RedisError> {
        let reader = self.reader(filter, Order::Newest).await?;
        Ok(Listing { letters: self, filter, reader, left: limit, has_more: false })
    }

    /// The newest matching letters that are older than `before`, `limit` at most. Looks at `scan_max` letters and a page of
    /// them more at most, and says where to go on.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn page(
        &mut self,
        filter: &Filter,
        before: Option<&str>,
        limit: usize,
        scan_max: usize,
    ) -> Result<Page, RedisError> {
        let mut reader = self.reader(filter, Order::Newest).await?;
        if let Some(before) = before {
            reader = reader.before(before);
        }
        let (mut letters, mut seen): (Vec<Letter>, usize) = (Vec::new(), 0);
        loop {
            let page = reader.next(&mut self.connection).await?;
            let Some(last) = page.last().map(|letter| letter.entry_id.clone()) else {
                return Ok(Page { letters, next: None });
            };
            seen += page.len();
            for letter in page.into_iter().filter(|letter| filter.matches(letter)) {
                if letters.len() == limit {
                    let next = letters.last().map(|last| last.entry_id.clone());
                    return Ok(Page { letters, next });
                }
                letters.push(letter);
            }
            if seen >= scan_max {
                return Ok(Page { letters, next: Some(last) });
            }
        }
    }

    /// The letter with this entry id, if there is one.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn get(&mut self, entry_id: &str) -> Result<Option<Letter>, RedisError> {
        dead::get(&mut self.connection, &self.keys, entry_id).await
    }

    /// All letters with this message id or entry id, newest first.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn find(&mut self, id: &str) -> Result<Vec<Letter>, RedisError> {
        let filter = Filter::of_id(id);
        let mut listing = self.list(&filter, usize::MAX).await?;
        let mut found = Vec::new();
        while let Some(page) = listing.next().await? {
            found.extend(page);
        }
        Ok(found)
    }

    /// Number of matching letters.
    ///
    /// # Errors
    /// Errors of the network or the server.
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

    /// Returns matching letters to the inbox, oldest first. Calls `progress` after each page.
    ///
    /// # Errors
    /// Errors of the network or the server.
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

    /// Deletes matching letters, oldest first, and returns their number. Calls `progress` after each page.
    ///
    /// # Errors
    /// Errors of the network or the server.
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

    /// A reader of the letters that may match, oldest first, for [`DeadLetters::next_chosen`].
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn oldest(&mut self, filter: &Filter) -> Result<Reader, RedisError> {
        self.reader(filter, Order::Oldest).await
    }

    /// The entry ids of the matching letters on the next page, which may be none; `None` at the end.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn next_chosen(
        &mut self,
        filter: &Filter,
        reader: &mut Reader,
    ) -> Result<Option<Vec<String>>, RedisError> {
        let page = reader.next(&mut self.connection).await?;
        let ids = chosen(&page, filter).into_iter().map(str::to_owned).collect();
        Ok((!page.is_empty()).then_some(ids))
    }

    /// Returns these letters to the inbox.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn replay_entries(&mut self, entry_ids: &[String]) -> Result<Replayed, RedisError> {
        let ids: Vec<&str> = entry_ids.iter().map(String::as_str).collect();
        match ids.is_empty() {
            true => Ok(Replayed::default()),
            false => dead::replay(&mut self.connection, &self.keys, &ids).await,
        }
    }

    /// Deletes these letters, and returns how many there were.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn purge_entries(&mut self, entry_ids: &[String]) -> Result<u64, RedisError> {
        let ids: Vec<&str> = entry_ids.iter().map(String::as_str).collect();
        match ids.is_empty() {
            true => Ok(0),
            false => dead::purge(&mut self.connection, &self.keys, &ids).await,
        }
    }

    async fn reader(&mut self, filter: &Filter, order: Order) -> Result<Reader, RedisError> {
        Reader::new(&mut self.connection, &self.keys, filter.since, order).await
    }
}

impl Listing<'_> {
    /// The next page; `None` at the end.
    ///
    /// # Errors
    /// Errors of the network or the server.
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

    /// Whether there are more letters than the limit; valid at the end.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_more
    }
}

fn chosen<'a>(page: &'a [Letter], filter: &Filter) -> Vec<&'a str> {
    page.iter().filter(|letter| filter.matches(letter)).map(|letter| &*letter.entry_id).collect()
}
