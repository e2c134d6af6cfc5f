//! Times that a host measures only while somebody may ask for them: the latency of messages and the time of calls. This file
//! knows no message and no plugin.

use std::future::poll_fn;
use std::pin::Pin;
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

/// One call in this number is measured: two looks at the clock take a fiftieth of the fastest call. When a call goes on after it
/// has waited or given way, that is measured in any case: it happens after 10 ms of computing, or after a wait.
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

/// The calls of one version of the plugin.
#[derive(Debug)]
struct Calls {
    /// From beginning to end.
    times: Histogram,
    /// Time on a thread, in nanoseconds.
    busy_ns: AtomicU64,
}

impl Calls {
    fn add_busy(&self, time: Duration, times: u8) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).saturating_mul(u64::from(times));
        self.busy_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

impl Default for Calls {
    fn default() -> Calls {
        Calls { times: Histogram::new(CALL_BOUNDS), busy_ns: AtomicU64::default() }
    }
}

/// The calls of one version of the plugin at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ObservedCalls {
    /// The plugin's digest.
    pub digest: Arc<str>,
    /// Time from beginning to end, of some of the calls.
    pub times: Observed,
    /// Time on a thread, of all calls.
    pub busy: Duration,
}

/// What a host measures.
#[derive(Debug)]
pub struct Measured {
    /// From the entry of a delivery in the inbox to its end, for each of its messages.
    pub latency: Histogram,
    /// Calls by digest of the plugin; the digest that was used last is at the end.
    calls: Mutex<Vec<(Arc<str>, Arc<Calls>)>>,
}

impl Default for Measured {
    fn default() -> Measured {
        Measured { latency: Histogram::new(LATENCY_BOUNDS), calls: Mutex::default() }
    }
}

impl Measured {
    /// The calls of the plugin with this digest. Takes the place of the digest that has not been used for the longest time.
    fn calls_of(&self, digest: &str) -> Arc<Calls> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let known = calls.iter().position(|(known, _)| &**known == digest);
        let entry = known.map_or_else(|| (digest.into(), Arc::default()), |place| calls.remove(place));
        if calls.len() == DIGESTS_MAX {
            calls.remove(0);
        }
        let of_digest = entry.1.clone();
        calls.push(entry);
        of_digest
    }

    /// The calls of the digests that were used last.
    #[must_use]
    pub fn calls(&self) -> Vec<ObservedCalls> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let observed = calls.iter().map(|(digest, calls)| ObservedCalls {
            digest: digest.clone(),
            times: calls.times.read(),
            busy: Duration::from_nanos(calls.busy_ns.load(Ordering::Relaxed)),
        });
        observed.collect()
    }
}

/// Measures the calls of one consumer.
#[derive(Debug)]
pub struct Stopwatch {
    measured: Arc<Measured>,
    calls: Arc<Calls>,
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

    /// Carries out a call.
    pub async fn time<F: Future>(&mut self, mut call: Pin<&mut F>) -> F::Output {
        self.turn = (self.turn + 1) % CALLS_PER_SAMPLE;
        let sampled = (self.turn == 0).then(Instant::now);
        let mut goes_on = false;
        poll_fn(|context| {
            // The first part of a call that is measured stands for the first parts of the others.
            let (begin, times) = if goes_on { (Some(Instant::now()), 1) } else { (sampled, CALLS_PER_SAMPLE) };
            let polled = call.as_mut().poll(context);
            goes_on = true;
            if let Some(begin) = begin {
                let end = Instant::now();
                self.calls.add_busy(end.duration_since(begin), times);
                if let (Some(sampled), true) = (sampled, polled.is_ready()) {
                    self.calls.times.observe(end.duration_since(sampled), 1);
                }
            }
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

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

    /// The calls of the only digest.
    fn only(measured: &Measured) -> ObservedCalls {
        let [calls] = <[_; 1]>::try_from(measured.calls()).unwrap();
        calls
    }

    fn count(calls: &ObservedCalls) -> u64 {
        calls.times.buckets.iter().map(|(_, count)| count).sum()
    }

    #[tokio::test]
    async fn one_call_in_sixteen_is_measured() {
        let measured = Arc::new(Measured::default());
        for (number, before) in [(1, 0), (7, 10), (16, 20), (33, 30)] {
            let mut stopwatch = Stopwatch::new(measured.clone(), "d", number);
            for _ in 0..160 {
                stopwatch.time(pin!(async {})).await;
            }
            assert_eq!(count(&only(&measured)), before + 10, "{number}");
        }
        assert_eq!(&*only(&measured).digest, "d");
    }

    #[tokio::test]
    async fn a_call_is_busy_while_it_computes_and_not_while_it_waits() {
        let measured = Arc::new(Measured::default());
        let mut stopwatch = Stopwatch::new(measured.clone(), "d", 0);
        let compute = |ms| {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(ms) {}
        };
        let wait = Duration::from_millis(400);
        // None of these calls is sampled, and a call that goes on is measured.
        for _ in 0..3 {
            stopwatch
                .time(pin!(async {
                    compute(5);
                    tokio::time::sleep(wait).await;
                    compute(30);
                }))
                .await;
        }
        let calls = only(&measured);
        assert_eq!(count(&calls), 0);
        assert!(calls.busy >= Duration::from_millis(90) && calls.busy < 2 * wait, "{calls:?}");
        // The sixteenth stands for sixteen.
        stopwatch.turn = CALLS_PER_SAMPLE - 1;
        stopwatch.time(pin!(async { compute(5) })).await;
        let more = only(&measured).busy - calls.busy;
        assert!(count(&only(&measured)) == 1 && more >= 16 * Duration::from_millis(5), "{more:?}");
    }

    #[test]
    fn the_digests_that_were_used_last_are_remembered() {
        let measured = Measured::default();
        let first = measured.calls_of("0");
        first.times.observe(Duration::ZERO, 1);
        (1..8).for_each(|digest| _ = measured.calls_of(&digest.to_string()));
        assert!(Arc::ptr_eq(&measured.calls_of("0"), &first));
        measured.calls_of("8");
        let digests: Vec<String> = measured.calls().iter().map(|calls| calls.digest.to_string()).collect();
        assert_eq!(digests, ["2", "3", "4", "5", "6", "7", "0", "8"]);
    }
}
