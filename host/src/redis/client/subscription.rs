//! What is published on the channel, with the marks between, in chunks.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;

use super::connection::Connection;
use super::connector::Connector;
use super::resp::{Commands, Cursor, Head, Partial, malformed};
use super::tie::Tie;

/// A confirmed subscription to a channel and to one for marks, on a connection of its own: what is published on both arrives in
/// one order.
pub struct Subscription {
    wire: Connection,
    /// The line at which the last look has stopped.
    partial: Partial,
    channel: String,
    marks_channel: String,
    /// Where it began.
    pub beginning: Beginning,
    /// Whether its server may stop being the primary while it goes on.
    tie: Option<Tie>,
}

/// Names the data of a server and of its replicas. A server gets another one when it starts and when it is promoted, and a replica
/// that of its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationId(pub u64);

impl ReplicationId {
    /// The one with this name of 40 hexadecimal digits; of the random digits the first 16 are enough. A server that tells none has 0.
    #[must_use]
    pub fn parse(name: &str) -> ReplicationId {
        let digits = name.get(..16).unwrap_or_default();
        ReplicationId(u64::from_str_radix(digits, 16).unwrap_or_default())
    }
}

/// Where a subscription began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Whether the server was a replica then, which passes on what it has heard from its primary.
    pub is_at_replica: bool,
    /// The replication id of the server's data then.
    pub data: ReplicationId,
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
    /// Bytes in it, as they were sent.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

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
            let mut cursor = Cursor::resuming(input.arrived(), 0, self.partial);
            let items = complete(&mut cursor, self.channel.as_bytes(), self.marks_channel.as_bytes())?;
            let end = cursor.at();
            self.partial = if end > 0 { Partial::default() } else { cursor.partial() };
            if end > 0 {
                let is_last = items.contains(&Item::End);
                return Ok(Chunk { bytes: input.take_bytes(end), items, is_last });
            }
            input.read().await?;
        }
    }

    /// Whether another server is the primary now. What is still published at this one arrives.
    #[must_use]
    pub fn is_left_behind(&self) -> bool {
        self.tie.as_ref().is_some_and(Tie::is_cut)
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

/// What has arrived as a whole, up to where the cursor is then. Everything that was not published on one of the channels is passed
/// over.
fn complete(cursor: &mut Cursor<'_>, channel: &[u8], marks_channel: &[u8]) -> Result<Vec<Item>, RedisError> {
    let mut items = Vec::new();
    while let Some(item) = item(cursor, channel, marks_channel)? {
        items.extend(item);
    }
    Ok(items)
}

/// Values in what a server sends to a subscriber, at most; it has no arrays within.
const PUSHED_VALUES_MAX: usize = 8;

/// Walks over the next value: `None` when it has not arrived as a whole, and what it is if it is anything.
fn item(cursor: &mut Cursor<'_>, channel: &[u8], marks_channel: &[u8]) -> Result<Option<Option<Item>>, RedisError> {
    let start = cursor.at();
    let mut ahead = *cursor;
    let heads = pushed(&mut ahead)?;
    let Some(heads) = heads else {
        // Few values are looked at again, and no line is.
        *cursor = Cursor::resuming(cursor.bytes(), start, ahead.partial());
        return Ok(None);
    };
    *cursor = ahead;
    Ok(Some(match heads {
        [Some(Head::Bulk(b"message")), Some(Head::Bulk(name)), Some(Head::Bulk(payload))] => {
            // The payload, then the end of its line.
            let end = cursor.at() - b"\r\n".len();
            let range = end - payload.len()..end;
            match name {
                name if name == channel => Some(Item::Message(range)),
                name if name == marks_channel => Some(Item::Mark(range)),
                _ => None,
            }
        }
        [Some(Head::Bulk(b"unsubscribe")), Some(Head::Bulk(name)), Some(_)] => (name == channel).then_some(Item::End),
        _ => None,
    }))
}

/// The three values of the next array, or none of them for anything else; `None` when it has not arrived as a whole.
fn pushed<'a>(cursor: &mut Cursor<'a>) -> Result<Option<[Option<Head<'a>>; 3]>, RedisError> {
    let mut heads = [None; 3];
    let values = match cursor.head()? {
        Some(Head::Array(values)) if values <= PUSHED_VALUES_MAX => values,
        Some(Head::Array(_)) => return Err(malformed()),
        Some(_) => return Ok(Some(heads)),
        None => return Ok(None),
    };
    for index in 0..values {
        match cursor.head()? {
            Some(Head::Array(_)) => return Err(malformed()),
            Some(head) if values == heads.len() => heads[index] = Some(head),
            Some(_) => {}
            None => return Ok(None),
        }
    }
    Ok(Some(heads))
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
    let (mut wire, tie) = connector.open_loose().await?;
    let mut commands = Commands::default();
    commands.command(&[b"INFO", b"replication"]);
    commands.command(&[b"SUBSCRIBE", channel.as_bytes(), marks_channel.as_bytes()]);
    let replies = wire.ask(&commands, Duration::ZERO).await?;
    let mut replies = Cursor::new(&replies, 0);
    let info = String::from_utf8_lossy(replies.bulk()?);
    let is_at_replica = info.lines().any(|line| line == "role:slave");
    let data = info.lines().find_map(|line| line.strip_prefix("master_replid:"));
    let beginning = Beginning { is_at_replica, data: ReplicationId::parse(data.unwrap_or_default()) };
    // The second confirmation is passed over as it comes: messages may lie between the two.
    replies.value()?;
    Ok(Subscription { wire, partial: Partial::default(), channel, marks_channel, beginning, tie })
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\none\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nm\r\n:2\r\n\
        *3\r\n$7\r\nmessage\r\n$1\r\nm\r\n$4\r\nmark\r\n*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n$1\r\ny\r\n\
        *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nt\r\nwo\r\n\
        *3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:1\r\n";

    /// What arrived as a whole, as text; and where it ends.
    fn texts(arrived: &[u8]) -> (usize, Vec<String>) {
        let mut cursor = Cursor::new(arrived, 0);
        let (items, end) = (complete(&mut cursor, b"c", b"m").unwrap(), cursor.at());
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
        let items = complete(&mut Cursor::new(STREAM, 0), b"c", b"m").unwrap();
        let chunk = Chunk { bytes: Bytes::from_static(STREAM), items, is_last: true };
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
        let nested = "*8\r\n*1\r\n".repeat(1_000);
        for rubbish in ["HTTP/1.1 400\r\n", "*9\r\n", &nested, "*3\r\n$7\r\nmessage\r\n$99999999999\r\n"] {
            assert!(complete(&mut Cursor::new(rubbish.as_bytes(), 0), b"c", b"m").is_err(), "{rubbish:?}");
        }
    }
}
