//! Spans as the body of an OTLP request, in its JSON encoding: ids in hexadecimal digits, 64-bit numbers as text, enumerations as
//! numbers. Names of attributes are those of OpenTelemetry's conventions for messaging, where there is one.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::{Serialize, Serializer};

use super::Names;
use super::context::{SpanId, TraceId};
use super::span::{Span, Stage};

/// Bits of `flags`: the trace is sampled; the next bit says whether the parent is remote; it is.
const FLAG_SAMPLED: u32 = 1;
const FLAG_KNOWS_REMOTE: u32 = 0x100;
const FLAG_REMOTE: u32 = 0x200;

/// Numbers of `SpanKind`.
const CLIENT: u32 = 3;
const PRODUCER: u32 = 4;
const CONSUMER: u32 = 5;

/// Where messages are handed in over HTTP.
const HAND_IN_PATH: &str = "/processMessage";

/// Number of `StatusCode` for an error.
const ERROR: u32 = 2;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: Vec<ResourceSpans<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<OneSpan<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OneSpan<'a> {
    #[serde(serialize_with = "text")]
    trace_id: TraceId,
    #[serde(serialize_with = "text")]
    span_id: SpanId,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_text")]
    parent_span_id: Option<SpanId>,
    flags: u32,
    name: &'static str,
    kind: u32,
    #[serde(serialize_with = "text")]
    start_time_unix_nano: u64,
    #[serde(serialize_with = "text")]
    end_time_unix_nano: u64,
    attributes: Vec<Attribute<'a>>,
    status: Status<'a>,
}

#[derive(Default, Serialize)]
struct Status<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Value<'a> {
    StringValue(&'a str),
    #[serde(serialize_with = "text")]
    IntValue(u64),
}

fn text<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn some_text<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn word<'a>(key: &'static str, value: &'a str) -> Attribute<'a> {
    Attribute { key, value: Value::StringValue(value) }
}

fn number(key: &'static str, value: u64) -> Attribute<'static> {
    Attribute { key, value: Value::IntValue(value) }
}

/// The body with these spans. A host that continued under another id is another instance of the service.
pub(super) fn body(spans: &[Span], names: &Names) -> Result<Vec<u8>, serde_json::Error> {
    let mut by_host: BTreeMap<&str, Vec<OneSpan<'_>>> = BTreeMap::new();
    for span in spans {
        by_host.entry(&span.host).or_default().push(one(span, names));
    }
    let of_host = |(host, spans)| ResourceSpans {
        resource: Resource {
            attributes: vec![
                word("service.name", &names.service),
                word("service.instance.id", host),
                word("service.version", env!("CARGO_PKG_VERSION")),
            ],
        },
        scope_spans: [ScopeSpans { scope: Scope { name: "host", version: env!("CARGO_PKG_VERSION") }, spans }],
    };
    serde_json::to_vec(&Request { resource_spans: by_host.into_iter().map(of_host).collect() })
}

/// Name, kind and type of operation of a stage.
fn facts(stage: Stage) -> (&'static str, u32, &'static str) {
    match stage {
        Stage::Heard => ("heard", CLIENT, "receive"),
        Stage::Appended => ("appended", PRODUCER, "send"),
        Stage::Delivered => ("delivered", CLIENT, "receive"),
        Stage::Call => ("call", CONSUMER, "process"),
        Stage::Settled => ("settled", CLIENT, "settle"),
    }
}

fn one<'a>(span: &'a Span, names: &'a Names) -> OneSpan<'a> {
    let (name, kind, operation) = facts(span.stage);
    let destination = match (span.stage, span.is_handed_in) {
        (Stage::Heard, false) => &names.channel,
        (Stage::Heard, true) => HAND_IN_PATH,
        (_, false) => &names.inbox,
        (_, true) => &names.retry,
    };
    let mut attributes = vec![
        word("messaging.system", "redis"),
        word("messaging.operation.name", name),
        word("messaging.operation.type", operation),
        word("messaging.destination.name", destination),
        word("messaging.consumer.group.name", &names.group),
        word("messaging.message.id", &span.message_id),
    ];
    if let Some(work) = &span.work {
        attributes.extend([
            word("messaging.client.id", &work.consumer_id),
            number("message.attempt", u64::from(work.attempt)),
            word("plugin.digest", &work.plugin_digest),
            number("plugin.generation", work.plugin_generation),
        ]);
    }
    attributes.extend(span.outcome.map(|outcome| word("message.outcome", outcome)));
    attributes.extend(span.error_type.map(|kind| word("error.type", kind)));
    let remote = if span.has_remote_parent { FLAG_REMOTE } else { 0 };
    OneSpan {
        trace_id: span.trace,
        span_id: span.id,
        parent_span_id: span.parent,
        flags: FLAG_SAMPLED | FLAG_KNOWS_REMOTE | remote,
        name,
        kind,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes,
        status: span
            .error
            .as_deref()
            .map_or_else(Status::default, |error| Status { code: Some(ERROR), message: Some(error) }),
    }
}
