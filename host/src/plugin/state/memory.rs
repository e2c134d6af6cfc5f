//! State in memory, for trying a plugin without Redis.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Answer, PAGE_KEYS_MAX, Page, Source};
use crate::effects::{Change, Effect, Expected, number};

/// State in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<String, Bytes>>>);

impl Memory {
    fn values(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what messages have changed, unless something that they have read is different now. Returns whether it was written.
    pub fn commit(&self, effects: Vec<Effect>) -> bool {
        let mut values = self.values();
        let fits = |Effect { name, expected, change, .. }: &Effect| {
            let value = values.get(name);
            let is_number = value.is_none_or(|value| number(value).is_some());
            let is_as_read = match expected {
                Expected::Anything => true,
                Expected::Absent => value.is_none(),
                Expected::Value(read) => value == Some(read),
            };
            is_as_read && (is_number || !matches!(change, Some(Change::Add(_))))
        };
        if !effects.iter().all(fits) {
            return false;
        }
        for Effect { name, change, .. } in effects {
            match change {
                None => {}
                Some(Change::Set(value)) => drop(values.insert(name, value)),
                Some(Change::Delete) => drop(values.remove(&name)),
                Some(Change::Add(delta)) => {
                    let before = values.get(&name).and_then(|value| number(value)).unwrap_or(0);
                    values.insert(name, before.saturating_add(delta).to_string().into());
                }
            }
        }
        true
    }
}

impl Source for Memory {
    fn read<'a>(&'a self, names: &'a [String]) -> Answer<'a, Vec<Option<Bytes>>> {
        let values = self.values();
        let found: Vec<_> = names.iter().map(|name| values.get(name).cloned()).collect();
        Box::pin(std::future::ready(found))
    }

    fn list<'a>(&'a self, bucket: &'a str, cursor: Option<&'a str>) -> Answer<'a, Result<Page, String>> {
        let prefix = format!("{bucket}:");
        let values = self.values();
        let after = cursor.unwrap_or_default();
        let mut keys: Vec<String> = values
            .keys()
            .filter_map(|name| name.strip_prefix(&prefix))
            .filter(|key| *key > after)
            .take(PAGE_KEYS_MAX + 1)
            .map(str::to_owned)
            .collect();
        let has_more = keys.len() > PAGE_KEYS_MAX;
        keys.truncate(PAGE_KEYS_MAX);
        let next = keys.last().filter(|_| has_more).cloned();
        Box::pin(std::future::ready(Ok((keys, next))))
    }
}
