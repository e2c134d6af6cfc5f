//! Hands deliveries to remote consumers. The messages of a delivery are moved from the inbox to the waiting retries in one step,
//! and the time for which they wait is extended while they are in hand. A consumer that is told how its message waits settles the
//! message itself; for any other consumer that answers 200, this host removes the message without a result.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};

use super::address::Address;
use super::client::Ask;
use super::desk::settle_held;
use super::membership::Remotes;
use super::{DUE_IN, EXTENSION_INTERVAL, Fence};
use crate::consumer::Workplace;
use crate::consumer::fetch::{Room, Work};
use crate::consumer::queue::Queue;
use crate::plugin::Failure;
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::client::shared::SharedConnection;
use crate::redis::store::entry::{Delivery, History, Message};
use crate::redis::store::in_hand::{Waiting, extend};
use crate::redis::store::inbox::{HandBack, hand_back};
use crate::redis::store::settle::Settling;
use crate::settle::settlement::Settlement;
use crate::throttle::Throttle;

/// Number of consumers that are asked in one attempt at a message.
const CONSUMERS_TRIED_MAX: usize = 3;

/// Time beyond the plugin's own limit until a consumer must have answered.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// Time between two looks whether deliveries wait for consumers that are not there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A distributor at work. The drop ends it at once.
#[derive(Debug)]
pub struct Distribution {
    distributor: Arc<Distributor>,
    tasks: [JoinHandle<()>; 2],
}

impl Distribution {
    /// Starts on the threads of the consumers.
    #[must_use]
    pub fn start(distributor: Distributor, queue: &Queue<Work>, room: Room, workers: &Handle) -> Distribution {
        let (distributor, supervisor) = {
            let supervisor = distributor.workplace.group.supervisor.clone();
            (Arc::new(distributor), supervisor)
        };
        let (running, queued) = (distributor.clone(), queue.clone());
        let running =
            workers.spawn(supervisor.clone().keep("distribution", move || running.clone().run(queued.clone())));
        // It alone knows how much room there is for remote consumers.
        let keeping = distributor.clone().keep_room(room, queue.clone());
        let keeping = workers.spawn(async move { supervisor.once("room", keeping).await.unwrap_or_default() });
        Distribution { distributor, tasks: [running, keeping] }
    }

    /// Takes nothing more, and waits for what is in hand.
    pub async fn ended(&mut self) {
        self.distributor.stop.send_replace(true);
        // An error means a panic, which the supervisor has reported.
        let _ = (&mut self.tasks[0]).await;
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Hands deliveries of this host's queue to its remote consumers.
#[derive(Debug)]
pub struct Distributor {
    workplace: Arc<Workplace>,
    remotes: Arc<Remotes>,
    connection: Reconnecting<SharedConnection>,
    /// For rare commands.
    rare: Reconnecting,
    /// Longest time for an answer.
    answer_timeout: Duration,
    stop: watch::Sender<bool>,
    failures: Throttle,
}

impl Distributor {
    /// A distributor for consumers whose plugin has this time limit.
    #[must_use]
    pub fn new(workplace: Arc<Workplace>, remotes: Arc<Remotes>, time_max: Duration) -> Distributor {
        Distributor {
            connection: workplace.group.connect("distribution"),
            rare: workplace.group.connect("distribution"),
            workplace,
            remotes,
            answer_timeout: time_max + ANSWER_MARGIN,
            stop: watch::Sender::new(false),
            failures: Throttle::default(),
        }
    }

    /// Distributes until the queue is closed, and then finishes what is in hand.
    async fn run(self: Arc<Self>, queue: Queue<Work>) {
        let (mut in_hand, mut stopped) = (JoinSet::new(), self.stop.subscribe());
        loop {
            tokio::select! {
                () = self.remotes.any_free() => {}
                _ = stopped.wait_for(|stop| *stop) => break,
            }
            tokio::select! {
                work = queue.next() => match work {
                    Some(work) => drop(in_hand.spawn(self.clone().distribute(work))),
                    None => break,
                },
                Some(_) = in_hand.join_next(), if !in_hand.is_empty() => {}
            }
            // The messages of a delivery may wait for consumers that are busy with others.
            while in_hand.len() > self.remotes.count() {
                in_hand.join_next().await;
            }
        }
        while in_hand.join_next().await.is_some() {}
    }

    /// Adapts the room for deliveries to the number of remote consumers for ever, and hands deliveries back for which nobody is
    /// left in this host.
    async fn keep_room(self: Arc<Self>, room: Room, queue: Queue<Work>) {
        let (mut changes, mut room_for) = (self.remotes.subscribe(), 0);
        loop {
            let count = u32::try_from(self.remotes.count()).unwrap_or(u32::MAX);
            if count == 0 && self.workplace.versions.status().consumers == 0 {
                self.hand_back(&queue).await;
            }
            if count != room_for {
                let _ =
                    tokio::time::timeout(LOOK_INTERVAL, room.resize(room_for, count)).await.map(|()| room_for = count);
            }
            let _ = tokio::time::timeout(LOOK_INTERVAL, changes.changed()).await;
        }
    }

    async fn hand_back(&self, queue: &Queue<Work>) {
        let work: Vec<Work> = std::iter::from_fn(|| queue.waiting()).collect();
        for work in &work {
            let (keys, host_id) = (&self.workplace.group.keys, &work.held.host_id);
            let (name, ids) = (&format!("{host_id}/handed-back"), std::slice::from_ref(&work.delivery.entry_id));
            self.rare
                .repeat("hand a delivery back", move |mut connection| async move {
                    hand_back(&mut connection, keys, host_id, name, HandBack::Unbegun(ids)).await
                })
                .await;
        }
        if !work.is_empty() {
            info!(deliveries = work.len(), "handed deliveries back, because no consumer is left in this host");
        }
    }

    async fn distribute(self: Arc<Self>, work: Work) {
        let start = Instant::now();
        let Some(held) = self.hold(&work).await else { return };
        // The inbox does not have the delivery any more.
        drop(work);
        let waiting: Vec<Waiting> = held.iter().map(|(_, _, waiting)| waiting.clone()).collect();
        let mut delivering: FuturesUnordered<_> =
            held.iter().map(|(message, fence, waiting)| self.deliver(message, fence, waiting)).collect();
        let delivered = async { while delivering.next().await.is_some() {} };
        tokio::select! {
            biased;
            () = delivered => {}
            () = self.keep(&waiting) => {}
        }
        let generation = self.workplace.versions.current().plugin.generation();
        self.workplace.group.pace.observe(generation, waiting.len(), start.elapsed());
    }

    /// Moves the messages of a delivery that are no duplicates to the waiting retries. `None`: they belong to another host.
    async fn hold(&self, work: &Work) -> Option<Vec<(Message, Fence, Waiting)>> {
        let (workplace, connection, delivery) = (&self.workplace, &self.connection, &work.delivery);
        let claimed = match workplace.claims_good_until(delivery) {
            Some(_) => (0..delivery.messages.len()).collect(),
            None => workplace.claim_first(connection, work).await?.0,
        };
        let format = workplace.group.format();
        let mut settlement = Settlement::default();
        let mut held = Vec::with_capacity(claimed.len());
        for index in &claimed {
            let message = &delivery.messages[*index];
            if delivery.crashes >= workplace.retry.deliveries_max {
                let ids = (workplace.group.identity.host_id(), workplace.group.identity.host_id());
                let version = workplace.versions.current();
                let terms = workplace.terms(&ids, &version);
                settlement.record_host_killer(delivery, message, terms);
                continue;
            }
            if let Some(wait) = workplace.wait_of(delivery, message) {
                let ids = (workplace.group.identity.host_id(), workplace.group.identity.host_id());
                let version = workplace.versions.current();
                settlement.delay(delivery, message, wait, workplace.terms(&ids, &version));
                continue;
            }
            let history = History {
                attempt: message.attempt(),
                token: delivery.token(message).to_owned(),
                crashes: delivery.crashes,
            };
            settlement.retries.push(format, &message.id, &message.body, history.clone(), DUE_IN);
            let waiting = Waiting::new(format, &message.id, &message.body, &history);
            let (id, body) = (message.id.clone(), message.body.clone());
            held.push((
                Message { id, body, history: Some(Box::new(history.clone())) },
                Fence { format, history },
                waiting,
            ));
        }
        let settled = workplace.settle(connection, work, &settlement).await;
        if settled != Settling::Done {
            workplace.leave(delivery);
            return None;
        }
        let counters = &workplace.group.counters;
        counters.duplicates.add(delivery.messages.len() - claimed.len());
        counters.processed.add(settlement.messages);
        counters.dead_letters.add(settlement.dead_letters.len());
        Some(held)
    }

    /// Lets messages wait for longer, for ever.
    async fn keep(&self, waiting: &[Waiting]) {
        loop {
            tokio::time::sleep(EXTENSION_INTERVAL).await;
            self.connection
                .repeat("let messages wait for longer", move |connection| async move {
                    extend(&connection, &self.workplace.group.keys, waiting, DUE_IN).await
                })
                .await;
        }
    }

    /// Hands a message to one consumer after the other until one of them has processed the message.
    async fn deliver(&self, message: &Message, fence: &Fence, waiting: &Waiting) {
        let (mut tried, mut problems) = (HashSet::new(), Vec::new());
        while tried.len() < CONSUMERS_TRIED_MAX
            && let Some(mut lease) = self.remotes.free(&tried).await
        {
            let json = Some(Bytes::copy_from_slice(message.body.as_bytes()));
            let ask = Ask { path: "/processMessage", json, fence: Some(&fence.text()) };
            let problem = match lease.ask(ask, self.answer_timeout).await {
                Ok(answer) if answer.status.is_success() => return self.processed(waiting).await,
                Ok(answer) => format!("{} answered {}", lease.address(), answer.status),
                Err(error) => {
                    self.remotes.suspect(lease.address());
                    error.to_string()
                }
            };
            if let Some(unlogged) = self.failures.permit() {
                let message_id = &message.id;
                warn!(message_id, unlogged, "a remote consumer did not process a message: {problem}");
            }
            tried.insert(lease.address().clone());
            problems.push(problem);
        }
        self.fail(message, waiting, &tried, &problems).await;
    }

    /// A consumer has answered 200. A consumer that knows how the message waits has settled it already.
    async fn processed(&self, waiting: &Waiting) {
        let mut settlement = Settlement::default();
        settlement.messages = 1;
        settle_held(&self.workplace, &self.connection, waiting, &settlement).await;
    }

    /// Nobody has processed the message: another attempt, if one is left. Without any consumer it goes back to the inbox at once.
    async fn fail(&self, message: &Message, waiting: &Waiting, tried: &HashSet<Address>, problems: &[String]) {
        let (workplace, keys) = (&self.workplace, &self.workplace.group.keys);
        let Some(last) = tried.iter().next() else {
            let back = std::slice::from_ref(waiting);
            self.connection
                .repeat("return a message to the inbox", move |connection| async move {
                    extend(&connection, keys, back, Duration::ZERO).await
                })
                .await;
            return;
        };
        let failure = Failure::Failed(format!("no remote consumer processed the message: {}", problems.join("; ")));
        let ids = (workplace.group.identity.host_id(), last.shared());
        let mut settlement = Settlement::default();
        let version = workplace.versions.current();
        let delivery = Delivery::new(String::new(), Vec::new());
        settlement.decide(&delivery, message, Err(failure), workplace.terms(&ids, &version));
        settle_held(workplace, &self.connection, waiting, &settlement).await;
    }
}
