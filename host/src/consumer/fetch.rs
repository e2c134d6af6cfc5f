//! Fetches deliveries for the consumers of this host, never more than there is room for: new deliveries from the inbox,
//! and from time to time deliveries of dead hosts. This file does not process deliveries.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::warn;

use super::queue::Queue;
use crate::group::Group;
use crate::redis::RedisError;
use crate::redis::client::connection::Connection;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::store::entry::{Delivery, FORMAT};
use crate::redis::store::handed::Handed;
use crate::redis::store::inbox::{Fetched, HandBack, ensure_group, fetch, hand_back, handed_back, panicked};
use crate::redis::store::settle::Held;
use crate::redis::store::takeover::name_of_newer;
use crate::takeover::Reaper;
use crate::throttle::Throttle;
use crate::version::Versions;

/// Maximum number of deliveries in one fetch.
const FETCH_MAX: usize = 64;

/// Maximum number of deliveries that wait in the host, so that a consumer finds the next delivery when it is idle.
/// There is one for each consumer, but not more than this number, because no other host can take a delivery that waits
/// here.
const AHEAD_MAX: u32 = 32;

/// A delivery in this host, from its fetch until it is settled.
#[derive(Debug)]
pub struct Work {
    /// The delivery.
    pub delivery: Delivery,
    /// Its provenance.
    pub held: Held,
    in_work: InWork,
    _room: OwnedSemaphorePermit,
}

impl Work {
    /// The delivery with the server that handed it out, as it is known now.
    #[must_use]
    pub fn handed(&self, group: &Group) -> Handed<'_> {
        let is_old = self.held.history != group.standing.history();
        Handed { delivery: &self.delivery, server: &self.held.server, is_old }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if thread::panicking() {
            // Whoever worked on it has panicked. It stays in work until it has counted a death. Without a fetcher the host stops.
            let _ = self.in_work.casualties.send((self.delivery.entry_id.clone(), self.held.clone()));
        } else {
            self.in_work.entries().remove(&self.delivery.entry_id);
        }
    }
}

/// A delivery during whose processing a consumer has panicked.
type Casualty = (String, Held);

/// What is in this host.
#[derive(Clone, Debug)]
struct InWork {
    /// Ids of the inbox entries.
    entries: Arc<Mutex<HashSet<String>>>,
    /// Takes deliveries that are to count a death. Bounded by the room.
    casualties: mpsc::UnboundedSender<Casualty>,
}

impl InWork {
    fn entries(&self) -> MutexGuard<'_, HashSet<String>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for deliveries in this host, which bounds the number of fetched deliveries.
#[derive(Clone, Debug)]
pub struct Room(Arc<Semaphore>);

impl Room {
    /// Room for no delivery.
    fn none() -> Room {
        Room(Arc::new(Semaphore::new(0)))
    }

    /// Adapts the room to another number of consumers. To reduce the room, the call waits until enough deliveries are
    /// settled.
    pub async fn resize(&self, from: u32, to: u32) {
        let size = |consumers: u32| consumers + consumers.min(AHEAD_MAX);
        match size(from).checked_sub(size(to)) {
            None => self.0.add_permits((size(to) - size(from)) as usize),
            Some(less) => {
                // An error means that the semaphore is closed, which only happens at a stop.
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
    group: Arc<Group>,
    versions: Arc<Versions>,
    reaper: Reaper,
    /// For rare commands.
    connection: Reconnecting,
    /// For fetching only, because a fetch blocks the connection, with the server that it leads to. `None` until the first
    /// fetch.
    fetching: tokio::sync::Mutex<Option<(Connection, Arc<str>)>>,
    takeover_interval: Duration,
    room: Room,
    in_work: InWork,
    casualties: tokio::sync::Mutex<mpsc::UnboundedReceiver<Casualty>>,
    /// Bounded by `room`.
    queue: Queue<Work>,
    newer: Throttle,
}

impl Fetcher {
    /// A fetcher without room, and the queue that it fills. Once an interval it searches for deliveries of dead hosts.
    #[must_use]
    pub fn new(group: Arc<Group>, versions: Arc<Versions>, takeover_interval: Duration) -> (Fetcher, Queue<Work>) {
        let queue = Queue::default();
        let (casualties, received) = mpsc::unbounded_channel();
        let fetcher = Fetcher {
            reaper: Reaper::new(group.clone()),
            connection: group.connect("fetch"),
            group,
            versions,
            fetching: tokio::sync::Mutex::default(),
            takeover_interval,
            room: Room::none(),
            in_work: InWork { entries: Arc::default(), casualties },
            casualties: tokio::sync::Mutex::new(received),
            queue: queue.clone(),
            newer: Throttle::default(),
        };
        (fetcher, queue)
    }

    /// The room for fetched deliveries.
    #[must_use]
    pub fn room(&self) -> Room {
        self.room.clone()
    }

    /// Fetches for ever, and beside that lets deliveries count a death whose consumer has panicked.
    pub async fn run(&self) {
        tokio::select! {
            () = self.fetch_for_ever() => {}
            () = self.count_deaths() => {}
        }
    }

    /// Gives deliveries whose consumer has panicked to a name that counts as dead. Some host takes them over, like those of a host
    /// that has died with them.
    async fn count_deaths(&self) {
        let mut casualties = self.casualties.lock().await;
        while let Some((entry_id, held)) = casualties.recv().await {
            warn!(entry_id, "a consumer panicked while it had this delivery, which counts as a death");
            let (ids, name) = (std::slice::from_ref(&entry_id), panicked(&held.host_id));
            self.give("let a delivery count a death", HandBack::Panicked(ids), &name, &held).await;
            self.in_work.entries().remove(&entry_id);
        }
    }

    async fn fetch_for_ever(&self) {
        let mut looked_for_dead = None;
        loop {
            self.group.pause.ended().await;
            let tries = self.versions.breaker().admits().await;
            let Some(mut room) = self.wait_for_room().await else {
                return;
            };
            if let Some(few) = tries.and_then(|tries| room.split(tries.min(room.num_permits()))) {
                room = few;
            }
            self.group.pace.give_way().await;
            // A pause has begun meanwhile. A wait with the room in hand would keep the number of consumers from changing.
            if self.group.pause.is_on() {
                continue;
            }
            let own = self.group.identity.confirmed().await;
            let (asked, history) = (Instant::now(), self.group.standing.history());
            let looked: Option<Instant> = looked_for_dead;
            let permits = room.num_permits();
            let (deliveries, held) = if looked.is_none_or(|looked| looked.elapsed() >= self.takeover_interval) {
                looked_for_dead = Some(asked);
                let (left_behind, server) = self
                    .connection
                    .repeat("look for deliveries of dead hosts", move |mut connection| async move {
                        // Read before Redis is asked. Meanwhile deliveries can only leave, because only this task
                        // fetches.
                        let in_work = self.in_work.entries().clone();
                        self.reaper.left_behind(&mut connection, &in_work, permits).await
                    })
                    .await;
                (left_behind, Held { host_id: own.clone(), permit: None, server, history })
            } else {
                let (new, server) = self
                    .connection
                    .repeat("fetch from the inbox", move |mut connection| async move {
                        self.fetch(&mut connection, permits).await
                    })
                    .await;
                (new.deliveries, Held { host_id: own.clone(), permit: new.permit, server, history })
            };
            let deliveries = self.set_aside_newer(deliveries, &held).await;
            // A fetch that waited when the pause began has taken what came next.
            if self.group.pause.is_on() {
                self.give_back(&deliveries, &held).await;
                continue;
            }
            // If this host counted as dead meanwhile, these deliveries belong to its old id and are taken over from
            // there.
            if self.group.identity.confirmed().await == own {
                if tries.is_some() && !deliveries.is_empty() {
                    self.versions.breaker().begin_tries(deliveries.len());
                }
                self.enqueue(deliveries, &held, room);
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

    fn enqueue(&self, deliveries: Vec<Delivery>, held: &Held, mut room: OwnedSemaphorePermit) {
        for delivery in deliveries {
            // Taken over from this host's own old id, and still in progress here.
            if !self.in_work.entries().insert(delivery.entry_id.clone()) {
                continue;
            }
            let Some(one) = room.split(1) else { return };
            let work = Work { delivery, held: held.clone(), in_work: self.in_work.clone(), _room: one };
            // A closed queue drops the work. The delivery stays with the host's id, and is handed back at the stop.
            self.queue.add(work);
        }
    }

    /// Hands deliveries that no consumer has seen back to the group, so that another host takes them.
    async fn give_back(&self, deliveries: &[Delivery], held: &Held) {
        let in_work = self.in_work.entries().clone();
        let ids: Vec<String> = deliveries.iter().map(|delivery| delivery.entry_id.clone()).collect();
        // Taken over from this host's own old id, and still in progress here.
        let ids: Vec<String> = ids.into_iter().filter(|id| !in_work.contains(id)).collect();
        if !ids.is_empty() {
            let what = HandBack::Unbegun(&ids);
            self.give("hand deliveries back", what, &handed_back(&held.host_id), held).await;
        }
    }

    /// Gives deliveries of this host to another name.
    async fn give(&self, purpose: &'static str, what: HandBack<'_>, to: &str, held: &Held) {
        self.connection
            .repeat(purpose, move |mut connection| async move {
                // On another server, other deliveries may have these ids.
                if Connector::server_of(&mut connection).await? != held.server {
                    return Ok(0);
                }
                hand_back(&mut connection, &self.group.keys, &held.host_id, to, what).await
            })
            .await;
    }

    /// Returns the deliveries that this program can read. Deliveries of a newer format are set aside for a newer host.
    async fn set_aside_newer(&self, mut deliveries: Vec<Delivery>, held: &Held) -> Vec<Delivery> {
        // Almost always there is no newer delivery.
        while let Some(format) = deliveries.iter().map(|delivery| delivery.format).find(|format| *format > FORMAT) {
            let of_format = |delivery: &&Delivery| delivery.format == format;
            let ids: Vec<String> =
                deliveries.iter().filter(of_format).map(|delivery| delivery.entry_id.clone()).collect();
            let what = HandBack::Unbegun(&ids);
            self.give("set deliveries of a newer format aside", what, &name_of_newer(format), held).await;
            if let Some(unlogged) = self.newer.permit() {
                warn!(
                    deliveries = ids.len(),
                    format,
                    unlogged,
                    "left deliveries to newer hosts: this version of host cannot read their format (it reads up to format \
                     {FORMAT})"
                );
            }
            deliveries.retain(|delivery| delivery.format != format);
        }
        deliveries
    }

    async fn fetch(&self, library: &mut LibraryConnection, room: usize) -> Result<(Fetched, Arc<str>), RedisError> {
        let (host_id, keys) = (self.group.identity.host_id(), &self.group.keys);
        let mut kept = self.fetching.lock().await;
        let (mut connection, server) = match kept.take() {
            Some(kept) => kept,
            None => {
                let mut connection = Connection::open(&self.group.connector).await?;
                let server = connection.server().await?;
                (connection, server)
            }
        };
        match fetch(&mut connection, keys, &host_id, room, self.takeover_interval).await {
            Ok(fetched) => {
                *kept = Some((connection, server.clone()));
                Ok((fetched, server))
            }
            Err(error) if error.code() == Some("NOGROUP") => {
                warn!(inbox = keys.inbox, "the inbox was deleted; creating a new one");
                ensure_group(library, keys).await?;
                Ok((Fetched::default(), server))
            }
            Err(error) => Err(error),
        }
    }
}
