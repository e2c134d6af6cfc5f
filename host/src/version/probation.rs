//! Whether a new version of the plugin is worse than the one before: the rule, and what it is decided on.
//! It knows no message and puts no version into use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Version;
use crate::config::ReloadConfig;

/// Time between two looks at a version that has been in use for long enough and not been asked enough.
const REVIEW_INTERVAL: Duration = Duration::from_millis(500);

/// How a version has done, in messages.
#[derive(Debug, Default)]
pub struct Record {
    messages: AtomicU64,
    failures: AtomicU64,
}

impl Record {
    /// Adds messages that the version was asked about, and how many of them it failed.
    pub fn add(&self, messages: u64, failures: u64) {
        self.messages.fetch_add(messages, Ordering::Relaxed);
        if failures > 0 {
            self.failures.fetch_add(failures, Ordering::Relaxed);
        }
    }

    /// Messages that the version was asked about.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// A version on probation: every message that it fails is given to the version before, and what that one processes is a
/// regression.
#[derive(Debug)]
pub struct Probation {
    before: Arc<Version>,
    regressions: AtomicU64,
    regressions_max: u64,
    messages: u64,
    ends: Option<Instant>,
}

impl Probation {
    /// Begins now.
    pub(super) fn new(before: Arc<Version>, config: &ReloadConfig) -> Probation {
        Probation {
            before,
            regressions: AtomicU64::default(),
            regressions_max: config.rollback_failures.into(),
            messages: config.probation_messages,
            ends: Instant::now().checked_add(config.probation_time),
        }
    }

    /// The version that was trusted last.
    #[must_use]
    pub fn before(&self) -> &Arc<Version> {
        &self.before
    }

    /// Regressions so far.
    #[must_use]
    pub fn regressions(&self) -> u64 {
        self.regressions.load(Ordering::Relaxed)
    }

    /// Counts a regression. Whether the version must go, having been asked about so many messages.
    pub(super) fn regressed(&self, messages: u64) -> bool {
        let regressions = self.regressions.fetch_add(1, Ordering::Relaxed) + 1;
        let before = &self.before.record;
        is_worse(regressions, self.regressions_max, messages, before.failures(), before.messages())
    }

    /// Time until it may have ended; `None` when it has.
    pub(super) fn wait(&self, messages: u64, now: Instant) -> Option<Duration> {
        let left = self.ends.map_or(REVIEW_INTERVAL, |ends| ends.saturating_duration_since(now));
        match left {
            Duration::ZERO if messages >= self.messages => None,
            left => Some(left.max(REVIEW_INTERVAL)),
        }
    }
}

/// Whether so many regressions in so many messages are `max` more than twice as many as the version before would have
/// failed, by what it failed in its own time. A plugin that fails by chance fails again by chance, and a new version of it is
/// not to blame; nor is a good one for a bad moment.
fn is_worse(regressions: u64, max: u64, messages: u64, failures_before: u64, messages_before: u64) -> bool {
    let Some(surplus) = regressions.checked_sub(max) else { return false };
    // surplus ÷ messages ≥ 2 × failures_before ÷ messages_before
    let excused = (u128::from(failures_before) * u128::from(messages)).saturating_mul(2);
    u128::from(surplus) * u128::from(messages_before) >= excused
}

#[cfg(test)]
mod tests {
    use super::*;

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
