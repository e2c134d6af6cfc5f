//! `/register`, `/unregister` and `/checkMembership`, for consumers that live elsewhere.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Service;
use super::answer::Problem;
use super::json_body::json_body;
use crate::remote::address::Address;
use crate::remote::membership::{MembershipError, Remotes};

/// Maximum length of a body, which has one address.
const BODY_BYTES_MAX: usize = 4 << 10;

/// What a consumer sends.
#[derive(Debug, Deserialize)]
struct Body {
    consumer_id: String,
}

/// What a consumer is told.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    message: String,
}

type Answer = Result<Json<Done>, Problem>;

/// The routes of a host.
pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/register", post(register))
        .route("/unregister", post(unregister))
        .route("/checkMembership", post(check))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}

async fn register(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (remotes, address) = read(&service, &headers, body)?;
    remotes.register(&address).await.map_err(failed)?;
    done(format!("{address} is registered"))
}

async fn unregister(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (remotes, address) = read(&service, &headers, body)?;
    remotes.unregister(&address).await.map_err(failed)?;
    done(format!("{address} is not registered any more"))
}

async fn check(State(service): State<Arc<Service>>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Answer {
    let (remotes, address) = read(&service, &headers, body)?;
    if remotes.is_member(&address).await.map_err(failed)? {
        return done(format!("{address} is registered"));
    }
    Err(Problem::new(StatusCode::NOT_FOUND, format!("{address} is not registered; POST it to /register")))
}

fn read(
    service: &Service,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(Arc<Remotes>, Address), Problem> {
    let wrong = |error: String| Problem::new(StatusCode::BAD_REQUEST, error);
    let body = json_body(headers, body)?;
    let Body { consumer_id } = serde_json::from_slice(&body)
        .map_err(|error| wrong(format!("the body must be {{\"consumer_id\": \"address:port\"}}: {error}")))?;
    let address = Address::read(&consumer_id).map_err(|problem| wrong(format!("consumer_id is wrong: {problem}")))?;
    let remotes = service.remote.as_ref().and_then(|remote| remote.remotes.clone());
    let missing = || Problem::new(StatusCode::NOT_FOUND, "this process has no remote consumers");
    Ok((remotes.ok_or_else(missing)?, address))
}

fn failed(error: MembershipError) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn done(message: String) -> Answer {
    Ok(Json(Done { message }))
}
