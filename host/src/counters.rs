//! Counters of a host since its start. Every counter only grows; a rate comes from two readings.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::message::Reason;

/// A counter that only grows, shared by all threads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the counter.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// The present value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Messages that one consumer has settled. In a cache line of its own, so that no consumer waits for another one.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Tally(pub Counter);

/// The tallies of all consumers, by number; the first consumer has number 1.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<Vec<Arc<Tally>>>);

impl Tallies {
    /// The tally of a consumer. A consumer that is started again under its number continues its tally.
    #[must_use]
    pub fn of(&self, number: u32) -> Arc<Tally> {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = number.saturating_sub(1) as usize;
        if tallies.len() <= index {
            tallies.resize_with(index + 1, Arc::default);
        }
        tallies[index].clone()
    }

    /// What the first consumers have settled, this number of them at most.
    #[must_use]
    pub fn read(&self, consumers: usize) -> Vec<u64> {
        let tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.iter().take(consumers).map(|tally| tally.0.get()).collect()
    }
}

/// What was removed from streams, because they were longer than their bounds.
#[derive(Debug, Default)]
pub struct Trimmed {
    /// Results, by appends of this host.
    pub results: Counter,
    /// Dead letters, by dead letters of this host.
    pub dead_letters: Counter,
}

/// A counter for each reason of a dead letter.
#[derive(Debug, Default)]
pub struct ByReason([Counter; Reason::ALL.len()]);

impl ByReason {
    /// Counts one for each of these reasons.
    pub fn add(&self, reasons: &[Reason]) {
        reasons.iter().for_each(|reason| self.0[*reason as usize].add(1));
    }

    /// The present value for this reason.
    #[must_use]
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize].get()
    }
}

/// What the plugin's outcomes were. A message that is tried again has an outcome at each attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// One or more results, or none on purpose.
    pub emitted: usize,
    /// Dropped on purpose.
    pub dropped: usize,
    /// Rejected for good.
    pub rejected: usize,
    /// The plugin asked for another attempt.
    pub retried: usize,
    /// No outcome, or one that cannot be written.
    pub failed: usize,
}

/// Counters of a host since its start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages received from Pub/Sub, as active intake or standby.
    pub received: Counter,
    /// Messages settled by this host's consumers: results, drops and dead letters, but no duplicates and no retries.
    pub processed: Counter,
    /// Those of them that the group counts under an earlier id of this host.
    pub processed_before: Counter,
    /// Results written by this host's consumers.
    pub results: Counter,
    /// Messages from which the plugin made results.
    pub emitted: Counter,
    /// Messages that the plugin dropped on purpose.
    pub dropped: Counter,
    /// Messages that the plugin rejected.
    pub rejected: Counter,
    /// Messages for which the plugin asked for another attempt, at each attempt.
    pub retried: Counter,
    /// Messages that the plugin failed, at each attempt.
    pub failed: Counter,
    /// Messages dropped because their id was already claimed.
    pub duplicates: Counter,
    /// Dead letters written by this host, by its intake and its consumers.
    pub dead_letters: Counter,
    /// The same by reason.
    pub dead_letters_by_reason: ByReason,
    /// What this host has trimmed.
    pub trimmed: Trimmed,
    /// Retries scheduled by this host's consumers.
    pub retries: Counter,
    /// Messages that found the intake's buffer full, or could not be appended for another reason.
    pub shed: Counter,
    /// Connections established again after a failure.
    pub reconnects: Counter,
    /// Times that no host of the group was subscribed, as far as this host has found out.
    pub gaps: Counter,
    /// Total length of the gaps, in milliseconds.
    pub gap_ms: Counter,
    /// Deliveries taken over from dead hosts.
    pub taken_over: Counter,
    /// Deliveries that were processed again, because the plugin's state was not as their messages had read it.
    pub state_conflicts: Counter,
    /// Deliveries that another host settled first.
    pub outrun: Counter,
    /// The share of each consumer in `processed`.
    pub consumers: Tallies,
}

impl Counters {
    /// Counts the outcomes of a delivery.
    pub fn add_outcomes(&self, outcomes: Outcomes) {
        let Outcomes { emitted, dropped, rejected, retried, failed } = outcomes;
        let counters = [&self.emitted, &self.dropped, &self.rejected, &self.retried, &self.failed];
        for (counter, more) in counters.into_iter().zip([emitted, dropped, rejected, retried, failed]) {
            if more > 0 {
                counter.add(more);
            }
        }
    }

    /// Messages that this host has settled since it has its present id.
    #[must_use]
    pub fn processed_with_id(&self) -> u64 {
        self.processed.get().saturating_sub(self.processed_before.get())
    }

    /// The host continues with a new id.
    pub fn begin_with_new_id(&self) {
        self.processed_before.add(usize::try_from(self.processed_with_id()).unwrap_or(usize::MAX));
    }
}
