//! The intake's writing side: the lease, and appends that only the lease's holder can make.
//!
//! `WATCH` on the lease and `MULTI` around every write make the lease a fence: if it was lost meanwhile, however
//! long ago and however late the bytes arrive, Redis discards the whole transaction. Renewal goes along
//! with the writes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{FromRedisValue, RedisError, from_redis_value};

use super::claims::{Terms, write_deliveries};
use super::entries::Entries;
use super::fence::Fence;
use super::keys::{Keys, about};
use crate::config::OutputConfig;
use crate::redis::client::clock::ServerClock;
use crate::redis::client::connection::Connection;
use crate::redis::client::resp::{Commands, Cursor, Head, malformed};

/// Dead letters read at once; each may have 64 KiB.
const REFUSED_PAGE: usize = 100;

/// Stands for a payload that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PayloadDigest(u64);

impl PayloadDigest {
    /// The digest of what is kept of a payload.
    #[must_use]
    pub fn of(kept: &[u8]) -> PayloadDigest {
        let mut hasher = DefaultHasher::new();
        kept.hash(&mut hasher);
        PayloadDigest(hasher.finish())
    }
}

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Messages that were left out, because somebody had claimed them before.
    pub copies: usize,
    /// Deliveries in the inbox afterwards, those in work included.
    pub inbox: usize,
}

/// Who may append now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// This host, by an earlier connection.
    Own,
    /// Nobody.
    Free,
    /// Another host, for so long unless it renews.
    Elsewhere(Duration),
}

/// The lease of the active intake, held over one connection of its own.
#[derive(Debug)]
pub struct Appender {
    connection: Connection,
    keys: Keys,
    output: OutputConfig,
    /// The lease, with this host as its holder.
    lease: Fence,
    ttl_ms: String,
    window_ms: String,
    tokens: Tokens,
    /// Whether the lease was ours when the watch on it began.
    held: bool,
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

impl Appender {
    /// An appender on a connection that nobody else uses, because `WATCH` belongs to the connection.
    #[must_use]
    pub fn new(
        connection: Connection,
        keys: Keys,
        output: OutputConfig,
        host_id: String,
        lease_ttl: Duration,
        dedup_window: Duration,
        clock: Arc<ServerClock>,
    ) -> Appender {
        let (ttl_ms, window_ms) = (lease_ttl.as_millis().to_string(), dedup_window.as_millis().to_string());
        let tokens = Tokens { clock, random: rand::random(), count: 0 };
        let lease = Fence { key: keys.intake.clone(), value: host_id };
        Appender { connection, keys, output, lease, ttl_ms, window_ms, tokens, held: false }
    }

    /// Looks who has the lease.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn look(&mut self) -> Result<Lease, RedisError> {
        let mut commands = Commands::default();
        commands.command(&["GET", &self.keys.intake].map(str::as_bytes));
        commands.command(&["PTTL", &self.keys.intake].map(str::as_bytes));
        let replies = self.ask(&commands).await?;
        let mut replies = Cursor::new(&replies, 0);
        match replies.value().map_err(|error| about(&self.keys.intake, error))? {
            Head::Nil => return Ok(Lease::Free),
            holder if self.lease.is_value(holder) => return Ok(Lease::Own),
            _ => {}
        }
        let Head::Line(ttl) = replies.value()? else { return Err(malformed()) };
        // Negative when it has gone meanwhile.
        let ttl_ms = str::from_utf8(&ttl[1..]).ok().and_then(|ttl| ttl.parse().ok()).unwrap_or(0);
        Ok(Lease::Elsewhere(Duration::from_millis(ttl_ms)))
    }

    /// Takes the lease if nobody has it. `true`: it is held.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn acquire(&mut self) -> Result<bool, RedisError> {
        let mut commands = Commands::default();
        // A watch that goes on from before would remember every change since, also those of others.
        commands.command(&[b"UNWATCH"]);
        commands.command(&["SET", &self.keys.intake, &self.lease.value, "NX", "PX", &self.ttl_ms].map(str::as_bytes));
        let before = commands.len();
        self.lease.watch(&mut commands);
        let replies = self.ask(&commands).await?;
        let mut replies = Cursor::new(&replies, 0);
        for _ in 0..before {
            replies.value()?;
        }
        self.held = self.lease.is_held(&mut replies).map_err(|error| about(&self.keys.intake, error))?;
        Ok(self.held)
    }

    /// Appends deliveries to the inbox, in this format and each with the claims of its messages, and dead letters to theirs,
    /// and renews the lease, all or nothing. `None`: the lease was lost, and nothing was written.
    ///
    /// # Errors
    /// Whatever the network or the server says; then it may have been written or not.
    pub async fn append(
        &mut self,
        deliveries: &Entries,
        dead_letters: &Entries,
        format: u32,
    ) -> Result<Option<Appended>, RedisError> {
        if !self.held {
            return Ok(None);
        }
        let mut commands = Commands::default();
        commands.command(&[b"MULTI"]);
        let terms = Terms { format, window_ms: &self.window_ms };
        write_deliveries(&mut commands, &self.keys, deliveries, terms, || self.tokens.next());
        dead_letters.write_appends(&mut commands, &self.keys.dead, self.output.dead_length_max);
        commands.command(&["PEXPIRE", &self.keys.intake, &self.ttl_ms].map(str::as_bytes));
        let queued = commands.len();
        commands.command(&[b"EXEC"]);
        commands.command(&["XLEN", &self.keys.inbox].map(str::as_bytes));
        self.lease.watch(&mut commands);
        // An error leaves the watch in doubt; the caller starts again with a new connection.
        self.held = false;
        let replies = self.ask(&commands).await?;
        let mut replies = Cursor::new(&replies, 0);
        for _ in 0..queued {
            replies.value()?;
        }
        let copies = match replies.value()? {
            Head::Nil => None,
            Head::Array(results) => {
                let mut copies = 0;
                for result in 0..results {
                    // Behind the deliveries, each two commands, are the dead letters and the lease.
                    let key = if result < 2 * deliveries.len() { &self.keys.inbox } else { &self.keys.dead };
                    let reply = replies.value().map_err(|error| about(key, error))?;
                    if result % 2 == 1 && result < 2 * deliveries.len() {
                        copies += reply.number()?;
                    }
                }
                Some(copies)
            }
            _ => return Err(malformed()),
        };
        let inbox = replies.value()?.number()?;
        self.held = self.lease.is_held(&mut replies)?;
        Ok(copies.map(|copies| Appended { copies, inbox }))
    }

    /// What was refused during the last `age`, by any host: how often each kept payload was written.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn refused_since(&mut self, age: Duration) -> Result<HashMap<PayloadDigest, usize>, RedisError> {
        let (seconds, micros): (u64, u64) = self.value(&["TIME"]).await?;
        let since_ms =
            (seconds * 1000 + micros / 1000).saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let mut refused = HashMap::new();
        let mut first = since_ms.to_string();
        loop {
            let page = REFUSED_PAGE.to_string();
            let dead = self.keys.dead.clone();
            let entries: Vec<(String, HashMap<String, Vec<u8>>)> = self
                .value(&["XRANGE", &dead, &first, "+", "COUNT", &page])
                .await
                .map_err(|error| about(&dead, error))?;
            // What the plugins gave up on has an id; claims see to it that it is there once.
            for payload in entries.iter().filter_map(|(_, fields)| match fields.contains_key("message_id") {
                true => None,
                false => fields.get("payload"),
            }) {
                *refused.entry(PayloadDigest::of(payload)).or_default() += 1;
            }
            match entries.last() {
                Some((last, _)) if entries.len() == REFUSED_PAGE => first = format!("({last}"),
                _ => return Ok(refused),
            }
        }
    }

    /// Lets the lease go, if it is still ours.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn release(&mut self) -> Result<(), RedisError> {
        if !std::mem::take(&mut self.held) {
            return Ok(());
        }
        let mut commands = Commands::default();
        commands.command(&[b"MULTI"]);
        commands.command(&["DEL", &self.keys.intake].map(str::as_bytes));
        commands.command(&[b"EXEC"]);
        let replies = self.ask(&commands).await?;
        let mut replies = Cursor::new(&replies, 0);
        (0..commands.len()).try_for_each(|_| replies.value().map(drop))
    }

    async fn ask(&mut self, commands: &Commands) -> Result<Bytes, RedisError> {
        self.connection.ask(commands, Duration::ZERO).await
    }

    /// The reply to a command that is asked rarely, as a value.
    async fn value<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T, RedisError> {
        let mut commands = Commands::default();
        commands.command(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        let reply = redis::parse_redis_value(&self.ask(&commands).await?)?.extract_error()?;
        Ok(from_redis_value(reply)?)
    }
}
