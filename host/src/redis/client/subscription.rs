//! What is published on the channel, with the marks between, in chunks.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;

use super::connection::Connection;
use super::connector::Connector;
use super::resp::{Commands, Cursor, Head};

/// A confirmed subscription to a channel and to one for marks, on a connection of its own: what is published on both arrives in
/// one order.
pub struct Subscription {
    wire: Connection,
    channel: String,
    marks_channel: String,
    /// Where it began.
    pub beginning: Beginning,
}

/// Where a subscription began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Whether the server was a replica then, which passes on what it has heard from its primary.
    pub is_at_replica: bool,
    /// When it was, by the server's clock, in ms since 1970, rounded down to a second.
    pub at_ms: u64,
}

/// What has arrived by the time somebody looked.
pub struct Chunk {
    bytes: Bytes,
    items: Vec<Item>,
    /// Whether nothing comes behind it, because the subscription was taken back.
    pub is_last: bool,
}

/// Where something lies that was published.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Message(Range<usize>),
    Mark(Range<usize>),
    /// The server has taken the subscription back.
    End,
}

/// Messages without a mark among them, or a mark.
pub enum Run<'a, M> {
    /// Payloads, as they were published.
    Messages(M),
    /// What was published on the channel of the marks.
    Mark(&'a [u8]),
}

impl Chunk {
    /// Messages in it.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, Item::Message(_))).count()
    }

    /// What is in it, in the order in which it was published.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_, impl Iterator<Item = &[u8]> + Clone>> {
        self.items.chunk_by(|one, next| matches!((one, next), (Item::Message(_), Item::Message(_)))).filter_map(|run| {
            match &run[0] {
                Item::Mark(range) => Some(Run::Mark(&self.bytes[range.clone()])),
                Item::Message(_) => Some(Run::Messages(run.iter().filter_map(|item| match item {
                    Item::Message(range) => Some(&self.bytes[range.clone()]),
                    _ => None,
                }))),
                Item::End => None,
            }
        })
    }
}

impl Subscription {
    /// What has arrived, as soon as something has. May be dropped and called again.
    ///
    /// # Errors
    /// When the connection has ended or makes no sense.
    pub async fn next(&mut self) -> Result<Chunk, RedisError> {
        loop {
            let input = self.wire.input();
            let (end, items) = complete(input.arrived(), self.channel.as_bytes(), self.marks_channel.as_bytes())?;
            if end > 0 {
                let is_last = items.contains(&Item::End);
                return Ok(Chunk { bytes: input.take_bytes(end), items, is_last });
            }
            input.read().await?;
        }
    }

    /// Takes the subscription back. Everything that was published before arrives, and then the last chunk.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn unsubscribe(&mut self) -> Result<(), RedisError> {
        let mut commands = Commands::default();
        commands.command(&[b"UNSUBSCRIBE"]);
        self.wire.send(&commands).await
    }
}

/// What has arrived as a whole, and where it ends. Everything that was not published on one of the channels is passed over.
fn complete(arrived: &[u8], channel: &[u8], marks_channel: &[u8]) -> Result<(usize, Vec<Item>), RedisError> {
    let mut items = Vec::new();
    let mut cursor = Cursor::new(arrived, 0);
    loop {
        let end = cursor.at();
        match item(&mut cursor, channel, marks_channel)? {
            None => return Ok((end, items)),
            Some(item) => items.extend(item),
        }
    }
}

/// Walks over the next value: `None` when it has not arrived as a whole, and what it is if it is anything.
fn item(cursor: &mut Cursor<'_>, channel: &[u8], marks_channel: &[u8]) -> Result<Option<Option<Item>>, RedisError> {
    let mut pending = 1;
    let mut start = *cursor;
    if start.head()? == Some(Head::Array(3))
        && let Some(Head::Bulk(kind @ (b"message" | b"unsubscribe"))) = start.head()?
    {
        let (Some(Head::Bulk(name)), Some(value)) = (start.head()?, start.head()?) else {
            return Ok(None);
        };
        *cursor = start;
        return Ok(Some(match value {
            Head::Bulk(payload) if kind == b"message" => {
                // The payload, then the end of its line.
                let end = cursor.at() - b"\r\n".len();
                let range = end - payload.len()..end;
                match name {
                    name if name == channel => Some(Item::Message(range)),
                    name if name == marks_channel => Some(Item::Mark(range)),
                    _ => None,
                }
            }
            _ => (name == channel && kind == b"unsubscribe").then_some(Item::End),
        }));
    }
    cursor.skip(&mut pending)?;
    Ok((pending == 0).then_some(None))
}

/// Subscribes to a channel and to that of the marks, on a new connection.
///
/// # Errors
/// Errors of the network or the server.
pub async fn subscribe(
    connector: &Connector,
    channel: String,
    marks_channel: String,
) -> Result<Subscription, RedisError> {
    let mut wire = Connection::open(connector).await?;
    let mut commands = Commands::default();
    commands.command(&[b"INFO", b"replication"]);
    commands.command(&[b"TIME"]);
    commands.command(&[b"SUBSCRIBE", channel.as_bytes(), marks_channel.as_bytes()]);
    let replies = wire.ask(&commands, Duration::ZERO).await?;
    let mut replies = Cursor::new(&replies, 0);
    let is_at_replica = String::from_utf8_lossy(replies.bulk()?).lines().any(|line| line == "role:slave");
    replies.array()?;
    let (seconds, _microseconds) = (replies.bulk()?, replies.bulk()?);
    let at_ms =
        str::from_utf8(seconds).ok().and_then(|text| text.parse().ok()).map_or(0, |seconds: u64| seconds * 1000);
    // The second confirmation is passed over as it comes: messages may lie between the two.
    replies.value()?;
    Ok(Subscription { wire, channel, marks_channel, beginning: Beginning { is_at_replica, at_ms } })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\none\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nm\r\n:2\r\n\
        *3\r\n$7\r\nmessage\r\n$1\r\nm\r\n$4\r\nmark\r\n*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\ny\r\n\
        *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nt\r\nwo\r\n\
        *3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:1\r\n";

    /// What arrived as a whole, as text; and where it ends.
    fn texts(arrived: &[u8]) -> (usize, Vec<String>) {
        let (end, items) = complete(arrived, b"c", b"m").unwrap();
        let text = |range: Range<usize>| String::from_utf8_lossy(&arrived[range]).into_owned();
        let texts = items.into_iter().map(|item| match item {
            Item::Message(range) => text(range),
            Item::Mark(range) => format!("({})", text(range)),
            Item::End => "end".to_owned(),
        });
        (end, texts.collect())
    }

    #[test]
    fn messages_and_marks_come_in_the_order_in_which_they_were_published() {
        assert_eq!(texts(STREAM), (STREAM.len(), ["one", "(mark)", "", "t\r\nwo", "end"].map(str::to_owned).to_vec()));
        let (end, items) = complete(STREAM, b"c", b"m").unwrap();
        let chunk = Chunk { bytes: Bytes::from_static(&STREAM[..end]), items, is_last: true };
        let runs = chunk.runs().map(|run| match run {
            Run::Messages(payloads) => payloads.count(),
            Run::Mark(_) => 100,
        });
        assert_eq!((chunk.messages(), runs.collect::<Vec<_>>()), (3, vec![1, 100, 2]));
    }

    #[test]
    fn nothing_is_taken_that_has_not_arrived_as_a_whole() {
        let (_, all) = texts(STREAM);
        for arrived in 0..STREAM.len() {
            let (end, first) = texts(&STREAM[..arrived]);
            let (_, rest) = texts(&STREAM[end..]);
            assert_eq!([first, rest].concat(), all, "{arrived}");
        }
    }

    #[test]
    fn rubbish_ends_the_subscription() {
        assert!(complete(b"HTTP/1.1 400\r\n", b"c", b"m").is_err());
    }
}
