//! When a delivery is split, and what goes back: what is done is settled, and the messages behind it return to the inbox in the
//! same step. This file does not settle.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::debug;

use super::fetch::Work;
use super::queue::Queue;
use super::{Consumer, Workplace};
use crate::pace::Pace;
use crate::plugin::TICK;
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::client::shared::SharedConnection;
use crate::redis::store::entry::{Delivery, write_rest};
use crate::redis::store::inbox::has_waiting;

/// A delivery may take the target time this often. Then it is split, if another consumer has nothing to do.
const TIMES_TARGET: u32 = 2;

/// Time between two looks whether deliveries wait in the inbox, and the longest time for an answer.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How far a consumer has come with a delivery. The time is looked at only when the plugin's clock has ticked, so it costs
/// quick messages nothing.
#[derive(Debug)]
pub(super) struct Progress {
    /// Number of messages that are done.
    pub done: usize,
    begun: Instant,
    /// When the time was looked at, and the plugin's clock then.
    seen: (Instant, u64),
    /// Messages that have ended since.
    unseen: u32,
}

impl Progress {
    /// A delivery begins, with this state of the plugin's clock.
    pub fn begin(ticks: u64) -> Progress {
        let now = Instant::now();
        Progress { done: 0, begun: now, seen: (now, ticks), unseen: 0 }
    }

    /// One more message is done. Returns whether the clock has ticked meanwhile. `generation` is the plugin's.
    pub fn step(&mut self, ticks: u64, pace: &Pace, generation: u64) -> bool {
        self.done += 1;
        self.unseen += 1;
        if ticks == self.seen.1 {
            return false;
        }
        self.observe(ticks, pace, generation);
        true
    }

    /// The delivery ends. Returns the time that it took.
    pub fn end(&mut self, pace: &Pace, generation: u64) -> Duration {
        self.observe(self.seen.1, pace, generation);
        self.seen.0 - self.begun
    }

    /// Reports the time of the messages that have ended since the last look.
    fn observe(&mut self, ticks: u64, pace: &Pace, generation: u64) {
        let now = Instant::now();
        let took = now - self.seen.0;
        let before = self.unseen.saturating_sub(1);
        if before > 0 && took >= 2 * TICK {
            // Only the last one can have been slow: the others have ended before the clock ticked.
            let usual = pace.message_time().unwrap_or(TICK).min(TICK / before);
            pace.observe(generation, before as usize, usual * before);
            pace.observe(generation, 1, took.saturating_sub(usual * before));
        } else {
            pace.observe(generation, self.unseen as usize, took);
        }
        (self.seen, self.unseen) = ((now, ticks), 0);
    }

    /// Whether the delivery takes much longer than it should.
    fn is_late(&self, target: Duration) -> bool {
        self.seen.0 - self.begun >= TIMES_TARGET * target
    }
}

/// What was last heard of the inbox: when, and whether deliveries waited.
#[derive(Debug, Default)]
pub struct Lookout(Mutex<Option<(Instant, bool)>>);

impl Lookout {
    /// Whether some host of the group may take more than it has: no delivery waits in the inbox. `false` while that is not known.
    async fn finds_idle(&self, workplace: &Workplace, connection: &Reconnecting<SharedConnection>) -> bool {
        // Another consumer looks.
        let Ok(mut last) = self.0.try_lock() else { return false };
        if let Some((_, is_idle)) = last.filter(|(when, _)| when.elapsed() < LOOK_INTERVAL) {
            return is_idle;
        }
        let keys = &workplace.group.keys;
        let look = async {
            let (connection, _) = connection.connection().await?;
            has_waiting(&connection, keys).await
        };
        // Nothing depends on the answer. Whoever settles deals with a connection that has failed.
        let waits = timeout(LOOK_INTERVAL, look).await;
        let is_idle = waits.is_ok_and(|waits| waits.is_ok_and(|waits| !waits));
        *last = Some((Instant::now(), is_idle));
        is_idle
    }
}

impl Consumer {
    /// Nothing is done of the next delivery.
    pub(super) fn begin(&mut self) {
        self.settlement.clear();
        self.share.end();
        self.traced.clear();
        self.refresh_ids();
        self.progress = Progress::begin(self.processor.version().plugin.ticks());
    }

    /// The delivery ends, done or not.
    pub(super) fn end(&mut self) {
        self.processor.add_up();
        let took = self.progress.end(&self.workplace.group.pace, self.processor.version().plugin.generation());
        if self.progress.done > 0 {
            self.processor.observe(self.progress.done, took);
        }
    }

    /// Adds the messages that were not processed to what is settled, in equal shares for all consumers of the group.
    pub(super) fn put_back(&mut self, delivery: &Delivery, rest: &[usize]) {
        if rest.is_empty() {
            return;
        }
        let group = &self.workplace.group;
        for share in rest.chunks(group.pace.share(rest.len())) {
            write_rest(&mut self.settlement.rest, group.format(), delivery, share);
        }
        let (entry, done) = (&delivery.entry_id, self.progress.done);
        debug!(entry, done, rest = rest.len(), entries = self.settlement.rest.len(), "split a delivery");
    }
}

impl Workplace {
    /// Whether a delivery should be split: it takes too long while a consumer of this host or another host has nothing to do.
    pub(super) async fn calls_for_a_split(
        &self,
        progress: &Progress,
        queue: &Queue<Work>,
        connection: &Reconnecting<SharedConnection>,
    ) -> bool {
        let (pace, is_paused) = (&self.group.pace, self.group.pause.is_on());
        if !progress.is_late(self.time_target) || pace.is_intake_behind() {
            return false;
        }
        if !is_paused && queue.has_idle() {
            return true;
        }
        // Boxed, because this is rare and up to ten thousand consumers each hold this future.
        pace.hosts() > 1 && Box::pin(self.lookout.finds_idle(self, connection)).await
    }
}
