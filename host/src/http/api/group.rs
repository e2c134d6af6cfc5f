//! The group and the versions of this host.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use crate::http::Service;
use crate::http::answer::Problem;
use crate::version::Status;
use crate::version::history::Entry;

/// The version in use, and how it came to that.
#[derive(Debug, Serialize)]
pub(super) struct VersionsAnswer {
    current: Status,
    /// The last 100 events, newest first.
    history: Vec<Entry>,
}

/// The state of the whole group, at most 1 s old.
pub(super) async fn group(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let status = service.look.group().await?;
    Ok(Json(&*status).into_response())
}

/// The versions of the plugin that this host has used, tried and refused.
pub(super) async fn versions(State(service): State<Arc<Service>>) -> Json<VersionsAnswer> {
    let history = service.versions.history();
    let history = history.borrow().newest_first().map(|entry| Entry::clone(entry)).collect();
    Json(VersionsAnswer { current: service.versions.status(), history })
}
