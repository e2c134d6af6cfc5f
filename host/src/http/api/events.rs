//! The group as it changes, for a page that shows it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::stream::Client;
use crate::http::Service;
use crate::http::answer::Problem;
use crate::version::history::Recent;

/// Time between two states of the group. All clients share the looks at Redis.
const GROUP_INTERVAL: Duration = Duration::from_secs(1);

/// A stream of the group's state and of what happens to this host's versions.
#[utoipa::path(
    get, path = "/api/v1/events", tag = "streams",
    responses((
        status = 200, content_type = "text/event-stream", body = String,
        description = "Server-sent events: `group` with the answer of /api/v1/group each second, `version` with an entry of the \
            history of /api/v1/versions, `problem` with an error, and `ping` after 15 s of silence",
    ))
)]
pub(super) async fn events(State(service): State<Arc<Service>>) -> Result<Response, Problem> {
    let (client, answer) = service.api.events.open()?;
    let stop = service.api.stop.clone();
    // What has happened before, a client reads from the list of versions.
    let history = service.versions.history();
    let seen = history.borrow().total();
    client.feed(stop, |client| feed(service, client, history, seen));
    Ok(answer)
}

async fn feed(service: Arc<Service>, client: Client, mut history: watch::Receiver<Recent>, mut seen: u64) {
    let mut clock = interval(GROUP_INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {
                match service.look.group().await {
                    Ok(status) => client.send("group", &*status),
                    Err(error) => client.send("problem", &json!({ "error": error.to_string() })),
                };
            }
            // The channel cannot close before the host ends.
            _ = history.changed() => {}
        }
        let recent = history.borrow_and_update();
        for entry in recent.after(seen) {
            if !client.send("version", &**entry) {
                break;
            }
            seen += 1;
        }
        // Those that are kept no more.
        seen = seen.max(recent.total().saturating_sub(recent.newest_first().count() as u64));
    }
}
