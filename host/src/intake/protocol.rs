//! What an intake does next, given what it has heard and what Redis has said. It does no input or output itself: a driver asks
//! for the next step, carries it out, and tells what came of it. So a simulation can drive it through any order of events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::heard::Heard;
use super::segment::Written;
use super::subscriptions::{MarkHeard, Subscriptions};
use crate::redis::client::subscription::{Beginning, ReplicationId};
use crate::redis::store::covered::Covered;
use crate::redis::store::marks::{Announcement, Holder, Wish};
use crate::redis::store::position::Mark;
use crate::standing::State;

/// A pause of the whole process, or of its driver, that is longer than this is no silence of its subscriptions.
const PAUSE_MIN: Duration = Duration::from_millis(1000);

/// Wait after Redis has refused a round; it doubles four times.
const REFUSAL_WAIT: Duration = Duration::from_millis(60);

/// Messages in a round of a standby, at least.
const ROUND_MESSAGES_MIN: usize = 16;

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Publish a mark, and tell [`Protocol::announced`] what it was.
    Mark(Wish),
    /// Watch the list, and tell [`Protocol::listed`] how it reads.
    Watch,
    /// Append what [`Protocol::heard`] has under way and write [`Protocol::list_then`], in one transaction, and tell
    /// [`Protocol::appended`].
    Append,
    /// Append over another connection: this one leads to another server than new subscriptions do.
    Reconnect,
    /// Wait until then, or until something is heard.
    Wait(Instant),
    /// A stop is complete: nothing waits, and the lease is not held.
    Done,
}

/// The lease as it is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lease {
    Own {
        until: Instant,
    },
    /// Another host has it, or nobody when that time is over.
    Other {
        until: Instant,
    },
}

/// What an intake knows, and what it does about it.
#[derive(Debug)]
pub struct Protocol {
    host_id: Arc<str>,
    /// The id before this one. A lease that was taken under it is still held by this host.
    former_id: Option<Arc<str>>,
    config: Settings,
    heard: Heard,
    subscriptions: Subscriptions,
    covered: Covered,
    /// The list as it will be when the round that is under way has been appended.
    list_then: Covered,
    /// The gaps that are counted with it.
    gaps_then: Vec<Duration>,
    /// Whether a watch on the list has begun with `covered` as it is.
    is_watched: bool,
    /// The newest mark of which this host knows; what is told with an older one is old.
    newest: Option<Mark>,
    /// The history of the server that takes the appends.
    history: Option<u64>,
    /// Whether the connection that appends has told the history: at its other end another server may have been promoted.
    is_history_certain: bool,
    lease: Lease,
    holder: Option<String>,
    /// When a mark was last heard, or published from here.
    mark_at: Instant,
    /// When a mark was last published from here.
    own_mark_at: Option<Instant>,
    is_stopping: bool,
    /// Whether no other host is known.
    is_alone: bool,
    /// Nothing is appended before, because Redis has refused the last round.
    append_after: Option<Instant>,
    refusals: u32,
    /// Messages in a round while this host is not active. Small rounds are quick, and come between those of the active host.
    standby_round_max: usize,
    /// When the driver last asked.
    asked_at: Instant,
    /// A part of a random wait, in thousandths.
    dice: VecDeque<u32>,
    counted: Counted,
}

/// What the protocol needs to know of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Memory for messages that wait, in bytes.
    pub buffer_bytes_max: usize,
    /// Time without a mark after which a subscription counts as silent.
    pub silence_max: Duration,
    /// Longest age at which the claim of a message can still tell whether it was appended.
    pub claim_age_max: Duration,
    /// Messages in a round, at most.
    pub round_messages_max: usize,
    /// Bytes in a round, at most.
    pub round_bytes_max: usize,
}

/// What has been counted since it was asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages for which there was no room.
    pub shed: usize,
    /// Messages without a position that were too old to be appended by their claims.
    pub too_old: usize,
    /// Messages without a position that were appended, or may have been, by their claims.
    pub by_claims: usize,
    /// Holes in what the group has heard, and how long each lasted.
    pub gaps: Vec<Duration>,
}

impl Protocol {
    /// An intake that has heard nothing yet.
    #[must_use]
    pub fn new(host_id: Arc<str>, config: Settings, now: Instant, seed: u64) -> Protocol {
        Protocol {
            host_id,
            former_id: None,
            config,
            heard: Heard::new(config.buffer_bytes_max),
            subscriptions: Subscriptions::new(config.silence_max),
            covered: Covered::default(),
            list_then: Covered::default(),
            gaps_then: Vec::new(),
            is_watched: false,
            newest: None,
            history: None,
            is_history_certain: false,
            lease: Lease::Other { until: now },
            holder: None,
            mark_at: now,
            own_mark_at: None,
            is_stopping: false,
            is_alone: false,
            append_after: None,
            refusals: 0,
            standby_round_max: config.round_messages_max,
            asked_at: now,
            dice: dice(seed),
            counted: Counted::default(),
        }
    }

    /// Messages that were heard and are not known to be covered.
    #[must_use]
    pub fn lag(&self) -> usize {
        self.heard.len()
    }

    /// The messages of the round that is under way.
    pub fn round(&self) -> impl Iterator<Item = &[u8]> {
        self.heard.under_way()
    }

    /// Numbers of these messages, in a row, with the time at which they were received.
    pub fn round_received(&self) -> impl Iterator<Item = (usize, Instant)> {
        self.heard.under_way_received()
    }

    /// The list as it has to be written with the round.
    #[must_use]
    pub fn list_then(&self) -> &Covered {
        &self.list_then
    }

    /// Whether messages arrive faster than they are appended.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        self.heard.is_filling()
    }

    /// To which history of the data this host appends.
    #[must_use]
    pub fn history(&self) -> Option<u64> {
        self.history
    }

    /// Which host is active, as far as this one knows.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.holder.as_deref()
    }

    /// What has been counted since this was asked last.
    pub fn take_counted(&mut self) -> Counted {
        std::mem::take(&mut self.counted)
    }

    /// What the intake is now.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        State::of(self.holds_lease(now), self.subscriptions.hear(now), !self.heard.is_empty())
    }

    fn holds_lease(&self, now: Instant) -> bool {
        matches!(self.lease, Lease::Own { until } if now < until)
    }

    // What is heard.

    /// A subscription has begun.
    pub fn opened(&mut self, id: u64, beginning: Beginning, now: Instant) {
        self.subscriptions.opened(id, beginning, now);
    }

    /// A subscription has ended.
    pub fn closed(&mut self, id: u64, now: Instant) {
        self.subscriptions.closed(id, now);
    }

    /// The server of a subscription is the primary no more.
    pub fn left_behind(&mut self, id: u64) {
        self.subscriptions.left_behind(id);
    }

    /// Messages were heard, one after the other.
    pub fn messages<'a>(&mut self, id: u64, payloads: impl Iterator<Item = &'a [u8]> + Clone, now: Instant) {
        let Some((gap, first)) = self.subscriptions.messages(id, payloads.clone().count(), now) else { return };
        self.counted.shed += self.heard.push(&gap, first, payloads, now);
    }

    /// A mark was heard.
    pub fn mark(&mut self, id: u64, announcement: &Announcement, now: Instant) {
        let mark = announcement.mark;
        let Some(MarkHeard { nothing_since }) = self.subscriptions.mark(id, mark, self.history, now) else { return };
        if let Some(from) = nothing_since {
            self.heard.push_nothing(from, mark, now);
        }
        self.mark_at = now;
        // Only what is written counts where it is written: a subscription may be at another server.
        if self.history == Some(mark.history) {
            // What is published from here alone shows nothing: it may be at another server than what is heard.
            self.heard.forget_old(mark.at_ms);
            self.told(announcement, now);
        }
    }

    // What Redis says.

    /// A history began with the mark that was published from here, and the data had no mark before for so long.
    pub fn was_away(&mut self, away: Option<Duration>) {
        self.counted.gaps.extend(away);
    }

    /// A mark was published from here, over the connection that appends, to a server whose data has this id.
    pub fn announced(&mut self, announcement: &Announcement, data: ReplicationId, now: Instant) {
        self.mark_at = now;
        self.own_mark_at = Some(now);
        self.dice.rotate_left(1);
        self.subscriptions.announced(now);
        let history = announcement.mark.history;
        self.is_history_certain = true;
        if self.history != Some(history) {
            self.heard.written_to(Written { history, data });
            self.history = Some(history);
            self.newest = None;
        }
        self.subscriptions.written_to(history, now);
        self.told(announcement, now);
    }

    fn told(&mut self, announcement: &Announcement, now: Instant) {
        if self.newest.is_some_and(|newest| newest >= announcement.mark) {
            return;
        }
        self.newest = Some(announcement.mark);
        self.heard.is_now(announcement.mark.at_ms);
        let until = now + announcement.lease_left;
        self.lease = match &announcement.holder {
            Holder::Host(id) if self.is_own_id(id) => Lease::Own { until },
            Holder::Host(_) => Lease::Other { until },
            // Free, perhaps for some time already.
            Holder::Nobody => match self.lease {
                Lease::Other { until } if until <= now => Lease::Other { until },
                _ => Lease::Other { until: now },
            },
        };
        self.holder = match &announcement.holder {
            Holder::Host(id) => Some(id.clone()),
            Holder::Nobody => None,
        };
        // With a watch the list is known better than by a mark, which may be older.
        if !self.is_watched {
            self.learn(announcement.covered.clone());
        } else if announcement.covered != self.covered {
            self.is_watched = false;
            self.learn(announcement.covered.clone());
        }
    }

    /// A watch on the list has begun, and this is how it reads.
    pub fn listed(&mut self, covered: Covered) {
        self.is_watched = true;
        self.learn(covered);
    }

    fn learn(&mut self, covered: Covered) {
        self.covered = covered;
        self.heard.learn(&self.covered);
    }

    /// The round was appended, or discarded because the list had changed; a new watch has begun, and this is how the list
    /// reads now.
    pub fn appended(&mut self, is_appended: bool, covered: Covered) {
        (self.append_after, self.refusals) = (None, 0);
        let gaps = std::mem::take(&mut self.gaps_then);
        let round_max = if is_appended { self.standby_round_max * 2 } else { self.standby_round_max / 2 };
        self.standby_round_max = round_max.clamp(ROUND_MESSAGES_MIN, self.config.round_messages_max);
        if is_appended {
            self.counted.gaps.extend(gaps);
            self.covered = self.heard.appended();
        } else {
            self.heard.not_appended();
        }
        self.listed(covered);
    }

    /// Redis has refused the round, and will perhaps take it later. Returns how often it has done so without a break.
    pub fn refused(&mut self, now: Instant) -> u32 {
        self.not_appended();
        self.append_after = Some(now + REFUSAL_WAIT.saturating_mul(1 << self.refusals.min(4)));
        self.refusals = self.refusals.saturating_add(1);
        self.refusals
    }

    /// The connection that appends is gone. What was sent may have been executed or not: the list will tell.
    pub fn disconnected(&mut self) {
        self.not_appended();
        self.is_history_certain = false;
    }

    fn not_appended(&mut self) {
        self.heard.not_appended();
        self.is_watched = false;
    }

    /// The host's id, which is another one after the host was taken for dead, and whether no other host is known.
    pub fn known_as(&mut self, host_id: &Arc<str>, is_alone: bool) {
        self.is_alone = is_alone;
        if self.host_id != *host_id {
            self.former_id = Some(std::mem::replace(&mut self.host_id, host_id.clone()));
        }
    }

    /// The id that the host had before it was taken for dead.
    pub fn former_id(&self) -> Option<&Arc<str>> {
        self.former_id.as_ref()
    }

    fn is_own_id(&self, id: &str) -> bool {
        *self.host_id == *id || self.former_id.as_deref() == Some(id)
    }

    /// The host stops: what was heard is still appended.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    // What becomes of the subscriptions.

    /// Makes up for a pause of the whole process: it is no silence.
    pub fn tend(&mut self, now: Instant) {
        let pause = now.saturating_duration_since(self.asked_at);
        self.asked_at = now;
        if pause > PAUSE_MIN {
            self.mark_at += pause;
            self.mark_at = self.mark_at.min(now);
            self.subscriptions.paused(pause, now);
        }
    }

    /// Whether a subscription should be opened: there is none, or the only one is silent or at another server. It is opened
    /// beside the silent one, which may still have messages that nobody else hears.
    #[must_use]
    pub fn wants_subscription(&self, now: Instant) -> bool {
        !self.is_stopping && self.subscriptions.want_another(now)
    }

    /// A subscription to be closed, because another one is alive in its place.
    #[must_use]
    pub fn useless_subscription(&self, now: Instant) -> Option<u64> {
        self.subscriptions.useless(now)
    }
}

/// Numbers from 0 to 999.
fn dice(seed: u64) -> VecDeque<u32> {
    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
    let mut random = SmallRng::seed_from_u64(seed);
    (0..16).map(|_| random.random_range(0..1000)).collect()
}

mod due;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod turn;
