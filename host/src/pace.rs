//! The number of messages in a delivery, and the times when fetching gives way to the intake. Decisions depend only on
//! reported figures; this file does no input or output.

use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Time of the plugin for a message: a moving average in nanoseconds; 0 while unknown.
    message_ns: AtomicU64,
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

    /// Reports the plugin's time for this number of messages.
    pub fn observe(&self, messages: usize, took: Duration) {
        let Some(mean) = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).checked_div(messages as u64) else {
            return;
        };
        let old = self.message_ns.load(Ordering::Relaxed);
        let new = if old == 0 { mean } else { old - old / 8 + mean / 8 };
        // Two consumers may overwrite each other's update, which an average tolerates.
        self.message_ns.store(new.max(1), Ordering::Relaxed);
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
        pace.observe(1, message);
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
        pace.observe(0, Duration::from_secs(1));
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
    fn the_average_follows_the_plugin() {
        let pace = pace(1, Duration::from_millis(10));
        for _ in 0..50 {
            pace.observe(128, Duration::from_micros(128));
        }
        assert_eq!(pace.delivery_messages(100_000, &CONFIG), 128);
    }
}
