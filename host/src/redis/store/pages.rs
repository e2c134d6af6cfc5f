//! Reads a stream page by page, up to what was there when the reading began: what is appended meanwhile does not keep it going
//! for ever. It knows no stream in particular.

use redis::{RedisError, cmd};

use crate::redis::client::connector::LibraryConnection;

/// From which end to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Oldest,
    /// Newest first.
    Newest,
}

/// An entry: its id and its fields in order. Values may be anything but text.
pub type Entry = (String, Vec<(String, Vec<u8>)>);

/// How far a stream has been read.
#[derive(Debug)]
pub struct Pages {
    stream: String,
    order: Order,
    page_entries: usize,
    /// Where the next page begins and where all ends, oldest first; `None` when there is no further page.
    range: Option<(String, String)>,
}

impl Pages {
    /// Begins at the entries that were appended `since_ms` after 1970, by the server's clock, or later. A page has so many
    /// entries.
    ///
    /// # Errors
    /// Whatever the network or the server says.
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

    /// The next page; empty at the end.
    ///
    /// # Errors
    /// Whatever the network or the server says.
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
