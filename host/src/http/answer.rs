//! What answers have in common: the form of an error, headers, and the bound on time.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Service, hand_in};

/// Longest time until the head of an answer. A client may not hold a handler by sending its body slowly.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// An error as JSON: `{"error": "a sentence"}`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Problem {
    #[serde(skip)]
    status: StatusCode,
    /// What is wrong, and what to do.
    error: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Problem {
        Problem { status, error: error.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

pub(super) async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

/// Bounds the time of a request, and adds the headers that every answer has.
pub(super) async fn bounded(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let bound = ANSWER_TIMEOUT + hand_in::plugin_time(&service, request.uri().path());
    let mut response = match tokio::time::timeout(bound, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the request was not complete, or had no answer, within {bound:?}"),
        )
        .into_response(),
    };
    let headers = response.headers_mut();
    // Everything here is of this moment, and nothing is for other sites.
    let own: [(HeaderName, &str); 5] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        ),
    ];
    for (name, value) in own {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
