//! What a delivery has read, and what its messages have changed, in layers: the values as they were read, the changes of the
//! messages that have ended, and those of the message in process. This file waits for nothing.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{BYTES_MAX, KEYS_MAX, OPERATIONS_MAX, Refused};
use crate::effects::{Change, Effect, Expected, number};

/// A value as it was read.
pub(super) struct Seen {
    value: Option<Bytes>,
    /// Whether somebody depends on it.
    is_read: bool,
}

/// The layers.
#[derive(Default)]
pub(super) struct Overlay {
    seen: BTreeMap<String, Seen>,
    kept: BTreeMap<String, Change>,
    /// Changes, touched keys, calls and bytes of the message in process.
    own: BTreeMap<String, Change>,
    touched: BTreeSet<String>,
    operations: usize,
    bytes: usize,
}

impl Overlay {
    pub(super) fn begin(&mut self) {
        self.own.clear();
        self.touched.clear();
        (self.operations, self.bytes) = (0, 0);
    }

    pub(super) fn keep(&mut self) {
        for (name, change) in std::mem::take(&mut self.own) {
            let before = self.kept.remove(&name);
            if let Some(change) = combined(before, change) {
                self.kept.insert(name, change);
            }
        }
        self.begin();
    }

    /// Counts calls of the message.
    pub(super) fn count(&mut self, operations: usize) -> Result<(), Refused> {
        self.operations += operations;
        if self.operations > OPERATIONS_MAX {
            return Err(Refused::Other(format!("a message may use the state {OPERATIONS_MAX} times")));
        }
        Ok(())
    }

    /// Counts bytes of the message.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Refused> {
        self.bytes += bytes;
        if self.bytes > BYTES_MAX {
            return Err(Refused::Other(format!("a message may read and write {BYTES_MAX} bytes of state")));
        }
        Ok(())
    }

    /// Counts keys of the message.
    pub(super) fn touch<'a>(&mut self, names: impl Iterator<Item = &'a String>) -> Result<(), Refused> {
        for name in names {
            if !self.touched.contains(name) {
                if self.touched.len() == KEYS_MAX {
                    return Err(Refused::Other(format!("a message may use {KEYS_MAX} keys")));
                }
                self.touched.insert(name.clone());
            }
        }
        Ok(())
    }

    /// Those names whose value depends on what nobody has read yet.
    pub(super) fn unknown(&self, names: &[String]) -> Vec<String> {
        let is_set = |change: Option<&Change>| matches!(change, Some(Change::Set(_) | Change::Delete));
        let is_known =
            |name: &String| self.seen.contains_key(name) || is_set(self.own.get(name)) || is_set(self.kept.get(name));
        let unknown: BTreeSet<&String> = names.iter().filter(|name| !is_known(name)).collect();
        unknown.into_iter().cloned().collect()
    }

    pub(super) fn learn(&mut self, names: Vec<String>, values: Vec<Option<Bytes>>) {
        for (name, value) in names.into_iter().zip(values) {
            self.seen.entry(name).or_insert(Seen { value, is_read: false });
        }
    }

    /// The value of a known name, on which the message depends from now on.
    pub(super) fn get(&mut self, name: &str) -> Option<Bytes> {
        if let Some(seen) = self.seen.get_mut(name) {
            let is_set = |change: Option<&Change>| matches!(change, Some(Change::Set(_) | Change::Delete));
            seen.is_read |= !is_set(self.own.get(name)) && !is_set(self.kept.get(name));
        }
        self.peek(name)
    }

    /// The value of a known name.
    pub(super) fn peek(&self, name: &str) -> Option<Bytes> {
        let mut value = self.seen.get(name).and_then(|seen| seen.value.clone());
        for change in [self.kept.get(name), self.own.get(name)].into_iter().flatten() {
            value = match change {
                Change::Set(value) => Some(value.clone()),
                Change::Delete => None,
                Change::Add(delta) => {
                    let before = value.as_deref().and_then(number).unwrap_or(0);
                    Some(before.saturating_add(*delta).to_string().into())
                }
            };
        }
        value
    }

    /// Changes all of these, or none.
    pub(super) fn change_all(&mut self, changes: Vec<(String, Change)>) -> Result<(), Refused> {
        let bytes = |change: &Change| if let Change::Set(value) = change { value.len() } else { 0 };
        self.take(changes.iter().map(|(_, change)| bytes(change)).sum())?;
        for (name, change) in changes {
            let before = self.own.remove(&name);
            if let Some(change) = combined(before, change) {
                self.own.insert(name, change);
            }
        }
        Ok(())
    }

    /// Changes a page of a list as the messages have changed the bucket.
    pub(super) fn amend(&self, bucket: &str, keys: &mut Vec<String>, is_last: bool) {
        let latest = |name: &str| self.own.get(name).or_else(|| self.kept.get(name));
        keys.retain(|key| latest(&format!("{bucket}:{key}")) != Some(&Change::Delete));
        if is_last {
            let prefix = format!("{bucket}:");
            let names: BTreeSet<&String> = self.own.keys().chain(self.kept.keys()).collect();
            let added = names.into_iter().filter(|name| latest(name) != Some(&Change::Delete));
            keys.extend(added.filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned));
        }
    }

    /// The names that were read or changed.
    pub(super) fn names(self) -> Vec<String> {
        self.seen.into_keys().collect()
    }

    pub(super) fn size(&self) -> (usize, usize) {
        let seen: usize = self.seen.values().filter_map(|seen| seen.value.as_ref()).map(Bytes::len).sum();
        let set = |change: &Change| if let Change::Set(value) = change { value.len() } else { 0 };
        (seen + self.kept.values().map(set).sum::<usize>(), self.seen.len() + self.kept.len())
    }

    pub(super) fn effects(&self, ttl_ms: impl Fn(&str) -> Option<u64>) -> Vec<Effect> {
        let read = self.seen.iter().filter(|(_, seen)| seen.is_read).map(|(name, _)| name);
        let names: BTreeSet<&String> = read.chain(self.kept.keys()).collect();
        let effect = |name: &String| {
            let expected = match self.seen.get(name).filter(|seen| seen.is_read) {
                None => Expected::Anything,
                Some(Seen { value: None, .. }) => Expected::Absent,
                Some(Seen { value: Some(value), .. }) => Expected::Value(value.clone()),
            };
            Effect { name: name.clone(), expected, change: self.kept.get(name).cloned(), ttl_ms: ttl_ms(name) }
        };
        names.into_iter().map(effect).collect()
    }
}

/// Two changes in a row as one. `None`: nothing is changed.
fn combined(before: Option<Change>, after: Change) -> Option<Change> {
    let Change::Add(delta) = after else { return Some(after) };
    let sum = |before: i64| before.saturating_add(delta);
    Some(match before {
        None => Change::Add(delta),
        Some(Change::Set(value)) => Change::Set(sum(number(&value).unwrap_or(0)).to_string().into()),
        Some(Change::Delete) => Change::Set(delta.to_string().into()),
        Some(Change::Add(before)) => Change::Add(sum(before)),
    })
}
