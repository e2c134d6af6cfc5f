//! Consumers: each takes deliveries from the host's queue, processes and settles them, one at a time, with a plugin
//! instance of its own; what its delivery did not bring a claim for, it claims first. They know nothing of Pub/Sub or of other hosts.

mod attempts;
pub mod crew;
pub mod fetch;
pub mod flatten;
pub mod forward;
pub mod queue;
mod settlement;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard, watch};
use tracing::{info, warn};

use crate::config::{OutputConfig, RetryConfig};
use crate::intake::pace::Pace;
use crate::monitor::counters::Counters;
use crate::plugin::{Failure, Instance, Plugin};
use crate::redis::clock::ServerClock;
use crate::redis::connection::Link;
use crate::redis::deliveries::{self, Delivery, Message, Settled};
use crate::redis::keys::Keys;
use crate::redis::lane::Lane;
use crate::redis::settler::Settler;
use crate::registry::{Identity, consumer_id};
use crate::reload::versions::{Orders, Version, Versions};
use fetch::Work;
use queue::Queue;
use settlement::{Settlement, Terms, Verdict};

/// Claims that were made as a delivery was appended are trusted for this part of the dedup window. A delivery that has
/// waited longer is claimed again, because its claims may be gone before its results are there.
const CLAIM_AGE_DIVISOR: u32 = 2;

/// What all consumers of a host share.
#[derive(Debug)]
pub struct Shared {
    /// Names in Redis.
    pub keys: Keys,
    /// What is written to the output stream.
    pub output: OutputConfig,
    /// How often and when a message is tried again.
    pub retry: RetryConfig,
    /// How long a message id is remembered.
    pub dedup_window: Duration,
    /// Under which id the host is known.
    pub identity: Identity,
    /// Which version of the plugin is in use.
    pub versions: Arc<Versions>,
    /// Learns how fast the plugin is.
    pub pace: Arc<Pace>,
    /// By which deliveries have their age.
    pub clock: Arc<ServerClock>,
    /// What the host counts.
    pub counters: Arc<Counters>,
    /// Settles what came to nothing but results.
    pub settler: Settler,
    /// Held by the consumer that has a suspect on trial: one at a time, so that the host's death is its fault alone.
    pub trial: Mutex<()>,
}

/// One plugin instance with its loop.
#[derive(Debug)]
pub struct Consumer {
    number: u32,
    shared: Arc<Shared>,
    link: Arc<Link<Lane>>,
    orders: watch::Receiver<Orders>,
    /// The version that the instance is of.
    version: Arc<Version>,
    instance: Instance,
    /// Messages that the instance was asked about and how many of them it failed, since they were last added up.
    tally: (u64, u64),
    /// Host id and consumer id, as last used.
    ids: (Arc<str>, Arc<str>),
    settlement: Settlement,
}

impl Consumer {
    /// A consumer with a fresh instance; consumers of a host are numbered from 1.
    ///
    /// # Errors
    /// When the instance cannot be made.
    pub async fn start(number: u32, shared: Arc<Shared>, link: Arc<Link<Lane>>) -> Result<Consumer, Failure> {
        let host_id = shared.identity.host_id();
        let id = consumer_id(&host_id, number);
        let mut orders = shared.versions.subscribe();
        let version = orders.borrow_and_update().version.clone();
        let instance = version.plugin.instantiate(id.clone()).await?;
        Ok(Consumer {
            number,
            shared,
            link,
            orders,
            version,
            instance,
            tally: (0, 0),
            ids: (host_id, id),
            settlement: Settlement::default(),
        })
    }

    /// Works until the queue is closed, or until there are to be fewer consumers.
    pub async fn run(mut self, queue: Queue<Work>) {
        while self.number <= self.orders.borrow().consumers {
            self.follow_orders();
            let work = match queue.waiting() {
                Some(work) => work,
                None => tokio::select! {
                    work = queue.next() => match work {
                        Some(work) => work,
                        None => return,
                    },
                    // An idle consumer follows too: the memory of the old version is wanted back.
                    Ok(()) = self.orders.changed() => {
                        self.adopt();
                        continue;
                    }
                },
            };
            self.work_on(&work).await;
        }
    }

    /// Goes over to the version in use if something has changed, and says whether it has. Asked before every message,
    /// so it has to cost next to nothing.
    fn follow_orders(&mut self) -> bool {
        let changed = self.orders.has_changed().unwrap_or(false);
        if changed {
            self.adopt();
        }
        changed
    }

    fn adopt(&mut self) {
        let version = self.orders.borrow_and_update().version.clone();
        if version.plugin.generation() != self.version.plugin.generation() {
            self.add_up();
            // The old instance goes before the new one comes, so a swap needs no memory for two of each consumer.
            self.instance = version.plugin.instance_to_be(self.ids.1.clone());
        }
        self.version = version;
    }

    /// Adds what the instance did to the record of its version.
    fn add_up(&mut self) {
        let (messages, failures) = std::mem::take(&mut self.tally);
        self.version.record.add(messages, failures);
    }

    async fn work_on(&mut self, work: &Work) {
        let delivery = &work.delivery;
        let shared = self.shared.clone();
        let _trial = shared.begin_trial(&self.link, delivery).await;
        let claimed = if shared.is_claimed(delivery) {
            (0..delivery.messages.len()).collect()
        } else {
            claim(&shared, &self.link, delivery).await
        };
        self.process(&shared, delivery, &claimed).await;
        self.settle(work, delivery.messages.len() - claimed.len()).await;
    }

    async fn process(&mut self, shared: &Shared, delivery: &Delivery, claimed: &[usize]) {
        self.settlement.clear();
        self.refresh_ids();
        let (ids, mut version) = (self.ids.clone(), self.version.clone());
        let start = Instant::now();
        for index in claimed {
            let message = &delivery.messages[*index];
            if self.follow_orders() {
                version = self.version.clone();
            }
            let terms = shared.terms(&ids, &version.plugin);
            if delivery.crashes >= shared.retry.deliveries_max {
                self.settlement.record_host_killer(delivery, message, terms);
                continue;
            }
            #[cfg(not(feature = "native-bench"))]
            let outcome = self.instance.process(&message.id, &message.body, message.attempt()).await;
            #[cfg(feature = "native-bench")]
            let outcome = crate::plugin::native::process(&message.body);
            let mut judged = self.settlement.judge(message, outcome, terms);
            self.tally.0 += 1;
            if version.probation.is_some() {
                // Whoever fails next is judged by all messages so far.
                self.add_up();
            }
            if let Err(verdict) = &judged
                && let Some(failure) = verdict.failure()
            {
                self.tally.1 += 1;
                // Boxed because it is rare, and the future of a consumer is there ten thousand times.
                judged = Box::pin(self.ask_the_version_before(shared, message, failure)).await.unwrap_or(judged);
            }
            if let Err(verdict) = judged {
                self.settlement.carry_out(verdict, delivery, message, terms);
            }
        }
        self.add_up();
        shared.pace.observe(claimed.len(), start.elapsed());
    }

    /// What the version before makes of a message that a version on probation has failed; `None` when it fails too, or
    /// when there is nothing to prove.
    async fn ask_the_version_before(
        &mut self,
        shared: &Shared,
        message: &Message,
        failure: &str,
    ) -> Option<Result<(), Verdict>> {
        let version = self.version.clone();
        let before = version.probation.as_ref()?.before();
        let mut instance = before.plugin.instance_to_be(self.ids.1.clone());
        let outcome = instance.process(&message.id, &message.body, message.attempt()).await;
        let ids = self.ids.clone();
        let judged = self.settlement.judge(message, outcome, shared.terms(&ids, &before.plugin));
        if judged.as_ref().is_err_and(|verdict| verdict.failure().is_some()) {
            return None;
        }
        shared.versions.regressed(&version, &message.id, failure);
        Some(judged)
    }

    /// A host that was taken for dead signs with its new id from the next delivery on.
    fn refresh_ids(&mut self) {
        let host_id = self.shared.identity.host_id();
        if !Arc::ptr_eq(&host_id, &self.ids.0) {
            let id = consumer_id(&host_id, self.number);
            self.ids = (host_id, id);
        }
    }

    async fn settle(&mut self, work: &Work, duplicates: usize) {
        let settlement = &self.settlement;
        let settled = self.shared.settle(&self.link, work, settlement).await;
        let counters = &self.shared.counters;
        if settled {
            counters.processed.add(settlement.messages);
            counters.results.add(settlement.results.len());
            counters.dropped.add(settlement.dropped);
            counters.dead_letters.add(settlement.dead_letters.len());
            counters.retries.add(settlement.retries.len());
            counters.duplicates.add(duplicates);
        } else {
            counters.outrun.add(1);
            let entry = &work.delivery.entry_id;
            info!(entry, "somebody else settled this delivery first; nothing was written");
        }
    }
}

impl Shared {
    /// The terms for a message that a consumer processes with this version.
    fn terms<'a>(&'a self, (host_id, consumer_id): &'a (Arc<str>, Arc<str>), plugin: &'a Plugin) -> Terms<'a> {
        Terms {
            host_id,
            consumer_id,
            plugin_digest: plugin.digest(),
            plugin_generation: plugin.generation(),
            output: &self.output,
            retry: &self.retry,
        }
    }

    /// Whether this delivery came with claims of its messages that are still there for a while.
    fn is_claimed(&self, delivery: &Delivery) -> bool {
        let is_young = |age| age < self.dedup_window / CLAIM_AGE_DIVISOR;
        delivery.claimed_with.is_some() && self.clock.age_of(&delivery.entry_id).is_some_and(is_young)
    }

    /// Settles a delivery. `false`: somebody else has done so.
    async fn settle(&self, link: &Link<Lane>, work: &Work, settlement: &Settlement) -> bool {
        let Shared { keys, output, dedup_window, settler, .. } = self;
        let Settlement { results, dead_letters, retries, .. } = settlement;
        let entry_id = &work.delivery.entry_id;
        if let Some(held) = &work.held
            && dead_letters.is_empty()
            && retries.is_empty()
            && settler.settle(entry_id, held, results).await
        {
            return true;
        }
        let what = Settled { entry_id, results, dead_letters, retries };
        link.repeat("settle a delivery", move |lane| async move {
            deliveries::settle(&lane, keys, output, *dedup_window, what).await
        })
        .await
    }

    /// Waits for the turn of a delivery that is suspected to have killed its hosts, and marks it. Anything else goes on
    /// at once, and so does what is given up: it never reaches the plugin.
    async fn begin_trial(&self, link: &Link<Lane>, delivery: &Delivery) -> Option<MutexGuard<'_, ()>> {
        if delivery.crashes == 0 || delivery.crashes >= self.retry.deliveries_max {
            return None;
        }
        let turn = self.trial.lock().await;
        let host_id = &*self.identity.host_id();
        link.repeat("mark a suspect delivery", move |lane| async move {
            deliveries::begin_trial(&lane, &self.keys, host_id, &delivery.entry_id).await
        })
        .await;
        let message_id = delivery.messages.first().map(|message| message.id.as_str());
        warn!(
            message_id,
            deaths = delivery.crashes,
            "hosts died with this message in hand; it is tried apart from others"
        );
        Some(turn)
    }
}

/// The messages of a delivery that are for us to process; the others are duplicates.
async fn claim(shared: &Shared, link: &Link<Lane>, delivery: &Delivery) -> Vec<usize> {
    // A claim that carries the message's own token is ours, so a message that is here twice with one token would look
    // like ours twice. With two tokens it is for the claim to say which of them it is.
    let mut seen = HashSet::with_capacity(delivery.messages.len());
    let mut first = |index: &usize| {
        let message = &delivery.messages[*index];
        let token = message.history.as_ref().map(|history| history.token.as_str());
        seen.insert((message.id.as_str(), token))
    };
    let mut wanted: Vec<usize> = (0..delivery.messages.len()).filter(|index| first(index)).collect();
    let Shared { keys, dedup_window, .. } = shared;
    let asked = &wanted;
    let ours = link
        .repeat("claim messages", move |lane| async move {
            deliveries::claim(&lane, keys, delivery, asked, *dedup_window).await
        })
        .await;
    let mut ours = ours.into_iter();
    wanted.retain(|_| ours.next().unwrap_or(false));
    wanted
}
