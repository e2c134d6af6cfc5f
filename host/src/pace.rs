//! The number of messages in a delivery, and the times when fetching gives way to the intake. Decisions depend only on
//! reported figures; this file does no input or output.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::config::DeliveryConfig;

/// Maximum number of messages in a delivery until the plugin's speed is known. If the plugin is slow, the first
/// deliveries must not delay messages for seconds.
const UNKNOWN_SPEED_MESSAGES_MAX: u64 = 16;

/// Minimum work in a delivery. A smaller delivery costs more to hand over than to process, in the host and in Redis
/// together. With 1,000 consumers of a fast plugin, 20 µs cost twice the host's CPU time for a message, and a quarter
/// more of Redis's CPU time.
const WORTHWHILE_NS: u64 = 200_000;

/// Number of messages whose times are remembered. After a change of the plugin's speed, a tenth of it decides.
const REMEMBERED: u64 = 128;

/// Size and speed of the group, shared by all parts that report or use the figures.
#[derive(Debug, Default)]
pub struct Pace {
    /// Hosts alive.
    hosts: AtomicU64,
    /// Consumers alive in all hosts.
    consumers: AtomicU64,
    /// Deliveries in the inbox, waiting or in progress.
    inbox: AtomicU64,
    /// Whether the intake's buffer fills up although Redis accepts appends.
    intake_is_behind: watch::Sender<bool>,
    /// Generation of the version whose times are remembered.
    generation: AtomicU64,
    /// Times of that version for a message.
    times: Mutex<Times>,
    /// The time that nine of ten messages do not exceed, in nanoseconds; 0 while unknown.
    message_ns: AtomicU64,
}

/// Times of the last messages. A mean would let one slow message in a hundred decide for all of them.
#[derive(Debug)]
struct Times {
    /// Messages by the number of binary digits of their time in nanoseconds, with the mean of each class.
    classes: [(u64, u64); 64],
    messages: u64,
}

impl Default for Times {
    fn default() -> Times {
        Times { classes: [(0, 0); 64], messages: 0 }
    }
}

impl Times {
    /// Adds messages with this mean time. Older ones lose weight.
    fn add(&mut self, messages: u64, mean_ns: u64) {
        let (count, mean) = &mut self.classes[(mean_ns | 1).ilog2() as usize];
        let all = *count + messages;
        let sum = u128::from(*mean) * u128::from(*count) + u128::from(mean_ns) * u128::from(messages);
        // The mean of numbers of 64 bits has 64 bits.
        (*count, *mean) = (all, u64::try_from(sum / u128::from(all)).unwrap_or(u64::MAX));
        self.messages += messages;
        while self.messages > REMEMBERED {
            self.classes.iter_mut().for_each(|(count, _)| *count /= 2);
            self.messages = self.classes.iter().map(|(count, _)| count).sum();
        }
    }

    /// The mean of the class that has the slowest of nine in ten messages.
    fn nine_of_ten(&self) -> u64 {
        let mut slower = self.messages;
        let class = self.classes.iter().find(|(count, _)| {
            slower -= count;
            slower * 10 <= self.messages
        });
        class.map_or(0, |(_, mean)| *mean)
    }
}

impl Pace {
    /// Reports the numbers of hosts alive and of consumers in all hosts.
    pub fn set_group(&self, hosts: u64, consumers: u64) {
        self.hosts.store(hosts, Ordering::Relaxed);
        self.consumers.store(consumers, Ordering::Relaxed);
    }

    /// Number of hosts alive, including this one.
    #[must_use]
    pub fn hosts(&self) -> u64 {
        self.hosts.load(Ordering::Relaxed)
    }

    /// Reports the number of deliveries in the inbox, waiting or in progress.
    pub fn set_inbox(&self, deliveries: u64) {
        self.inbox.store(deliveries, Ordering::Relaxed);
    }

    /// Reports whether the intake's buffer fills up although Redis accepts appends.
    pub fn set_intake_behind(&self, is_behind: bool) {
        self.intake_is_behind.send_if_modified(|before| std::mem::replace(before, is_behind) != is_behind);
    }

    /// Waits while the intake is behind: messages in its buffer may have to be shed, and messages in the inbox are
    /// safe.
    pub async fn give_way(&self) {
        // An error is impossible, because the sender lives as long as this value.
        let _ = self.intake_is_behind.subscribe().wait_for(|is_behind| !is_behind).await;
    }

    /// Whether the intake's buffer fills up.
    #[must_use]
    pub fn is_intake_behind(&self) -> bool {
        *self.intake_is_behind.borrow()
    }

    /// A version of the plugin is in use, by its generation. The times of an earlier one are forgotten.
    pub fn begin(&self, generation: u64) {
        if self.generation.load(Ordering::Relaxed) < generation {
            let mut times = self.times();
            if self.generation.fetch_max(generation, Ordering::Relaxed) < generation {
                *times = Times::default();
                self.message_ns.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Reports the time for this number of messages of the plugin with this generation.
    pub fn observe(&self, generation: u64, messages: usize, took: Duration) {
        let messages = messages as u64;
        let Some(mean) = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).checked_div(messages) else {
            return;
        };
        self.begin(generation);
        let mut times = self.times();
        if self.generation.load(Ordering::Relaxed) == generation {
            times.add(messages, mean.max(1));
            self.message_ns.store(times.nine_of_ten(), Ordering::Relaxed);
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plugin's usual time for a message.
    #[must_use]
    pub fn message_time(&self) -> Option<Duration> {
        let message_ns = self.message_ns.load(Ordering::Relaxed);
        (message_ns > 0).then(|| Duration::from_nanos(message_ns))
    }

    /// An equal share of this number of messages for every consumer.
    #[must_use]
    pub fn share(&self, messages: usize) -> usize {
        let consumers = self.consumers.load(Ordering::Relaxed).max(1);
        messages.div_ceil(usize::try_from(consumers).unwrap_or(usize::MAX)).max(1)
    }

    /// Number of messages for the next delivery when `waiting` messages wait: an equal share for every consumer, or any
    /// number while every consumer has work and more work waits in the inbox. The number is never so small that handing
    /// over costs more than the work, and never more than `time_target` of work.
    #[must_use]
    pub fn delivery_messages(&self, waiting: usize, config: &DeliveryConfig) -> usize {
        let consumers = self.consumers.load(Ordering::Relaxed).max(1);
        let all_busy = self.inbox.load(Ordering::Relaxed) > 2 * consumers;
        let share = if all_busy { u64::MAX } else { (waiting as u64).div_ceil(consumers) };
        let (least, most) = match self.message_ns.load(Ordering::Relaxed) {
            0 => (1, UNKNOWN_SPEED_MESSAGES_MAX),
            message_ns => {
                let target_ns = u64::try_from(config.time_target.as_nanos()).unwrap_or(u64::MAX);
                (WORTHWHILE_NS / message_ns, target_ns / message_ns)
            }
        };
        let most = most.clamp(1, u64::from(config.messages_max));
        usize::try_from(share.max(least).clamp(1, most)).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    const CONFIG: DeliveryConfig =
        DeliveryConfig { messages_max: 128, bytes_max: 1 << 20, time_target: Duration::from_millis(50) };

    fn pace(consumers: u64, message: Duration) -> Pace {
        let pace = Pace::default();
        pace.set_group(1, consumers);
        pace.observe(1, 1, message);
        pace
    }

    #[test]
    fn consumers_share_a_small_burst_and_a_flood_fills_deliveries() {
        let pace = pace(10, Duration::from_micros(5));
        assert_eq!(pace.delivery_messages(1, &CONFIG), 40);
        assert_eq!(pace.delivery_messages(100, &CONFIG), 40);
        assert_eq!(pace.delivery_messages(1_000, &CONFIG), 100);
        assert_eq!(pace.delivery_messages(100_000, &CONFIG), 128);
    }

    #[test]
    fn who_has_work_ahead_gets_as_much_as_its_time_allows() {
        let pace = pace(10, Duration::from_millis(10));
        pace.set_inbox(20);
        assert_eq!(pace.delivery_messages(3, &CONFIG), 1);
        pace.set_inbox(21);
        assert_eq!(pace.delivery_messages(3, &CONFIG), 5);
    }

    #[test]
    fn a_slow_plugin_gets_no_more_than_its_time() {
        assert_eq!(pace(10, Duration::from_millis(10)).delivery_messages(100_000, &CONFIG), 5);
        assert_eq!(pace(10, Duration::from_secs(1)).delivery_messages(100_000, &CONFIG), 1);
    }

    #[test]
    fn an_unknown_plugin_begins_with_small_deliveries() {
        let pace = Pace::default();
        assert_eq!(pace.delivery_messages(100_000, &CONFIG), 16);
        pace.observe(1, 0, Duration::from_secs(1));
        assert_eq!(pace.delivery_messages(3, &CONFIG), 3);
    }

    #[test]
    fn processing_gives_way_while_the_intake_is_behind() {
        let pace = Pace::default();
        assert!(pace.give_way().now_or_never().is_some());
        pace.set_intake_behind(true);
        let mut waiting = pin!(pace.give_way());
        assert!(waiting.as_mut().now_or_never().is_none());
        pace.set_intake_behind(false);
        assert!(waiting.now_or_never().is_some());
    }

    #[test]
    fn a_change_of_speed_is_noticed_and_a_slow_message_among_quick_ones_is_not() {
        let pace = pace(1, Duration::from_millis(10));
        pace.observe(1, 128, Duration::from_micros(128));
        pace.observe(1, 128, Duration::from_micros(128));
        assert_eq!(pace.delivery_messages(100_000, &CONFIG), 128);
        for _ in 0..50 {
            pace.observe(1, 99, Duration::from_micros(99));
            pace.observe(1, 1, Duration::from_millis(200));
            assert_eq!(pace.delivery_messages(100_000, &CONFIG), 128);
        }
        for _ in 0..30 {
            pace.observe(1, 1, Duration::from_millis(200));
        }
        assert_eq!(pace.delivery_messages(100_000, &CONFIG), 1);
    }

    #[test]
    fn what_was_learnt_of_a_version_is_forgotten_with_it() {
        let pace = pace(1, Duration::from_micros(1));
        assert_eq!(pace.delivery_messages(100_000, &CONFIG), 128);
        pace.begin(2);
        assert_eq!(pace.delivery_messages(100_000, &CONFIG), 16);
        pace.observe(1, 128, Duration::from_micros(1));
        assert_eq!(pace.delivery_messages(100_000, &CONFIG), 16, "an earlier version");
        pace.observe(3, 1, Duration::from_millis(200));
        assert_eq!(pace.delivery_messages(100_000, &CONFIG), 1, "a version that begins with its first message");
    }

    #[test]
    fn a_share_is_for_every_consumer_and_never_nothing() {
        let pace = pace(10, Duration::from_micros(1));
        assert_eq!([1, 10, 11, 127].map(|messages| pace.share(messages)), [1, 1, 2, 13]);
        assert_eq!(Pace::default().share(5), 5);
    }
}
