//! The form of an inbox entry, a waiting retry and a dead letter. Only this file knows these forms, together with the
//! scripts that read them (`claim.lua`, `forward.lua`, `take_over.lua`, `replay.lua`), which property tests compare
//! with this file.
//!
//! An inbox entry is a list of pairs. A pair with an empty name, which no message id can have, is a note:
//!
//! ```text
//! ""           v<format> <token> <window in ms>     first of all: the claims that were made with the entry, - 0 for none
//! ""           <attempt> <token> <crashes>          the history of the message behind it, unless it is there for the first time
//! <message id> <JSON text>
//! ```
//!
//! A waiting retry is `v<format> <attempt> <token> <crashes> <bytes of the id>\n<id><JSON text>`. A dead letter is a
//! list of named fields, including `format`. Data without a format has format 0, which is still read.
//!
//! A host leaves a newer format alone. Hosts write the newest format that all hosts of the group can read
//! (`store::group`).

use std::time::{Duration, SystemTime};

use redis::{RedisError, Value};

use super::entries::Entries;
use crate::dead_letter::{DeadLetter, kept};
use crate::redis::client::resp::{Cursor, Head, malformed};
use crate::time::{rfc3339, stamp};

/// The newest format that this program reads and writes. The feature builds the next format, for the test of a rolling
/// upgrade.
pub const FORMAT: u32 = if cfg!(feature = "next-format") { 2 } else { 1 };

/// Name of a note in an inbox entry.
pub(super) const NOTE: &[u8] = b"";

/// Longest validity of claims that is believed, the longest dedup window that a host can have: anybody can write an entry.
const WINDOW_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Placeholder for the token of an entry that was appended without claims.
const NO_TOKEN: &str = "-";

/// The claims that were made with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The token of all claims.
    pub token: String,
    /// Validity of the claims, from the append of the entry.
    pub window: Duration,
}

/// The first note of an entry that is appended with claims of this token.
#[must_use]
pub fn opening(format: u32, token: &str, window_ms: &str) -> String {
    format!("v{format} {token} {window_ms}")
}

/// Contents of the first note of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Opening {
    format: u32,
    claims: Option<Claims>,
}

impl Opening {
    /// Reads the text of [`opening`] or of a script; `None` for any other text. Of a newer format only the number is
    /// read.
    fn read(note: &[u8]) -> Option<Opening> {
        let mut words = std::str::from_utf8(note).ok()?.strip_prefix('v')?.split(' ');
        let format = words.next()?.parse().ok()?;
        if format > FORMAT {
            return Some(Opening { format, claims: None });
        }
        let (token, window_ms) = (words.next()?, words.next()?.parse().ok()?);
        if words.next().is_some() || token.is_empty() {
            return None;
        }
        let claims = Claims { token: token.to_owned(), window: Duration::from_millis(window_ms).min(WINDOW_MAX) };
        Some(Opening { format, claims: (token != NO_TOKEN).then_some(claims) })
    }
}

/// History of a message that was delivered before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Number of the next attempt; 1 is the first.
    pub attempt: u32,
    /// Token of the message's claim, which begins with the time of the first append, in ms since 1970.
    pub token: String,
    /// Number of hosts that died while processing the message, as far as deaths were counted.
    pub crashes: u32,
}

impl History {
    /// Reads the text of [`History::note`] or of a script; `None` for any other text.
    #[must_use]
    pub fn read(note: &[u8]) -> Option<History> {
        let mut words = std::str::from_utf8(note).ok()?.split(' ');
        let (attempt, token, crashes) = (words.next()?, words.next()?, words.next()?);
        let history = History { attempt: attempt.parse().ok()?, token: token.into(), crashes: crashes.parse().ok()? };
        (words.next().is_none() && !token.is_empty()).then_some(history)
    }

    /// The note with the history, in front of the message.
    #[must_use]
    pub fn note(&self) -> String {
        format!("{} {} {}", self.attempt, self.token, self.crashes)
    }
}

/// A waiting retry, as a member of the sorted set.
#[must_use]
pub fn retry_member(format: u32, message_id: &str, body: &str, history: &History) -> Vec<u8> {
    let mut member = format!("v{format} {} {}\n", history.note(), message_id.len()).into_bytes();
    member.extend_from_slice(message_id.as_bytes());
    member.extend_from_slice(body.as_bytes());
    member
}

/// Adds messages of a delivery, by their places in it, as an entry of the inbox. Each keeps its attempt and the token of its claim.
pub fn write_rest(entries: &mut Entries, format: u32, delivery: &Delivery, places: &[usize]) {
    entries.field("", opening(format, NO_TOKEN, "0"));
    for place in places {
        let message = &delivery.messages[*place];
        let crashes = message.history.as_ref().map_or(0, |history| history.crashes);
        let history = History { attempt: message.attempt(), token: delivery.token(message).to_owned(), crashes };
        entries.field("", history.note());
        entries.field(&message.id, &message.body);
    }
    entries.finish();
}

/// Adds a dead letter as an entry of the stream of dead letters.
pub fn write_dead_letter(entries: &mut Entries, format: u32, letter: &DeadLetter<'_>) {
    let DeadLetter { payload, reason, error, host_id, origin } = letter;
    if let Some(origin) = origin {
        entries.field("message_id", origin.message_id);
    }
    entries.field("payload", kept(payload, *reason));
    entries.field("payload_bytes", payload.len().to_string());
    entries.field("reason", reason.as_str());
    entries.field("error", error);
    entries.field("attempts", origin.map_or(0, |origin| origin.attempts).to_string());
    entries.field("host_id", host_id);
    if let Some(origin) = origin {
        entries.field("consumer_id", origin.consumer_id);
        entries.field("plugin_digest", origin.plugin_digest);
        entries.field("plugin_generation", origin.plugin_generation.to_string());
        entries.field("token", origin.token);
        if let Some(first_seen) = stamp(origin.token) {
            entries.field("first_seen", rfc3339(first_seen));
        }
    }
    entries.field("time", rfc3339(SystemTime::now()));
    entries.field("format", format.to_string());
    entries.finish();
}

/// A delivery: one inbox entry handed to one consumer.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Id of the inbox entry.
    pub entry_id: String,
    /// Format of the entry.
    pub format: u32,
    /// Messages, 1 to 128; none when the format is newer than this program.
    pub messages: Vec<Message>,
    /// Number of hosts that died with the delivery, when the delivery is a suspect. A suspect has one message.
    pub crashes: u32,
    /// The claims that were made when the entry was appended.
    pub claims: Option<Claims>,
}

impl Delivery {
    /// A delivery without claims.
    #[must_use]
    pub fn new(entry_id: String, messages: Vec<Message>) -> Delivery {
        Delivery { entry_id, format: 0, messages, crashes: 0, claims: None }
    }

    /// Whether this program can read the delivery.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.format <= FORMAT
    }

    /// Adds a pair of the entry: a message or a note. `history` belongs to the next message.
    fn add(&mut self, name: &[u8], value: &[u8], history: &mut Option<Box<History>>) {
        if !self.is_readable() {
            return;
        }
        if name == NOTE {
            return self.add_note(value, history);
        }
        let history = history.take();
        self.crashes = self.crashes.max(history.as_ref().map_or(0, |history| history.crashes));
        self.messages.push(Message { id: text(name), body: text(value), history });
    }

    fn add_note(&mut self, note: &[u8], history: &mut Option<Box<History>>) {
        if self.messages.is_empty()
            && let Some(Opening { format, claims }) = Opening::read(note)
        {
            (self.format, self.claims) = (format, claims);
            return;
        }
        *history = History::read(note).map(Box::new);
        if history.is_none() && self.messages.is_empty() && self.claims.is_none() {
            // Format 0 has only the token; the validity of its claims is unknown.
            self.claims = Some(Claims { token: text(note), window: Duration::ZERO });
        }
    }

    /// The token of a message's claim.
    #[must_use]
    pub fn token<'a>(&'a self, message: &'a Message) -> &'a str {
        let own = self.claims.as_ref().map_or(&self.entry_id, |claims| &claims.token);
        message.history.as_ref().map_or(own, |history| &history.token)
    }
}

/// A message of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// The `message_id`.
    pub id: String,
    /// The published JSON text.
    pub body: String,
    /// The history; `None` in the first delivery.
    pub history: Option<Box<History>>,
}

impl Message {
    /// Number of the attempt, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.history.as_ref().map_or(1, |history| history.attempt)
    }
}

/// The deliveries in a reply of `XREADGROUP`: `[[stream, entries]]`, or nil without deliveries.
pub(super) fn fetched(reply: &mut Cursor<'_>) -> Result<Vec<Delivery>, RedisError> {
    let streams = match reply.value()? {
        Head::Array(streams) => streams,
        Head::Nil => 0,
        _ => return Err(malformed()),
    };
    let mut deliveries = Vec::new();
    for _ in 0..streams {
        reply.array()?;
        reply.bulk()?;
        read_entries(reply, &mut deliveries)?;
    }
    Ok(deliveries)
}

/// Adds the deliveries in a list of entries, such as the reply of `XRANGE`.
pub(super) fn read_entries(reply: &mut Cursor<'_>, deliveries: &mut Vec<Delivery>) -> Result<(), RedisError> {
    for _ in 0..reply.array()? {
        reply.array()?;
        let entry_id = text(reply.bulk()?);
        match reply.value()? {
            Head::Array(values) => {
                let mut delivery = Delivery::new(entry_id, Vec::with_capacity(values / 2));
                let mut history = None;
                for _ in 0..values / 2 {
                    delivery.add(reply.bulk()?, reply.bulk()?, &mut history);
                }
                deliveries.push(delivery);
            }
            // The entry was deleted.
            Head::Nil => {}
            _ => return Err(malformed()),
        }
    }
    Ok(())
}

/// An entry in a reply of `XCLAIM`: id and a flat list of fields and values.
pub(super) fn delivery(entry: Value) -> Option<Delivery> {
    let Value::Array(entry) = entry else {
        return None;
    };
    let [Value::BulkString(entry_id), Value::Array(values)] = &entry[..] else {
        return None;
    };
    let mut delivery = Delivery::new(text(entry_id), Vec::with_capacity(values.len() / 2));
    let mut history = None;
    for pair in values.chunks_exact(2) {
        if let [Value::BulkString(id), Value::BulkString(body)] = pair {
            delivery.add(id, body, &mut history);
        }
    }
    Some(delivery)
}

/// The intake writes only UTF-8. For an entry from elsewhere the plugin gets replacement characters.
fn text(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod scripts;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_written_and_nothing_else_is() {
        let history = History { attempt: 3, token: "1700000000000-7".into(), crashes: 2 };
        assert_eq!(history.note(), "3 1700000000000-7 2");
        assert_eq!(History::read(history.note().as_bytes()), Some(history));
        for wrong in ["", "3", "3 a", "x a 0", "3 a x", "3  0", "3 a 0 0", "-1 a 0", "4294967296 a 0"] {
            assert_eq!(History::read(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(History::read(b"3 \xff 0"), None);
    }

    #[test]
    fn an_opening_says_how_long_its_claims_last_and_of_a_newer_format_only_that_it_is_newer() {
        let claims = Some(Claims { token: "5-a".into(), window: Duration::from_secs(2) });
        assert_eq!(Opening::read(opening(1, "5-a", "2000").as_bytes()), Some(Opening { format: 1, claims }));
        assert_eq!(Opening::read(b"v1 - 0"), Some(Opening { format: 1, claims: None }));
        let newer = format!("v{} whatever it says", FORMAT + 1);
        assert_eq!(Opening::read(newer.as_bytes()), Some(Opening { format: FORMAT + 1, claims: None }));
        let forged = Opening::read(format!("v1 5-a {}", u64::MAX).as_bytes()).unwrap().claims.unwrap();
        assert_eq!(forged.window, WINDOW_MAX);
        for wrong in ["", "v", "v1", "v1 5-a", "v1 5-a x", "v1  0", "v1 5-a 0 0", "1 5-a 0", "vx 5-a 0"] {
            assert_eq!(Opening::read(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_retry_says_where_its_id_ends() {
        let history = History { attempt: 2, token: "5-0".into(), crashes: 0 };
        assert_eq!(retry_member(1, "a\n1 é", "{\n}", &history), "v1 2 5-0 0 6\na\n1 é{\n}".as_bytes());
    }
}
