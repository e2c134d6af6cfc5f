//! What a host announces of itself with its heartbeat: its counters, and the rates between two heartbeats. Nothing here
//! happens for each message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::config::RegistryConfig;
use crate::group::Group;
use crate::redis::store::figures::{CONSUMERS_MAX, Figures};
use crate::time::{millis, rfc3339};

/// Makes the figures of a host. Rates are those since an earlier call.
#[derive(Debug)]
pub struct Announcer {
    group: Arc<Group>,
    started: String,
    beat_ttl: Duration,
    /// Shortest time from which a rate is taken: some heartbeats follow each other at once.
    rate_time_min: Duration,
    before: Mutex<Before>,
}

/// The counters at the begin of the time from which the rates are taken, and the rates.
#[derive(Debug)]
struct Before {
    at: Instant,
    processed: u64,
    consumers: Vec<u64>,
    per_second: f64,
    consumers_per_second: Vec<f64>,
}

impl Announcer {
    /// An announcer of a host that starts now.
    #[must_use]
    pub fn new(group: Arc<Group>, config: &RegistryConfig) -> Announcer {
        let before = Before {
            at: Instant::now(),
            processed: 0,
            consumers: Vec::new(),
            per_second: 0.0,
            consumers_per_second: Vec::new(),
        };
        Announcer {
            group,
            started: rfc3339(SystemTime::now()),
            beat_ttl: config.beat_ttl,
            rate_time_min: config.beat_interval / 2,
            before: Mutex::new(before),
        }
    }

    /// The figures of this moment, for a host with this number of consumers.
    #[must_use]
    pub fn figures(&self, consumers: u32) -> Figures {
        let counters = &self.group.counters;
        let processed = counters.processed.get();
        let of_consumers = counters.consumers.read(CONSUMERS_MAX.min(consumers as usize));
        let (messages_per_second, consumers_per_second) = self.rates(processed, &of_consumers);
        Figures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started.clone(),
            beat_ttl_ms: millis(self.beat_ttl),
            intake: self.group.standing.place().state.to_string(),
            position_lag: self.group.standing.lag(),
            messages_per_second,
            processed,
            duplicates: counters.duplicates.get(),
            dead_letters: counters.dead_letters.get(),
            dead_letters_trimmed: counters.trimmed.dead_letters.get(),
            results_trimmed: counters.trimmed.results.get(),
            retries: counters.retries.get(),
            shed: counters.shed.get(),
            gaps: counters.gaps.get(),
            gap_ms: counters.gap_ms.get(),
            reconnects: counters.reconnects.get(),
            taken_over: counters.taken_over.get(),
            paused: self.group.pause.is_on(),
            consumers_processed: of_consumers,
            consumers_per_second,
        }
    }

    fn rates(&self, processed: u64, of_consumers: &[u64]) -> (f64, Vec<f64>) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let time = before.at.elapsed();
        if time >= self.rate_time_min {
            before.per_second = rate(processed - before.processed, time);
            let earlier = |index: usize| before.consumers.get(index).copied().unwrap_or(0);
            let rates = of_consumers.iter().enumerate();
            let rates = rates.map(|(index, count)| rate(count.saturating_sub(earlier(index)), time)).collect();
            before.consumers_per_second = rates;
            before.at = Instant::now();
            before.processed = processed;
            before.consumers = of_consumers.to_vec();
        }
        // Consumers that came since have no rate yet.
        let mut consumers_per_second = before.consumers_per_second.clone();
        consumers_per_second.resize(of_consumers.len(), 0.0);
        (before.per_second, consumers_per_second)
    }
}

/// Rounded to a tenth, so that the figures stay short.
fn rate(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    let rate = count as f64 / time.as_secs_f64().max(f64::EPSILON);
    (rate * 10.0).round() / 10.0
}
