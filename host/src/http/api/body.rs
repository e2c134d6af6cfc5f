//! The body of a command, read strictly. An error names the field.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize as _, Deserializer};
use serde_json::{Map, Value};

use super::input::{bad, reason};
use crate::http::answer::Problem;

/// The body of a command. Its type must be `application/json`, which no form of another site can send.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let text = "send the body as JSON, with the header `Content-Type: application/json`";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
        }
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            let text = format!("cannot read the body: {}", rejection.body_text());
            Problem::new(rejection.status(), text)
        })?;
        // A list of values in the order of the fields would be read as well.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(bad("the body must be a JSON object, such as `{}`"));
        }
        let read = Json::<T>::from_bytes(&bytes);
        read.map(|Json(body)| Body(body))
            .map_err(|rejection| bad(format!("the body is wrong: {}", reason(&rejection.body_text()))))
    }
}

/// Reads a field that must be an object, for the same reason.
pub(super) fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Some(object) = Option::<Map<String, Value>>::deserialize(deserializer)? else { return Ok(None) };
    T::deserialize(Value::Object(object)).map(Some).map_err(serde::de::Error::custom)
}

fn is_json(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}
