//! The group and the versions of this host.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::Service;
use crate::http::answer::Problem;
use crate::observe::status::GroupStatus;
use crate::version::Status;
use crate::version::history::Entry;

/// The version in use, and how it came to that.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionsAnswer {
    current: Status,
    /// The last 100 events, newest first.
    history: Vec<Entry>,
}

/// The state of the whole group, at most 1 s old.
#[utoipa::path(get, path = "/api/v1/group", tag = "reads", responses((status = 200, description = "the group", body = GroupStatus)))]
pub(super) async fn group(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let status = service.look.group().await?;
    Ok(Json(&*status).into_response())
}

/// The versions of the plugin that this host has used, tried and refused.
#[utoipa::path(get, path = "/api/v1/versions", tag = "reads", responses((status = 200, description = "the versions", body = VersionsAnswer)))]
pub(super) async fn versions(State(service): State<Arc<Service>>) -> Json<VersionsAnswer> {
    let history = service.versions.history();
    let history = history.borrow().newest_first().map(|entry| Entry::clone(entry)).collect();
    Json(VersionsAnswer { current: service.versions.status(), history })
}
