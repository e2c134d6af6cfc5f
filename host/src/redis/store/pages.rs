//! Reads a stream page by page, up to the last entry at the beginning of the read: entries appended later do not extend
//! the read. This file knows no particular stream.

use redis::{RedisError, cmd};

use crate::redis::client::connector::LibraryConnection;

/// Direction of the read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Oldest,
    /// Newest first.
    Newest,
}

/// An entry: id, and fields in order. Values may be any bytes.
pub type Entry = (String, Vec<(String, Vec<u8>)>);

/// Progress of a read.
#[derive(Debug)]
pub struct Pages {
    stream: String,
    order: Order,
    page_entries: usize,
    /// Begin of the next page and end of the read, oldest first; `None` when there are no more pages.
    range: Option<(String, String)>,
}

impl Pages {
    /// Begins at the entries appended at `since_ms` or later, in ms since 1970 by the server's clock. `size` is the
    /// number of entries in a page.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn new(
        connection: &mut LibraryConnection,
        stream: &str,
        since_ms: u64,
        order: Order,
        page_entries: usize,
    ) -> Result<Pages, RedisError> {
        let newest = read(connection, stream, Order::Newest, ("-", "+"), 1).await?.pop();
        let range = newest.map(|(newest, _)| (since_ms.to_string(), newest));
        Ok(Pages { stream: stream.to_owned(), order, page_entries, range })
    }

    /// Reads only entries before this one, whose id is two numbers with a dash between.
    #[must_use]
    pub fn before(mut self, entry_id: &str) -> Pages {
        if let Some((_, end)) = &mut self.range {
            *end = format!("({entry_id}");
        }
        self
    }

    /// The next page; empty at the end.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn next(&mut self, connection: &mut LibraryConnection) -> Result<Vec<Entry>, RedisError> {
        let Some((start, end)) = self.range.take() else { return Ok(Vec::new()) };
        let entries = read(connection, &self.stream, self.order, (&start, &end), self.page_entries).await?;
        if let Some((last, _)) = entries.last()
            && entries.len() == self.page_entries
        {
            let beyond = format!("({last}");
            self.range = Some(match self.order {
                Order::Oldest => (beyond, end),
                Order::Newest => (start, beyond),
            });
        }
        Ok(entries)
    }
}

async fn read(
    connection: &mut LibraryConnection,
    stream: &str,
    order: Order,
    (start, end): (&str, &str),
    count: usize,
) -> Result<Vec<Entry>, RedisError> {
    let mut command = match order {
        Order::Oldest => cmd("XRANGE").arg(stream).arg(start).arg(end).to_owned(),
        Order::Newest => cmd("XREVRANGE").arg(stream).arg(end).arg(start).to_owned(),
    };
    command.arg("COUNT").arg(count).query_async(connection).await
}
