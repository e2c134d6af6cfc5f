//! The rule by which a new version of the plugin counts as worse than the previous version, and the figures behind that
//! rule. This file knows no messages and changes no version in use.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::Version;
use super::costs::Costs;
use crate::config::ReloadConfig;

/// Time between two reviews of a version that has been in use for long enough but has not processed enough messages.
const REVIEW_INTERVAL: Duration = Duration::from_millis(500);

/// Lengths of the inbox that decide whether it grows.
const LENGTHS: usize = 4;

/// Counts of messages and failures of a version.
#[derive(Debug, Default)]
pub struct Record {
    messages: AtomicU64,
    failures: AtomicU64,
    /// What the messages take.
    pub costs: Costs,
}

impl Record {
    /// Adds messages, and failures among them.
    pub fn add(&self, messages: u64, failures: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        if failures > 0 {
            self.failures.fetch_add(failures, Ordering::Relaxed);
        }
    }

    /// Messages given to the version.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// The probation of a version. Every message that the version fails is given to the previous version. A message that
/// the previous version processes is a regression.
#[derive(Debug)]
pub struct Probation {
    before: Arc<Version>,
    regressions: AtomicU64,
    regressions_max: u64,
    messages: u64,
    ends: Option<Instant>,
    /// How many times as long as the previous version the new one may take for a message; 0 is no bound.
    slowdown_max: u32,
    /// How long the previous version is kept when the probation has ended.
    keep: Duration,
    /// The last lengths of the inbox, oldest first.
    inbox: Mutex<VecDeque<u64>>,
    /// Whether the host has warned of a slow version, and of one whose memory grows.
    pub(super) warned: (AtomicBool, AtomicBool),
    said_why: AtomicBool,
}

impl Probation {
    /// A probation that begins now.
    pub(super) fn new(before: Arc<Version>, config: &ReloadConfig) -> Probation {
        Probation {
            before,
            regressions: AtomicU64::default(),
            regressions_max: config.rollback_failures.into(),
            messages: config.probation_messages,
            ends: Instant::now().checked_add(config.probation_time),
            slowdown_max: config.rollback_slowdown,
            keep: config.keep_version,
            inbox: Mutex::default(),
            warned: (AtomicBool::default(), AtomicBool::default()),
            said_why: AtomicBool::default(),
        }
    }

    /// The previous trusted version.
    #[must_use]
    pub fn before(&self) -> &Arc<Version> {
        &self.before
    }

    /// Regressions so far.
    #[must_use]
    pub fn regressions(&self) -> u64 {
        self.regressions.load(Ordering::Relaxed)
    }

    /// Counts a regression. Returns whether a version with this number of messages must be rolled back.
    pub(super) fn regressed(&self, messages: u64) -> bool {
        let regressions = self.regressions.fetch_add(1, Ordering::Relaxed) + 1;
        let before = &self.before.record;
        is_worse(regressions, self.regressions_max, messages, before.failures(), before.messages())
    }

    /// How many times as long as the previous version the new one may take for a message, if there is a bound.
    pub(super) fn slowdown_max(&self) -> Option<u32> {
        (self.slowdown_max > 0).then_some(self.slowdown_max)
    }

    /// How long the previous version is kept when the probation has ended.
    pub(super) fn keep(&self) -> Duration {
        self.keep
    }

    /// Notes the length of the inbox.
    pub(super) fn observe_inbox(&self, deliveries: u64) {
        let mut lengths = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if lengths.len() == LENGTHS {
            lengths.pop_front();
        }
        lengths.push_back(deliveries);
    }

    /// Time until the next review; `None` when the probation may end. A probation does not end while the inbox grows, and not
    /// before that can be told.
    pub(super) fn wait(&self, messages: u64, consumers: u32, now: Instant) -> Option<Duration> {
        let left = self.ends.map_or(REVIEW_INTERVAL, |ends| ends.saturating_duration_since(now));
        if left > Duration::ZERO || messages < self.messages {
            return Some(left.max(REVIEW_INTERVAL));
        }
        let grows = grows(self.inbox.lock().unwrap_or_else(PoisonError::into_inner).make_contiguous(), consumers);
        if grows == Some(true) && !self.said_why.swap(true, Ordering::Relaxed) {
            warn!("the new version of the plugin stays on probation, because the inbox grows; it may be too slow");
        }
        (grows != Some(false)).then_some(REVIEW_INTERVAL)
    }
}

/// Whether the new version is worse: whether its regressions exceed twice the failures expected from the failure rate
/// of the previous version by at least `max`. A plugin with random failures also has random failures in its next
/// version, and those must not cause a rollback.
fn is_worse(regressions: u64, max: u64, messages: u64, failures_before: u64, messages_before: u64) -> bool {
    let Some(surplus) = regressions.checked_sub(max) else { return false };
    // surplus ÷ messages ≥ 2 × failures_before ÷ messages_before
    let excused = (u128::from(failures_before) * u128::from(messages)).saturating_mul(2);
    u128::from(surplus) * u128::from(messages_before) >= excused
}

/// Whether the inbox grows by more than the work of the consumers, and by more than a tenth. `None` while nobody knows.
fn grows(lengths: &[u64], consumers: u32) -> Option<bool> {
    let [first, .., last] = *lengths else { return None };
    Some(last > first + (2 * u64::from(consumers)).max(first / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_grows_when_it_gets_longer_than_what_is_in_work() {
        assert_eq!((grows(&[], 4), grows(&[9], 4)), (None, None));
        assert_eq!(grows(&[0, 8], 4), Some(false));
        assert_eq!(grows(&[0, 5, 9], 4), Some(true));
        assert_eq!(grows(&[1_000, 1_200, 1_100], 4), Some(false), "waves are no growth");
        assert_eq!(grows(&[1_000, 1_050, 1_101], 4), Some(true));
        assert_eq!(grows(&[900, 800, 700], 4), Some(false));
    }

    #[test]
    fn failures_that_the_version_before_never_had_are_counted_alone() {
        for (messages, messages_before) in [(3, 0), (1_000_000, 1_000_000), (3, 1)] {
            assert!(!is_worse(2, 3, messages, 0, messages_before));
            assert!(is_worse(3, 3, messages, 0, messages_before));
        }
        assert!(is_worse(1, 1, 1, 0, 10));
    }

    #[test]
    fn twice_as_many_as_the_version_before_had_are_excused_as_chance() {
        // One in ten before: of 1,000 messages 200 are excused.
        assert!(!is_worse(202, 3, 1_000, 100, 1_000));
        assert!(is_worse(203, 3, 1_000, 100, 1_000));
        assert!(!is_worse(100, 3, 1_000, 100, 1_000));
        // It fails every message.
        assert!(!is_worse(3, 3, 3, 100, 1_000));
        assert!(is_worse(4, 3, 4, 100, 1_000));
    }

    #[test]
    fn large_counts_do_not_overflow() {
        assert!(!is_worse(u64::MAX, 1, u64::MAX, u64::MAX, u64::MAX));
        assert!(is_worse(u64::MAX, 1, u64::MAX, 0, u64::MAX));
    }
}
