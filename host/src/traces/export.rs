//! Sends spans to a collector, many in a request, beside everything else. A collector that is away, slow or full costs spans, which
//! are counted, and one log line when it begins and one when it is over.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use rand::RngExt as _;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::span::Span;
use super::{Traces, otlp};
use crate::config::TracesConfig;
use crate::parts::supervisor::Supervisor;
use crate::remote::address::Address;
use crate::remote::client::{Answer, Ask, Client};

/// Maximum number of spans in a request, about half a megabyte.
const BATCH_MAX: usize = 512;

/// Longest time for which a span waits, while the collector takes spans.
const INTERVAL: Duration = Duration::from_secs(1);

/// Longest time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of times that the same spans are sent.
const TRIES_MAX: u32 = 4;

/// First and longest wait between two tries.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Longest time for the last spans at a stop.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// A running exporter. The drop ends it at once.
#[derive(Debug)]
pub struct Exporter {
    traces: Arc<Traces>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Starts on the present runtime; `None` if there are no traces.
    #[must_use]
    pub fn start(config: &TracesConfig, traces: Option<&Arc<Traces>>, supervisor: &Supervisor) -> Option<Exporter> {
        let (endpoint, traces) = (config.endpoint.as_ref()?, traces?.clone());
        let (stop, stopped) = watch::channel(false);
        let (path, address, taken) =
            (format!("{}/v1/traces", endpoint.path()), Address::from(endpoint), traces.clone());
        info!(collector = %address, share = config.sample, "messages are traced");
        let sending = move || {
            let client = Client::new(address.clone(), None);
            Sender { path: path.clone(), client, traces: taken.clone(), stopped: stopped.clone(), problem: None }.run()
        };
        Some(Exporter { traces, stop, task: tokio::spawn(supervisor.clone().keep("traces", sending)) })
    }

    /// Sends what waits, as far as the collector takes it at once.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let is_late = timeout(FAREWELL_TIMEOUT, &mut self.task).await.is_err();
        self.task.abort();
        let lost = self.traces.lost.get();
        if is_late || lost > 0 {
            warn!(lost, waiting = self.traces.take(usize::MAX).len(), "spans did not reach the collector");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why spans were not taken.
#[derive(Debug)]
struct Refusal {
    sentence: String,
    /// Whether the same spans may be taken later.
    may_pass: bool,
    /// When to ask again, as the collector wishes.
    after: Option<Duration>,
}

/// What a collector says of spans that it has taken in part only.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    partial_success: PartialSuccess,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    /// A number, which the encoding writes as text.
    rejected_spans: serde_json::Value,
    error_message: String,
}

impl PartialSuccess {
    fn rejected(&self) -> usize {
        let text = self.rejected_spans.as_str().map_or_else(|| self.rejected_spans.to_string(), str::to_owned);
        text.parse().unwrap_or(0)
    }
}

/// The task behind an exporter.
struct Sender {
    path: String,
    client: Client,
    traces: Arc<Traces>,
    stopped: watch::Receiver<bool>,
    /// What is wrong with the collector, and is in the log.
    problem: Option<String>,
}

impl Sender {
    async fn run(mut self) {
        loop {
            tokio::select! {
                () = sleep(INTERVAL) => {}
                () = self.traces.many.notified() => {}
                _ = self.stopped.wait_for(|stop| *stop) => {}
            }
            // What comes in meanwhile waits for the next time, so that a stop finds an end.
            let batches = self.traces.waiting().len().div_ceil(BATCH_MAX);
            for _ in 0..batches {
                let batch = self.traces.take(BATCH_MAX);
                self.send(&batch).await;
            }
            if *self.stopped.borrow() {
                return;
            }
        }
    }

    /// Sends spans, again and again if they may be taken later.
    async fn send(&mut self, batch: &[Span]) {
        let body = match otlp::body(batch, &self.traces.names) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                self.traces.lost.add(batch.len());
                return self.tell(Some(format!("cannot write spans as JSON: {error}")));
            }
        };
        let mut wait = WAIT_MIN;
        for tried in 1.. {
            let refusal = match self.post(body.clone()).await {
                Ok(PartialSuccess { error_message, rejected_spans }) => {
                    let partial = PartialSuccess { error_message, rejected_spans };
                    let rejected = partial.rejected().min(batch.len());
                    self.traces.sent.add(batch.len() - rejected);
                    self.traces.lost.add(rejected);
                    let problem = || format!("it refused some of the spans: {:?}", partial.error_message);
                    return self.tell((rejected > 0).then(problem));
                }
                Err(refusal) => refusal,
            };
            self.tell(Some(refusal.sentence));
            if !refusal.may_pass || tried == TRIES_MAX || *self.stopped.borrow() {
                break;
            }
            let jittered = rand::rng().random_range(wait / 2..=wait);
            let pause = refusal.after.unwrap_or(jittered).min(WAIT_MAX);
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.stopped.wait_for(|stop| *stop) => {}
            }
            wait = (wait * 2).min(WAIT_MAX);
        }
        self.traces.lost.add(batch.len());
    }

    async fn post(&mut self, json: Bytes) -> Result<PartialSuccess, Refusal> {
        let ask = Ask { path: &self.path, json: Some(json), fence: None };
        match self.client.ask(ask, ANSWER_TIMEOUT).await {
            Ok(Answer { status, body, .. }) if status.is_success() => {
                // An answer that cannot be read is as good as an empty one.
                Ok(serde_json::from_slice::<Response>(&body).unwrap_or_default().partial_success)
            }
            Ok(Answer { status, retry_after, .. }) => Err(Refusal {
                sentence: format!("it answered {status}"),
                may_pass: matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                ),
                after: retry_after,
            }),
            Err(error) => Err(Refusal { sentence: error.to_string(), may_pass: true, after: None }),
        }
    }

    /// Logs a problem when it begins, and its end.
    fn tell(&mut self, problem: Option<String>) {
        let (collector, lost) = (self.client.address(), self.traces.lost.get());
        match (&self.problem, &problem) {
            (None, Some(problem)) => {
                warn!(%collector, "the collector does not take spans; messages flow on, and spans are lost: {problem}");
            }
            (Some(_), None) => info!(%collector, lost, "the collector takes spans again"),
            _ => {}
        }
        self.problem = problem;
    }
}
