//! The body of a request of the second interface: JSON and nothing else, with the status codes of that interface.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;

use super::answer::Problem;

/// The body, if the request says that it is JSON.
pub(super) fn json_body(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let error = "the content type must be application/json";
        return Err(Problem::new(StatusCode::BAD_REQUEST, error));
    }
    body.map_err(|rejection| {
        Problem::new(StatusCode::BAD_REQUEST, format!("cannot read the body: {}", rejection.body_text()))
    })
}
