//! Who is alive: this host's heartbeat, and with it `consumer:ids` and the descriptor of the group.
//! Beating never waits for a plugin; it knows nothing of messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use crate::config::RegistryConfig;
use crate::group::Group;
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::store::entry::FORMAT;
use crate::redis::store::group::{Agreement, Member, Misfit, join};
use crate::redis::store::registry::{Beat, BeatReply, Presence, beat};
use crate::throttle::Throttle;
use crate::version::{Status, Versions};

/// This host's entry in the registry.
#[derive(Debug)]
pub struct Registry {
    group: Arc<Group>,
    /// A connection that nothing else uses for long.
    connection: Reconnecting,
    /// How often to beat, and how long a heartbeat is valid.
    config: RegistryConfig,
    /// How long this host remembers message ids.
    dedup_window: Duration,
    /// Consumers of this host, 0 before it has joined.
    consumers: AtomicU32,
    /// What the host says about its plugin.
    versions: Arc<Versions>,
    misfits: Throttle,
}

/// What a host says about itself to the others.
#[derive(Serialize)]
struct About<'a> {
    #[serde(flatten)]
    plugin: &'a Status,
    /// The newest format that the host reads.
    format: u32,
}

impl Registry {
    /// The entry of a host that has not joined yet.
    #[must_use]
    pub fn new(group: Arc<Group>, config: RegistryConfig, dedup_window: Duration, versions: Arc<Versions>) -> Registry {
        let connection = group.connect("control");
        let (consumers, misfits) = (AtomicU32::new(0), Throttle::default());
        Registry { group, connection, config, dedup_window, consumers, versions, misfits }
    }

    /// Joins the group, or says why this host must not run in it.
    ///
    /// # Errors
    /// When the host does not fit in.
    pub async fn join_group(&self) -> Result<Agreement, Misfit> {
        let host_id = &*self.group.identity.host_id();
        let member = Member { host_id, ttl: self.config.beat_ttl, dedup_window: self.dedup_window };
        let agreed = self
            .connection
            .repeat("join the group", move |mut connection| async move {
                join(&mut connection, &self.group.keys, member).await
            })
            .await?;
        self.group.set_format(agreed.format);
        Ok(agreed)
    }

    /// Brings so many consumers onto the list, and takes whatever is stale off it. The first time the host joins.
    pub async fn announce(&self, consumers: u32) {
        let before = self.consumers.swap(consumers, Ordering::Relaxed);
        // A host that was taken for dead meanwhile hears of it at its next heartbeat.
        self.send(if before == 0 { Beat::Join } else { Beat::Stay }).await;
    }

    /// Beats for ever, and at once when there is something to say about the plugin. A host that was taken for dead comes
    /// back under a new id.
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
                warn!(%old, %new, "this host was taken for dead, because it was silent for too long; it goes on under a new id");
                self.send(Beat::Join).await;
            }
        }
    }

    /// Takes the host and its consumers off the list, at once, or gives up after `within`.
    pub async fn leave(&self, within: Duration) {
        match tokio::time::timeout(within, self.send(Beat::Leave)).await {
            Ok(_) => info!("left the registry"),
            Err(_) => {
                warn!("could not leave the registry; the other hosts will notice within {:?}", self.config.beat_ttl)
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
        // Of texts and numbers, which are always JSON.
        let about = About { plugin: &self.versions.status(), format: FORMAT };
        let status = &serde_json::to_string(&about).unwrap_or_default();
        let (asked, reply, joined) = self
            .connection
            .repeat("send the heartbeat", move |mut connection| async move {
                let presence = Presence { host_id, consumers, status, ttl: self.config.beat_ttl };
                let asked = Instant::now();
                let reply = beat(&mut connection, &group.keys, presence, kind).await?;
                let member = Member { host_id, ttl, dedup_window: self.dedup_window };
                Ok((asked, reply, join(&mut connection, &group.keys, member).await?))
            })
            .await;
        match joined {
            Ok(agreed) => group.set_format(agreed.format),
            // It fitted in when it started: somebody has deleted the descriptor, or Redis was away for long.
            Err(misfit) if self.misfits.permit().is_some() => {
                error!("this host no longer fits into its group: {misfit}")
            }
            Err(_) => {}
        }
        if let BeatReply::Alive { hosts, consumers, server_ms } = reply {
            group.pace.set_group(hosts, consumers);
            group.clock.set(asked, server_ms);
            group.identity.confirm(asked + self.config.beat_ttl);
        }
        reply
    }
}
