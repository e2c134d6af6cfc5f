//! What happens to messages, as it happens: results, dead letters and retries. A bystander's view over one connection; the
//! group does not notice it. Memory is bounded by one page of each stream.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use redis::RedisError;

use super::status::OutputName;
use super::{named, output_streams};
use crate::config::Outputs;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::store::follow::{RawEntry, follow};
use crate::redis::store::keys::Keys;
use crate::redis::store::look::{Retry, Stream, Waiting, outputs, prepare, streams, waiting};
use crate::time::{stamp, stamp_ms, unix_ms};

/// Entries of each stream in one read.
pub const PAGE: usize = 100;

/// Longest wait for entries.
const BLOCK: Duration = Duration::from_millis(250);

/// Time between two looks at the waiting retries. A retry that waits for less may be missed.
const RETRIES_INTERVAL: Duration = Duration::from_millis(100);

/// Time between two looks at the streams, to find entries that were removed before they were read.
const STREAMS_INTERVAL: Duration = Duration::from_secs(1);

/// Waiting retries in one look, and in the first one.
const RETRIES_MAX: usize = 64;
const RETRIES_AT_FIRST: usize = 1_000;

/// Retries that are remembered, so that none is shown twice.
const RETRIES_KNOWN_MAX: usize = 10_000;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A result was written.
    Result,
    /// It became a dead letter.
    DeadLetter,
    /// It waits for another attempt.
    Retry,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Outcome; 3] = [Outcome::Result, Outcome::DeadLetter, Outcome::Retry];

    /// The name on the command line and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Result => "result",
            Outcome::DeadLetter => "dead-letter",
            Outcome::Retry => "retry",
        }
    }
}

/// Something that happened to a message.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub outcome: Outcome,
    /// When, by the server's clock.
    pub at: SystemTime,
    /// The key in Redis that shows it.
    pub key: String,
    /// The output of a result.
    pub output: Option<OutputName>,
    /// Id of the entry of a result or a dead letter.
    pub entry: Option<String>,
    /// Id of the message; a payload that is no message has none.
    pub message_id: Option<String>,
    /// The consumer that processed it.
    pub consumer_id: Option<String>,
    /// The attempt that is made when a retry is due.
    pub attempt: Option<u32>,
    /// When a retry is due.
    pub due: Option<SystemTime>,
    /// The other fields of the entry, in order. Values may be any bytes.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Event {
    /// The value of another field, as text.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        let (_, value) = self.fields.iter().find(|(field, _)| field == name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }
}

/// Some events in the order of time.
#[derive(Debug, Default)]
pub struct Page {
    /// The events.
    pub events: Vec<Event>,
    /// How far the reader is behind: age of the last entry read, when more entries wait.
    pub behind: Option<Duration>,
    /// Entries that were removed from their streams before they were read.
    pub missed: u64,
}

/// A stream that is followed.
#[derive(Debug)]
struct Followed {
    key: String,
    /// The output; `None` for the dead letters.
    output: Option<OutputName>,
    /// Id of the last entry read; `None` until the first look.
    cursor: Option<String>,
    read: u64,
    /// `read`, and the entries ever added, at a moment when everything was read.
    level: Option<(u64, u64)>,
}

/// Follows a group: its main output, and the named outputs that the caller knows or that hosts announce.
#[expect(missing_debug_implementations, reason = "a connection has none")]
pub struct Follower {
    connector: Connector,
    keys: Keys,
    streams: Vec<Followed>,
    /// Whether results are wanted.
    with_results: bool,
    /// Where to begin in a stream that is found later; `None` until the first look.
    begin: Option<String>,
    connection: Option<LibraryConnection>,
    /// `None` when nobody wants retries.
    retries: Option<Known>,
    /// When the streams and the retries were looked at.
    streams_at: Option<Instant>,
    retries_at: Option<Instant>,
    /// The server's clock less ours, in ms.
    clock_ms: i64,
}

/// Retries that have been shown.
#[derive(Debug, Default)]
struct Known {
    order: VecDeque<(String, u32, u64)>,
    all: HashSet<(String, u32, u64)>,
    /// Whether the retries that waited at first are marked as known.
    is_begun: bool,
}

impl Known {
    /// Remembers a retry. Returns whether it is new.
    fn add(&mut self, retry: &Retry) -> bool {
        let key = (retry.message_id.clone(), retry.attempt, retry.due_ms);
        if !self.all.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > RETRIES_KNOWN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
        true
    }
}

impl Follower {
    /// A follower of these outcomes, from now on, or from an earlier moment by the server's clock. This call opens no
    /// connection.
    #[must_use]
    pub fn new(
        connector: Connector,
        keys: Keys,
        outputs: &Outputs,
        outcomes: &[Outcome],
        since: Option<SystemTime>,
    ) -> Follower {
        let begin = since.map(|since| just_before(unix_ms(since)));
        let with_results = outcomes.contains(&Outcome::Result);
        let retries =
            outcomes.contains(&Outcome::Retry).then(|| Known { is_begun: since.is_some(), ..Known::default() });
        let (streams_at, retries_at) = (None, None);
        let mut follower = Follower {
            connector,
            keys,
            streams: Vec::new(),
            with_results,
            begin,
            connection: None,
            retries,
            streams_at,
            retries_at,
            clock_ms: 0,
        };
        if outcomes.contains(&Outcome::DeadLetter) {
            follower.add(follower.keys.dead.clone(), None);
        }
        if with_results {
            let found = output_streams(&follower.keys, named(outputs).iter());
            found.into_iter().for_each(|(name, key)| follower.add(key, Some(name)));
        }
        follower
    }

    /// Follows another stream, unless it is followed already.
    fn add(&mut self, key: String, output: Option<OutputName>) {
        if self.streams.iter().all(|stream| stream.key != key) {
            self.streams.push(Followed { key, output, cursor: self.begin.clone(), read: 0, level: None });
        }
    }

    /// Host and port of Redis, or its path, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        self.connector.address()
    }

    /// Leaves out what has been written to the streams and not been read. The next page counts it as missed.
    pub fn skip(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.cursor = None);
        self.streams_at = None;
    }

    /// The next events; none when nothing has happened for a moment. After an error, the next call opens another connection
    /// and continues where the last page ended.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn next(&mut self) -> Result<Page, RedisError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = self.connector.connect().await?;
                prepare(&mut connection).await?;
                connection
            }
        };
        let mut page = Page::default();
        self.look(&mut connection, &mut page).await?;
        self.read(&mut connection, &mut page).await?;
        self.connection = Some(connection);
        page.events.sort_by_key(|event| event.at);
        Ok(page)
    }

    /// Looks at the retries and the streams, when it is time.
    async fn look(&mut self, connection: &mut LibraryConnection, page: &mut Page) -> Result<(), RedisError> {
        let is_time = |at: Option<Instant>, interval| at.is_none_or(|at| at.elapsed() >= interval);
        let with_streams = is_time(self.streams_at, STREAMS_INTERVAL);
        let with_retries = self.retries.is_some() && is_time(self.retries_at, RETRIES_INTERVAL);
        if !with_streams && !with_retries {
            return Ok(());
        }
        if with_streams {
            self.look_at_streams(connection, page).await?;
        }
        let is_first = self.retries.as_ref().is_some_and(|known| !known.is_begun);
        let retries_max = if is_first { RETRIES_AT_FIRST } else { RETRIES_MAX };
        let (now_ms, waiting) = waiting(connection, &self.keys, retries_max).await?;
        self.clock_ms = now_ms.cast_signed() - unix_ms(SystemTime::now()).cast_signed();
        self.begin.get_or_insert_with(|| just_before(now_ms));
        self.note_retries(&waiting, now_ms, page);
        self.retries_at = Some(Instant::now());
        Ok(())
    }

    async fn look_at_streams(&mut self, connection: &mut LibraryConnection, page: &mut Page) -> Result<(), RedisError> {
        if self.with_results {
            for (name, key) in outputs(connection, &self.keys).await? {
                self.add(key, Some(OutputName::Named(name)));
            }
        }
        let keys: Vec<&str> = self.streams.iter().map(|stream| stream.key.as_str()).collect();
        let seen = streams(connection, &keys).await?;
        for (followed, stream) in self.streams.iter_mut().zip(&seen) {
            page.missed += followed.compare(stream);
        }
        self.streams_at = Some(Instant::now());
        Ok(())
    }

    fn note_retries(&mut self, waiting: &Waiting, now_ms: u64, page: &mut Page) {
        let Some(known) = &mut self.retries else { return };
        let is_first = !known.is_begun;
        known.is_begun = true;
        let time = |ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        for retry in &waiting.next {
            // A retry in an unknown format has no id.
            if !known.add(retry) || is_first || retry.message_id.is_empty() {
                continue;
            }
            page.events.push(Event {
                outcome: Outcome::Retry,
                at: time(now_ms),
                key: self.keys.retry.clone(),
                output: None,
                entry: None,
                message_id: Some(retry.message_id.clone()),
                consumer_id: None,
                attempt: Some(retry.attempt),
                due: Some(time(retry.due_ms)),
                fields: Vec::new(),
            });
        }
    }

    async fn read(&mut self, connection: &mut LibraryConnection, page: &mut Page) -> Result<(), RedisError> {
        let block = if self.retries.is_some() { RETRIES_INTERVAL } else { BLOCK };
        // A page that has something in it is shown at once.
        let block = if page.events.is_empty() { block } else { Duration::from_millis(1) };
        if self.streams.is_empty() {
            tokio::time::sleep(block).await;
            return Ok(());
        }
        let cursors = self.streams.iter().map(|stream| (stream.key.as_str(), stream.cursor.as_deref().unwrap_or("$")));
        let found = follow(connection, &cursors.collect::<Vec<_>>(), PAGE, block).await?;
        let now_ms = (unix_ms(SystemTime::now()).cast_signed() + self.clock_ms).max(0).cast_unsigned();
        for (key, entries) in found {
            let Some(followed) = self.streams.iter_mut().find(|stream| stream.key == key) else { continue };
            let Some((last, _)) = entries.last() else { continue };
            followed.cursor = Some(last.clone());
            followed.read += entries.len() as u64;
            if entries.len() == PAGE {
                let age = Duration::from_millis(now_ms.saturating_sub(stamp_ms(last).unwrap_or(now_ms)));
                page.behind = page.behind.max(Some(age));
            }
            page.events.extend(entries.into_iter().map(|entry| followed.event(entry)));
        }
        Ok(())
    }
}

/// The last id before this time in ms since 1970: an entry of that very moment is also wanted.
fn just_before(ms: u64) -> String {
    format!("{}-{}", ms.saturating_sub(1), u64::MAX)
}

impl Followed {
    /// Compares what was read with what was ever added. Returns how many entries were removed before they were read.
    fn compare(&mut self, stream: &Stream) -> u64 {
        let is_level = match &self.cursor {
            None => {
                self.cursor = Some(stream.last.clone());
                true
            }
            Some(cursor) => *cursor == stream.last,
        };
        if !is_level {
            return 0;
        }
        let before = self.level.replace((self.read, stream.added));
        let Some((read, added)) = before else { return 0 };
        // A stream that was deleted counts from 0 again.
        stream.added.saturating_sub(added).saturating_sub(self.read - read)
    }

    fn event(&self, (id, raw): RawEntry) -> Event {
        let mut fields: Vec<(String, Vec<u8>)> =
            raw.into_iter().map(|(name, value)| (String::from_utf8_lossy(&name).into_owned(), value)).collect();
        let mut take = |name: &str| {
            let at = fields.iter().position(|(field, _)| field == name)?;
            Some(String::from_utf8_lossy(&fields.remove(at).1).into_owned())
        };
        let (message_id, consumer_id) = (take("message_id"), take("consumer_id"));
        Event {
            outcome: if self.output.is_some() { Outcome::Result } else { Outcome::DeadLetter },
            at: stamp(&id).unwrap_or(SystemTime::UNIX_EPOCH),
            key: self.key.clone(),
            output: self.output.clone(),
            entry: Some(id),
            message_id,
            consumer_id,
            attempt: None,
            due: None,
            fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_were_removed_unread_are_counted_when_everything_is_read() {
        let mut followed = Followed { key: "s".to_owned(), output: None, cursor: None, read: 0, level: None };
        let stream = |last: &str, added| Stream { length: 0, added, first: None, last: last.to_owned() };
        assert_eq!(followed.compare(&stream("5-0", 10)), 0, "what was there before the first look is not wanted");
        followed.read = 3;
        assert_eq!(followed.compare(&stream("9-0", 20)), 0, "not everything is read");
        followed.cursor = Some("9-0".to_owned());
        assert_eq!(followed.compare(&stream("9-0", 20)), 7);
        assert_eq!(followed.compare(&stream("9-0", 20)), 0, "and only once");
        followed.cursor = Some("0-0".to_owned());
        assert_eq!(followed.compare(&stream("0-0", 0)), 0, "a stream that was deleted");
    }

    #[test]
    fn a_retry_is_new_once_and_few_are_remembered() {
        let mut known = Known::default();
        let retry = |due_ms| Retry { message_id: "m".to_owned(), attempt: 2, due_ms };
        assert!(known.add(&retry(1)) && !known.add(&retry(1)) && known.add(&retry(2)));
        let new = (3..20_000).filter(|due_ms| known.add(&retry(*due_ms))).count();
        assert_eq!(new, 19_997);
        assert_eq!((known.order.len(), known.all.len()), (RETRIES_KNOWN_MAX, RETRIES_KNOWN_MAX));
    }
}
