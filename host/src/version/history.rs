//! What has happened to the versions of a host, for people who ask afterwards. This file decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

use super::Fingerprint;
use crate::time::rfc3339;

/// Events that are kept; older ones are forgotten.
pub const HISTORY_MAX: usize = 100;

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = VersionEventKind)]
pub enum Event {
    /// The host started with the version.
    Started,
    /// The version came into use.
    Swapped,
    /// The version came into use although it had been rolled back before, because a command asked for that.
    Forced,
    /// The version came back into use, because the next one failed or a command asked for that.
    RolledBack,
    /// The version is loaded and waits for the canary of the group.
    Waiting,
    /// The version, or a configuration, was refused.
    Refused,
    /// The probation of the version ended.
    Trusted,
    /// The version fails nearly everything, and gets single messages only.
    Failing,
    /// The version gets all messages again.
    Recovered,
}

/// An event in the life of the versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = VersionEvent)]
pub struct Entry {
    /// When it happened, by the host's clock, RFC 3339.
    pub at: String,
    /// What happened.
    pub event: Event,
    /// SHA-256 of the version that the event is about; none for a refused configuration.
    pub digest: Option<String>,
    /// SHA-256 of the version that was in use before.
    pub before: Option<String>,
    /// Number of the version that is in use after the event.
    pub generation: u64,
    /// Why, as a sentence.
    pub reason: Option<String>,
    /// The version on which a word was spoken, for the other hosts of the group.
    #[serde(skip)]
    pub judged: Option<Judged>,
}

/// A version whose probation has ended, well or badly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// Whether a command said so.
    pub by_command: bool,
}

impl Entry {
    /// An event of this moment.
    pub(super) fn new(event: Event, (digest, before): (Option<&str>, Option<&str>), generation: u64) -> Entry {
        let (digest, before) = (digest.map(str::to_owned), before.map(str::to_owned));
        Entry { at: rfc3339(SystemTime::now()), event, digest, before, generation, reason: None, judged: None }
    }

    /// The event with a reason.
    pub(super) fn because(self, reason: impl Into<String>) -> Entry {
        Entry { reason: Some(reason.into()), ..self }
    }

    /// The event as a word on a version.
    pub(super) fn judging(self, judged: Judged) -> Entry {
        Entry { judged: Some(judged), ..self }
    }
}

/// The last events, and how many there ever were.
#[derive(Debug, Default)]
pub struct Recent {
    entries: VecDeque<Arc<Entry>>,
    total: u64,
}

impl Recent {
    /// Number of events since the start of the host.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The events that are kept, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter().rev()
    }

    /// The events after the first `seen` ones, as far as they are kept, oldest first.
    pub fn after(&self, seen: u64) -> impl Iterator<Item = &Arc<Entry>> {
        let new = usize::try_from(self.total.saturating_sub(seen)).unwrap_or(usize::MAX);
        self.entries.iter().skip(self.entries.len().saturating_sub(new))
    }
}

/// The history of one host.
#[derive(Debug, Default)]
pub(super) struct History(watch::Sender<Recent>);

impl History {
    /// A receiver of all events, which begins with those that are kept.
    pub(super) fn subscribe(&self) -> watch::Receiver<Recent> {
        self.0.subscribe()
    }

    /// Adds an event.
    pub(super) fn add(&self, entry: Entry) {
        let entry = Arc::new(entry);
        self.0.send_modify(|recent| {
            if recent.entries.len() >= HISTORY_MAX {
                recent.entries.pop_front();
            }
            recent.entries.push_back(entry);
            recent.total += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_and_a_reader_gets_those_it_has_not_seen() {
        let history = History::default();
        let generations =
            |seen| -> Vec<u64> { history.subscribe().borrow().after(seen).map(|entry| entry.generation).collect() };
        assert_eq!(generations(0), [0; 0]);
        let swap = |generation| history.add(Entry::new(Event::Swapped, (Some("d"), None), generation));
        (1..=3).for_each(swap);
        assert_eq!((generations(0), generations(2), generations(3)), (vec![1, 2, 3], vec![3], vec![]));
        (4..=250).for_each(swap);
        assert_eq!((generations(0).len(), generations(0)[0], generations(249)), (HISTORY_MAX, 151, vec![250]));
        let newest = history.subscribe().borrow().newest_first().next().map(|entry| entry.generation);
        assert_eq!(newest, Some(250));
    }
}
