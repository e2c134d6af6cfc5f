//! The sampled messages of a delivery, from the hands of a consumer until their outcomes are written. Without traces nothing is
//! remembered.

use std::sync::Arc;
use std::time::SystemTime;

use super::settlement::{Fate, Terms, reason};
use crate::plugin::{Failure, Outcome};
use crate::redis::store::settle::Settling;
use crate::time::stamp_ms;
use crate::traces::context::{Origin, SpanId, Trace};
use crate::traces::span::{Span, Stage, Work};
use crate::traces::{Traces, nanos};

/// The ids of entries count milliseconds. This much later they begin at the latest.
const STAMP_NS: u64 = 999_999;

/// A sampled message with which a consumer has begun.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    trace: Trace,
    at: SystemTime,
}

/// A sampled message whose call has ended, or which is given up without a call.
#[derive(Debug)]
pub struct Called {
    begun: Begun,
    ended: SystemTime,
    /// What came of the call; `None` without a call.
    outcome: Option<&'static str>,
    /// Kind and sentence.
    error: Option<(&'static str, String)>,
}

impl Begun {
    /// A consumer begins with a message now; `None` if the message is not sampled.
    #[must_use]
    pub fn with(trace: Option<Trace>) -> Option<Begun> {
        let trace = trace.filter(|trace| trace.is_sampled)?;
        Some(Begun { trace, at: SystemTime::now() })
    }

    /// The call has ended now.
    #[must_use]
    pub fn called(self, outcome: &Result<Outcome, Failure>) -> Called {
        let (outcome, error) = match outcome {
            Ok(Outcome::Emit(_) | Outcome::EmitAll(_)) => ("emit", None),
            Ok(Outcome::Drop) => ("drop", None),
            Ok(Outcome::Retry(_)) => ("retry", None),
            Ok(Outcome::Reject(_)) => ("reject", None),
            Err(failure) => ("failure", Some((reason(failure).as_str(), failure.to_string()))),
        };
        Called { begun: self, ended: SystemTime::now(), outcome: Some(outcome), error }
    }

    /// There is no call, because the message is given up.
    #[must_use]
    pub fn given_up(self) -> Called {
        Called { begun: self, ended: self.at, outcome: None, error: None }
    }
}

/// Where a message comes from.
#[derive(Clone, Copy, Debug)]
pub enum Since<'a> {
    /// An entry of the inbox.
    Entry(&'a str),
    /// It arrived over HTTP, at this time if it is known.
    Arrival(Option<SystemTime>),
}

/// The sampled messages of a delivery that are not settled yet.
#[derive(Debug, Default)]
pub struct Traced(Vec<Followed>);

#[derive(Debug)]
struct Followed {
    called: Called,
    /// The span of the append.
    parent: SpanId,
    since_ns: u64,
    host: Arc<str>,
    message_id: Arc<str>,
    work: Arc<Work>,
    fate: Fate,
}

impl Traced {
    /// Begins with another delivery.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Remembers a message until it is settled.
    pub fn add(
        &mut self,
        traces: &Traces,
        called: Called,
        (origin, since, attempt): (Origin<'_>, Since<'_>, u32),
        terms: Terms<'_>,
        fate: Fate,
    ) {
        let begun_ns = nanos(called.begun.at);
        let since_ns = match since {
            Since::Entry(entry_id) => {
                stamp_ms(entry_id).map(|ms| ms.saturating_mul(1_000_000).saturating_add(STAMP_NS))
            }
            Since::Arrival(time) => time.map(nanos),
        };
        self.0.push(Followed {
            parent: traces.span_of_append(called.begun.trace, origin),
            since_ns: since_ns.map_or(begun_ns, |since_ns| since_ns.min(begun_ns)),
            called,
            host: terms.host_id.into(),
            message_id: origin.message_id.into(),
            work: Arc::new(Work {
                consumer_id: terms.consumer_id.into(),
                attempt,
                plugin_digest: terms.plugin_digest.to_owned(),
                plugin_generation: terms.plugin_generation,
            }),
            fate,
        });
    }

    /// A moment of the delivery, if it has sampled messages.
    #[must_use]
    pub fn moment(&self) -> Option<SystemTime> {
        (!self.0.is_empty()).then(SystemTime::now)
    }

    /// The delivery was settled from this moment on, with this result.
    pub fn settled(&mut self, traces: Option<&Traces>, from: Option<SystemTime>, settling: Settling) {
        let (Some(traces), Some(from)) = (traces, from) else { return };
        let (start_ns, end_ns) = (nanos(from), nanos(SystemTime::now()));
        for followed in self.0.drain(..) {
            let delivered = followed.delivered();
            if let Some(call) = followed.call(delivered.id) {
                traces.record([call]);
            }
            let (outcome, error) = match settling {
                Settling::Done => followed.fate(),
                Settling::Outrun | Settling::Unknown | Settling::Conflict => {
                    ("outrun", Some(("outrun", "another host has the message; nothing was written".to_owned())))
                }
            };
            let settled = followed.span(Stage::Settled, delivered.id, (start_ns, end_ns), Some(outcome), error);
            traces.record([delivered, settled]);
        }
    }
}

impl Followed {
    fn delivered(&self) -> Span {
        self.span(Stage::Delivered, self.parent, (self.since_ns, nanos(self.called.begun.at)), None, None)
    }

    fn call(&self, parent: SpanId) -> Option<Span> {
        let Called { begun, ended, outcome, error } = &self.called;
        let times = (nanos(begun.at), nanos(*ended));
        outcome.map(|outcome| self.span(Stage::Call, parent, times, Some(outcome), error.clone()))
    }

    /// What became of the message. A dead letter is an error.
    fn fate(&self) -> (&'static str, Option<(&'static str, String)>) {
        match self.fate {
            Fate::Written => ("written", None),
            Fate::Dropped => ("dropped", None),
            Fate::PutOff => ("put-off", None),
            Fate::GivenUp(reason) => {
                let why = self.called.error.as_ref().map_or(reason.as_str(), |(_, error)| error);
                ("dead-letter", Some((reason.as_str(), format!("the message is a dead letter: {why}"))))
            }
        }
    }

    fn span(
        &self,
        stage: Stage,
        parent: SpanId,
        (start_ns, end_ns): (u64, u64),
        outcome: Option<&'static str>,
        error: Option<(&'static str, String)>,
    ) -> Span {
        let (error_type, error) = error.unzip();
        Span {
            trace: self.called.begun.trace.id,
            id: rand::random::<[u8; 8]>().into(),
            parent: Some(parent),
            has_remote_parent: false,
            stage,
            is_handed_in: false,
            host: self.host.clone(),
            message_id: self.message_id.clone(),
            start_ns,
            end_ns,
            work: Some(self.work.clone()),
            outcome,
            error_type,
            error,
        }
    }
}
