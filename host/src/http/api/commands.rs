//! Commands to this host. Each one is logged with the address of whoever asked.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::info;
use utoipa::ToSchema;

use super::body::Body;
use crate::http::Service;
use crate::http::answer::Problem;
use crate::reload::{Reloaded, Request};

/// Wait for the end of a reload. Compiling a large plugin beside busy consumers can take longer.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(25);

/// Largest number of consumers, as for `--consumers`.
const CONSUMERS_MAX: u32 = 10_000;

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Done {
    /// A sentence.
    done: String,
}

/// A command without a choice: `{}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConsumersBody {
    /// Wanted number of consumers of this host, 1 to 10,000.
    #[schema(minimum = 1, maximum = 10_000)]
    consumers: u32,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadBody {
    /// Whether to try also a version that was rolled back, here or by another host, and to wait for no canary.
    #[serde(default)]
    force: bool,
}

/// Who asked.
pub(super) type Peer = ConnectInfo<SocketAddr>;

/// Logs a command and answers with what was done.
fn done(peer: Peer, command: &'static str, sentence: String) -> Json<Done> {
    log(peer, command, &sentence);
    Json(Done { done: sentence })
}

/// Logs a command that could not be carried out, and answers with the reason.
fn refused(peer: Peer, command: &'static str, reason: impl Display) -> Problem {
    log(peer, command, &format!("refused: {reason}"));
    Problem::new(StatusCode::CONFLICT, reason.to_string())
}

pub(super) fn log(ConnectInfo(peer): Peer, command: &'static str, outcome: &str) {
    info!(%peer, command, "a command came over HTTP: {outcome}");
}

/// This host takes no more deliveries to process. It stays in the group, and goes on appending what is published.
#[utoipa::path(post, path = "/api/v1/pause", tag = "commands", request_body = Nothing, responses((status = 200, description = "done", body = Done)))]
pub(super) async fn pause(
    State(service): State<Arc<Service>>,
    peer: Peer,
    Body(Nothing {}): Body<Nothing>,
) -> Json<Done> {
    let sentence = match service.group.pause.set(true) {
        true => "this host takes no more messages to process, until a command resumes it or it is started again",
        false => "this host was paused already",
    };
    service.versions.announce();
    done(peer, "pause", sentence.to_owned())
}

/// This host takes deliveries again.
#[utoipa::path(post, path = "/api/v1/resume", tag = "commands", request_body = Nothing, responses((status = 200, description = "done", body = Done)))]
pub(super) async fn resume(
    State(service): State<Arc<Service>>,
    peer: Peer,
    Body(Nothing {}): Body<Nothing>,
) -> Json<Done> {
    let sentence = match service.group.pause.set(false) {
        true => "this host takes messages to process again",
        false => "this host was not paused",
    };
    service.versions.announce();
    done(peer, "resume", sentence.to_owned())
}

/// Another number of consumers, until the next start or the next change of `consumers` in the configuration.
#[utoipa::path(post, path = "/api/v1/consumers", tag = "commands", request_body = ConsumersBody, responses((status = 200, description = "done", body = Done), (status = 409, description = "it cannot be done now", body = Problem)))]
pub(super) async fn consumers(
    State(service): State<Arc<Service>>,
    peer: Peer,
    Body(ConsumersBody { consumers }): Body<ConsumersBody>,
) -> Result<Json<Done>, Problem> {
    if !(1..=CONSUMERS_MAX).contains(&consumers) {
        return Err(super::input::bad(format!("consumers: it must be a number from 1 to {CONSUMERS_MAX}")));
    }
    service.versions.command_consumers(Some(consumers));
    // A version without room for so many is loaded again with more room.
    if service.api.requests.send(Request::Resize).await.is_err() {
        return Err(refused(peer, "consumers", STOPPING));
    }
    Ok(done(peer, "consumers", format!("this host goes to {consumers} consumers")))
}

const STOPPING: &str = "this host starts or stops";

/// Reads configuration and plugin again, and answers when the attempt has ended.
#[utoipa::path(post, path = "/api/v1/reload", tag = "commands", request_body = ReloadBody, responses((status = 200, description = "done", body = Done), (status = 202, description = "the attempt goes on, or the version waits for the canary of the group", body = Done), (status = 409, description = "it cannot be done now", body = Problem)))]
pub(super) async fn reload(
    State(service): State<Arc<Service>>,
    peer: Peer,
    Body(ReloadBody { force }): Body<ReloadBody>,
) -> Result<Response, Problem> {
    let (answer, reloaded) = oneshot::channel();
    if service.api.requests.send(Request::Reload { force, answer }).await.is_err() {
        return Err(refused(peer, "reload", STOPPING));
    }
    match timeout(RELOAD_TIMEOUT, reloaded).await {
        Ok(Ok(Reloaded::Swapped(digest))) => {
            Ok(done(peer, "reload", format!("the version {digest} is in use")).into_response())
        }
        Ok(Ok(Reloaded::Unchanged(digest))) => {
            Ok(done(peer, "reload", format!("the version {digest} stays in use: nothing has changed")).into_response())
        }
        Ok(Ok(Reloaded::Waits(waiting))) => {
            Ok((StatusCode::ACCEPTED, done(peer, "reload", waiting.to_string())).into_response())
        }
        Ok(Ok(Reloaded::Refused(reason))) => Err(refused(peer, "reload", reason)),
        Ok(Err(_)) => Err(refused(peer, "reload", STOPPING)),
        Err(_) => {
            let text = "the attempt goes on; /api/v1/versions shows what comes of it".to_owned();
            Ok((StatusCode::ACCEPTED, done(peer, "reload", text)).into_response())
        }
    }
}

/// Back to the version before, as long as the version in use is on probation.
#[utoipa::path(post, path = "/api/v1/rollback", tag = "commands", request_body = Nothing, responses((status = 200, description = "done", body = Done), (status = 409, description = "it cannot be done now", body = Problem)))]
pub(super) async fn rollback(
    State(service): State<Arc<Service>>,
    peer: Peer,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<Done>, Problem> {
    let Some(restored) = service.versions.roll_back() else {
        let reason =
            "the version in use is not on probation, and the version before is kept only until the probation ends";
        return Err(refused(peer, "rollback", reason));
    };
    let digest = restored.plugin.digest();
    Ok(done(peer, "rollback", format!("the version {digest} is in use again")))
}

/// Ends the probation of the version in use, and what another host that rolled the version back says of it.
#[utoipa::path(post, path = "/api/v1/trust", tag = "commands", request_body = Nothing, responses((status = 200, description = "done", body = Done), (status = 409, description = "it cannot be done now", body = Problem)))]
pub(super) async fn trust(
    State(service): State<Arc<Service>>,
    peer: Peer,
    Body(Nothing {}): Body<Nothing>,
) -> Result<Json<Done>, Problem> {
    let Some(trusted) = service.versions.trust() else {
        return Err(refused(
            peer,
            "trust",
            "the version in use is not on probation, and no other host has rolled it back",
        ));
    };
    // The end of a probation may allow more consumers. An error means that the host stops.
    let _ = service.api.requests.send(Request::Resize).await;
    let digest = trusted.plugin.digest();
    Ok(done(peer, "trust", format!("the version {digest} is trusted")))
}
