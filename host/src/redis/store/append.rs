//! The intake's writing side, on one connection: marks and the lease, and appends that write with the messages how far they
//! reach.
//!
//! `WATCH` on the list of what is covered and `MULTI` around every append make the list a fence: if anybody has appended
//! meanwhile, however long ago and however late the bytes arrive, Redis discards the whole transaction.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use redis::RedisError;

use super::claims::{Terms, write_deliveries};
use super::covered::Covered;
use super::entries::Entries;
use super::keys::{Keys, about};
use super::marks::{Announcement, LEASE_TTL_MAX, MARK, Wish};
use crate::config::{KeysConfig, OutputConfig};
use crate::redis::client::clock::ServerClock;
use crate::redis::client::connection::Connection;
use crate::redis::client::resp::{Commands, Cursor, Head, malformed, server_error};
use crate::redis::client::script::without_comments;
use crate::redis::client::subscription::ReplicationId;
use crate::time::millis;

static COVER: LazyLock<String> = LazyLock::new(|| without_comments(include_str!("scripts/cover.lua")));
static REFUSE: LazyLock<String> = LazyLock::new(|| without_comments(include_str!("scripts/refuse.lua")));

/// What came of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Messages that were left out, because somebody had claimed them before.
    pub copies: usize,
    /// Dead letters that were removed, because there were more than are kept.
    pub trimmed: usize,
    /// Deliveries in the inbox afterwards, those in work included.
    pub inbox: usize,
    /// The deliveries in their order, if the batch wants to know.
    pub claimed: Vec<Claimed>,
}

/// A delivery that was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Token of its claims.
    pub token: String,
    /// Its messages that were left out.
    pub copies: usize,
}

/// What came of publishing a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    /// What the mark says.
    pub announcement: Announcement,
    /// The replication id of the data.
    pub data: ReplicationId,
    /// A history has begun with it: for how long the data had no mark before.
    pub away: Option<Duration>,
    /// What was wrong with keys of the intake and has been mended, a sentence each.
    pub mended: Vec<String>,
}

/// What is appended in one transaction.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Entries for the inbox.
    pub deliveries: &'a Entries,
    /// Entries for the dead letters.
    pub dead_letters: &'a Entries,
    /// The format of the entries.
    pub format: u32,
    /// What is covered afterwards.
    pub covered: &'a Covered,
    /// Whether the answer tells of each delivery.
    pub tells_claimed: bool,
}

/// Appends over a connection of its own, because `WATCH` belongs to the connection.
#[derive(Debug)]
pub struct Appender {
    connection: Connection,
    keys: Keys,
    marks_channel: String,
    output: OutputConfig,
    lease_ttl_ms: String,
    window_ms: String,
    tokens: Tokens,
}

/// Tokens for the claims of one delivery each: when it was appended, by the server's clock, and what no other has.
#[derive(Debug)]
struct Tokens {
    clock: Arc<ServerClock>,
    random: u32,
    count: u64,
}

impl Tokens {
    fn next(&mut self) -> String {
        self.count += 1;
        format!("{}-{:08x}{:x}", self.clock.now_ms(), self.random, self.count)
    }
}

/// How long things last.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The lease of the active intake.
    pub lease_ttl: Duration,
    /// The claims.
    pub dedup_window: Duration,
}

impl Appender {
    /// An appender on a connection that nobody else uses.
    #[must_use]
    pub fn new(
        connection: Connection,
        keys: Keys,
        marks_channel: String,
        output: OutputConfig,
        times: Times,
        clock: Arc<ServerClock>,
    ) -> Appender {
        let (lease_ttl_ms, window_ms) = (millis(times.lease_ttl).to_string(), millis(times.dedup_window).to_string());
        let tokens = Tokens { clock, random: rand::random(), count: 0 };
        Appender { connection, keys, marks_channel, output, lease_ttl_ms, window_ms, tokens }
    }

    /// Publishes the next mark. A lease that is held under `former_id`, the id that this host had before, is this host's.
    ///
    /// # Errors
    /// Errors of the network or the server; the mark may have been published or not.
    pub async fn mark(&mut self, host_id: &str, former_id: Option<&str>, wish: Wish) -> Result<Marked, RedisError> {
        let ttl_max = millis(LEASE_TTL_MAX).to_string();
        let mut commands = Commands::default();
        let mut words = vec![
            "EVAL",
            &MARK,
            "3",
            &self.keys.marks,
            &self.keys.intake,
            &self.keys.covered,
            &self.marks_channel,
            host_id,
            &self.lease_ttl_ms,
            &ttl_max,
            wish.word(),
        ];
        words.extend(former_id);
        commands.command(&words.into_iter().map(str::as_bytes).collect::<Vec<_>>());
        let replies = self.ask(&commands).await?;
        let mut replies = Cursor::new(&replies, 0);
        let count = replies.array()?;
        let announcement = Announcement::parse(replies.bulk()?).ok_or_else(malformed)?;
        let away = match replies.value()? {
            Head::Line([b':', b'-', ..]) => None,
            number => Some(Duration::from_millis(number.number()? as u64)),
        };
        let data = ReplicationId::parse(&String::from_utf8_lossy(replies.bulk()?));
        let mended = (3..count).map(|_| Ok(String::from_utf8_lossy(replies.bulk()?).into_owned()));
        Ok(Marked { announcement, data, away, mended: mended.collect::<Result<_, RedisError>>()? })
    }

    /// Begins to watch the list of what is covered, and reads it; also looks whether the streams can be appended to.
    ///
    /// # Errors
    /// Errors of the network or the server, and a stream's name under which something else lies.
    pub async fn watch(&mut self) -> Result<Covered, RedisError> {
        let mut commands = Commands::default();
        // A watch that goes on from before would remember every change since.
        commands.command(&[b"UNWATCH"]);
        // A transaction is not undone when one of its commands fails: so what would fail is not sent again and again.
        let keys = self.keys.clone();
        let streams = [&keys.inbox, &keys.dead, &keys.dead_index];
        for stream in streams {
            commands.command(&["TYPE", stream].map(str::as_bytes));
        }
        self.write_watch(&mut commands);
        let replies = self.ask(&commands).await?;
        let mut replies = Cursor::new(&replies, 0);
        replies.value()?;
        for stream in streams {
            if !matches!(replies.value()?, Head::Line(b"+stream" | b"+none")) {
                return Err(about(stream, server_error(b"-WRONGTYPE it is not a stream")));
            }
        }
        self.watched(&mut replies)
    }

    fn write_watch(&self, commands: &mut Commands) {
        commands.command(&["WATCH", &self.keys.covered].map(str::as_bytes));
        commands.command(&["GET", &self.keys.covered].map(str::as_bytes));
    }

    fn watched(&self, replies: &mut Cursor<'_>) -> Result<Covered, RedisError> {
        replies.value()?;
        match replies.value().map_err(|error| about(&self.keys.covered, error))? {
            Head::Bulk(text) => Ok(str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or_default()),
            _ => Ok(Covered::default()),
        }
    }

    /// Appends deliveries to the inbox, each with the claims of its messages, and dead letters to theirs, and writes what is
    /// covered, all or nothing; and begins to watch the list again. `None`: the list had changed since it was watched, and
    /// nothing was written. In any case the answer says how the list reads now.
    ///
    /// # Errors
    /// Errors of the network or the server; then it may have been written or not, and the list tells.
    pub async fn append(&mut self, batch: Batch<'_>) -> Result<(Option<Appended>, Covered), RedisError> {
        let Batch { deliveries, dead_letters, format, covered, tells_claimed } = batch;
        let mut commands = Commands::default();
        commands.command(&[b"MULTI"]);
        let terms = Terms { format, window_ms: &self.window_ms };
        let mut claimed = Vec::new();
        write_deliveries(&mut commands, &self.keys, deliveries, terms, || {
            let token = self.tokens.next();
            if tells_claimed {
                claimed.push(Claimed { token: token.clone(), copies: 0 });
            }
            token
        });
        let covered = covered.to_string();
        let KeysConfig { covered: list, inbox, dead, dead_index: index, .. } = &*self.keys;
        if !dead_letters.is_empty() {
            self.write_refusals(&mut commands, dead_letters);
            commands.command(&["EVAL", &COVER, "4", list, inbox, dead, index, &covered].map(str::as_bytes));
        } else if !deliveries.is_empty() {
            commands.command(&["EVAL", &COVER, "3", list, inbox, dead, &covered].map(str::as_bytes));
        } else {
            commands.command(&["SET", list, &covered].map(str::as_bytes));
        }
        let queued = commands.len();
        commands.command(&[b"EXEC"]);
        commands.command(&["XLEN", &self.keys.inbox].map(str::as_bytes));
        self.write_watch(&mut commands);
        let replies = self.ask(&commands).await?;
        let mut replies = Cursor::new(&replies, 0);
        for _ in 0..queued {
            replies.value()?;
        }
        let counted = match replies.value()? {
            Head::Nil => None,
            Head::Array(results) => {
                let (mut copies, mut trimmed) = (0, 0);
                for result in 0..results {
                    // Behind the deliveries, each two commands, are the dead letters, one command, and the list.
                    let key = match result {
                        result if result < 2 * deliveries.len() => &self.keys.inbox,
                        result if result + 1 < results => &self.keys.dead,
                        _ => &self.keys.covered,
                    };
                    let reply = replies.value().map_err(|error| about(key, error))?;
                    if result % 2 == 1 && result < 2 * deliveries.len() {
                        let left_out = reply.number()?;
                        copies += left_out;
                        if let Some(claimed) = claimed.get_mut(result / 2) {
                            claimed.copies = left_out;
                        }
                    } else if !dead_letters.is_empty() && result == 2 * deliveries.len() {
                        trimmed = reply.number()?;
                    }
                }
                Some((copies, trimmed))
            }
            _ => return Err(malformed()),
        };
        let inbox = replies.value().map_err(|error| about(&self.keys.inbox, error))?.number()?;
        let appended = counted.map(|(copies, trimmed)| Appended { copies, trimmed, inbox, claimed });
        Ok((appended, self.watched(&mut replies)?))
    }

    /// Adds the command that writes dead letters without a message id.
    fn write_refusals(&self, commands: &mut Commands, dead_letters: &Entries) {
        commands.begin(7 + dead_letters.arguments());
        for word in ["EVAL", &REFUSE, "2", &self.keys.dead, &self.keys.dead_index] {
            commands.word(word);
        }
        commands.number(self.output.dead_length_max);
        commands.number(self.output.dead_without_id_max);
        dead_letters.write_to(commands);
    }

    async fn ask(&mut self, commands: &Commands) -> Result<Bytes, RedisError> {
        self.connection.ask(commands, Duration::ZERO).await
    }
}
