//! Commands on dead letters: back to the inbox, or away. A command does as much as fits into the time of an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::body::{Body, object};
use super::commands::{Peer, log};
use super::input::{EntryId, LIMIT_MAX, bad};
use super::letters::reason;
use crate::dead_letters::{DeadLetters, Filter, Replayed};
use crate::http::Service;
use crate::http::answer::Problem;
use crate::message::Reason;
use crate::redis::RedisError;

/// How long one command works. A client repeats the command when there is more.
const WORK_MAX: Duration = Duration::from_secs(20);

/// Highest rate, in letters a second. Also the number of parts in which a second's letters are replayed.
const RATE_MAX: u32 = 100_000;
const PARTS: usize = 10;

/// Letters of one step without a rate.
const STEP: usize = 100;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReplayBody {
    /// The letters, 1,000 at most. Either these or a filter.
    #[schema(min_items = 1, max_items = 1_000)]
    entry_ids: Option<Vec<EntryId>>,
    #[serde(default, deserialize_with = "object")]
    filter: Option<FilterBody>,
    /// Letters a second at most; as fast as possible without it.
    #[schema(minimum = 1, maximum = 100_000)]
    rate: Option<u32>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PurgeBody {
    /// The letters, 1,000 at most. Either these or a filter.
    #[schema(min_items = 1, max_items = 1_000)]
    entry_ids: Option<Vec<EntryId>>,
    #[serde(default, deserialize_with = "object")]
    filter: Option<FilterBody>,
}

/// A choice of dead letters. A letter must meet every given condition.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterBody {
    #[serde(default, deserialize_with = "reason")]
    #[schema(value_type = Option<String>)]
    reason: Option<Reason>,
    /// Id of a message or of an entry.
    id: Option<String>,
    /// Text in any field, the payload included.
    text: Option<String>,
    /// Must be true to choose all letters, without a condition.
    #[serde(default)]
    all: bool,
}

/// What became of the letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplayAnswer {
    /// Letters that are in the inbox again.
    replayed: u64,
    /// Letters that were gone already.
    gone: u64,
    /// Letters that stay: they have no message id, or a newer version of the host wrote them.
    kept: u64,
    /// Whether the time was over before all letters were looked at; the same command goes on.
    more: bool,
}

/// What became of the letters.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PurgeAnswer {
    /// Letters that were deleted.
    purged: u64,
    /// Whether the time was over before all letters were looked at; the same command goes on.
    more: bool,
}

/// The letters that a command is about.
enum Choice {
    Entries(Vec<String>),
    Matching(Filter),
}

impl Choice {
    fn of(entry_ids: Option<Vec<EntryId>>, filter: Option<FilterBody>) -> Result<Choice, Problem> {
        match (entry_ids, filter) {
            (Some(ids), None) if !ids.is_empty() && ids.len() as u64 <= LIMIT_MAX => {
                Ok(Choice::Entries(ids.iter().map(|id| id.as_str().to_owned()).collect()))
            }
            (Some(_), None) => Err(bad(format!("entry_ids: there must be 1 to {LIMIT_MAX} of them"))),
            (None, Some(FilterBody { reason, id, text, all })) => {
                let (ids, reasons) = (id.into_iter().collect(), reason.into_iter().collect());
                let filter = Filter { ids, reasons, since: None, text };
                match filter.is_empty() == all {
                    true => Ok(Choice::Matching(filter)),
                    false => Err(bad("filter: give at least one condition, or only `\"all\": true` for all letters")),
                }
            }
            _ => Err(bad("choose the dead letters with either entry_ids or filter")),
        }
    }
}

/// Letters in steps, until the time is over.
struct Steps {
    letters: DeadLetters,
    choice: Choice,
    reader: Option<crate::dead_letters::Reader>,
    ready: Vec<String>,
    until: Instant,
}

impl Steps {
    async fn begin(service: &Service, choice: Choice) -> Result<Steps, RedisError> {
        let connection = service.group.connector.connect().await?;
        let mut letters = DeadLetters::new(connection, service.group.keys.clone());
        let (reader, ready) = match &choice {
            Choice::Entries(ids) => (None, ids.iter().rev().cloned().collect()),
            Choice::Matching(filter) => (Some(letters.oldest(filter).await?), Vec::new()),
        };
        Ok(Steps { letters, choice, reader, ready, until: Instant::now() + WORK_MAX })
    }

    /// The ids of some letters, oldest first; `None` at the end.
    async fn next(&mut self, count: usize) -> Result<Option<Vec<String>>, RedisError> {
        while self.ready.is_empty() {
            let (Some(reader), Choice::Matching(filter)) = (&mut self.reader, &self.choice) else { return Ok(None) };
            let Some(mut ids) = self.letters.next_chosen(filter, reader).await? else { return Ok(None) };
            ids.reverse();
            self.ready = ids;
            // A page without a match is work as well.
            if self.is_late() {
                break;
            }
        }
        let ids = self.ready.split_off(self.ready.len().saturating_sub(count));
        Ok(Some(ids.into_iter().rev().collect()))
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// Returns dead letters to the inbox, oldest first.
#[utoipa::path(post, path = "/api/v1/dead-letters/replay", tag = "commands", request_body = ReplayBody, responses((status = 200, description = "what became of the letters", body = ReplayAnswer)))]
pub(super) async fn replay(
    State(service): State<Arc<Service>>,
    peer: Peer,
    Body(body): Body<ReplayBody>,
) -> Result<Json<ReplayAnswer>, Problem> {
    if body.rate.is_some_and(|rate| !(1..=RATE_MAX).contains(&rate)) {
        return Err(bad(format!("rate: it must be a number from 1 to {RATE_MAX}")));
    }
    let choice = Choice::of(body.entry_ids, body.filter)?;
    let mut total = Replayed::default();
    let ended = replay_some(&service, choice, body.rate, &mut total).await;
    let Replayed { replayed, gone, unfit, newer } = total;
    log(peer, "dead-letters/replay", &format!("replayed {replayed} dead letters"));
    let more = ended.map_err(|error| failed(&service, &error, "replayed", replayed))?;
    Ok(Json(ReplayAnswer { replayed, gone, kept: unfit + newer, more }))
}

/// Deletes dead letters, oldest first.
#[utoipa::path(post, path = "/api/v1/dead-letters/purge", tag = "commands", request_body = PurgeBody, responses((status = 200, description = "what became of the letters", body = PurgeAnswer)))]
pub(super) async fn purge(
    State(service): State<Arc<Service>>,
    peer: Peer,
    Body(body): Body<PurgeBody>,
) -> Result<Json<PurgeAnswer>, Problem> {
    let choice = Choice::of(body.entry_ids, body.filter)?;
    let mut purged = 0;
    let ended = purge_some(&service, choice, &mut purged).await;
    log(peer, "dead-letters/purge", &format!("purged {purged} dead letters"));
    let more = ended.map_err(|error| failed(&service, &error, "purged", purged))?;
    Ok(Json(PurgeAnswer { purged, more }))
}

/// Replays until the end or until the time is over. Returns whether there is more.
async fn replay_some(
    service: &Service,
    choice: Choice,
    rate: Option<u32>,
    total: &mut Replayed,
) -> Result<bool, RedisError> {
    let step = rate.map_or(STEP, |rate| (rate as usize / PARTS).clamp(1, STEP));
    let mut steps = Steps::begin(service, choice).await?;
    while let Some(ids) = steps.next(step).await? {
        let done = steps.letters.replay_entries(&ids).await?;
        total.replayed += done.replayed;
        total.gone += done.gone;
        total.unfit += done.unfit;
        total.newer += done.newer;
        if steps.is_late() {
            return Ok(true);
        }
        if let Some(rate) = rate {
            tokio::time::sleep(Duration::from_secs(ids.len() as u64) / rate).await;
        }
    }
    Ok(false)
}

/// The same for a purge.
async fn purge_some(service: &Service, choice: Choice, purged: &mut u64) -> Result<bool, RedisError> {
    let mut steps = Steps::begin(service, choice).await?;
    while let Some(ids) = steps.next(STEP).await? {
        *purged += steps.letters.purge_entries(&ids).await?;
        if steps.is_late() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn failed(service: &Service, error: &RedisError, word: &str, count: u64) -> Problem {
    let address = service.group.connector.address();
    let text = format!("{word} {count} dead letters, and then Redis at {address} failed: {error}; repeat the command");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
}
