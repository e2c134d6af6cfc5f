//! What waits: deliveries in the inbox, and retries.

#![expect(unused_qualifications, reason = "the macro of a path with parameters qualifies their type")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::input::{Limit, Params};
use crate::http::Service;
use crate::http::answer::Problem;
use crate::redis::store::{look, waiting};
use crate::time::rfc3339;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitingParams {
    /// How many at most.
    #[serde(default)]
    #[param(value_type = Option<u64>, minimum = 1, maximum = 1_000, default = 100)]
    limit: Limit,
}

/// The oldest deliveries in the inbox.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InboxAnswer {
    /// Oldest first.
    entries: Vec<InboxEntry>,
    /// Whether there are more than the limit.
    more: bool,
}

/// A delivery: one entry of the inbox with 1 to 128 messages.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InboxEntry {
    entry_id: String,
    age_ms: u64,
    /// Number of messages.
    messages: u64,
    /// The host that has fetched it; absent while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
    /// How often it was fetched; absent while it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u64>,
}

/// The retries that are due next.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RetriesAnswer {
    /// In the order in which they are due.
    retries: Vec<Retry>,
    /// Whether there are more than the limit.
    more: bool,
}

/// A message that waits for another attempt.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Retry {
    /// Empty in a format that this version of the host cannot read.
    message_id: String,
    /// When the attempt is due, RFC 3339.
    due_at: String,
    /// Number of the attempt that is due then; the first one was 1.
    attempt: u32,
}

/// The oldest deliveries in the inbox, without their messages.
#[utoipa::path(get, path = "/api/v1/inbox", tag = "reads", params(WaitingParams), responses((status = 200, description = "deliveries", body = InboxAnswer)))]
pub(super) async fn inbox(
    State(service): State<Arc<Service>>,
    Params(params): Params<WaitingParams>,
) -> Result<Json<InboxAnswer>, Problem> {
    let (keys, limit) = (&service.group.keys, params.limit.get());
    let oldest = |mut connection| async move { waiting::oldest(&mut connection, keys, limit).await };
    let (entries, more) = service.api.redis.ask(oldest).await?;
    let entries = entries.into_iter().map(|entry| InboxEntry {
        entry_id: entry.entry_id,
        age_ms: entry.age_ms,
        messages: entry.messages,
        consumer: entry.owner,
        deliveries: entry.deliveries,
    });
    Ok(Json(InboxAnswer { entries: entries.collect(), more }))
}

/// The retries that are due next.
#[utoipa::path(get, path = "/api/v1/retries", tag = "reads", params(WaitingParams), responses((status = 200, description = "retries", body = RetriesAnswer)))]
pub(super) async fn retries(
    State(service): State<Arc<Service>>,
    Params(params): Params<WaitingParams>,
) -> Result<Json<RetriesAnswer>, Problem> {
    let (keys, limit) = (&service.group.keys, params.limit.get());
    let next = |mut connection| async move { look::waiting(&mut connection, keys, limit).await };
    let (_, waiting) = service.api.redis.ask(next).await?;
    let more = waiting.count > waiting.next.len() as u64;
    let retries = waiting.next.into_iter().map(|retry| Retry {
        message_id: retry.message_id,
        due_at: rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(retry.due_ms)),
        attempt: retry.attempt,
    });
    Ok(Json(RetriesAnswer { retries: retries.collect(), more }))
}
