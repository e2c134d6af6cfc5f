//! What a host has counted since it started. Every number only grows; rates are made from two readings.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows, shared by all threads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a host has counted since it started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Messages received from Pub/Sub, as active intake or standby.
    pub received: Counter,
    /// Messages that this host's consumers have settled: results, drops and dead letters, not duplicates or retries.
    pub processed: Counter,
    /// Results written by this host's consumers.
    pub results: Counter,
    /// Messages that the plugin dropped on purpose.
    pub dropped: Counter,
    /// Messages whose id had been claimed before.
    pub duplicates: Counter,
    /// Dead letters written by this host, by its intake and its consumers.
    pub dead_letters: Counter,
    /// Times that this host's consumers put a message off for another attempt.
    pub retries: Counter,
    /// Messages that found the intake's buffer full, or could not be appended for another reason.
    pub shed: Counter,
    /// Connections made again after they broke.
    pub reconnects: Counter,
    /// Times that no host of the group was subscribed, as far as this host has found out.
    pub gaps: Counter,
    /// Their length together, in milliseconds.
    pub gap_ms: Counter,
    /// Deliveries taken over from dead hosts.
    pub taken_over: Counter,
    /// Deliveries that somebody else settled while this host worked on them.
    pub outrun: Counter,
}
