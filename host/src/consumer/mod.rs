//! Consumers. A consumer takes a delivery from the host's queue, claims messages without a valid claim, processes the
//! messages with its own plugin instance, and settles the delivery, or splits it. Consumers know nothing of Pub/Sub or of
//! other hosts.

pub mod crew;
mod delayed;
pub mod fetch;
pub mod queue;
mod split;
mod tries;
mod unsettled;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard, watch};
use tracing::field::{DisplayValue, display};
use tracing::{info, warn};

use crate::config::{Buckets, Config, OutputConfig, Outputs, RetryConfig};
use crate::counters::Tally;
use crate::group::Group;
use crate::identity::consumer_id;
use crate::message::Delays;
use crate::plugin::Failure;
use crate::plugin::state::Session;
use crate::processor::{Input, Processor, Signature};
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::client::shared::SharedConnection;
use crate::redis::store::claims;
use crate::redis::store::entry::{Delivery, Message};
use crate::redis::store::settle::{self, Settling, Streams};
use crate::redis::store::takeover;
use crate::settle::settlement::{Settlement, Terms};
use crate::settle::settler::Settler;
use crate::settle::traced::{Begun, Since, Traced};
use crate::state;
use crate::traces::context::{Origin, TraceId};
use crate::version::breaker::Turn;
use crate::version::{Version, Versions};
use fetch::Work;
use queue::Queue;
use split::{Lookout, Progress};
use unsettled::{Share, Unsettled};

/// A claim is trusted for this fraction of its validity, and then renewed.
const CLAIM_AGE_DIVISOR: u32 = 2;

/// Results of a delivery that are written while no other delivery's are, if they are longer than this.
const LONG_BYTES: usize = 4 << 20;

/// Shared by all consumers of a host.
#[derive(Debug)]
pub struct Workplace {
    /// The group of the host.
    pub group: Arc<Group>,
    /// Settings of the output stream.
    pub output: OutputConfig,
    /// The named outputs.
    pub outputs: Outputs,
    /// Settings of retries.
    pub retry: RetryConfig,
    /// How long a message id is remembered.
    pub dedup_window: Duration,
    /// Target time for a delivery.
    pub time_target: Duration,
    /// Where messages say when they are due, if they may.
    pub delays: Option<Delays>,
    /// The version of the plugin in use.
    pub versions: Arc<Versions>,
    /// Settles deliveries without dead letters, retries and results for named outputs.
    pub settler: Settler,
    /// Held by the consumer that tries a suspect message. One suspect at a time, so that a death of the host has only
    /// one possible cause.
    pub trial: Mutex<()>,
    /// Held while long results are written, so that they are in memory once more for one delivery only.
    pub long: Mutex<()>,
    /// The results that consumers hold until they are settled.
    pub unsettled: Unsettled,
    /// The buckets of state that the plugin may use.
    pub buckets: Buckets,
    /// Held by the consumer whose delivery has met a conflict, so that consumers of a host do not disturb each other again.
    pub contention: Mutex<()>,
    /// Looks whether other hosts have work.
    pub lookout: Lookout,
    /// Whether consumers stop where they are: what they have done is settled, and the rest goes back.
    pub cut: watch::Sender<bool>,
}

/// A consumer: one plugin instance with its loop.
#[derive(Debug)]
pub struct Consumer {
    number: u32,
    workplace: Arc<Workplace>,
    connection: Arc<Reconnecting<SharedConnection>>,
    processor: Processor,
    /// Host id and consumer id, as last used.
    ids: (Arc<str>, Arc<str>),
    settlement: Settlement,
    /// How much of the results that all consumers hold is in `settlement`.
    share: Share,
    /// The sampled messages of the delivery in process.
    traced: Traced,
    /// How far the consumer has come with the delivery in process.
    progress: Progress,
    /// The state of the plugin, if buckets are granted.
    session: Option<Arc<Session>>,
    /// What this consumer has settled; the heartbeat reads it.
    tally: Arc<Tally>,
}

impl Consumer {
    /// A consumer with a fresh instance. The consumers of a host are numbered from 1.
    ///
    /// # Errors
    /// When the instance cannot be created.
    pub async fn start(
        number: u32,
        workplace: Arc<Workplace>,
        connection: Arc<Reconnecting<SharedConnection>>,
    ) -> Result<Consumer, Failure> {
        let host_id = workplace.group.identity.host_id();
        let id = consumer_id(&host_id, number);
        let processor = Processor::start(workplace.versions.clone(), id.clone()).await?;
        let processor = processor.measuring(workplace.group.measured.as_ref(), number);
        let tally = workplace.group.counters.consumers.of(number);
        let (ids, settlement, traced) = ((host_id, id), Settlement::default(), Traced::default());
        let (share, progress) = (workplace.unsettled.share(), Progress::begin(0));
        let session = state::session(&workplace.group, &workplace.buckets, &connection);
        Ok(Consumer {
            number,
            workplace,
            connection,
            processor,
            ids,
            settlement,
            share,
            traced,
            progress,
            session,
            tally,
        })
    }

    /// Works until the queue is closed, or until the number of consumers is reduced below this consumer's number.
    pub async fn run(mut self, queue: Queue<Work>) {
        let mut cut = self.workplace.cut.subscribe();
        while self.number <= self.processor.consumers() {
            self.processor.follow();
            self.workplace.group.pace.begin(self.processor.version().plugin.generation());
            let work = match queue.waiting() {
                Some(work) => work,
                None => tokio::select! {
                    work = queue.next() => match work {
                        Some(work) => work,
                        None => return,
                    },
                    // An idle consumer also switches to a new version, so that the old version's memory is freed.
                    () = self.processor.changed() => continue,
                },
            };
            self.work_on(&work, &queue, &mut cut).await;
        }
    }

    async fn work_on(&mut self, work: &Work, queue: &Queue<Work>, cut: &mut watch::Receiver<bool>) {
        let delivery = &work.delivery;
        let (workplace, connection) = (self.workplace.clone(), self.connection.clone());
        let _trial = workplace.begin_trial(&connection, work).await;
        let (claimed, good_until) = match workplace.claims_good_until(delivery) {
            Some(good_until) => ((0..delivery.messages.len()).collect(), good_until),
            None => match workplace.claim_first(&connection, work).await {
                Some(claimed) => claimed,
                None => return workplace.leave(delivery),
            },
        };
        let (mut conflicts, mut _turn) = (0, None);
        while let Some(Settling::Conflict) =
            self.try_on((&workplace, &connection, queue), work, (&claimed, good_until), conflicts, cut).await
        {
            workplace.group.counters.state_conflicts.add(1);
            if _turn.is_none() {
                _turn = Some(workplace.contention.lock().await);
            }
            conflicts += 1;
        }
    }

    /// Processes the messages of a delivery, or splits it: then it stops after some of them. Returns whether the plugin's time has
    /// ended while it waited for its state, which is no fault of a message.
    async fn process(
        &mut self,
        (workplace, connection, queue): (&Workplace, &Reconnecting<SharedConnection>, &Queue<Work>),
        delivery: &Delivery,
        claimed: &[usize],
    ) -> bool {
        let (ids, traces) = (self.ids.clone(), workplace.group.traces.as_deref());
        let signature = Signature { consumer_id: &ids.1, output: &workplace.output, outputs: &workplace.outputs };
        let mut may_try = true;
        for index in claimed {
            let message = &delivery.messages[*index];
            let (token, attempt) = (delivery.token(message), message.attempt());
            let origin = Origin { message_id: &message.id, body: &message.body, token };
            let trace = traces.and_then(|traces| traces.of(origin));
            let (trace_id, begun) = (trace.map(|trace| trace.id), Begun::with(trace));
            let (instead, terms, called, fate);
            if delivery.crashes >= workplace.retry.deliveries_max {
                terms = Terms { trace_id, ..workplace.terms(&ids, self.processor.version()) };
                called = begun.map(Begun::given_up);
                fate = self.settlement.record_host_killer(delivery, message, terms);
            } else if let Some(wait) = workplace.wait_of(delivery, message) {
                terms = Terms { trace_id, ..workplace.terms(&ids, self.processor.version()) };
                called = begun.map(Begun::given_up);
                fate = self.settlement.delay(delivery, message, wait, terms);
            } else if self.processor.turn(&mut may_try) == Turn::Later {
                terms = Terms { trace_id, ..workplace.terms(&ids, self.processor.version()) };
                called = begun.map(Begun::given_up);
                fate = self.settlement.hold(delivery, message, terms);
            } else {
                let session = self.session.as_ref();
                let input = Input { id: &message.id, body: &message.body, attempt, token, trace_id, session };
                let processed = self.processor.process(input, signature, &mut self.settlement.results).await;
                if processed.outcome.is_err() && self.session.as_ref().is_some_and(|session| session.was_reading()) {
                    return true;
                }
                instead = processed.instead;
                let version = instead.as_ref().unwrap_or(self.processor.version());
                terms = Terms { trace_id, ..workplace.terms(&ids, version) };
                called = begun.map(|begun| begun.called(&processed.outcome));
                fate = match processed.is_excused {
                    true => self.settlement.excuse(delivery, message, terms),
                    false => self.settlement.decide(delivery, message, processed.outcome, terms),
                };
            }
            if let (Some(traces), Some(called)) = (traces, called) {
                let place = (origin, Since::Entry(&delivery.entry_id), attempt);
                self.traced.add(traces, called, place, terms, fate);
            }
            let plugin = &self.processor.version().plugin;
            let has_ticked = self.progress.step(plugin.ticks(), &workplace.group.pace, plugin.generation());
            if self.share.must_settle(self.settlement.results.bytes(), || self.processor.consumers())
                || self.session.as_deref().is_some_and(state::is_large)
            {
                return false;
            }
            let is_last = self.progress.done == claimed.len();
            if has_ticked && !is_last && workplace.calls_for_a_split(&self.progress, queue, connection).await {
                return false;
            }
        }
        false
    }

    /// A host that counted as dead uses its new id from the next delivery on.
    fn refresh_ids(&mut self) {
        let host_id = self.workplace.group.identity.host_id();
        if !Arc::ptr_eq(&host_id, &self.ids.0) {
            let id = consumer_id(&host_id, self.number);
            self.ids = (host_id, id);
        }
    }

    async fn settle(&mut self, work: &Work, duplicates: usize, rest: usize) -> Settling {
        let (settlement, begin) = (&self.settlement, self.traced.moment());
        let settled = self.workplace.settle(&self.connection, work, settlement).await;
        if settled == Settling::Conflict {
            return settled;
        }
        self.traced.settled(self.workplace.group.traces.as_deref(), begin, settled);
        let counters = &self.workplace.group.counters;
        match settled {
            Settling::Done => {
                settlement.count(counters);
                self.tally.0.add(settlement.messages);
                counters.duplicates.add(duplicates);
                self.workplace.measure_latency(&work.delivery, rest);
            }
            Settling::Outrun => {
                counters.outrun.add(1);
                let entry = &work.delivery.entry_id;
                info!(entry, "another host settled this delivery first; nothing was written");
            }
            Settling::Unknown | Settling::Conflict => self.workplace.leave(&work.delivery),
        }
        if self.share.end() {
            // The memory of long results is free while the consumer waits.
            self.settlement.clear();
        }
        settled
    }
}

impl Workplace {
    /// The workplace of a host or a worker with this configuration. What is settled goes through the threads of `workers`.
    #[must_use]
    pub fn new(config: &Config, group: &Arc<Group>, versions: &Arc<Versions>, workers: &Handle) -> Workplace {
        Workplace {
            group: group.clone(),
            output: config.output.clone(),
            outputs: config.outputs.clone(),
            retry: config.retry.clone(),
            dedup_window: config.dedup_window,
            time_target: config.delivery.time_target,
            delays: Delays::configured(&config.message),
            versions: versions.clone(),
            settler: Settler::start(workers, group.clone(), config.output.length_max),
            buckets: config.allow.keyvalue.clone(),
            contention: Mutex::default(),
            trial: Mutex::default(),
            long: Mutex::default(),
            unsettled: Unsettled::default(),
            lookout: Lookout::default(),
            cut: watch::Sender::new(false),
        }
    }

    /// The terms for a message that a consumer processes with this version.
    pub(crate) fn terms<'a>(
        &'a self,
        (host_id, consumer_id): &'a (Arc<str>, Arc<str>),
        version: &'a Version,
    ) -> Terms<'a> {
        Terms {
            host_id,
            consumer_id,
            plugin_digest: version.plugin.digest(),
            plugin_generation: version.plugin.generation(),
            retry: &self.retry,
            format: self.group.format(),
            trace_id: None,
        }
    }

    /// Time until which the claims from the intake are valid for this delivery, by the dedup window of those claims.
    /// `None` when the claims are too old.
    pub(crate) fn claims_good_until(&self, delivery: &Delivery) -> Option<Instant> {
        let window = delivery.claims.as_ref()?.window;
        let age = self.group.clock.age_of(&delivery.entry_id)?;
        let left = (window / CLAIM_AGE_DIVISOR).checked_sub(age).filter(|left| !left.is_zero())?;
        Some(Instant::now() + left)
    }

    /// Leaves a delivery that the server does not have. What another server has handed out and this one lacks, hosts append
    /// again; another delivery in its place is found by counting.
    pub(crate) fn leave(&self, delivery: &Delivery) {
        self.group.counters.outrun.add(1);
        let entry = &delivery.entry_id;
        info!(entry, "Redis does not have this delivery, or has another one in its place; nothing was written");
    }

    /// Measures how long the messages of a delivery that has just ended were in the inbox, without the rest of it, if somebody may
    /// ask.
    fn measure_latency(&self, delivery: &Delivery, rest: usize) {
        let Some(measured) = &self.group.measured else { return };
        if let Some(age) = self.group.clock.age_of(&delivery.entry_id) {
            measured.latency.observe(age, delivery.messages.len() - rest);
        }
    }

    /// Settles a delivery.
    pub(crate) async fn settle(
        &self,
        connection: &Reconnecting<SharedConnection>,
        work: &Work,
        settlement: &Settlement,
    ) -> Settling {
        let Workplace { group, output, outputs, dedup_window, settler, .. } = self;
        let Settlement { results, dead_letters, retries, rest, effects, .. } = settlement;
        let _turn = if results.bytes() > LONG_BYTES { Some(self.long.lock().await) } else { None };
        if work.held.permit.is_some()
            && dead_letters.is_empty()
            && retries.is_empty()
            && rest.is_empty()
            && effects.is_empty()
            && results.named().next().is_none()
            && settler.settle(&work.delivery.entry_id, &work.held, &results.main).await
        {
            return Settling::Done;
        }
        let streams = Streams { keys: &group.keys, output, outputs, trimmed: &group.counters.trimmed };
        connection
            .repeat("settle a delivery", move |connection| async move {
                settle::settle(&connection, streams, *dedup_window, work.handed(group), settlement.writes()).await
            })
            .await
    }

    /// Waits until no other suspect is on trial, and marks this delivery as the one on trial. Returns at once for a
    /// delivery that is no suspect, and for a delivery that is given up, because it never reaches the plugin.
    async fn begin_trial(
        &self,
        connection: &Reconnecting<SharedConnection>,
        work: &Work,
    ) -> Option<MutexGuard<'_, ()>> {
        let delivery = &work.delivery;
        if delivery.crashes == 0 || delivery.crashes >= self.retry.deliveries_max {
            return None;
        }
        let turn = self.trial.lock().await;
        let host_id = &*self.group.identity.host_id();
        connection
            .repeat("mark a suspect delivery", move |connection| async move {
                takeover::begin_trial(&connection, &self.group.keys, host_id, work.handed(&self.group)).await
            })
            .await;
        // A suspect has one message.
        let message = delivery.messages.first();
        let (message_id, trace_id) = (message.map(|message| message.id.as_str()), self.trace_id(delivery, message));
        warn!(
            message_id,
            trace_id,
            deaths = delivery.crashes,
            "hosts died while processing this message; it is processed alone"
        );
        Some(turn)
    }

    /// The trace of a message, for the log.
    fn trace_id(&self, delivery: &Delivery, message: Option<&Message>) -> Option<DisplayValue<TraceId>> {
        let (traces, message) = (self.group.traces.as_deref()?, message?);
        let origin = Origin { message_id: &message.id, body: &message.body, token: delivery.token(message) };
        Some(display(traces.of(origin)?.id))
    }

    /// Claims the messages of a delivery without valid claims. Returns the indices of the claimed messages, and the
    /// time until which their claims are valid. All other messages are duplicates. `None`: the server does not have the
    /// delivery.
    pub(crate) async fn claim_first(
        &self,
        connection: &Reconnecting<SharedConnection>,
        work: &Work,
    ) -> Option<(Vec<usize>, Instant)> {
        let delivery = &work.delivery;
        // A claim with the message's own token belongs to the message. A delivery may contain the same message with the
        // same token twice, and only the first one counts. With different tokens the claim decides.
        let mut seen = HashSet::with_capacity(delivery.messages.len());
        let mut first = |index: &usize| {
            let message = &delivery.messages[*index];
            let token = message.history.as_ref().map(|history| history.token.as_str());
            seen.insert((message.id.as_str(), token))
        };
        let mut wanted: Vec<usize> = (0..delivery.messages.len()).filter(|index| first(index)).collect();
        let asked = Instant::now();
        let ours = self.claim(connection, work, &wanted).await;
        let mut ours = ours?.into_iter();
        wanted.retain(|_| ours.next().unwrap_or(false));
        Some((wanted, asked + self.dedup_window / CLAIM_AGE_DIVISOR))
    }

    async fn claim(
        &self,
        connection: &Reconnecting<SharedConnection>,
        work: &Work,
        wanted: &[usize],
    ) -> Option<Vec<bool>> {
        connection
            .repeat("claim messages", move |connection| async move {
                claims::claim(&connection, &self.group.keys, work.handed(&self.group), wanted, self.dedup_window).await
            })
            .await
    }

    /// Renews the claims of messages in progress whenever half of their validity has passed. A call may take longer
    /// than the dedup window, and a copy published meanwhile must still be a duplicate. Never returns.
    async fn keep_claims(
        &self,
        connection: &Reconnecting<SharedConnection>,
        work: &Work,
        claimed: &[usize],
        mut good_until: Instant,
    ) {
        loop {
            tokio::time::sleep_until(good_until.into()).await;
            let asked = Instant::now();
            // Boxed, because this call is rare and up to ten thousand consumers each hold this future.
            // What the server does not have cannot be settled there either.
            Box::pin(self.claim(connection, work, claimed)).await;
            good_until = asked + self.dedup_window / CLAIM_AGE_DIVISOR;
        }
    }
}
