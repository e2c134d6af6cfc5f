//! A span as it waits for the exporter. This file knows no encoding.

use std::sync::Arc;

use super::context::{SpanId, TraceId};

/// What a span measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From hearing the message until it is sent to the inbox.
    Heard,
    /// The append to the inbox.
    Appended,
    /// From the append until a consumer begins with the message.
    Delivered,
    /// The call of the plugin.
    Call,
    /// From the end of the delivery's calls until its outcomes are written.
    Settled,
}

/// Who worked on a message, and at which attempt.
#[derive(Debug)]
pub struct Work {
    /// The consumer's id.
    pub consumer_id: Arc<str>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// SHA-256 of the plugin.
    pub plugin_digest: String,
    /// Generation of the plugin.
    pub plugin_generation: u64,
}

/// A span.
#[derive(Debug)]
pub struct Span {
    /// The trace.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The span around it.
    pub parent: Option<SpanId>,
    /// Whether that span is of another program.
    pub has_remote_parent: bool,
    /// What it measures.
    pub stage: Stage,
    /// Whether the message came over HTTP instead of the channel.
    pub is_handed_in: bool,
    /// The host's id.
    pub host: Arc<str>,
    /// The message id.
    pub message_id: Arc<str>,
    /// Begin, in nanoseconds since 1970.
    pub start_ns: u64,
    /// End.
    pub end_ns: u64,
    /// Who worked on the message, once somebody does.
    pub work: Option<Arc<Work>>,
    /// What came of the stage.
    pub outcome: Option<&'static str>,
    /// Kind of the error.
    pub error_type: Option<&'static str>,
    /// The error as a sentence. With it the span has failed.
    pub error: Option<String>,
}
