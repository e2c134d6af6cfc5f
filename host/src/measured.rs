//! Times that a host measures only while somebody may ask for them: the latency of messages and the time of calls. This file
//! knows no message and no plugin.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of the latency, in seconds. The server's clock counts milliseconds.
const LATENCY_BOUNDS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];

/// Upper bounds of the time of a call, in seconds: from the fastest plugin to the longest time that a call usually may take.
const CALL_BOUNDS: &[f64] = &[
    0.000_001, 0.000_002, 0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.0001, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01,
    0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
];

/// One call in this number is measured: two looks at the clock take a fiftieth of the fastest call.
const CALLS_PER_SAMPLE: u8 = 16;

/// Number of digests whose calls are remembered. A host that swaps often must not grow.
const DIGESTS_MAX: usize = 8;

/// How many observations lie within which bounds. Any number of threads may observe at once.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds, for what lies above all of them.
    counts: Box<[AtomicU64]>,
    /// The bits of the sum in seconds.
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Sum of all observations, in seconds.
    pub sum: f64,
    /// Upper bounds with the number of observations from the bound before; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        let counts = bounds.iter().chain([&f64::INFINITY]).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum: AtomicU64::new(0f64.to_bits()) }
    }

    /// Adds a time, as often as it was observed.
    pub fn observe(&self, time: Duration, times: usize) {
        let seconds = time.as_secs_f64();
        let place = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[place].fetch_add(times as u64, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a delivery has at most 128 messages")]
        let more = seconds * times as f64;
        let add = |sum| Some((f64::from_bits(sum) + more).to_bits());
        // Never an error, because there always is a next value.
        let _ = self.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The present values.
    #[must_use]
    pub fn read(&self) -> Observed {
        let bounds = self.bounds.iter().chain([&f64::INFINITY]);
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let sum = f64::from_bits(self.sum.load(Ordering::Relaxed));
        Observed { sum, buckets: bounds.copied().zip(counts).collect() }
    }
}

/// What a host measures.
#[derive(Debug)]
pub struct Measured {
    /// From the entry of a delivery in the inbox to its end, for each of its messages.
    pub latency: Histogram,
    /// Calls by digest of the plugin; the digest that was used last is at the end.
    calls: Mutex<Vec<(Arc<str>, Arc<Histogram>)>>,
}

impl Default for Measured {
    fn default() -> Measured {
        Measured { latency: Histogram::new(LATENCY_BOUNDS), calls: Mutex::default() }
    }
}

impl Measured {
    /// The calls of the plugin with this digest. Takes the place of the digest that has not been used for the longest time.
    fn calls_of(&self, digest: &str) -> Arc<Histogram> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let known = calls.iter().position(|(known, _)| &**known == digest);
        let entry =
            known.map_or_else(|| (digest.into(), Histogram::new(CALL_BOUNDS).into()), |place| calls.remove(place));
        if calls.len() == DIGESTS_MAX {
            calls.remove(0);
        }
        let histogram = entry.1.clone();
        calls.push(entry);
        histogram
    }

    /// The calls of the digests that were used last.
    #[must_use]
    pub fn calls(&self) -> Vec<(Arc<str>, Observed)> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().map(|(digest, calls)| (digest.clone(), calls.read())).collect()
    }
}

/// Measures some of the calls of one consumer.
#[derive(Debug)]
pub struct Stopwatch {
    measured: Arc<Measured>,
    calls: Arc<Histogram>,
    turn: u8,
}

impl Stopwatch {
    /// A stopwatch for calls of the plugin with this digest. Consumers with different numbers begin at different calls.
    #[must_use]
    pub fn new(measured: Arc<Measured>, digest: &str, number: u32) -> Stopwatch {
        let calls = measured.calls_of(digest);
        Stopwatch { measured, calls, turn: u8::try_from(number % u32::from(CALLS_PER_SAMPLE)).unwrap_or_default() }
    }

    /// From now on the plugin has this digest.
    pub fn follow(&mut self, digest: &str) {
        self.calls = self.measured.calls_of(digest);
    }

    /// A call begins. `None` if the call is not measured.
    pub fn begin(&mut self) -> Option<Instant> {
        self.turn = (self.turn + 1) % CALLS_PER_SAMPLE;
        (self.turn == 0).then(Instant::now)
    }

    /// A measured call has ended.
    pub fn end(&self, begin: Instant) {
        self.calls.observe(begin.elapsed(), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_at_the_first_bound_that_is_not_below_it() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        for (ms, times) in [(500, 1), (501, 2), (1_000, 3), (1_500, 4), (0, 5)] {
            histogram.observe(Duration::from_millis(ms), times);
        }
        let Observed { sum, buckets } = histogram.read();
        assert_eq!(buckets, [(0.5, 6), (1.0, 5), (f64::INFINITY, 4)]);
        assert!((sum - 10.502).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn one_call_in_sixteen_is_measured() {
        let measured = Arc::new(Measured::default());
        for number in [1, 7, 16, 33] {
            let mut stopwatch = Stopwatch::new(measured.clone(), "d", number);
            let begun: Vec<Instant> = (0..160).filter_map(|_| stopwatch.begin()).collect();
            assert_eq!(begun.len(), 10, "{number}");
            begun.into_iter().for_each(|begin| stopwatch.end(begin));
        }
        let [(digest, calls)] = <[_; 1]>::try_from(measured.calls()).unwrap();
        assert_eq!(&*digest, "d");
        assert_eq!(calls.buckets.iter().map(|(_, count)| count).sum::<u64>(), 40);
    }

    #[test]
    fn the_digests_that_were_used_last_are_remembered() {
        let measured = Measured::default();
        let first = measured.calls_of("0");
        first.observe(Duration::ZERO, 1);
        (1..8).for_each(|digest| _ = measured.calls_of(&digest.to_string()));
        assert!(Arc::ptr_eq(&measured.calls_of("0"), &first));
        measured.calls_of("8");
        let digests: Vec<String> = measured.calls().iter().map(|(digest, _)| digest.to_string()).collect();
        assert_eq!(digests, ["2", "3", "4", "5", "6", "7", "0", "8"]);
    }
}
