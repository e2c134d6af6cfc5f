//! Consumers: each takes deliveries from the host's queue, claims, processes and settles them, one at a time, with a
//! plugin instance of its own. They know nothing of Pub/Sub or of other hosts.

pub mod fetch;
pub(crate) mod flatten;
mod settlement;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::config::OutputConfig;
use crate::intake::pace::Pace;
use crate::monitor::counters::Counters;
use crate::plugin::{Failure, Instance, Plugin};
use crate::redis::connection::Link;
use crate::redis::deliveries::{self, Delivery};
use crate::redis::keys::Keys;
use crate::registry::{Identity, consumer_id};
use fetch::Queue;
use settlement::{Settlement, Signature};

/// What all consumers of a host share.
#[derive(Debug)]
pub struct Shared {
    /// Names in Redis.
    pub keys: Keys,
    /// What is written to the output stream.
    pub output: OutputConfig,
    /// How long a message id is remembered.
    pub dedup_window: Duration,
    /// Under which id the host is known.
    pub identity: Identity,
    /// The plugin in use.
    pub plugin: Plugin,
    /// Learns how fast the plugin is.
    pub pace: Arc<Pace>,
    /// What the host counts.
    pub counters: Arc<Counters>,
}

/// One plugin instance with its loop.
#[derive(Debug)]
pub struct Consumer {
    number: u32,
    shared: Arc<Shared>,
    link: Arc<Link>,
    instance: Instance,
    /// Host id and consumer id, as last used.
    ids: (Arc<str>, Arc<str>),
    settlement: Settlement,
}

impl Consumer {
    /// A consumer with a fresh instance; consumers of a host are numbered from 1.
    ///
    /// # Errors
    /// When the instance cannot be made.
    pub async fn start(number: u32, shared: Arc<Shared>, link: Arc<Link>) -> Result<Consumer, Failure> {
        let host_id = shared.identity.host_id();
        let id = consumer_id(&host_id, number);
        let instance = shared.plugin.instantiate(id.clone()).await?;
        Ok(Consumer { number, shared, link, instance, ids: (host_id, id), settlement: Settlement::default() })
    }

    /// Works until the queue is closed.
    pub async fn run(mut self, queue: Queue) {
        while let Some(work) = queue.next().await {
            self.work_on(&work.delivery).await;
        }
    }

    async fn work_on(&mut self, delivery: &Delivery) {
        let claimed = claim(&self.shared, &self.link, delivery).await;
        self.process(delivery, &claimed).await;
        self.settle(delivery, delivery.messages.len() - claimed.len()).await;
    }

    async fn process(&mut self, delivery: &Delivery, claimed: &[usize]) {
        self.settlement.clear();
        self.refresh_ids();
        let (host_id, id) = &self.ids;
        let signature = Signature { host_id, consumer_id: id, plugin_digest: self.shared.plugin.digest() };
        let start = Instant::now();
        for index in claimed {
            let message = &delivery.messages[*index];
            let outcome = self.instance.process(&message.id, &message.body, 1).await;
            self.settlement.record(message, outcome, signature, self.shared.output.format);
        }
        self.shared.pace.observe(claimed.len(), start.elapsed());
    }

    /// A host that was taken for dead signs with its new id from the next delivery on.
    fn refresh_ids(&mut self) {
        let host_id = self.shared.identity.host_id();
        if !Arc::ptr_eq(&host_id, &self.ids.0) {
            let id = consumer_id(&host_id, self.number);
            self.ids = (host_id, id);
        }
    }

    async fn settle(&mut self, delivery: &Delivery, duplicates: usize) {
        let Shared { keys, output, counters, .. } = &*self.shared;
        let Settlement { results, dead_letters, dropped, messages, .. } = &self.settlement;
        let settled = self
            .link
            .repeat("settle a delivery", move |mut connection| async move {
                deliveries::settle(&mut connection, keys, output, &delivery.entry_id, results, dead_letters).await
            })
            .await;
        if settled {
            counters.processed.add(*messages);
            counters.results.add(results.len());
            counters.dropped.add(*dropped);
            counters.dead_letters.add(dead_letters.len());
            counters.duplicates.add(duplicates);
        } else {
            counters.outrun.add(1);
            info!(entry = delivery.entry_id, "somebody else settled this delivery first; nothing was written");
        }
    }
}

/// The messages of a delivery that are for us to process; the others are duplicates.
async fn claim(shared: &Shared, link: &Link, delivery: &Delivery) -> Vec<usize> {
    // All claims of a delivery carry one token, so a message that is in it twice would look like ours twice.
    let mut seen = HashSet::with_capacity(delivery.messages.len());
    let mut wanted: Vec<usize> =
        (0..delivery.messages.len()).filter(|index| seen.insert(delivery.messages[*index].id.as_str())).collect();
    let Shared { keys, dedup_window, .. } = shared;
    let asked = &wanted;
    let ours = link
        .repeat("claim messages", move |mut connection| async move {
            deliveries::claim(&mut connection, keys, delivery, asked, *dedup_window).await
        })
        .await;
    let mut ours = ours.into_iter();
    wanted.retain(|_| ours.next().unwrap_or(false));
    wanted
}
