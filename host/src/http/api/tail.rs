//! Outcomes of messages as they happen, sampled: a page cannot show more than some a second, and a person cannot read them.

#![expect(unused_qualifications, reason = "the macro of a path with parameters qualifies their type")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::input::Params;
use super::stream::Client;
use crate::http::Service;
use crate::http::answer::Problem;
use crate::observe::choice::Choice;
use crate::observe::tail::{Event, Follower, Outcome, Page};
use crate::redis::client::backoff::Backoff;
use crate::time::rfc3339;

/// The bound of `rate` is for this time.
const SECOND: Duration = Duration::from_secs(1);

/// Outcomes that are read in a second for one client, at most. Whatever comes beyond is skipped unread.
const READ_MAX: usize = 5_000;

/// Outcomes a second: by default, and at most.
const RATE: u32 = 50;
const RATE_MAX: u32 = 1_000;

/// Bytes of one value that are sent, fields of one entry, and bytes of all their values: the buffer of a client is bounded in
/// bytes as well.
const VALUE_BYTES_MAX: usize = 1_000;
const FIELDS_MAX: usize = 50;
const FIELDS_BYTES_MAX: usize = 8_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct TailParams {
    /// Only these outcomes, with commas between: `result`, `dead-letter`, `retry`.
    #[serde(default = "all", deserialize_with = "kinds")]
    #[param(value_type = Option<String>)]
    kind: Vec<Outcome>,
    /// Only outcomes of this consumer, or of all consumers of this host.
    consumer: Option<String>,
    /// Only outcomes of the message with this id.
    id: Option<String>,
    /// Only outcomes with this text in an id or in any field.
    text: Option<String>,
    /// Outcomes a second at most.
    #[serde(default, deserialize_with = "rate")]
    #[param(minimum = 1, maximum = 1_000, default = 50)]
    rate: Option<u32>,
}

/// What became of a message. A property that the outcome does not have is absent.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OutcomeEvent {
    outcome: &'static str,
    /// By the clock of Redis, RFC 3339.
    time: String,
    /// The stream, or the set of waiting retries.
    key: String,
    /// Of a result: `main`, or the name of the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    /// Of a result and a dead letter: id of the entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_id: Option<String>,
    /// Of a retry: number of the next attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    /// Of a retry: when the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    /// The other fields of the entry, as texts.
    fields: BTreeMap<String, String>,
    /// Whether fields are shortened or left out.
    cut: bool,
}

/// A stream of outcomes, from now on.
#[utoipa::path(
    get, path = "/api/v1/tail", tag = "streams", params(TailParams),
    responses((
        status = 200, content_type = "text/event-stream", body = OutcomeEvent,
        description = "Server-sent events: `outcome` with this object, `skipped` with `{\"events\": N}`, `problem` with an error, \
            and `ping` after 15 s of silence",
    ))
)]
pub(super) async fn tail(
    State(service): State<Arc<Service>>,
    Params(params): Params<TailParams>,
) -> Result<Response, Problem> {
    let (client, answer) = service.api.tails.open()?;
    let stop = service.api.stop.clone();
    let (connector, keys) = (service.group.connector.clone(), service.group.keys.clone());
    let follower = Follower::new(connector, keys, &service.api.outputs, &params.kind, None);
    let choice = Choice {
        consumers: params.consumer.into_iter().collect(),
        ids: params.id.into_iter().collect(),
        text: params.text,
    };
    let rate = params.rate.unwrap_or(RATE) as usize;
    client.feed(stop, |client| Tail { client, choice, rate, sample: Sample::default(), skipped: 0 }.run(follower));
    Ok(answer)
}

/// The tail of one client.
struct Tail {
    client: Client,
    choice: Choice,
    rate: usize,
    sample: Sample,
    /// Events that the client has not seen, and has not been told of.
    skipped: u64,
}

/// What was read and sent in the present second.
struct Sample {
    since: Instant,
    read: usize,
    sent: usize,
}

impl Default for Sample {
    fn default() -> Sample {
        Sample { since: Instant::now(), read: 0, sent: 0 }
    }
}

impl Tail {
    async fn run(mut self, mut follower: Follower) {
        let mut backoff = Backoff::default();
        loop {
            let page = match follower.next().await {
                Ok(page) => page,
                Err(error) => {
                    if backoff.attempts() == 0 {
                        let address = follower.address();
                        let text = format!("cannot read from Redis at {address}: {error}; trying again");
                        self.client.send("problem", &json!({ "error": text }));
                    }
                    backoff.wait().await;
                    continue;
                }
            };
            backoff.reset();
            self.show(&page);
            if self.sample.sent >= self.rate || self.sample.read >= READ_MAX {
                tokio::time::sleep_until((self.sample.since + SECOND).into()).await;
                follower.skip();
            }
            if self.sample.since.elapsed() >= SECOND {
                self.tell_skipped();
                self.sample = Sample::default();
            }
        }
    }

    fn show(&mut self, page: &Page) {
        self.skipped += page.missed;
        for event in &page.events {
            self.sample.read += 1;
            if !self.choice.matches(event) {
                continue;
            }
            if self.sample.sent < self.rate && self.client.send("outcome", &OutcomeEvent::of(event)) {
                self.sample.sent += 1;
            } else {
                self.skipped += 1;
            }
        }
    }

    fn tell_skipped(&mut self) {
        if self.skipped > 0 && self.client.send("skipped", &json!({ "events": self.skipped })) {
            self.skipped = 0;
        }
    }
}

impl OutcomeEvent {
    fn of(event: &Event) -> OutcomeEvent {
        let (mut fields, mut left, mut cut) = (BTreeMap::new(), FIELDS_BYTES_MAX, event.fields.len() > FIELDS_MAX);
        for (name, value) in event.fields.iter().take(FIELDS_MAX) {
            let shown = short(value, left.min(VALUE_BYTES_MAX));
            cut |= shown.len() < value.len() || name.len() > VALUE_BYTES_MAX;
            left = left.saturating_sub(shown.len());
            fields.insert(short(name.as_bytes(), VALUE_BYTES_MAX), shown);
        }
        OutcomeEvent {
            outcome: event.outcome.as_str(),
            time: rfc3339(event.at),
            key: event.key.clone(),
            output: event.output.as_ref().map(|output| output.as_str().to_owned()),
            entry: event.entry.clone(),
            message_id: event.message_id.clone(),
            consumer_id: event.consumer_id.clone(),
            attempt: event.attempt,
            due: event.due.map(rfc3339),
            fields,
            cut,
        }
    }
}

/// The beginning of a value as text.
fn short(value: &[u8], bytes_max: usize) -> String {
    let text = String::from_utf8_lossy(&value[..value.len().min(bytes_max)]);
    text.into_owned()
}

fn all() -> Vec<Outcome> {
    Outcome::ALL.to_vec()
}

fn kinds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Outcome>, D::Error> {
    let names = String::deserialize(deserializer)?;
    let named = |name: &str| Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name);
    let kind = |name| {
        named(name).ok_or_else(|| {
            let known = Outcome::ALL.map(Outcome::as_str).join(", ");
            serde::de::Error::custom(format!("there is no outcome {name:?}; it is one or some of {known}"))
        })
    };
    names.split(',').map(kind).collect()
}

fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let rate = u32::deserialize(deserializer)?;
    if (1..=RATE_MAX).contains(&rate) {
        return Ok(Some(rate));
    }
    Err(serde::de::Error::custom(format!("it must be a number from 1 to {RATE_MAX}")))
}
