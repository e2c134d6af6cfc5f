//! The state of a plugin while a delivery is processed: values as they were read, and changes that are held back until the
//! delivery is settled. Where values come from is the business of a [`Source`]; this room knows no Redis.

mod memory;
mod overlay;

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

pub use memory::Memory;
use overlay::Overlay;

use crate::config::Buckets;
use crate::effects::{Change, Effect, NUMBER_MAX, number};

/// Maximum length of a key, in bytes.
pub const KEY_BYTES_MAX: usize = 1 << 10;
/// Maximum length of a value, in bytes.
pub const VALUE_BYTES_MAX: usize = 128 << 10;
/// Maximum number of keys that one message reads or writes.
pub const KEYS_MAX: usize = 128;
/// Maximum number of calls for one message; each key of a batch is one.
pub const OPERATIONS_MAX: usize = 2_048;
/// Maximum number of bytes that one message reads and writes.
pub const BYTES_MAX: usize = 4 << 20;
/// Maximum number of keys in one page of a list.
pub const PAGE_KEYS_MAX: usize = 1_000;

/// A future of a source.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A page of a bucket's keys, and where the next page begins.
pub type Page = (Vec<String>, Option<String>);

/// Where the values of state come from.
pub trait Source: Send + Sync {
    /// The values of these names, in their order, in one round trip. Waits until they can be read.
    fn read<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Option<Bytes>>>;

    /// A page of the keys in a bucket, from this cursor on. A key may occur twice.
    fn list<'a>(&'a self, bucket: &'a str, cursor: Option<&'a str>) -> Answer<'a, Result<Page, String>>;
}

/// Why a call of the plugin was refused. The text is for the plugin, and for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bucket is not granted.
    #[error(
        "the bucket {0:?} is not granted; allow it with --allow-keyvalue {0}, or in the file: [allow] keyvalue = [\"{0}\"]"
    )]
    NotGranted(String),
    /// Everything else.
    #[error("{0}")]
    Other(String),
}

/// The state of a plugin for one delivery of one consumer, message after message.
pub struct Session {
    source: Box<dyn Source>,
    buckets: Arc<Buckets>,
    overlay: Mutex<Overlay>,
    /// Whether a call waits for the source.
    waits: AtomicBool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("buckets", &self.buckets.names()).finish_non_exhaustive()
    }
}

impl Session {
    /// A session in which nothing was read or changed.
    #[must_use]
    pub fn new(source: Box<dyn Source>, buckets: Arc<Buckets>) -> Session {
        Session { source, buckets, overlay: Mutex::default(), waits: AtomicBool::new(false) }
    }

    /// Forgets everything: the next delivery begins.
    pub fn clear(&self) {
        *self.overlay() = Overlay::default();
    }

    /// Begins the same delivery anew, and reads what it has read before, in one round trip.
    pub async fn begin_again(&self) {
        let names = std::mem::take(&mut *self.overlay()).names();
        if !names.is_empty() {
            let values = self.source.read(&names).await;
            self.overlay().learn(names, values);
        }
    }

    /// Begins a message. Whatever a message before has left unfinished is dropped.
    pub fn begin(&self) {
        self.waits.store(false, Ordering::Relaxed);
        self.overlay().begin();
    }

    /// Keeps the changes of the message.
    pub fn keep(&self) {
        self.overlay().keep();
    }

    /// Drops the changes of the message.
    pub fn discard(&self) {
        self.overlay().begin();
    }

    /// Whether the last message has ended while a value was read, so that it was not its fault.
    #[must_use]
    pub fn was_reading(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Number of bytes and keys that the delivery has read and changed so far.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        self.overlay().size()
    }

    /// What the messages of the delivery have read and changed.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        let ttl = |name: &str| {
            let ttl = self.buckets.get(name.split(':').next()?)?.ttl?;
            u64::try_from(ttl.as_millis()).ok()
        };
        self.overlay().effects(ttl)
    }

    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a bucket.
    pub(super) fn open(buckets: &Buckets, bucket: &str) -> Result<(), Refused> {
        match buckets.get(bucket) {
            Some(_) => Ok(()),
            None => Err(Refused::NotGranted(bucket.chars().take(64).flat_map(char::escape_default).collect())),
        }
    }

    /// The values of keys in a bucket.
    pub(super) async fn get(&self, bucket: &str, keys: &[String]) -> Result<Vec<Option<Bytes>>, Refused> {
        let names = self.names(bucket, keys)?;
        self.learn(&names).await?;
        let mut overlay = self.overlay();
        Ok(names.iter().map(|name| overlay.get(name)).collect())
    }

    /// Changes keys in a bucket: all, or none.
    pub(super) fn change(&self, bucket: &str, changes: Vec<(String, Option<Bytes>)>) -> Result<(), Refused> {
        if let Some((_, Some(value))) =
            changes.iter().find(|(_, value)| value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX))
        {
            let length = value.len();
            return Err(Refused::Other(format!("a value has {length} bytes; it may have {VALUE_BYTES_MAX}")));
        }
        let (keys, values): (Vec<String>, Vec<Option<Bytes>>) = changes.into_iter().unzip();
        let names = self.names(bucket, &keys)?;
        let changes = names.into_iter().zip(values.into_iter().map(|value| value.map_or(Change::Delete, Change::Set)));
        self.overlay().change_all(changes.collect())
    }

    /// Adds to a number. What it returns is not compared when the message is settled, so that counters never conflict.
    pub(super) async fn increment(&self, bucket: &str, key: String, delta: i64) -> Result<i64, Refused> {
        if !(-NUMBER_MAX..=NUMBER_MAX).contains(&delta) {
            return Err(Refused::Other(format!("{delta} is too much to add; a number has up to 18 digits")));
        }
        let names = self.names(bucket, &[key])?;
        self.learn(&names).await?;
        let mut overlay = self.overlay();
        let before = overlay.peek(&names[0]).map_or(Some(0), |value| number(&value));
        let after = before.map(|before| before + delta).filter(|after| (-NUMBER_MAX..=NUMBER_MAX).contains(after));
        let Some(after) = after else {
            // The refusal depends on the value.
            overlay.get(&names[0]);
            let problem = "the value is no number of up to 18 digits, or the sum would not be one";
            return Err(Refused::Other(problem.to_owned()));
        };
        overlay.change_all(names.into_iter().map(|name| (name, Change::Add(delta))).collect())?;
        Ok(after)
    }

    /// A page of the keys in a bucket, with the changes of the messages so far.
    pub(super) async fn list(&self, bucket: &str, cursor: Option<&str>) -> Result<Page, Refused> {
        self.overlay().count(1)?;
        self.waits.store(true, Ordering::Relaxed);
        let page = self.source.list(bucket, cursor).await;
        self.waits.store(false, Ordering::Relaxed);
        let (mut keys, next) = page.map_err(Refused::Other)?;
        self.overlay().amend(bucket, &mut keys, next.is_none());
        Ok((keys, next))
    }

    /// Reads what is not known yet.
    async fn learn(&self, names: &[String]) -> Result<(), Refused> {
        let unknown = self.overlay().unknown(names);
        if unknown.is_empty() {
            return Ok(());
        }
        self.waits.store(true, Ordering::Relaxed);
        let values = self.source.read(&unknown).await;
        self.waits.store(false, Ordering::Relaxed);
        let mut overlay = self.overlay();
        overlay.take(values.iter().flatten().map(Bytes::len).sum())?;
        overlay.learn(unknown, values);
        Ok(())
    }

    /// The full names of keys, which count as calls of the message.
    fn names(&self, bucket: &str, keys: &[String]) -> Result<Vec<String>, Refused> {
        let mut overlay = self.overlay();
        overlay.count(keys.len())?;
        let names: Vec<String> = keys.iter().map(|key| name(bucket, key)).collect::<Result<_, _>>()?;
        overlay.touch(names.iter())?;
        Ok(names)
    }
}

/// Bucket, colon and key. A bucket has no colon, so that different keys have different names.
fn name(bucket: &str, key: &str) -> Result<String, Refused> {
    match key.len() {
        0 => Err(Refused::Other("a key must not be empty".to_owned())),
        1..=KEY_BYTES_MAX => Ok(format!("{bucket}:{key}")),
        length => Err(Refused::Other(format!("a key has {length} bytes; it may have {KEY_BYTES_MAX}"))),
    }
}

#[cfg(test)]
mod tests;
