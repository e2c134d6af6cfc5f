//! All consumers of a host: how many there are, and how there come to be more or fewer of them while it runs.
//! It knows nothing of what they do.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::fetch::{Room, Work};
use super::queue::Queue;
use super::{Consumer, Workplace};
use crate::plugin::Failure;
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::client::shared::SharedConnection;
use crate::registry::Registry;

/// The consumers of a host.
#[derive(Debug)]
pub struct Crew {
    workplace: Arc<Workplace>,
    /// Connections, each for some of the consumers.
    connections: Vec<Arc<Reconnecting<SharedConnection>>>,
    queue: Queue<Work>,
    registry: Arc<Registry>,
    /// The threads that they run on.
    workers: Handle,
    /// Those that there are to be, by number: the first has 1.
    consumers: Vec<JoinHandle<()>>,
    /// Those that end when they have finished their delivery. Until then they are alive, and on the list.
    leaving: Vec<JoinHandle<()>>,
    /// How many are on the list.
    listed: u32,
    room: Room,
    /// For how many there is room.
    room_for: u32,
}

impl Crew {
    /// Nobody yet.
    #[must_use]
    pub fn new(
        workplace: Arc<Workplace>,
        connections: Vec<Arc<Reconnecting<SharedConnection>>>,
        queue: Queue<Work>,
        room: Room,
        registry: Arc<Registry>,
        workers: Handle,
    ) -> Crew {
        let (consumers, leaving) = (Vec::new(), Vec::new());
        Crew { workplace, connections, queue, registry, workers, consumers, leaving, listed: 0, room, room_for: 0 }
    }

    /// Consumers that there are to be.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.consumers.len()).unwrap_or(u32::MAX)
    }

    /// Starts and ends consumers for ever, so that there are as many as are wanted. May be dropped at any moment.
    pub async fn run(&mut self) {
        let versions = self.workplace.versions.clone();
        let mut orders = versions.subscribe();
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
                // The sender is in `versions`, which is held here.
                _ = orders.changed() => {}
                () = self.settle(), if !self.is_settled() => {}
            }
        }
    }

    /// Whether there are neither more nor fewer than there are to be.
    fn is_settled(&self) -> bool {
        self.listed == self.size() && self.room_for == self.size()
    }

    /// Starts consumers until there are so many. They are on the list before they work.
    ///
    /// # Errors
    /// When an instance of the plugin cannot be made; then there are as many as before.
    pub async fn grow(&mut self, to: u32) -> Result<(), Failure> {
        // Numbers that are still in use must not be given twice.
        self.settle().await;
        self.workplace.versions.set_consumers(to);
        let mut ready = Vec::new();
        for number in self.size() + 1..=to {
            let connection = self.connections[number as usize % self.connections.len()].clone();
            match Consumer::start(number, self.workplace.clone(), connection).await {
                Ok(consumer) => ready.push(consumer),
                Err(failure) => {
                    self.workplace.versions.set_consumers(self.size());
                    return Err(failure);
                }
            }
        }
        self.registry.announce(to).await;
        self.listed = to;
        let started = ready.into_iter().map(|consumer| self.workers.spawn(consumer.run(self.queue.clone())));
        self.consumers.extend(started);
        self.room.resize(self.room_for, to).await;
        self.room_for = to;
        Ok(())
    }

    /// Lets those with the highest numbers end after their delivery, so that so many are left. [`Crew::settle`] waits
    /// for them.
    fn shrink(&mut self, to: u32) {
        self.workplace.versions.set_consumers(to);
        let to = self.consumers.len().min(to as usize);
        self.leaving.extend(self.consumers.drain(to..));
    }

    /// Waits for those that leave, takes them off the list and makes their room smaller. May be dropped and called again.
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

    /// Waits until everybody has ended, which they do when their queue is closed.
    pub async fn ended(&mut self) {
        ended(&mut self.leaving).await;
        ended(&mut self.consumers).await;
    }

    /// Ends everybody who has not ended, and says how many they were.
    pub fn abort(&mut self) -> usize {
        let left = self.consumers.iter().chain(&self.leaving).filter(|consumer| !consumer.is_finished());
        left.inspect(|consumer| consumer.abort()).count()
    }
}

async fn ended(consumers: &mut Vec<JoinHandle<()>>) {
    while let Some(consumer) = consumers.last_mut() {
        // An error is a panic, which was reported when it happened.
        let _ = consumer.await;
        consumers.pop();
    }
}
