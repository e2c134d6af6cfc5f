//! The subscription: always there, always drained, and known to be alive.
//! It fills the buffer and knows nothing of what becomes of it.

use std::sync::Arc;
use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Handover;
use crate::config::IntakeConfig;
use crate::group::Group;
use crate::redis::client::backoff::Backoff;
use crate::redis::client::subscription::{Chunk, Subscription, subscribe};
use crate::throttle::Throttle;
use crate::time::millis;

/// Keeps the subscription for ever.
pub(super) struct Receiver {
    pub(super) group: Arc<Group>,
    pub(super) config: IntakeConfig,
    pub(super) handover: Arc<Handover>,
}

impl Receiver {
    /// Subscribes, receives, and subscribes again whenever the connection has ended. Never returns.
    pub(super) async fn run(&self) {
        let mut backoff = Backoff::default();
        // When the last subscription was last known to be alive.
        let mut lost: Option<Instant> = None;
        loop {
            match subscribe(&self.group.connector, &self.group.keys.channel).await {
                Ok(subscription) => {
                    backoff.reset();
                    self.subscribed(lost);
                    let (last_heard, why) = self.receive(subscription).await;
                    self.handover.subscribed.send_replace(None);
                    warn!(channel = self.group.keys.channel, "the subscription ended: {why}; subscribing again");
                    lost = Some(last_heard);
                }
                Err(error) => {
                    if backoff.attempts() > 0 {
                        let (channel, address) = (&self.group.keys.channel, self.group.connector.address());
                        warn!(
                            channel,
                            address,
                            attempts = backoff.attempts(),
                            "could not subscribe, trying again: {error}"
                        );
                    }
                    backoff.wait().await;
                }
            }
        }
    }

    fn subscribed(&self, lost: Option<Instant>) {
        if let Some(lost) = lost {
            let gap = lost.elapsed();
            let counters = &self.group.counters;
            counters.reconnects.add(1);
            counters.gaps.add(1);
            counters.gap_ms.add(usize::try_from(gap.as_millis()).unwrap_or(usize::MAX));
            warn!(
                channel = self.group.keys.channel,
                gap_ms = millis(gap),
                "subscribed again; what was published meanwhile is lost unless another host was subscribed"
            );
        } else {
            info!(channel = self.group.keys.channel, address = self.group.connector.address(), "subscribed");
        }
        self.handover.subscribed.send_replace(Some(Instant::now()));
    }

    /// Receives until the subscription has ended, and returns when it was last known to be alive, and why it ended.
    async fn receive(&self, mut subscription: Subscription) -> (Instant, String) {
        let mut last_heard = Instant::now();
        let mut silent_ticks = 0;
        let silent_ticks_max = self.config.silence_max.div_duration_f64(self.config.ping_interval).ceil();
        // After a pause of the whole process the ticks that were missed do not count as silence.
        let mut ticks = interval(self.config.ping_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sheds = Throttle::default();
        loop {
            tokio::select! {
                biased;
                chunk = subscription.next() => {
                    let chunk = match chunk {
                        Ok(chunk) => chunk,
                        Err(error) => return (last_heard, format!("the connection has ended ({error})")),
                    };
                    last_heard = Instant::now();
                    silent_ticks = 0;
                    if !chunk.is_empty() {
                        self.keep(&chunk, last_heard, &sheds);
                    }
                }
                _ = ticks.tick() => {
                    silent_ticks += 1;
                    // The last sign of life came up to one tick before the first silent one.
                    if f64::from(silent_ticks + 1) >= silent_ticks_max {
                        return (last_heard, "the server answers no ping".into());
                    }
                    if let Err(error) = subscription.ping().await {
                        return (last_heard, format!("the connection has ended ({error})"));
                    }
                }
            }
        }
    }

    fn keep(&self, chunk: &Chunk, now: Instant, sheds: &Throttle) {
        let shed = self.handover.buffer().push(chunk.payloads(), now);
        let counters = &self.group.counters;
        counters.received.add(chunk.len());
        if shed > 0 {
            counters.shed.add(shed);
            if let Some(unlogged) = sheds.permit() {
                let (buffer_bytes_max, shed_so_far) = (self.config.buffer_bytes_max, counters.shed.get());
                warn!(
                    shed,
                    unlogged,
                    shed_so_far,
                    buffer_bytes_max,
                    "the intake's buffer is full and messages are shed: Redis takes them more slowly than they arrive"
                );
            }
        }
        self.handover.arrived.notify_one();
    }
}
