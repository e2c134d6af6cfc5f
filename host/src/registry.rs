//! This host's heartbeat, and with it `consumer:ids` and the descriptor of the group.
//! The heartbeat never waits for a plugin. This file knows no messages.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::announcer::Announcer;
use crate::config::{Config, RegistryConfig};
use crate::group::Group;
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::store::entry::FORMAT;
use crate::redis::store::figures::Figures;
use crate::redis::store::group::{Agreement, Member, Misfit, OutputKeys, Received, Stranger, join};
use crate::redis::store::registry::{Beat, BeatReply, Presence, beat};
use crate::throttle::Throttle;
use crate::version::{Status, Versions};

/// This host's entry in the registry.
#[derive(Debug)]
pub struct Registry {
    group: Arc<Group>,
    /// A connection without long commands.
    connection: Reconnecting,
    /// Interval and validity of heartbeats.
    config: RegistryConfig,
    /// How long this host remembers message ids.
    dedup_window: Duration,
    /// What this host receives, and where the ids are.
    received: Received,
    /// This host's named outputs.
    outputs: OutputKeys,
    /// The last warning about a host with other named outputs.
    warned_of: Mutex<Option<Stranger>>,
    /// Number of consumers of this host.
    consumers: AtomicU32,
    /// Whether the host has joined.
    has_joined: AtomicBool,
    /// Source of the plugin's status.
    versions: Arc<Versions>,
    /// Source of the other figures.
    announcer: Announcer,
    misfits: Throttle,
}

/// Status of this host, for other hosts and for operators.
#[derive(Serialize)]
struct About<'a> {
    #[serde(flatten)]
    plugin: &'a Status,
    /// The newest format that the host reads.
    format: u32,
    figures: Figures,
}

impl Registry {
    /// The entry of a host that has not joined yet.
    #[must_use]
    pub fn new(group: Arc<Group>, config: &Config, versions: Arc<Versions>) -> Registry {
        let outputs = config.outputs.iter().map(|output| (output.name.clone(), output.key.clone()));
        Registry {
            connection: group.connect("control"),
            config: config.registry.clone(),
            dedup_window: config.dedup_window,
            received: Received::configured(config),
            outputs: outputs.collect(),
            warned_of: Mutex::default(),
            consumers: AtomicU32::new(0),
            has_joined: AtomicBool::new(false),
            versions,
            announcer: Announcer::new(group.clone(), &config.registry),
            misfits: Throttle::default(),
            group,
        }
    }

    /// Joins the group.
    ///
    /// # Errors
    /// When this host disagrees with the group, for example about the channel.
    pub async fn join_group(&self) -> Result<Agreement, Misfit> {
        let host_id = &*self.group.identity.host_id();
        let member = self.member(host_id, self.config.beat_ttl);
        let agreed = self
            .connection
            .repeat("join the group", move |mut connection| async move {
                join(&mut connection, &self.group.keys, member).await
            })
            .await?;
        self.group.set_format(agreed.format);
        Ok(agreed)
    }

    /// This host's part of the descriptor.
    fn member<'a>(&'a self, host_id: &'a str, ttl: Duration) -> Member<'a> {
        let processed = self.group.counters.processed_with_id();
        Member {
            host_id,
            ttl,
            dedup_window: self.dedup_window,
            processed,
            received: &self.received,
            outputs: &self.outputs,
        }
    }

    /// Warns once of a host whose named outputs are others, and again when the difference is another one.
    fn compare_outputs(&self, stranger: Option<Stranger>) {
        let mut warned_of = self.warned_of.lock().unwrap_or_else(PoisonError::into_inner);
        if *warned_of == stranger {
            return;
        }
        if let Some(stranger) = &stranger {
            warn!(
                "this host, {}, and the host {} of the same group have different named outputs: {}; a message whose result \
                 names an output that its host does not have becomes a dead letter; give both the same sections [outputs.NAME]",
                self.group.identity.host_id(),
                stranger.host_id,
                stranger.differences(&self.outputs)
            );
        }
        *warned_of = stranger;
    }

    /// Lists this number of consumers, and removes stale ids from the list. The first call adds the host to the
    /// registry.
    pub async fn announce(&self, consumers: u32) {
        self.consumers.store(consumers, Ordering::Relaxed);
        let has_joined = self.has_joined.swap(true, Ordering::Relaxed);
        // If the host counts as dead, the next heartbeat handles that.
        self.send(if has_joined { Beat::Stay } else { Beat::Join }).await;
    }

    /// Sends heartbeats for ever: every interval, and at once when the plugin's status changes. A host that counted as
    /// dead returns with a new id.
    pub async fn run(&self) {
        let mut news = self.versions.subscribe();
        let mut ticks = interval(self.config.beat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first is immediate, and the host has just joined
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = news.changed() => {}
            }
            if self.send(Beat::Stay).await == BeatReply::TakenForDead {
                let old = self.group.identity.host_id();
                let new = self.group.identity.renew();
                self.group.counters.begin_with_new_id();
                warn!(%old, %new, "this host counted as dead, because its heartbeat came too late; it continues with a new id");
                self.send(Beat::Join).await;
            }
        }
    }

    /// Removes the host and its consumers from the registry, or gives up after `within`.
    pub async fn leave(&self, within: Duration) {
        match tokio::time::timeout(within, self.send(Beat::Leave)).await {
            Ok(_) => info!("left the registry"),
            Err(_) => {
                warn!(
                    "could not leave the registry; the heartbeat of this host expires within {:?}",
                    self.config.beat_ttl
                )
            }
        }
    }

    async fn send(&self, kind: Beat) -> BeatReply {
        let group = &self.group;
        let host_id = &*group.identity.host_id();
        let (consumers, ttl) = match kind {
            Beat::Leave => (0, Duration::ZERO),
            _ => (self.consumers.load(Ordering::Relaxed), self.config.beat_ttl),
        };
        // Serialisation cannot fail: the status consists of texts and numbers.
        let figures = self.announcer.figures(consumers);
        let about = About { plugin: &self.versions.status(), format: FORMAT, figures };
        let status = &serde_json::to_string(&about).unwrap_or_default();
        let (asked, reply, joined) = self
            .connection
            .repeat("send the heartbeat", move |mut connection| async move {
                let presence = Presence { host_id, consumers, status, ttl: self.config.beat_ttl };
                let asked = Instant::now();
                let reply = beat(&mut connection, &group.keys, presence, kind).await?;
                // An id that counted as dead must not come back, not even in the descriptor.
                let joined = match reply {
                    BeatReply::Alive { .. } => {
                        Some(join(&mut connection, &group.keys, self.member(host_id, ttl)).await?)
                    }
                    BeatReply::TakenForDead => None,
                };
                Ok((asked, reply, joined))
            })
            .await;
        match joined {
            Some(Ok(agreed)) => {
                group.set_format(agreed.format);
                self.compare_outputs(agreed.stranger);
            }
            // The host agreed with the group at its start. Since then the descriptor was deleted, or Redis was away for
            // long.
            Some(Err(misfit)) if self.misfits.permit().is_some() => {
                error!("this host no longer fits into its group: {misfit}")
            }
            Some(Err(_)) | None => {}
        }
        if let BeatReply::Alive { hosts, consumers, server_ms } = reply {
            group.pace.set_group(hosts, consumers);
            group.clock.set(asked, server_ms);
            group.identity.confirm(asked + self.config.beat_ttl);
        }
        reply
    }
}
