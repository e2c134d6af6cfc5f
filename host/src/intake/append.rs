//! Carries out what the protocol decides: marks, watches and appends over one connection. It decides nothing itself.

use std::sync::Arc;
use std::time::Instant;

use tracing::{debug, error, info, trace, warn};

use super::Handover;
use super::protocol::{Counted, Step};
use super::round::Round;
use super::traced::{self, Sent};
use crate::config::{DeliveryConfig, MessageConfig, OutputConfig};
use crate::group::Group;
use crate::redis::RedisError;
use crate::redis::client::backoff::Backoff;
use crate::redis::client::connection::Connection;
use crate::redis::store::append::{Appender, Batch, Marked, Times};
use crate::redis::store::marks::marks_channel;
use crate::standing::State;
use crate::throttle::Throttle;
use crate::time::millis;

/// Appends for ever, or stands by for it.
pub(super) struct Append {
    pub(super) group: Arc<Group>,
    pub(super) delivery: DeliveryConfig,
    pub(super) message: MessageConfig,
    pub(super) output: OutputConfig,
    pub(super) times: Times,
    pub(super) handover: Arc<Handover>,
    pub(super) throttles: Throttles,
}

/// Keep kinds of log lines apart.
#[derive(Default)]
pub(super) struct Throttles {
    shed: Throttle,
    gaps: Throttle,
    too_old: Throttle,
    refused: Throttle,
}

impl Append {
    /// Returns when the host stops and everything received has been appended.
    pub(super) async fn run(&self) {
        let mut backoff = Backoff::default();
        let mut round = Round::default();
        loop {
            let error = match self.session(&mut round, &mut backoff).await {
                Ok(true) => return,
                Ok(false) => {
                    self.group.counters.reconnects.add(1);
                    continue;
                }
                Err(error) => error,
            };
            // Processing makes room in a Redis that is full, so it must go on.
            self.group.pace.set_intake_behind(false);
            let waiting = {
                let mut protocol = self.handover.protocol();
                protocol.disconnected();
                self.tell(&mut protocol);
                protocol.lag()
            };
            let wait = backoff.next_wait();
            if backoff.attempts() > 1 {
                let attempts = backoff.attempts();
                warn!(attempts, waiting, "could not append to the inbox, trying again: {error}");
            }
            tokio::time::sleep(wait).await;
            self.group.counters.reconnects.add(1);
        }
    }

    /// Takes step after step over one connection. `true`: a stop is complete; `false`: the connection leads to the wrong server.
    async fn session(&self, round: &mut Round, backoff: &mut Backoff) -> Result<bool, RedisError> {
        let connection = Connection::open(&self.group.connector).await?;
        let mut appender = Appender::new(
            connection,
            self.group.keys.clone(),
            marks_channel(&self.group.connector, &self.group.keys),
            self.output.clone(),
            self.times,
            self.group.clock.clone(),
        );
        loop {
            let host_id = self.group.identity.host_id();
            let (step, former_id) = {
                let mut protocol = self.handover.protocol();
                protocol.known_as(&host_id, self.group.pace.hosts() <= 1);
                let step = protocol.next(Instant::now());
                self.tell(&mut protocol);
                (step, protocol.former_id().cloned())
            };
            match step {
                Step::Mark(wish) => {
                    let Marked { announcement, data, away, mended } =
                        appender.mark(&host_id, former_id.as_deref(), wish).await?;
                    trace!(?wish, mark = ?announcement.mark, holder = ?announcement.holder, covered = %announcement.covered, "published a mark");
                    for what in mended {
                        error!("mended a key of the intake: {what}");
                    }
                    self.handover.backlog().published(announcement.mark);
                    let mut protocol = self.handover.protocol();
                    protocol.announced(&announcement, data, Instant::now());
                    protocol.was_away(away);
                }
                Step::Watch => {
                    let covered = appender.watch().await?;
                    self.handover.protocol().listed(covered);
                }
                Step::Append => {
                    self.append(&mut appender, round, &host_id).await?;
                    backoff.reset();
                }
                Step::Wait(until) => {
                    backoff.reset();
                    tokio::select! {
                        () = tokio::time::sleep_until(until.into()) => {}
                        () = self.handover.arrived.notified() => {}
                    }
                }
                Step::Reconnect => {
                    warn!(
                        "marks from here do not arrive on a new subscription: appending over another connection as well"
                    );
                    self.handover.protocol().disconnected();
                    return Ok(false);
                }
                Step::Done => return Ok(true),
            }
        }
    }

    async fn append(&self, appender: &mut Appender, round: &mut Round, host_id: &Arc<str>) -> Result<(), RedisError> {
        let (format, traces) = (self.group.format(), self.group.traces.as_deref());
        let (covered, sent) = {
            let protocol = self.handover.protocol();
            let messages_max = self.group.pace.delivery_messages(protocol.lag(), &self.delivery);
            round.fill(protocol.round(), messages_max, &self.delivery, &self.message, (host_id, format));
            (protocol.list_then().clone(), traces.map(|_| Sent::now(protocol.round_received())))
        };
        let Round { deliveries, dead_letters, .. } = &*round;
        let answer = appender
            .append(Batch { deliveries, dead_letters, format, covered: &covered, tells_claimed: traces.is_some() })
            .await;
        let mut protocol = self.handover.protocol();
        let (appended, covered) = match answer {
            Ok(answer) => answer,
            // The connection is as good as before, and the lease stays.
            Err(error) if error.code() == Some("OOM") => {
                self.group.pace.set_intake_behind(false);
                let (refusals, waiting) = (protocol.refused(Instant::now()), protocol.lag());
                if refusals > 1
                    && let Some(unlogged) = self.throttles.refused.permit()
                {
                    warn!(
                        refusals,
                        waiting, unlogged, "Redis is full and takes nothing in; what is received waits here: {error}"
                    );
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        trace!(?appended, %covered, state = %protocol.state(Instant::now()), "appended a round");
        protocol.appended(appended.is_some(), covered);
        if let Some(appended) = &appended {
            self.group.pace.set_inbox(appended.inbox as u64);
            self.group.counters.duplicates.add(appended.copies);
            self.group.counters.trimmed.dead_letters.add(appended.trimmed);
            self.group.counters.dead_letters.add(round.dead_letters.len());
            self.group.counters.dead_letters_by_reason.add(&round.reasons);
        }
        self.group.pace.set_intake_behind(protocol.is_filling());
        drop(protocol);
        if let (Some(traces), Some(sent), Some(appended)) = (traces, sent, appended) {
            traced::appended(traces, host_id, round, &sent, &appended.claimed);
        }
        Ok(())
    }

    /// Tells the rest of the host what the intake is, and what it has counted.
    fn tell(&self, protocol: &mut super::Protocol) {
        let (standing, state) = (&self.group.standing, protocol.state(Instant::now()));
        standing.set_lag(protocol.lag());
        standing.set_history(protocol.history().unwrap_or_default());
        if let Some(before) = standing.set_place(state, protocol.holder()) {
            match (before, state) {
                (_, State::Active) => info!("the intake is active"),
                (State::Active, _) => {
                    self.group.pace.set_intake_behind(false);
                    info!(%state, waiting = protocol.lag(), "the intake is no longer active");
                }
                _ => info!(%before, %state, "the intake has changed"),
            }
        }
        let Counted { shed, too_old, by_claims, gaps } = protocol.take_counted();
        let counters = &self.group.counters;
        if shed > 0 {
            counters.shed.add(shed);
            if let Some(unlogged) = self.throttles.shed.permit() {
                let shed_so_far = counters.shed.get();
                warn!(
                    shed,
                    unlogged,
                    shed_so_far,
                    "the intake's buffer is full and messages are shed: Redis takes them more slowly than they arrive; \
                     --intake-buffer says how much may wait"
                );
            }
        }
        if too_old > 0 {
            counters.shed.add(too_old);
            if let Some(unlogged) = self.throttles.too_old.permit() {
                warn!(
                    too_old,
                    unlogged,
                    "messages were not appended: they were heard while a subscription began or ended, and their claims are too \
                     old to tell whether another host has appended them"
                );
            }
        }
        if by_claims > 0 {
            debug!(
                messages = by_claims,
                "appended messages that were heard while a subscription began or ended, by their claims"
            );
        }
        for gap in gaps {
            counters.gaps.add(1);
            counters.gap_ms.add(usize::try_from(millis(gap)).unwrap_or(usize::MAX));
            if let Some(unlogged) = self.throttles.gaps.permit() {
                warn!(
                    channel = self.group.keys.channel,
                    gap_ms = millis(gap),
                    unlogged,
                    "no host of the group was subscribed for a time; what was published meanwhile is lost"
                );
            }
        }
    }
}
