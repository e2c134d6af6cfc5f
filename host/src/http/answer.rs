//! What answers have in common: the form of an error, headers, and the bound on time.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::stream::poll_fn;
use serde::Serialize;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::{Service, hand_in};

/// Longest time until the head of an answer, once the request is complete.
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
    let (head, body) = request.into_parts();
    let (body, is_read) = noticed(body);
    let late = |status, text| Problem::new(status, text).into_response();
    let answered = async {
        tokio::select! {
            response = next.run(Request::from_parts(head, body)) => response,
            () = unread(service.body_time, is_read) => {
                let text = format!("the body of the request was not complete within {:?}", service.body_time);
                late(StatusCode::REQUEST_TIMEOUT, text)
            }
        }
    };
    let mut response = tokio::time::timeout(service.body_time + bound, answered)
        .await
        .unwrap_or_else(|_| late(StatusCode::SERVICE_UNAVAILABLE, format!("the host had no answer within {bound:?}")));
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

/// The body, and what ends when the body is complete, or when nobody reads it.
fn noticed(body: Body) -> (Body, oneshot::Receiver<()>) {
    let (unread, is_read) = oneshot::channel::<()>();
    if body.is_end_stream() {
        return (body, is_read);
    }
    let mut data = body.into_data_stream();
    // Whoever reads the body drops it at its end, and `unread` with it.
    let noticed = poll_fn(move |context| {
        let _ = &unread;
        data.poll_next_unpin(context)
    });
    (Body::from_stream(noticed), is_read)
}

/// Returns when the body is not read in time.
async fn unread(time: Duration, is_read: oneshot::Receiver<()>) {
    if tokio::time::timeout(time, is_read).await.is_ok() {
        std::future::pending().await
    }
}
