//! The writing side of the intake: active while it holds the lease, standing by otherwise.
//! It takes from the buffer and knows nothing of how it was filled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::Shared;
use super::pace::Pace;
use super::round::Round;
use crate::config::{DeliveryConfig, IntakeConfig, MessageLimits, OutputConfig};
use crate::redis::RedisError;
use crate::redis::backoff::Backoff;
use crate::redis::connection::Connector;
use crate::redis::inbox::{Appender, Lease};
use crate::redis::keys::Keys;
use crate::registry::Identity;

/// How often a standby looks whether the lease is free.
const STANDBY_LOOK: Duration = Duration::from_millis(250);

/// Appends for ever, or stands by for it.
pub(super) struct Append {
    pub(super) connector: Connector,
    pub(super) keys: Keys,
    pub(super) intake: IntakeConfig,
    pub(super) delivery: DeliveryConfig,
    pub(super) message: MessageLimits,
    pub(super) output: OutputConfig,
    pub(super) identity: Identity,
    pub(super) pace: Arc<Pace>,
    pub(super) shared: Arc<Shared>,
}

/// Why an intake is no longer active.
enum Ended {
    /// The host stops: all is appended and the lease is free.
    Stopped,
    /// The subscription is gone: all is appended and the lease is free.
    Deaf,
    /// Another host has the lease.
    Lost,
}

impl Append {
    /// Returns when the host stops and everything received has been appended.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut subscribed = self.shared.subscribed.subscribe();
        let mut backoff = Backoff::default();
        loop {
            match self.try_run(&mut stop, &mut subscribed, &mut backoff).await {
                Ok(()) => return,
                Err(error) => {
                    let wait = backoff.next_wait();
                    if backoff.attempts() > 1 {
                        let waiting = self.shared.buffer().len();
                        warn!(
                            attempts = backoff.attempts(),
                            waiting, "could not append to the inbox, trying again: {error}"
                        );
                    }
                    tokio::time::sleep(wait).await;
                    self.shared.counters.reconnects.add(1);
                }
            }
        }
    }

    async fn try_run(
        &self,
        stop: &mut watch::Receiver<bool>,
        subscribed: &mut watch::Receiver<bool>,
        backoff: &mut Backoff,
    ) -> Result<(), RedisError> {
        let connection = self.connector.connect().await?;
        let host_id = self.identity.host_id().to_string();
        let mut appender =
            Appender::new(connection, self.keys.clone(), self.output.clone(), host_id.clone(), self.intake.lease_ttl);
        loop {
            if *stop.borrow() && !appender_is_needed(&self.shared) {
                return Ok(());
            }
            // Without a subscription there is nothing new to append; whoever has one should be active.
            let wanted = *subscribed.borrow_and_update() || appender_is_needed(&self.shared);
            if !wanted {
                tokio::select! {
                    _ = subscribed.changed() => {}
                    _ = stop.changed() => {}
                }
                continue;
            }
            match appender.acquire().await? {
                Lease::Held => {
                    backoff.reset();
                    info!("the intake is active");
                    match self.active(&mut appender, &host_id, stop, subscribed).await? {
                        Ended::Stopped => return Ok(()),
                        Ended::Deaf => {
                            info!("the intake let its lease go, because it has no subscription")
                        }
                        Ended::Lost => {
                            warn!("the intake lost its lease to another host and stands by")
                        }
                    }
                }
                Lease::Elsewhere(remaining) => {
                    backoff.reset();
                    if *stop.borrow() {
                        return Ok(());
                    }
                    self.stand_by(remaining, stop).await;
                }
            }
        }
    }

    /// Waits until it is worth asking for the lease again, and keeps the replay buffer in bounds.
    async fn stand_by(&self, remaining: Duration, stop: &mut watch::Receiver<bool>) {
        let IntakeConfig { standby_age_max, standby_bytes_max, .. } = self.intake;
        let forgotten = self.shared.buffer().forget_old(Instant::now(), standby_age_max, standby_bytes_max);
        if forgotten > 0 {
            debug!(forgotten, standby_bytes_max, "the standby's replay buffer is full and forgets early");
        }
        let wait = remaining.clamp(Duration::from_millis(10), STANDBY_LOOK);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.changed() => {}
        }
    }

    /// Appends rounds while the lease holds.
    async fn active(
        &self,
        appender: &mut Appender,
        host_id: &str,
        stop: &mut watch::Receiver<bool>,
        subscribed: &mut watch::Receiver<bool>,
    ) -> Result<Ended, RedisError> {
        // What waits now may have been appended already: by the host that was active before, or by an attempt
        // whose answer got lost.
        let (replayed, oldest) = {
            let buffer = self.shared.buffer();
            (buffer.len(), buffer.oldest())
        };
        let mut round = match oldest {
            None => Round::default(),
            Some(oldest) => Round::after_replay(replayed, appender.refused_since(oldest.elapsed()).await?),
        };
        loop {
            round.fill(&self.shared.buffer(), &self.pace, &self.delivery, &self.message, host_id);
            if round.messages == 0 {
                if *stop.borrow_and_update() {
                    appender.release().await?;
                    return Ok(Ended::Stopped);
                }
                if !*subscribed.borrow_and_update() {
                    appender.release().await?;
                    return Ok(Ended::Deaf);
                }
                tokio::select! {
                    () = self.shared.arrived.notified() => continue,
                    _ = stop.changed() => continue,
                    _ = subscribed.changed() => continue,
                    // An empty round renews the lease.
                    () = tokio::time::sleep(self.intake.lease_ttl / 3) => {}
                }
            }
            if !appender.append(&round.deliveries, &round.dead_letters).await? {
                return Ok(Ended::Lost);
            }
            self.shared.buffer().consume(round.messages);
            self.shared.counters.appended.add(round.messages - round.dead_letters.len());
            self.shared.counters.dead_letters.add(round.dead_letters.len());
            round.done();
        }
    }
}

/// Whether something received waits to be appended.
fn appender_is_needed(shared: &Shared) -> bool {
    !shared.buffer().is_empty()
}
