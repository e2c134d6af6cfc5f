//! Counters of a host since its start. Every counter only grows; a rate comes from two readings.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Messages that the plugin dropped on purpose.
    pub dropped: Counter,
    /// Messages dropped because their id was already claimed.
    pub duplicates: Counter,
    /// Dead letters written by this host, by its intake and its consumers.
    pub dead_letters: Counter,
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
    /// Deliveries that another host settled first.
    pub outrun: Counter,
}

impl Counters {
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
