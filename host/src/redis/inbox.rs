//! The intake's writing side: the lease, and appends that only the lease's holder can make.
//!
//! `WATCH` on the lease and `MULTI` around every write make the lease a fence: if it was lost meanwhile, however
//! long ago and however late the bytes arrive, Redis discards the whole transaction. Renewal goes along
//! with the writes.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use redis::{Cmd, Pipeline, RedisError, Value, from_redis_value};

use super::connection::Connection;
use super::entries::Entries;
use super::keys::Keys;
use crate::config::OutputConfig;

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
    host_id: String,
    ttl_ms: String,
    /// Whether the lease was ours when the watch on it began.
    held: bool,
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
    ) -> Appender {
        Appender { connection, keys, output, host_id, ttl_ms: lease_ttl.as_millis().to_string(), held: false }
    }

    /// Looks who has the lease.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn look(&mut self) -> Result<Lease, RedisError> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("GET").arg(&self.keys.intake).cmd("PTTL").arg(&self.keys.intake);
        let replies = self.send(&pipeline).await?;
        if replies[0] == Value::Nil {
            return Ok(Lease::Free);
        }
        if self.is_own(&replies[0]) {
            return Ok(Lease::Own);
        }
        let ttl_ms: i64 = from_redis_value(replies[1].clone())?;
        Ok(Lease::Elsewhere(Duration::from_millis(u64::try_from(ttl_ms).unwrap_or(0))))
    }

    /// Takes the lease if nobody has it. `true`: it is held.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn acquire(&mut self) -> Result<bool, RedisError> {
        let mut pipeline = Pipeline::with_capacity(4);
        // A watch that goes on from before would remember every change since, also those of others.
        pipeline.cmd("UNWATCH");
        pipeline.cmd("SET").arg(&self.keys.intake).arg(&self.host_id).arg("NX").arg("PX").arg(&self.ttl_ms);
        self.watch(&mut pipeline);
        let replies = self.send(&pipeline).await?;
        self.held = self.is_own(&replies[3]);
        Ok(self.held)
    }

    /// Appends deliveries to the inbox and dead letters to theirs, and renews the lease, all or nothing.
    /// `false`: the lease was lost, and nothing was written.
    ///
    /// # Errors
    /// Whatever the network or the server says; then it may have been written or not.
    pub async fn append(&mut self, deliveries: &Entries, dead_letters: &Entries) -> Result<bool, RedisError> {
        if !self.held {
            return Ok(false);
        }
        let mut pipeline = Pipeline::with_capacity(deliveries.len() + dead_letters.len() + 5);
        pipeline.cmd("MULTI");
        for values in deliveries.iter() {
            xadd(&mut pipeline, &self.keys.inbox, 0, values);
        }
        for values in dead_letters.iter() {
            xadd(&mut pipeline, &self.keys.dead, self.output.dead_length_max, values);
        }
        pipeline.cmd("PEXPIRE").arg(&self.keys.intake).arg(&self.ttl_ms);
        pipeline.cmd("EXEC");
        let exec = pipeline.len() - 1;
        self.watch(&mut pipeline);
        // An error leaves the watch in doubt; the caller starts again with a new connection.
        self.held = false;
        let mut replies = self.send(&pipeline).await?;
        self.held = self.is_own(&replies[exec + 2]);
        match std::mem::take(&mut replies[exec]) {
            Value::Nil => Ok(false),
            Value::Array(results) => {
                for result in results {
                    result.extract_error()?;
                }
                Ok(true)
            }
            other => Err(unexpected("EXEC", &other)),
        }
    }

    /// What was refused during the last `age`, by any host: how often each kept payload was written.
    ///
    /// # Errors
    /// Whatever the network or the server says.
    pub async fn refused_since(&mut self, age: Duration) -> Result<HashMap<PayloadDigest, usize>, RedisError> {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut self.connection).await?;
        let since_ms =
            (seconds * 1000 + micros / 1000).saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        let mut refused = HashMap::new();
        let mut first = since_ms.to_string();
        loop {
            let mut command = redis::cmd("XRANGE");
            command.arg(&self.keys.dead).arg(&first).arg("+").arg("COUNT").arg(REFUSED_PAGE);
            let entries: Vec<(String, HashMap<String, Vec<u8>>)> = command.query_async(&mut self.connection).await?;
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
        let mut pipeline = Pipeline::with_capacity(3);
        pipeline.cmd("MULTI");
        pipeline.cmd("DEL").arg(&self.keys.intake);
        pipeline.cmd("EXEC");
        self.send(&pipeline).await.map(drop)
    }

    fn watch(&self, pipeline: &mut Pipeline) {
        pipeline.cmd("WATCH").arg(&self.keys.intake);
        pipeline.cmd("GET").arg(&self.keys.intake);
    }

    fn is_own(&self, lease: &Value) -> bool {
        matches!(lease, Value::BulkString(holder) if holder == self.host_id.as_bytes())
    }

    /// Replies in order; the first error among them is the error.
    async fn send(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let replies = self.connection.send_packed_commands(pipeline, 0, pipeline.len()).await?;
        replies.into_iter().map(Value::extract_error).collect()
    }
}

fn xadd<'a>(pipeline: &mut Pipeline, stream: &str, length_max: u64, values: impl Iterator<Item = &'a [u8]>) {
    let mut command = Cmd::new();
    command.arg("XADD").arg(stream);
    if length_max > 0 {
        command.arg("MAXLEN").arg("~").arg(length_max);
    }
    command.arg("*");
    for value in values {
        command.arg(value);
    }
    pipeline.add_command(command);
}

fn unexpected(command: &'static str, reply: &Value) -> RedisError {
    (redis::ErrorKind::UnexpectedReturnType, command, format!("unexpected reply {reply:?}")).into()
}
