//! Who may ask: everybody who knows the token, and without a token everybody on this machine, but no page of another site
//! in somebody's browser.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Problem;
use super::{HttpError, Service};
use crate::config::{HttpConfig, Token};

/// The token of the settings, or the first line of the file that they name.
pub(super) fn token(config: &HttpConfig) -> Result<Option<Token>, HttpError> {
    let Some(path) = &config.token_file else { return Ok(config.token.clone()) };
    if config.token.is_some() {
        return Err(HttpError::TwoTokens);
    }
    let failed = |problem| HttpError::File { setting: "token-file", path: path.clone(), problem };
    Token::from_file(path).map(Some).map_err(failed)
}

/// Refuses a request without the token.
pub(super) async fn guard(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let Some(token) = &service.token else {
        if is_local_name(request.headers()) {
            return next.run(request).await;
        }
        let error =
            "without a token, this host answers only at an IP address or at localhost; use one of them, or set a token";
        return Problem::new(StatusCode::FORBIDDEN, error).into_response();
    };
    let given = request.headers().get(header::AUTHORIZATION).and_then(bearer);
    if given.is_some_and(|given| token.is(given)) {
        return next.run(request).await;
    }
    let error = match given {
        None => "the request carries no token; send the header `Authorization: Bearer TOKEN`",
        Some(_) => "the token of the request is not the token of this host",
    };
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, error).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Whether the client used an address, or the name of this machine for itself. A browser that was led here by another
/// site's name, which its owner lets point to this machine, sends that name.
fn is_local_name(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = host.host();
    let is_address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    is_address || name.eq_ignore_ascii_case("localhost")
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}
