//! Processes messages that arrive over HTTP, one after the other in each instance of the plugin: a message that a host hands over,
//! which waits among the retries already, or a message that somebody hands in, which is claimed and begins to wait here.
//! What becomes of an outcome is decided in `settle::settlement`, as everywhere.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tracing::field::display;
use tracing::{info, warn};

use super::{DUE_IN, EXTENSION_INTERVAL, Fence};
use crate::config::{Config, MessageConfig};
use crate::consumer::Workplace;
use crate::identity::consumer_id;
use crate::message::{Refusal, read_id};
use crate::plugin::state::Session;
use crate::plugin::{Failure, Outcome};
use crate::processor::{Input, Processor, Signature};
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::client::shared::SharedConnection;
use crate::redis::store::entry::{Delivery, History, Message};
use crate::redis::store::in_hand::{Held, Terms, Waiting, extend, hold};
use crate::redis::store::settle::{Settling, Streams, settle_waiting};
use crate::settle::settlement::{self, Settlement};
use crate::settle::traced::{Begun, Since, Traced};
use crate::state;
use crate::traces::Way;
use crate::traces::context::Origin;

/// Number of the consumer under which a host processes what is handed in; its own consumers are numbered from 1.
const DESK_NUMBER: u32 = 0;

/// Maximum number of messages that a host processes at a time for clients that hand them in.
const HAND_IN_PLACES: u32 = 4;

/// Longest time until Redis has taken a message in.
const HOLD_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a message, for whoever has sent it.
#[derive(Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Answer {
    /// The results are written.
    Emitted {
        /// The results in order.
        results: Vec<Box<RawValue>>,
    },
    /// The plugin dropped the message.
    Dropped,
    /// The message waits for another attempt.
    Retry {
        /// The reason.
        reason: String,
    },
    /// The plugin rejected the message, which is a dead letter.
    Rejected {
        /// The plugin's reason.
        error: String,
    },
    /// The message is a dead letter, because no attempt is left or none would help.
    Failed {
        /// The reason.
        error: String,
    },
    /// A message with this id was taken before.
    Duplicate,
    /// The message waited for too long, and belongs to another consumer by now. Nothing was written.
    Superseded,
}

/// Why a message is not processed.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// It is no message.
    #[error("{}", .0.sentence)]
    NoMessage(Refusal),
    /// Redis does not take it.
    #[error(
        "Redis did not take the message within {HOLD_TIMEOUT:?}; it may be processed nevertheless, so send it again with the same id"
    )]
    Redis,
    /// There is no instance of the plugin.
    #[error("cannot start an instance of the plugin: {0}")]
    Instance(#[from] Failure),
    /// The process stops, or the task has panicked.
    #[error("this process stops; send the message again with the same id")]
    Stopping,
}

/// Under which consumer id results are written.
#[derive(Clone, Debug)]
enum Name {
    /// That of a host, with the number of the desk.
    OfHost,
    /// A worker's address.
    Fixed(Arc<str>),
}

/// Processes messages that arrive over HTTP.
#[derive(Debug)]
pub struct Desk {
    workplace: Arc<Workplace>,
    limits: MessageConfig,
    time_max: Duration,
    connection: Arc<Reconnecting<SharedConnection>>,
    name: Name,
    /// The threads on which plugins run.
    workers: Handle,
    /// One permit for each message at a time.
    places: Semaphore,
    /// Instances that are not in use, made on demand.
    idle: Mutex<Vec<(Arc<str>, Processor)>>,
    places_max: u32,
}

impl Desk {
    /// The desk of a host, for messages that are handed in.
    #[must_use]
    pub fn of_host(workplace: Arc<Workplace>, config: &Config, workers: Handle) -> Desk {
        Desk::new(workplace, config, workers, Name::OfHost, HAND_IN_PLACES)
    }

    /// The desk of a worker with this address.
    #[must_use]
    pub fn of_worker(workplace: Arc<Workplace>, config: &Config, workers: Handle, address: Arc<str>) -> Desk {
        Desk::new(workplace, config, workers, Name::Fixed(address), config.consumers.max(1))
    }

    fn new(workplace: Arc<Workplace>, config: &Config, workers: Handle, name: Name, places: u32) -> Desk {
        Desk {
            connection: Arc::new(workplace.group.connect("desk")),
            workplace,
            limits: config.message.clone(),
            time_max: config.plugin_limits.time_max,
            name,
            workers,
            places: Semaphore::new(places as usize),
            idle: Mutex::default(),
            places_max: places,
        }
    }

    /// Maximum length of a message.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.limits.bytes_max
    }

    /// Time limit of the plugin for one message.
    #[must_use]
    pub fn time_max(&self) -> Duration {
        self.time_max
    }

    /// Processes a message. Once begun, the work goes on even if the future is dropped.
    ///
    /// # Errors
    /// When the message was not processed.
    pub async fn process(self: &Arc<Self>, body: Bytes, fence: Option<Fence>) -> Result<Answer, DeskError> {
        let id = read_id(&body, &self.limits).map_err(DeskError::NoMessage)?.into_owned();
        // The id was found, so the body is text.
        let body = String::from_utf8_lossy(&body).into_owned();
        let desk = self.clone();
        let work = self.workers.spawn(async move { desk.work_on(id, body, fence).await });
        work.await.unwrap_or(Err(DeskError::Stopping))
    }

    /// Takes no more messages, and waits for those in work.
    pub async fn close(&self) {
        if let Ok(all) = self.places.acquire_many(self.places_max).await {
            all.forget();
        }
        self.places.close();
    }

    async fn work_on(&self, id: String, body: String, fence: Option<Fence>) -> Result<Answer, DeskError> {
        let arrived = self.now();
        let place = self.places.acquire().await.map_err(|_| DeskError::Stopping)?;
        let (consumer_id, mut processor) = self.processor().await?;
        let is_handed_in = fence.is_none();
        let fence = match fence {
            Some(fence) => fence,
            None => match self.take_in(&id, &body, arrived).await? {
                Ok(fence) => fence,
                Err(answer) => return Ok(answer),
            },
        };
        // The spans of taking it in tell of the time before.
        let arrived = if is_handed_in { self.now() } else { arrived };
        let (format, waiting) = (fence.format, Waiting::new(fence.format, &id, &body, &fence.history));
        let message = Message { id, body, history: Some(Box::new(fence.history)) };
        let working = self.work(&consumer_id, &mut processor, &message, (format, &waiting, arrived));
        let answer = if is_handed_in {
            tokio::select! {
                biased;
                answer = working => answer,
                () = self.keep(&waiting) => Answer::Superseded,
            }
        } else {
            // The host that has handed the message over extends its time.
            working.await
        };
        self.give_back(place, consumer_id, processor);
        Ok(answer)
    }

    /// The present time, if there are traces.
    fn now(&self) -> Option<SystemTime> {
        self.workplace.group.traces.as_ref().map(|_| SystemTime::now())
    }

    /// Claims a message and lets it wait; otherwise the answer says why not.
    async fn take_in(
        &self,
        id: &str,
        body: &str,
        arrived: Option<SystemTime>,
    ) -> Result<Result<Fence, Answer>, DeskError> {
        let group = &self.workplace.group;
        let sent = self.now();
        let token_end = &format!("{:016x}", rand::random::<u64>());
        let format = group.format();
        let terms = Terms { format, token_end, dedup_window: self.workplace.dedup_window, due_in: DUE_IN };
        let held = self.connection.repeat("take a message in", move |connection| async move {
            hold(&connection, &group.keys, (id, body), terms).await
        });
        match timeout(HOLD_TIMEOUT, held).await.map_err(|_| DeskError::Redis)? {
            Held::Claimed(token) => {
                let origin = Origin { message_id: id, body, token: &token };
                if let (Some(traces), Some(arrived), Some(sent)) = (group.traces.as_deref(), arrived, sent)
                    && let Some(trace) = traces.sampled(origin)
                {
                    let times = [arrived, sent, SystemTime::now()];
                    traces.appended(&group.identity.host_id(), trace, (origin, Way::Http), times);
                }
                Ok(Ok(Fence { format, history: History { attempt: 1, token, crashes: 0 } }))
            }
            Held::Duplicate => {
                group.counters.duplicates.add(1);
                Ok(Err(Answer::Duplicate))
            }
            Held::Due => Ok(Err(Answer::Superseded)),
        }
    }

    /// Lets a message wait for longer, for ever.
    async fn keep(&self, waiting: &Waiting) {
        loop {
            tokio::time::sleep(EXTENSION_INTERVAL).await;
            self.connection
                .repeat("let a message wait for longer", move |connection| async move {
                    extend(&connection, &self.workplace.group.keys, std::slice::from_ref(waiting), DUE_IN).await
                })
                .await;
        }
    }

    /// Calls the plugin and settles the message.
    async fn work(
        &self,
        consumer_id: &Arc<str>,
        processor: &mut Processor,
        message: &Message,
        (format, waiting, arrived): (u32, &Waiting, Option<SystemTime>),
    ) -> Answer {
        let workplace = &self.workplace;
        let session = state::session(&workplace.group, &workplace.buckets, &self.connection);
        let mut conflicts = 0;
        loop {
            let working = self.work_once(
                consumer_id,
                processor,
                message,
                (format, waiting, arrived),
                (session.as_ref(), conflicts),
            );
            if let Some(answer) = working.await {
                return answer;
            }
            workplace.group.counters.state_conflicts.add(1);
            conflicts += 1;
            if let Some(session) = &session {
                session.begin_again().await;
            }
        }
    }

    /// Calls the plugin and settles the message, unless the plugin's state has changed meanwhile.
    async fn work_once(
        &self,
        consumer_id: &Arc<str>,
        processor: &mut Processor,
        message: &Message,
        (format, waiting, arrived): (u32, &Waiting, Option<SystemTime>),
        (session, conflicts): (Option<&Arc<Session>>, u32),
    ) -> Option<Answer> {
        let workplace = &self.workplace;
        let delivery = Delivery::new(String::new(), Vec::new());
        let mut settlement = Settlement::default();
        let signature = Signature { consumer_id, output: &workplace.output, outputs: &workplace.outputs };
        let token = delivery.token(message);
        let (traces, attempt) = (workplace.group.traces.as_deref(), message.attempt());
        let origin = Origin { message_id: &message.id, body: &message.body, token };
        let trace = traces.and_then(|traces| traces.of(origin));
        let (trace_id, begun) = (trace.map(|trace| trace.id), Begun::with(trace));
        let input = Input { id: &message.id, body: &message.body, attempt, token, trace_id, session };
        let start = Instant::now();
        let processed = processor.process(input, signature, &mut settlement.results).await;
        processor.add_up();
        processor.observe(1, start.elapsed());
        let version = processed.instead.as_ref().unwrap_or(processor.version()).clone();
        let ids = (workplace.group.identity.host_id(), consumer_id.clone());
        let kept = processed.outcome.clone();
        // A worker does not know which formats the hosts can read, except from the host that has handed the message over.
        let terms = settlement::Terms { format, trace_id, ..workplace.terms(&ids, &version) };
        let (called, mut traced) = (begun.map(|begun| begun.called(&processed.outcome)), Traced::default());
        let was_reading = processed.outcome.is_err() && session.is_some_and(|session| session.was_reading());
        let fate = match conflicts >= state::CONFLICTS_MAX {
            true => settlement.yield_to_others(&delivery, message, terms),
            false if was_reading => return None,
            false => settlement.decide(&delivery, message, processed.outcome, terms),
        };
        if conflicts >= state::CONFLICTS_MAX {
            settlement.results.clear();
        } else if let Some(session) = session {
            settlement.effects = session.effects();
        }
        if let (Some(traces), Some(called)) = (traces, called) {
            traced.add(traces, called, (origin, Since::Arrival(arrived), attempt), terms, fate);
        }
        let begin = traced.moment();
        let settling = settle_held(workplace, &self.connection, waiting, &settlement).await;
        traced.settled(traces, begin, settling);
        Some(match settling {
            Settling::Conflict => return None,
            Settling::Done => answer(kept, &settlement),
            Settling::Outrun | Settling::Unknown => {
                let (message_id, trace_id) = (&message.id, trace_id.map(display));
                info!(message_id, trace_id, "this message waited for too long and was taken over; nothing was written");
                Answer::Superseded
            }
        })
    }

    /// An instance that is not in use, with its consumer id. A host that counted as dead has another id.
    async fn processor(&self) -> Result<(Arc<str>, Processor), Failure> {
        let id = match &self.name {
            Name::Fixed(id) => id.clone(),
            Name::OfHost => consumer_id(&self.workplace.group.identity.host_id(), DESK_NUMBER),
        };
        let kept = self.idle().pop().filter(|(kept, _)| *kept == id);
        match kept {
            Some(kept) => Ok(kept),
            None => Ok((id.clone(), Processor::start(self.workplace.versions.clone(), id).await?)),
        }
    }

    /// The place becomes free after the instance.
    fn give_back(&self, place: SemaphorePermit<'_>, id: Arc<str>, processor: Processor) {
        self.idle().push((id, processor));
        drop(place);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Arc<str>, Processor)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Settles a waiting message, and counts it if this process has settled it.
pub(super) async fn settle_held(
    workplace: &Workplace,
    connection: &Reconnecting<SharedConnection>,
    waiting: &Waiting,
    settlement: &Settlement,
) -> Settling {
    let Workplace { group, output, outputs, dedup_window, .. } = workplace;
    let streams = Streams { keys: &group.keys, output, outputs, trimmed: &group.counters.trimmed };
    let settled = connection
        .repeat("settle a message", move |connection| async move {
            settle_waiting(&connection, streams, *dedup_window, waiting, settlement.writes()).await
        })
        .await;
    if settled == Settling::Done {
        settlement.count(&group.counters);
    }
    settled
}

/// The answer to an outcome that is settled.
fn answer(outcome: Result<Outcome, Failure>, settlement: &Settlement) -> Answer {
    let is_tried_again = !settlement.retries.is_empty();
    match outcome {
        Ok(Outcome::Emit(result)) => Answer::Emitted { results: raw([result]) },
        Ok(Outcome::EmitAll(all)) => Answer::Emitted { results: raw(all.into_iter().map(|output| output.body)) },
        Ok(Outcome::Drop) => Answer::Dropped,
        Ok(Outcome::Reject(error)) => Answer::Rejected { error },
        Ok(Outcome::Retry(_)) if is_tried_again => {
            Answer::Retry { reason: "the plugin asked for another attempt".to_owned() }
        }
        Ok(Outcome::Retry(_)) => {
            Answer::Failed { error: "the plugin asked for another attempt, and none is left".to_owned() }
        }
        Err(failure) if is_tried_again => Answer::Retry { reason: failure.to_string() },
        Err(failure) => Answer::Failed { error: failure.to_string() },
    }
}

fn raw(results: impl IntoIterator<Item = String>) -> Vec<Box<RawValue>> {
    let read = |result| RawValue::from_string(result).inspect_err(|error| warn!("a result is not JSON: {error}")).ok();
    results.into_iter().filter_map(read).collect()
}
