//! All consumers of a host: their number, and how that number changes while the host runs.
//! This file knows nothing of the consumers' work.

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
    /// Connections, each shared by some of the consumers.
    connections: Vec<Arc<Reconnecting<SharedConnection>>>,
    queue: Queue<Work>,
    registry: Arc<Registry>,
    /// The threads of the consumers.
    workers: Handle,
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
        let (consumers, leaving) = (Vec::new(), Vec::new());
        Crew { workplace, connections, queue, registry, workers, consumers, leaving, listed: 0, room, room_for: 0 }
    }

    /// Number of consumers, without those that are leaving.
    #[must_use]
    pub fn size(&self) -> u32 {
        u32::try_from(self.consumers.len()).unwrap_or(u32::MAX)
    }

    /// Starts and ends consumers for ever, to reach the wanted number. The future may be dropped at any moment.
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
                // The channel cannot close, because this function owns the sender through `versions`.
                _ = orders.changed() => {}
                () = self.settle(), if !self.is_settled() => {}
            }
        }
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
        // An error means a panic, which is already reported.
        let _ = consumer.await;
        consumers.pop();
    }
}
