//! `/processMessage`: a message from a host that hands it over, or from anybody who hands it in.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;

use super::Service;
use super::answer::Problem;
use super::json_body::json_body;
use crate::remote::desk::{Answer, DeskError};
use crate::remote::{Fence, Remote, WAITING_HEADER};

const PATH: &str = "/processMessage";

/// The time for the plugin that a request to this path may take.
pub(super) fn plugin_time(service: &Service, path: &str) -> Duration {
    match &service.remote {
        Some(remote) if path == PATH => remote.desk.time_max(),
        _ => Duration::ZERO,
    }
}

/// The route of a host and of a worker.
pub(super) fn routes(remote: &Remote) -> Router<Arc<Service>> {
    let route = Router::new().route(PATH, post(process));
    // One byte more, so that the desk says what is too long, and what the limit is.
    route.layer(DefaultBodyLimit::max(remote.desk.bytes_max().saturating_add(1)))
}

async fn process(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Answer>, Problem> {
    let body = json_body(&headers, body)?;
    let fence = headers.get(WAITING_HEADER).map(|fence| fence.to_str().ok().and_then(Fence::read));
    if fence == Some(None) {
        let error = format!(
            "the header {WAITING_HEADER} is not one that this version of host writes; leave it out to hand a message in"
        );
        return Err(Problem::new(StatusCode::BAD_REQUEST, error));
    }
    let Some(remote) = &service.remote else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "this process takes no messages over HTTP"));
    };
    remote.desk.process(body, fence.flatten()).await.map(Json).map_err(|error| {
        let status = match &error {
            DeskError::NoMessage(_) => StatusCode::BAD_REQUEST,
            DeskError::Redis | DeskError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            DeskError::Instance(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, error.to_string())
    })
}
