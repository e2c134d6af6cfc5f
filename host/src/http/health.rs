//! `/health` and `/ready`, for supervisors and load balancers. Both need no token and tell no secret.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::Service;
use crate::standing;
use crate::version::Status;

/// Whether a host is alive, and which parts are not.
#[derive(Debug, Serialize)]
struct Health {
    healthy: bool,
    /// Parts that have not gone on for a time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    late: Vec<&'static str>,
}

/// Whether a host is ready, and what is missing.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    /// A clause for each reason; empty when the host is ready.
    missing: Vec<&'static str>,
    /// Whether a command has paused the host. A paused host is ready: it goes on appending what is published.
    paused: bool,
}

/// What the host says of itself, without asking Redis.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HostStatus {
    #[serde(flatten)]
    plugin: Status,
    /// Whether a command has paused the host.
    paused: bool,
}

/// What this host says of itself, without asking Redis.
#[utoipa::path(get, path = "/api/v1/status", tag = "reads", responses((status = 200, description = "the host", body = HostStatus)))]
pub(super) async fn status(State(service): State<Arc<Service>>) -> Json<HostStatus> {
    Json(HostStatus { plugin: service.versions.status(), paused: service.group.pause.is_on() })
}

/// The process answers, and all of its parts go on.
pub(super) async fn health(State(service): State<Arc<Service>>) -> Response {
    let late = service.late.names();
    let healthy = late.is_empty();
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Health { healthy, late })).into_response()
}

/// The host is in the registry, hears the channel end to end, and has a plugin in use.
pub(super) async fn ready(State(service): State<Arc<Service>>) -> Response {
    let mut missing = Vec::new();
    if !service.is_ready.load(Ordering::Relaxed) {
        missing.push("the host starts or stops");
    }
    if !service.group.identity.is_confirmed() {
        missing.push("Redis has not confirmed the last heartbeat in time");
    }
    let state = service.group.standing.place().state;
    if matches!(state, standing::State::Deaf | standing::State::Owing) {
        missing.push("no mark arrives on the subscription");
    }
    let ready = missing.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, missing, paused: service.group.pause.is_on() })).into_response()
}
