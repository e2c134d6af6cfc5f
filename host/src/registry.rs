//! Who is alive: this host's id, its heartbeat, and with them `consumer:ids`.
//! Beating never waits for a plugin; it knows nothing of messages.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::config::RegistryConfig;
use crate::intake::pace::Pace;
use crate::redis::clock::ServerClock;
use crate::redis::connection::Link;
use crate::redis::keys::Keys;
use crate::redis::registry::{Beat, BeatReply, Presence, beat};
use crate::reload::versions::Versions;

/// The id under which this host is known now. Shared by everything that signs with it.
#[derive(Clone, Debug)]
pub struct Identity(Arc<RwLock<Known>>);

/// An id, and until when nobody can take its host for dead.
#[derive(Debug)]
struct Known {
    id: Arc<str>,
    until: Instant,
}

/// How often to look for the heartbeat that tells whether an id is still good.
const CONFIRMATION_LOOK: Duration = Duration::from_millis(10);

impl Identity {
    /// An id that was never used.
    #[must_use]
    pub fn fresh() -> Identity {
        Identity(Arc::new(RwLock::new(Known { id: new_host_id(), until: Instant::now() })))
    }

    /// Host name, process id and a random part.
    #[must_use]
    pub fn host_id(&self) -> Arc<str> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).id.clone()
    }

    /// The same, once no heartbeat is overdue: a host that was paused for long may have been taken for dead, and learns of
    /// it at its next one.
    pub async fn confirmed(&self) -> Arc<str> {
        loop {
            {
                let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
                if Instant::now() < known.until {
                    return known.id.clone();
                }
            }
            tokio::time::sleep(CONFIRMATION_LOOK).await;
        }
    }

    fn confirm(&self, until: Instant) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).until = until;
    }

    fn renew(&self) -> Arc<str> {
        let id = new_host_id();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Known { id: id.clone(), until: Instant::now() };
        id
    }
}

fn new_host_id() -> Arc<str> {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    let random: u32 = rand::rng().random();
    format!("{name}-{}-{random:08x}", std::process::id()).into()
}

/// The id of a host's consumer; consumers are numbered from 1.
#[must_use]
pub fn consumer_id(host_id: &str, number: u32) -> Arc<str> {
    format!("{host_id}/{number}").into()
}

/// This host's entry in the registry.
#[derive(Debug)]
pub struct Registry {
    /// A connection that nothing else uses for long.
    pub link: Link,
    /// Names in Redis.
    pub keys: Keys,
    /// How often to beat, and how long a heartbeat is valid.
    pub config: RegistryConfig,
    /// Consumers of this host, 0 before it has joined.
    pub consumers: AtomicU32,
    /// What the host says about its plugin.
    pub versions: Arc<Versions>,
    /// Under which id the host is known.
    pub identity: Identity,
    /// Learns how large the group is.
    pub pace: Arc<Pace>,
    /// Learns what time it is.
    pub clock: Arc<ServerClock>,
}

impl Registry {
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
                let old = self.identity.host_id();
                let new = self.identity.renew();
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
        let host_id = self.identity.host_id();
        let host_id = &*host_id;
        let consumers = if kind == Beat::Leave { 0 } else { self.consumers.load(Ordering::Relaxed) };
        // Of texts and numbers, which are always JSON.
        let status = &serde_json::to_string(&self.versions.status()).unwrap_or_default();
        let (asked, reply) = self
            .link
            .repeat("send the heartbeat", move |mut connection| async move {
                let presence = Presence { host_id, consumers, status, ttl: self.config.beat_ttl };
                let asked = Instant::now();
                beat(&mut connection, &self.keys, presence, kind).await.map(|reply| (asked, reply))
            })
            .await;
        if let BeatReply::Alive { hosts, consumers, server_ms } = reply {
            self.pace.set_group(hosts, consumers);
            self.clock.set(asked, server_ms);
            self.identity.confirm(asked + self.config.beat_ttl);
        }
        reply
    }
}
