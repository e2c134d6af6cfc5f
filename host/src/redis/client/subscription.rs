//! What is published on the channel, in chunks, and signs of life when nothing is.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;

use super::connection::Connection;
use super::connector::Connector;
use super::resp::{Commands, Cursor, Head};

/// A confirmed subscription on a connection of its own.
pub struct Subscription {
    wire: Connection,
}

/// What has arrived by the time somebody looked: messages, or an answer to a ping and no message.
pub struct Chunk {
    bytes: Bytes,
    /// Where the payloads are.
    payloads: Vec<Range<usize>>,
}

impl Chunk {
    /// Messages in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payloads.len()
    }

    /// Whether it has no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    /// Their payloads, as they were published.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        self.payloads.iter().map(|range| &self.bytes[range.clone()])
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
            let (end, payloads) = complete(input.arrived())?;
            if end > 0 {
                return Ok(Chunk { bytes: input.take_bytes(end), payloads });
            }
            input.read().await?;
        }
    }

    /// Asks the server for a sign of life, which is the next thing to arrive if nothing is published.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn ping(&mut self) -> Result<(), RedisError> {
        let mut commands = Commands::default();
        commands.command(&[b"PING"]);
        self.wire.send(&commands).await
    }
}

/// The payloads of the messages that have arrived as a whole, and where the last one ends. Everything that is not a
/// message is passed over.
fn complete(arrived: &[u8]) -> Result<(usize, Vec<Range<usize>>), RedisError> {
    let mut payloads = Vec::new();
    let mut cursor = Cursor::new(arrived, 0);
    loop {
        let end = cursor.at();
        match message(&mut cursor)? {
            None => return Ok((end, payloads)),
            Some(payload) => payloads.extend(payload),
        }
    }
}

/// Walks over the next value: `None` when it has not arrived as a whole, and the payload's place if it is a message.
fn message(cursor: &mut Cursor<'_>) -> Result<Option<Option<Range<usize>>>, RedisError> {
    let mut pending = 1;
    let mut start = *cursor;
    if let (Some(Head::Array(3)), Some(Head::Bulk(b"message"))) = (start.head()?, start.head()?) {
        // The channel, then the payload with the end of its line.
        let (Some(_), Some(Head::Bulk(payload))) = (start.head()?, start.head()?) else { return Ok(None) };
        *cursor = start;
        let end = cursor.at() - b"\r\n".len();
        return Ok(Some(Some(end - payload.len()..end)));
    }
    cursor.skip(&mut pending)?;
    Ok((pending == 0).then_some(None))
}

/// Subscribes to a channel on a new connection.
///
/// # Errors
/// Whatever the network or the server says.
pub async fn subscribe(connector: &Connector, channel: &str) -> Result<Subscription, RedisError> {
    let mut wire = Connection::open(connector).await?;
    let mut commands = Commands::default();
    commands.command(&[b"SUBSCRIBE", channel.as_bytes()]);
    Cursor::new(&wire.ask(&commands, Duration::ZERO).await?, 0).value()?;
    Ok(Subscription { wire })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\none\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n\
        *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nt\r\nwo\r\n";

    fn payloads(arrived: &[u8]) -> (usize, Vec<&[u8]>) {
        let (end, ranges) = complete(arrived).unwrap();
        (end, ranges.into_iter().map(|range| &arrived[range]).collect())
    }

    #[test]
    fn messages_are_found_among_answers_to_pings() {
        assert_eq!(payloads(STREAM), (STREAM.len(), vec![&b"one"[..], b"", b"t\r\nwo"]));
    }

    #[test]
    fn nothing_is_taken_that_has_not_arrived_as_a_whole() {
        for arrived in 0..STREAM.len() {
            let (end, payloads) = payloads(&STREAM[..arrived]);
            let (_, rest) = self::payloads(&STREAM[end..]);
            assert_eq!([payloads, rest].concat(), [&b"one"[..], b"", b"t\r\nwo"], "{arrived}");
        }
    }

    #[test]
    fn rubbish_ends_the_subscription() {
        assert!(complete(b"HTTP/1.1 400\r\n").is_err());
    }
}
