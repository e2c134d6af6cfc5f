//! Fetches deliveries for the consumers of this host, never more than they have room for, and takes over what
//! dead hosts have left. It knows nothing of what the consumers do with them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{info, warn};

use super::queue::Queue;
use crate::intake::pace::Pace;
use crate::monitor::counters::Counters;
use crate::redis::RedisError;
use crate::redis::connection::{Connection, Connector, Link};
use crate::redis::deliveries::{self, Delivery};
use crate::redis::keys::Keys;
use crate::redis::registry::hosts_alive;
use crate::redis::settler::Held;
use crate::redis::wire::Wire;
use crate::registry::Identity;

/// Deliveries fetched at once, at most.
const FETCH_MAX: usize = 64;

/// Deliveries that wait in the host beyond one for each consumer, so that a consumer finds the next one when it has
/// finished: one for each, but no more than this, because what waits here no other host can take.
const AHEAD_MAX: u32 = 32;

/// A delivery in this host, from its fetch until it is settled.
#[derive(Debug)]
pub struct Work {
    /// The delivery.
    pub delivery: Delivery,
    /// How it came here, if nobody else has ever had it.
    pub held: Option<Held>,
    in_work: InWork,
    _room: OwnedSemaphorePermit,
}

impl Drop for Work {
    fn drop(&mut self) {
        self.in_work.entries().remove(&self.delivery.entry_id);
    }
}

/// Ids of the inbox entries that this host works on.
#[derive(Clone, Debug, Default)]
struct InWork(Arc<Mutex<HashSet<String>>>);

impl InWork {
    fn entries(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for deliveries in this host, which bounds how many are fetched.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// None at all.
    fn none() -> Room {
        Room(Arc::new(Semaphore::new(0)))
    }

    /// Changes it from so many consumers to so many. Less room is there only when what is too much has been settled.
    pub async fn resize(&self, from: u32, to: u32) {
        let size = |consumers: u32| consumers + consumers.min(AHEAD_MAX);
        match size(from).checked_sub(size(to)) {
            None => self.0.add_permits((size(to) - size(from)) as usize),
            Some(less) => {
                // It is closed only by a stop, which needs no room.
                if let Ok(permits) = self.0.acquire_many(less).await {
                    permits.forget();
                }
            }
        }
    }
}

/// Fetches for the consumers of one host.
#[derive(Debug)]
pub struct Fetcher {
    /// For whatever is rare.
    link: Link,
    connector: Connector,
    /// For fetching, once it is connected.
    wire: tokio::sync::Mutex<Option<Wire>>,
    keys: Keys,
    identity: Identity,
    counters: Arc<Counters>,
    takeover_interval: Duration,
    pace: Arc<Pace>,
    room: Room,
    in_work: InWork,
    /// Bounded by `room`.
    queue: Queue<Work>,
}

impl Fetcher {
    /// A fetcher with connections that nobody else uses, because fetching blocks them; and the queue that it fills. There
    /// is no room yet.
    #[must_use]
    pub fn new(
        link: Link,
        connector: Connector,
        keys: Keys,
        identity: Identity,
        counters: Arc<Counters>,
        takeover_interval: Duration,
        pace: Arc<Pace>,
    ) -> (Fetcher, Queue<Work>) {
        let (room, in_work, wire) = (Room::none(), InWork::default(), tokio::sync::Mutex::default());
        let filled = Queue::default();
        let queue = filled.clone();
        let fetcher =
            Fetcher { link, connector, wire, keys, identity, counters, takeover_interval, pace, room, in_work, queue };
        (fetcher, filled)
    }

    /// The room that it fetches for.
    #[must_use]
    pub fn room(&self) -> Room {
        self.room.clone()
    }

    /// Fetches for ever.
    pub async fn run(&self) {
        let mut looked_for_dead = None;
        loop {
            let Some(room) = self.wait_for_room().await else {
                return;
            };
            self.pace.give_way().await;
            let own = self.identity.confirmed().await;
            let asked = Instant::now();
            let looked: Option<Instant> = looked_for_dead;
            let permits = room.num_permits();
            let (deliveries, held) = if looked.is_none_or(|looked| looked.elapsed() >= self.takeover_interval) {
                looked_for_dead = Some(asked);
                let left_behind = self
                    .link
                    .repeat("look for deliveries of dead hosts", move |mut connection| async move {
                        self.left_behind(&mut connection, permits).await
                    })
                    .await;
                (left_behind, None)
            } else {
                let new = self
                    .link
                    .repeat("fetch from the inbox", move |mut connection| async move {
                        self.fetch(&mut connection, permits).await
                    })
                    .await;
                (new, Some(Held { host_id: own.clone(), asked }))
            };
            // What came for a host that was taken for dead meanwhile is taken over, from its old name.
            if self.identity.confirmed().await == own {
                self.enqueue(deliveries, held.as_ref(), room);
            }
        }
    }

    /// Room for at least one delivery; `None` when the host stops.
    async fn wait_for_room(&self) -> Option<OwnedSemaphorePermit> {
        let semaphore = &self.room.0;
        let mut room = semaphore.clone().acquire_owned().await.ok()?;
        let more = semaphore.available_permits().min(FETCH_MAX - 1);
        if let Ok(more) = semaphore.clone().try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            room.merge(more);
        }
        Some(room)
    }

    fn enqueue(&self, deliveries: Vec<Delivery>, held: Option<&Held>, mut room: OwnedSemaphorePermit) {
        for delivery in deliveries {
            // Taken over from this host's own former self, and still in work here.
            if !self.in_work.entries().insert(delivery.entry_id.clone()) {
                continue;
            }
            let Some(one) = room.split(1) else { return };
            let work = Work { delivery, held: held.cloned(), in_work: self.in_work.clone(), _room: one };
            // Drops it when the host stops; then the delivery goes back with the host's name.
            self.queue.add(work);
        }
    }

    async fn fetch(&self, connection: &mut Connection, room: usize) -> Result<Vec<Delivery>, RedisError> {
        let host_id = self.identity.host_id();
        let mut kept = self.wire.lock().await;
        let mut wire = match kept.take() {
            Some(wire) => wire,
            None => Wire::open(&self.connector).await?,
        };
        match deliveries::fetch(&mut wire, &self.keys, &host_id, room, self.takeover_interval).await {
            Ok(deliveries) => {
                *kept = Some(wire);
                Ok(deliveries)
            }
            Err(error) if error.code() == Some("NOGROUP") => {
                warn!(inbox = self.keys.inbox, "the inbox was deleted; making a new one");
                deliveries::ensure_group(connection, &self.keys).await?;
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// Deliveries of hosts that are dead, and deliveries handed to this host whose hand-over got lost on the way.
    async fn left_behind(&self, connection: &mut Connection, room: usize) -> Result<Vec<Delivery>, RedisError> {
        let own = self.identity.host_id();
        // What is in work before Redis is asked: deliveries only leave meanwhile, because it is here that they come.
        let in_work = self.in_work.entries().clone();
        // Owners before hosts: a host registers before it fetches, so whoever is an owner was registered by then.
        let owners = match deliveries::owners(connection, &self.keys).await {
            Err(error) if matches!(error.code(), Some("NOGROUP" | "ERR")) => return Ok(Vec::new()),
            owners => owners?,
        };
        let alive = hosts_alive(connection, &self.keys).await?;
        for owner in owners {
            if owner.name == *own {
                if owner.pending > in_work.len() {
                    let mut lost = deliveries::fetched_before(connection, &self.keys, &own).await?;
                    lost.retain(|delivery| !in_work.contains(&delivery.entry_id));
                    lost.truncate(room);
                    if !lost.is_empty() {
                        info!(deliveries = lost.len(), "found deliveries that got lost between Redis and this host");
                        return Ok(lost);
                    }
                }
            } else if !alive.contains(&owner.name) {
                let taken = self.take_over(connection, &owner.name, &own, room).await?;
                if !taken.is_empty() {
                    return Ok(taken);
                }
            }
        }
        Ok(Vec::new())
    }

    /// Deliveries of a dead host. Those that may have killed it go back into the inbox, one message each.
    async fn take_over(
        &self,
        connection: &mut Connection,
        dead: &str,
        own: &str,
        room: usize,
    ) -> Result<Vec<Delivery>, RedisError> {
        loop {
            let taken = deliveries::take_over(connection, &self.keys, dead, own, room).await?;
            if taken.isolated > 0 {
                warn!(
                    deliveries = taken.isolated,
                    from = dead,
                    "isolated deliveries that several hosts died with; their messages are tried one at a time"
                );
            }
            if !taken.deliveries.is_empty() {
                info!(deliveries = taken.deliveries.len(), from = dead, "took deliveries of a dead host over");
                self.counters.taken_over.add(taken.deliveries.len());
                return Ok(taken.deliveries);
            }
            if taken.isolated == 0 {
                return Ok(Vec::new());
            }
        }
    }
}
