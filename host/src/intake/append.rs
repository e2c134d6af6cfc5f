//! The writing side of the intake: active while it holds the lease, standing by otherwise.
//! It takes from the buffer and knows nothing of how it was filled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::Handover;
use super::round::Round;
use crate::config::{DeliveryConfig, IntakeConfig, MessageLimits, OutputConfig};
use crate::group::Group;
use crate::redis::RedisError;
use crate::redis::client::backoff::Backoff;
use crate::redis::client::connection::Connection;
use crate::redis::store::append::{Appender, Lease};

/// How often a standby looks whether the lease is free.
const STANDBY_LOOK: Duration = Duration::from_millis(100);

/// How much earlier than this host another one may have received a message and appended what came of it.
const REPLAY_SLACK: Duration = Duration::from_secs(1);

/// Appends for ever, or stands by for it.
pub(super) struct Append {
    pub(super) group: Arc<Group>,
    pub(super) intake: IntakeConfig,
    pub(super) delivery: DeliveryConfig,
    pub(super) message: MessageLimits,
    pub(super) output: OutputConfig,
    pub(super) dedup_window: Duration,
    pub(super) handover: Arc<Handover>,
}

/// Why an intake is no longer active.
enum Ended {
    /// The host stops: all is appended and the lease is free.
    Stopped,
    /// The subscription was interrupted: what was received before is appended and the lease is free. However short
    /// the gap was, another host may have heard what was published in it.
    Deaf,
    /// Another host has the lease.
    Lost,
}

impl Append {
    /// Returns when the host stops and everything received has been appended.
    pub(super) async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut subscribed = self.handover.subscribed.subscribe();
        let mut backoff = Backoff::default();
        loop {
            match self.try_run(&mut stop, &mut subscribed, &mut backoff).await {
                Ok(()) => return,
                Err(error) => {
                    // Processing makes room in a Redis that is full, so it must go on.
                    self.group.pace.set_intake_behind(false);
                    let wait = backoff.next_wait();
                    if backoff.attempts() > 1 {
                        let waiting = self.handover.buffer().len();
                        warn!(
                            attempts = backoff.attempts(),
                            waiting, "could not append to the inbox, trying again: {error}"
                        );
                    }
                    tokio::time::sleep(wait).await;
                    self.group.counters.reconnects.add(1);
                }
            }
        }
    }

    async fn try_run(
        &self,
        stop: &mut watch::Receiver<bool>,
        subscribed: &mut watch::Receiver<Option<Instant>>,
        backoff: &mut Backoff,
    ) -> Result<(), RedisError> {
        let connection = Connection::open(&self.group.connector).await?;
        let host_id = self.group.identity.host_id().to_string();
        let mut appender = Appender::new(
            connection,
            self.group.keys.clone(),
            self.output.clone(),
            host_id.clone(),
            self.intake.lease_ttl,
            self.dedup_window,
            self.group.clock.clone(),
        );
        let mut free_since = None;
        let mut interrupted = false;
        loop {
            let since = *subscribed.borrow_and_update();
            let waiting = !self.handover.buffer().is_empty();
            if *stop.borrow() && !waiting {
                return Ok(());
            }
            // Without a subscription there is nothing new to append; whoever has one should be active.
            if since.is_none() && !waiting {
                tokio::select! {
                    _ = subscribed.changed() => {}
                    _ = stop.changed() => {}
                }
                continue;
            }
            let wait = match appender.look().await? {
                Lease::Elsewhere(_) if *stop.borrow() => return Ok(()),
                Lease::Elsewhere(remaining) => {
                    backoff.reset();
                    free_since = None;
                    self.forget_old();
                    remaining.max(Duration::from_millis(10))
                }
                Lease::Free => {
                    let free_since = free_since.get_or_insert_with(Instant::now);
                    // Whoever has just come is not counted yet, and may have heard what was missed here.
                    let hosts = self.group.pace.hosts().max(if interrupted { 2 } else { 1 });
                    turn(since, hosts, self.intake.standby_age_max).saturating_sub(free_since.elapsed())
                }
                Lease::Own => Duration::ZERO,
            };
            if !wait.is_zero() {
                tokio::select! {
                    () = tokio::time::sleep(wait.min(STANDBY_LOOK)) => {}
                    _ = stop.changed() => {}
                }
                continue;
            }
            free_since = None;
            if appender.acquire().await? {
                // Once, and not again at every attempt to append.
                if backoff.attempts() == 0 {
                    info!("the intake is active");
                }
                let ended = self.active(&mut appender, &host_id, since, stop, subscribed, backoff).await?;
                self.group.pace.set_intake_behind(false);
                interrupted = matches!(ended, Ended::Deaf);
                match ended {
                    Ended::Stopped => return Ok(()),
                    Ended::Deaf => info!("the intake let its lease go, because its subscription was interrupted"),
                    Ended::Lost => warn!("the intake lost its lease to another host and stands by"),
                }
            }
        }
    }

    /// Keeps the replay buffer of a standby in bounds.
    fn forget_old(&self) {
        let IntakeConfig { standby_age_max, standby_bytes_max, .. } = self.intake;
        let forgotten = self.handover.buffer().forget_old(Instant::now(), standby_age_max, standby_bytes_max);
        if forgotten > 0 {
            debug!(forgotten, standby_bytes_max, "the standby's replay buffer is full and forgets early");
        }
    }

    /// Appends rounds while the lease holds and the subscription is the one made at `since`.
    async fn active(
        &self,
        appender: &mut Appender,
        host_id: &str,
        since: Option<Instant>,
        stop: &mut watch::Receiver<bool>,
        subscribed: &mut watch::Receiver<Option<Instant>>,
        backoff: &mut Backoff,
    ) -> Result<Ended, RedisError> {
        // What waits now may have been appended already: by the host that was active before, or by an attempt
        // whose answer got lost.
        let (replayed, oldest) = {
            let buffer = self.handover.buffer();
            (buffer.len(), buffer.oldest())
        };
        let mut round = match oldest {
            None => Round::default(),
            Some(oldest) => {
                Round::after_replay(replayed, appender.refused_since(oldest.elapsed() + REPLAY_SLACK).await?)
            }
        };
        // Messages to append before the lease goes, once the subscription was interrupted.
        let mut owed = None;
        loop {
            if owed.is_none() && *subscribed.borrow_and_update() != since {
                owed = Some(self.handover.buffer().len());
            }
            if owed == Some(0) {
                appender.release().await?;
                return Ok(Ended::Deaf);
            }
            let format = self.group.format();
            round.fill(&self.handover.buffer(), &self.group.pace, &self.delivery, &self.message, (host_id, format));
            if round.messages == 0 {
                if *stop.borrow_and_update() {
                    appender.release().await?;
                    return Ok(Ended::Stopped);
                }
                if since.is_none() {
                    appender.release().await?;
                    return Ok(Ended::Deaf);
                }
                tokio::select! {
                    () = self.handover.arrived.notified() => continue,
                    _ = stop.changed() => continue,
                    _ = subscribed.changed() => continue,
                    // An empty round renews the lease.
                    () = tokio::time::sleep(self.intake.lease_ttl / 3) => {}
                }
            }
            let Some(appended) = appender.append(&round.deliveries, &round.dead_letters, format).await? else {
                return Ok(Ended::Lost);
            };
            backoff.reset();
            self.group.pace.set_inbox(appended.inbox as u64);
            let is_behind = {
                let mut buffer = self.handover.buffer();
                buffer.consume(round.messages);
                buffer.is_filling()
            };
            self.group.pace.set_intake_behind(is_behind);
            owed = owed.map(|owed: usize| owed.saturating_sub(round.messages));
            self.group.counters.duplicates.add(appended.copies);
            self.group.counters.dead_letters.add(round.dead_letters.len());
            round.done();
        }
    }
}

/// How long a lease must have been free before this host takes it: whoever has listened longest goes first, because
/// only its buffer reaches back to the death of the one that was active. A host that has just come would begin
/// with a gap. Alone, there is nobody to wait for.
fn turn(subscribed_since: Option<Instant>, hosts: u64, standby_age_max: Duration) -> Duration {
    if hosts <= 1 {
        return Duration::ZERO;
    }
    let listened = subscribed_since.map_or(Duration::ZERO, |since| since.elapsed());
    standby_age_max.saturating_sub(listened) / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_listened_longest_takes_a_free_lease_first() {
        let second = Duration::from_secs(1);
        let turn_after = |listened: u32, hosts| turn(Instant::now().checked_sub(listened * second), hosts, 10 * second);
        assert_eq!(turn_after(0, 1), Duration::ZERO);
        assert_eq!(turn_after(10, 3), Duration::ZERO);
        assert!(turn_after(3, 3) > turn_after(4, 3) + Duration::from_millis(200));
        assert_eq!(turn(None, 2, 10 * second), 10 * second / 4);
    }
}
