//! The dashboard: a page and its files, which are part of the program. They hold no data, so everybody may read them; the page
//! gets all figures from the API, with the token. This file knows no figure.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::Service;

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What the page may do: load its own files, and talk to the host that it came from. No markup is made out of text, no style or
/// script is part of the markup, and no other page shows this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// Path, type and content of each file.
const FILES: [(&str, &str, &[u8]); 16] = [
    ("/", HTML, include_bytes!("page/index.html")),
    ("/page/page.css", STYLE, include_bytes!("page/page.css")),
    ("/page/page.js", SCRIPT, include_bytes!("page/page.js")),
    ("/page/api.js", SCRIPT, include_bytes!("page/api.js")),
    ("/page/changes.js", SCRIPT, include_bytes!("page/changes.js")),
    ("/page/charts.js", SCRIPT, include_bytes!("page/charts.js")),
    ("/page/commands.js", SCRIPT, include_bytes!("page/commands.js")),
    ("/page/dead.js", SCRIPT, include_bytes!("page/dead.js")),
    ("/page/dom.js", SCRIPT, include_bytes!("page/dom.js")),
    ("/page/figures.js", SCRIPT, include_bytes!("page/figures.js")),
    ("/page/latency.js", SCRIPT, include_bytes!("page/latency.js")),
    ("/page/tail.js", SCRIPT, include_bytes!("page/tail.js")),
    ("/page/icon.svg", "image/svg+xml", include_bytes!("page/icon.svg")),
    ("/page/vendor/uPlot.js", SCRIPT, include_bytes!("page/vendor/uPlot.iife.min.js")),
    ("/page/vendor/uPlot.css", STYLE, include_bytes!("page/vendor/uPlot.min.css")),
    ("/page/vendor/uPlot-LICENSE.txt", TEXT, include_bytes!("page/vendor/uPlot-LICENSE.txt")),
];

/// The routes of the page and its files.
pub(super) fn routes() -> Router<Arc<Service>> {
    FILES.iter().fold(Router::new(), |router, (path, kind, content)| {
        let tag = tag(content);
        router.route(path, get(move |headers: HeaderMap| async move { answer(&headers, kind, content, &tag) }))
    })
}

/// The digest of the content, in quotes: an entity tag.
fn tag(content: &[u8]) -> String {
    let digest: String = Sha256::digest(content).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digest}\"")
}

fn answer(asked: &HeaderMap, kind: &'static str, content: &'static [u8], tag: &str) -> Response {
    // A browser may keep a file, and asks each time whether the file is still the same: a host may be another version tomorrow.
    let mut headers: Vec<(HeaderName, HeaderValue)> = vec![
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    ];
    headers.extend(HeaderValue::from_str(tag).ok().map(|tag| (header::ETAG, tag)));
    let mut response = if is_known(asked, tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Bytes::from_static(content).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    };
    response.headers_mut().extend(headers);
    response
}

/// Whether the client has the content with this tag already.
fn is_known(asked: &HeaderMap, tag: &str) -> bool {
    let given = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    given.flat_map(|list| list.split(',')).map(str::trim).any(|one| one == "*" || one.trim_start_matches("W/") == tag)
}
