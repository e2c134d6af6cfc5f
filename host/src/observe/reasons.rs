//! Counts dead letters by their reasons, a bounded number of them. A second count reads only those that came since.

use std::collections::BTreeMap;

use redis::RedisError;

use super::status::DeadLetterCounts;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::store::keys::Keys;
use crate::redis::store::look::{Counted, Stream, Which, reasons};

/// Dead letters that are counted at first: the newest ones.
const COUNT_MAX: u64 = 10_000;

/// Dead letters in one read: each may be as long as a message, and Redis serves nobody else meanwhile.
const PAGE: usize = 100;

/// The counts, and the state of the stream for which they are right.
#[derive(Debug, Default)]
pub(super) struct Tallied {
    counted: u64,
    reasons: BTreeMap<String, u64>,
    /// Id of the newest counted letter.
    newest: Option<String>,
    /// Length of the stream, and letters ever added, at the last count.
    length: u64,
    added: u64,
}

impl Tallied {
    /// Brings the counts up to date with this state of the stream.
    pub(super) async fn update(
        &mut self,
        connection: &mut LibraryConnection,
        keys: &Keys,
        dead: &Stream,
    ) -> Result<(), RedisError> {
        if dead.length == 0 {
            *self = Tallied { added: dead.added, ..Tallied::default() };
            return Ok(());
        }
        let came = dead.added.checked_sub(self.added);
        // If letters were removed, nobody knows which.
        let only_came = self.newest.is_some() && came.is_some_and(|came| self.length + came == dead.length);
        if only_came && came == Some(0) {
            return Ok(());
        }
        if only_came && came.is_some_and(|came| came <= COUNT_MAX) {
            self.count_new(connection, keys).await?;
        } else {
            *self = Tallied::default();
            self.count_newest(connection, keys).await?;
        }
        (self.length, self.added) = (dead.length, dead.added);
        Ok(())
    }

    /// The counts, for a stream of this length.
    pub(super) fn counts(&self, length: u64) -> DeadLetterCounts {
        // Letters may have come between reading the length and counting.
        let length = length.max(self.counted);
        DeadLetterCounts { length, counted: self.counted, reasons: self.reasons.clone(), without_id: 0 }
    }

    async fn count_new(&mut self, connection: &mut LibraryConnection, keys: &Keys) -> Result<(), RedisError> {
        while let Some(newest) = self.newest.clone() {
            let page = reasons(connection, keys, Which::After(&newest), PAGE).await?;
            if self.add(&page) {
                self.newest = Some(page.last);
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn count_newest(&mut self, connection: &mut LibraryConnection, keys: &Keys) -> Result<(), RedisError> {
        let newest = reasons(connection, keys, Which::Before(None), 1).await?;
        if !self.add(&newest) {
            return Ok(());
        }
        let mut last = newest.last.clone();
        self.newest = Some(newest.last);
        while self.counted < COUNT_MAX {
            let page = reasons(connection, keys, Which::Before(Some(&last)), PAGE).await?;
            if !self.add(&page) {
                return Ok(());
            }
            last = page.last;
        }
        Ok(())
    }

    /// Adds a page. Returns whether there was anything in it.
    fn add(&mut self, page: &Counted) -> bool {
        self.counted += page.letters;
        for (reason, letters) in &page.reasons {
            *self.reasons.entry(reason.clone()).or_insert(0) += letters;
        }
        page.letters > 0
    }
}
