//! All consumers of a host: their number, and how that number changes while the host runs.
//! This file knows nothing of the consumers' work.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::fetch::{Room, Work};
use super::queue::Queue;
use super::{Consumer, Workplace};
use crate::plugin::Failure;
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::client::shared::SharedConnection;
use crate::registry::Registry;

/// Name of each consumer among the parts of the host.
const PART: &str = "consumer";

/// Consumers that have panicked, and have no replacement yet.
#[derive(Debug, Default)]
struct Panicked {
    numbers: Mutex<Vec<u32>>,
    told: Notify,
}

impl Panicked {
    fn numbers(&self) -> MutexGuard<'_, Vec<u32>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The consumers of a host.
#[derive(Debug)]
pub struct Crew {
    workplace: Arc<Workplace>,
    /// Connections, each shared by some of the consumers.
    connections: Vec<Arc<Reconnecting<SharedConnection>>>,
    queue: Queue<Work>,
    registry: Arc<Registry>,
    /// The threads of the consumers.
    workers: Handle,
    panicked: Arc<Panicked>,
    /// Consumers that stay, by number: the first has number 1.
    consumers: Vec<JoinHandle<()>>,
    /// Consumers that end after their present delivery. Until then they stay on the list.
    leaving: Vec<JoinHandle<()>>,
    /// Number of consumers on the list.
    listed: u32,
    room: Room,
    /// Number of consumers for which there is room.
    room_for: u32,
}

impl Crew {
    /// A crew without consumers.
    #[must_use]
    pub fn new(
        workplace: Arc<Workplace>,
        connections: Vec<Arc<Reconnecting<SharedConnection>>>,
        queue: Queue<Work>,
        room: Room,
        registry: Arc<Registry>,
        workers: Handle,
    ) -> Crew {
        let (consumers, leaving, panicked) = (Vec::new(), Vec::new(), Arc::default());
        Crew {
            workplace,
            connections,
            queue,
            registry,
            workers,
            panicked,
            consumers,
            leaving,
            listed: 0,
            room,
            room_for: 0,
        }
    }

    /// Number of consumers, without those that are leaving.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.consumers.len()).unwrap_or(u32::MAX)
    }

    /// Starts and ends consumers for ever, to reach the wanted number. The future may be dropped at any moment.
    pub async fn run(&mut self) {
        let versions = self.workplace.versions.clone();
        let (mut orders, panicked) = (versions.subscribe(), self.panicked.clone());
        loop {
            let (from, to) = (self.size(), orders.borrow_and_update().consumers_wanted);
            if to < from {
                self.shrink(to);
                info!(from, to, "changed the number of consumers");
            } else if to > from {
                match self.grow(to).await {
                    Ok(()) => info!(from, to, "changed the number of consumers"),
                    Err(failure) => {
                        warn!(from, to, "cannot start more consumers: {failure}");
                        versions.want_consumers(from);
                    }
                }
            }
            tokio::select! {
                // The channel cannot close, because this function owns the sender through `versions`.
                _ = orders.changed() => {}
                () = panicked.told.notified() => {
                    let numbers = std::mem::take(&mut *panicked.numbers());
                    for number in numbers {
                        self.replace(number).await;
                    }
                }
                () = self.settle(), if !self.is_settled() => {}
            }
        }
    }

    /// Replaces a consumer that has panicked, unless it was leaving. It was on the list, and stays there.
    async fn replace(&mut self, number: u32) {
        if number > self.size() {
            return;
        }
        match self.ready(number).await {
            Ok(consumer) => {
                let started = self.start(consumer, number);
                self.consumers[number as usize - 1] = started;
                warn!(number, "replaced a consumer that had panicked");
            }
            Err(failure) => {
                let reason =
                    format!("consumer {number} panicked, and there is no other instance of the plugin: {failure}");
                self.workplace.group.supervisor.fail(PART, reason);
            }
        }
    }

    /// A consumer with this number that does not work yet.
    async fn ready(&self, number: u32) -> Result<Consumer, Failure> {
        let connection = self.connections[number as usize % self.connections.len()].clone();
        Consumer::start(number, self.workplace.clone(), connection).await
    }

    /// Lets a consumer work.
    fn start(&self, consumer: Consumer, number: u32) -> JoinHandle<()> {
        let (supervisor, panicked) = (self.workplace.group.supervisor.clone(), self.panicked.clone());
        // Without an async block around it, which would double the memory of a consumer.
        self.workers.spawn(supervisor.caught(PART, consumer.run(self.queue.clone())).map(move |worked| {
            if worked.is_err() {
                panicked.numbers().push(number);
                panicked.told.notify_one();
            }
        }))
    }

    /// Whether list and room match the number of consumers.
    fn is_settled(&self) -> bool {
        self.listed == self.size() && self.room_for == self.size()
    }

    /// Starts consumers up to this number. A consumer is on the list before it works.
    ///
    /// # Errors
    /// When an instance of the plugin cannot be created; then the number stays the same.
    pub async fn grow(&mut self, to: u32) -> Result<(), Failure> {
        // A leaving consumer still uses its number.
        self.settle().await;
        self.workplace.versions.set_consumers(to);
        let mut ready = Vec::new();
        for number in self.size() + 1..=to {
            match self.ready(number).await {
                Ok(consumer) => ready.push((consumer, number)),
                Err(failure) => {
                    self.workplace.versions.set_consumers(self.size());
                    return Err(failure);
                }
            }
        }
        self.registry.announce(to).await;
        self.listed = to;
        let started: Vec<_> = ready.into_iter().map(|(consumer, number)| self.start(consumer, number)).collect();
        self.consumers.extend(started);
        self.room.resize(self.room_for, to).await;
        self.room_for = to;
        Ok(())
    }

    /// Lets the consumers above this number end after their present delivery. [`Crew::settle`] waits for them.
    fn shrink(&mut self, to: u32) {
        self.workplace.versions.set_consumers(to);
        let to = self.consumers.len().min(to as usize);
        self.leaving.extend(self.consumers.drain(to..));
    }

    /// Waits for leaving consumers, removes them from the list and reduces the room. The future may be dropped at any
    /// moment.
    async fn settle(&mut self) {
        ended(&mut self.leaving).await;
        let size = self.size();
        if self.listed > size {
            self.registry.announce(size).await;
            self.listed = size;
        }
        if self.room_for > size {
            self.room.resize(self.room_for, size).await;
            self.room_for = size;
        }
    }

    /// Waits until all consumers have ended. They end when their queue is closed.
    pub async fn ended(&mut self) {
        ended(&mut self.leaving).await;
        ended(&mut self.consumers).await;
    }

    /// Lets all consumers stop where they are and settle what is done, and waits for their end.
    pub async fn cut(&mut self) {
        self.workplace.cut.send_replace(true);
        self.ended().await;
    }

    /// Number of consumers that have not ended.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.consumers.iter().chain(&self.leaving).filter(|consumer| !consumer.is_finished()).count()
    }

    /// Aborts all consumers that have not ended.
    pub fn abort(&mut self) {
        self.consumers.iter().chain(&self.leaving).for_each(JoinHandle::abort);
    }
}

async fn ended(consumers: &mut Vec<JoinHandle<()>>) {
    while let Some(consumer) = consumers.last_mut() {
        // An error means a panic, which the supervisor has reported.
        let _ = consumer.await;
        consumers.pop();
    }
}
