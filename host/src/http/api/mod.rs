//! `/api/v1`: what an operator can ask this host about itself and its group. One file for each subject; this one names the
//! paths, and holds what the handlers share.

mod body;
mod commands;
mod events;
mod group;
mod input;
mod letters;
mod openapi;
mod redis;
mod resolve;
mod stream;
mod tail;
mod waiting;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, post};
use tokio::sync::{mpsc, watch};

use self::redis::Redis;
use self::stream::Slots;
use super::{Service, health};
use crate::config::Outputs;
use crate::group::Group;
use crate::reload::Request;

/// Maximum size of a body. The largest one chooses 1,000 dead letters by their ids.
const BODY_BYTES_MAX: usize = 128 << 10;

/// Clients that may follow the group, and clients that may follow outcomes, at the same time. Each of the latter has its own
/// connection to Redis.
const EVENTS_CLIENTS_MAX: usize = 64;
const TAIL_CLIENTS_MAX: usize = 16;

/// Events that wait for a slow client. The state of a group with thousands of consumers takes a megabyte; an outcome is short.
const EVENTS_BUFFER: usize = 4;
const TAIL_BUFFER: usize = 128;

/// What the handlers share.
#[derive(Debug)]
pub(super) struct Api {
    redis: Redis,
    /// Named outputs of this host.
    outputs: Outputs,
    events: Slots,
    tails: Slots,
    /// Requests to the part that loads versions.
    requests: mpsc::Sender<Request>,
    /// Becomes true when streams must end.
    stop: watch::Receiver<bool>,
}

impl Api {
    /// Opens no connection.
    pub(super) fn new(
        group: &Arc<Group>,
        outputs: Outputs,
        requests: mpsc::Sender<Request>,
        stop: watch::Receiver<bool>,
    ) -> Api {
        Api {
            redis: Redis::new(group.clone()),
            outputs,
            events: Slots::new("events", EVENTS_CLIENTS_MAX, EVENTS_BUFFER),
            tails: Slots::new("tail", TAIL_CLIENTS_MAX, TAIL_BUFFER),
            requests,
            stop,
        }
    }
}

/// The paths. The caller guards them. A test holds the document against this list.
fn table() -> Vec<(&'static str, MethodRouter<Arc<Service>>)> {
    vec![
        ("/api/v1/status", get(health::status)),
        ("/api/v1/group", get(group::group)),
        ("/api/v1/versions", get(group::versions)),
        ("/api/v1/inbox", get(waiting::inbox)),
        ("/api/v1/retries", get(waiting::retries)),
        ("/api/v1/dead-letters", get(letters::list)),
        ("/api/v1/dead-letters/{entry_id}", get(letters::one)),
        ("/api/v1/events", get(events::events)),
        ("/api/v1/tail", get(tail::tail)),
        ("/api/v1/pause", post(commands::pause)),
        ("/api/v1/resume", post(commands::resume)),
        ("/api/v1/consumers", post(commands::consumers)),
        ("/api/v1/reload", post(commands::reload)),
        ("/api/v1/rollback", post(commands::rollback)),
        ("/api/v1/trust", post(commands::trust)),
        ("/api/v1/dead-letters/replay", post(resolve::replay)),
        ("/api/v1/dead-letters/purge", post(resolve::purge)),
        ("/api/v1/openapi.json", get(openapi::document)),
    ]
}

/// The router of these paths.
pub(super) fn routes() -> Router<Arc<Service>> {
    let router = table().into_iter().fold(Router::new(), |router, (path, method)| router.route(path, method));
    router.layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
}
