//! Traces: which messages are traced, and what their spans say. Hosts agree on both without a word: they derive them from the
//! message and from the token of its claim, which travel with the message anyway. Spans wait here, within a bound, until
//! `export` takes them; nothing here waits for a collector.
//!
//! ```text
//! (the publisher's span, if the message has a traceparent)
//! └── heard             at the host that appends
//!     └── appended
//!         ├── delivered at the host that processes, once for each attempt
//!         │   ├── call
//!         │   └── settled
//!         └── delivered
//! ```

pub mod context;
pub mod export;
mod otlp;
pub mod span;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::config::{KeysConfig, TracesConfig};
use crate::counters::Counter;
use context::{Origin, Sampling, SpanId, Trace};
use span::{Span, Stage};

/// Maximum number of spans that wait for the collector, a few megabytes.
const WAITING_MAX: usize = 8_192;

/// Number of waiting spans at which the exporter is woken before its time.
const WAITING_MANY: usize = WAITING_MAX / 4;

/// Names that spans carry.
#[derive(Clone, Debug)]
struct Names {
    service: String,
    channel: String,
    inbox: String,
    retry: String,
    /// The output stream, which names the group.
    group: String,
}

/// How a message comes to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over the channel, into the inbox.
    Channel,
    /// Over HTTP, to the waiting retries.
    Http,
}

/// What a host with traces shares.
#[derive(Debug)]
pub struct Traces {
    sampling: Sampling,
    names: Names,
    waiting: Mutex<Vec<Span>>,
    many: Notify,
    /// Spans that the collector has taken.
    pub sent: Counter,
    /// Spans that were dropped: no room, or the collector did not take them.
    pub lost: Counter,
}

impl Traces {
    /// The traces of these settings; `None` if there are none.
    #[must_use]
    pub fn new(config: &TracesConfig, keys: &KeysConfig) -> Option<Arc<Traces>> {
        config.endpoint.as_ref()?;
        let names = Names {
            service: config.service.clone(),
            channel: keys.channel.clone(),
            inbox: keys.inbox.clone(),
            retry: keys.retry.clone(),
            group: keys.output.clone(),
        };
        Some(Arc::new(Traces {
            sampling: Sampling::new(&config.property, config.sample, &keys.output),
            names,
            waiting: Mutex::default(),
            many: Notify::new(),
            sent: Counter::default(),
            lost: Counter::default(),
        }))
    }

    /// The trace of a message: that of its publisher, or one of its own if the message is sampled.
    #[must_use]
    pub fn of(&self, origin: Origin<'_>) -> Option<Trace> {
        self.sampling.trace(origin)
    }

    /// The span of a message's append, at whichever host that was.
    #[must_use]
    pub fn span_of_append(&self, trace: Trace, origin: Origin<'_>) -> SpanId {
        self.sampling.stems(trace, origin).appended
    }

    /// Whether a message is sampled, with its trace.
    #[must_use]
    pub fn sampled(&self, origin: Origin<'_>) -> Option<Trace> {
        self.of(origin).filter(|trace| trace.is_sampled)
    }

    /// A message that was received in this way went into Redis: it was received, sent and answered at these times.
    pub fn appended(
        &self,
        host: &Arc<str>,
        trace: Trace,
        (origin, way): (Origin<'_>, Way),
        [heard, sent, answered]: [SystemTime; 3],
    ) {
        let stems = self.sampling.stems(trace, origin);
        let message_id: Arc<str> = origin.message_id.into();
        let span = |stage, id, parent, start, end| Span {
            trace: trace.id,
            id,
            parent,
            has_remote_parent: stage == Stage::Heard && trace.parent.is_some(),
            stage,
            is_handed_in: way == Way::Http,
            host: host.clone(),
            message_id: message_id.clone(),
            start_ns: nanos(start),
            end_ns: nanos(end),
            work: None,
            outcome: None,
            error_type: None,
            error: None,
        };
        self.record([
            span(Stage::Heard, stems.heard, trace.parent, heard, sent),
            span(Stage::Appended, stems.appended, Some(stems.heard), sent, answered),
        ]);
    }

    /// Lets spans wait for the exporter, all or none.
    pub fn record<const COUNT: usize>(&self, spans: [Span; COUNT]) {
        let waiting = {
            let mut waiting = self.waiting();
            if waiting.len() + COUNT > WAITING_MAX {
                self.lost.add(COUNT);
                return;
            }
            waiting.extend(spans);
            waiting.len()
        };
        if waiting >= WAITING_MANY {
            self.many.notify_one();
        }
    }

    /// Takes the spans that have waited longest, this number of them at most.
    fn take(&self, spans_max: usize) -> Vec<Span> {
        let mut waiting = self.waiting();
        let taken = waiting.len().min(spans_max);
        waiting.drain(..taken).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Span>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds since 1970; 0 for a time before.
#[must_use]
pub fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Endpoint};

    #[test]
    fn spans_beyond_the_bound_are_dropped_and_counted() {
        let mut config = Config::default();
        assert!(Traces::new(&config.traces, &config.keys).is_none());
        config.traces.endpoint = Endpoint::read("http://h:1");
        let traces = Traces::new(&config.traces, &config.keys).expect("an endpoint");
        let trace = Trace { id: [1; 16].into(), parent: None, is_sampled: true };
        let origin = Origin { message_id: "m", body: "{}", token: "5-a" };
        let host: Arc<str> = "h".into();
        for _ in 0..WAITING_MAX / 2 + 3 {
            traces.appended(&host, trace, (origin, Way::Channel), [SystemTime::now(); 3]);
        }
        assert_eq!((traces.waiting().len(), traces.lost.get()), (WAITING_MAX, 6));
        assert_eq!((traces.take(10).len(), traces.waiting().len()), (10, WAITING_MAX - 10));
        assert_eq!(traces.take(usize::MAX).len(), WAITING_MAX - 10);
        assert!(traces.take(1).is_empty());
    }
}
