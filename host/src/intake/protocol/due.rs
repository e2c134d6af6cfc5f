//! Which step is due: marks, watches, appends, and until when to wait.

use std::time::{Duration, Instant};

use super::super::heard::{Limits, Taken, Which};
use super::{Lease, Protocol, Step};
use crate::redis::store::marks::Wish;
use crate::redis::store::position::Position;

/// Time between two marks of the active intake.
const MARK_INTERVAL: Duration = Duration::from_millis(250);

/// Time without a mark after which a standby publishes one.
const QUIET_MAX: Duration = Duration::from_millis(750);

/// Random addition to waits, so that many hosts do not do the same at once.
const SPREAD: Duration = Duration::from_millis(150);

/// The same for the wait until a lease ends: short, because messages wait meanwhile. The first host to have the lease says so
/// with a mark.
const TURN_SPREAD: Duration = Duration::from_millis(50);

/// How long a standby leaves messages that the list has passed over to others, besides a random part as long.
const GRACE: Duration = Duration::from_millis(300);

/// How long a free lease is left to hosts that have listened since what the list reaches to: a host that has not would leave a
/// hole, which the others fill only after their grace. With a lease of 3 s another host appends 3.25 s after a death at the
/// latest, besides the time that Redis takes to answer.
const TURN: Duration = Duration::from_millis(200);

/// How long the list may fall behind the marks while there is no message to append.
const LIST_AGE_MAX: Duration = Duration::from_secs(1);

/// Age of a hole in the list at which it counts as a gap.
const HOLE_AGE: Duration = Duration::from_secs(5);

impl Protocol {
    /// The next step.
    pub fn next(&mut self, now: Instant) -> Step {
        self.tend(now);
        let (holds_lease, hears, owes) = (self.holds_lease(now), self.subscriptions.hear(now), !self.heard.is_empty());
        if self.is_stopping && !owes && !holds_lease {
            return Step::Done;
        }
        if self.subscriptions.take_lost(now) {
            return Step::Reconnect;
        }
        if let Some(wish) = self.mark_is_due(now, holds_lease, hears, owes) {
            return Step::Mark(wish);
        }
        if let Some(which) = self.append_is_due(now, holds_lease) {
            if !self.is_history_certain {
                return Step::Mark(if holds_lease { Wish::Take } else { Wish::Look });
            }
            if !self.is_watched {
                return Step::Watch;
            }
            if self.take(which, now) {
                return Step::Append;
            }
        }
        Step::Wait(self.wake_at(now, holds_lease, hears || owes))
    }

    /// Whether a mark is to be published now, and what is wished of the lease.
    fn mark_is_due(&self, now: Instant, holds_lease: bool, hears: bool, owes: bool) -> Option<Wish> {
        let is_turn = holds_lease || matches!(self.lease, Lease::Own { .. }) || now >= self.turn_at();
        let wish = if (hears || owes) && is_turn { Wish::Take } else { Wish::Look };
        if holds_lease && !hears && !owes {
            return Some(Wish::Release);
        }
        if holds_lease && self.is_stopping && !owes {
            return Some(Wish::Release);
        }
        if self.subscriptions.want_mark() {
            return Some(wish);
        }
        (now >= self.mark_due_at(now, holds_lease, hears || owes)).then_some(wish)
    }

    /// When the next mark is due.
    fn mark_due_at(&self, now: Instant, holds_lease: bool, wants_lease: bool) -> Instant {
        let own_due = self.own_mark_at.map_or(now, |at| at + MARK_INTERVAL);
        // A subscription at another server: a mark shows whether this host still writes to the right one.
        if holds_lease || self.is_stopping || self.subscriptions.is_any_astray() {
            return own_due;
        }
        let quiet_due = self.mark_at + QUIET_MAX + self.spread(SPREAD);
        match self.lease {
            // A lease that this host has lost by its own clock is asked for at once.
            Lease::Own { .. } => own_due,
            Lease::Other { .. } if wants_lease => quiet_due.min(self.turn_at() + self.spread(TURN_SPREAD)),
            Lease::Other { .. } => quiet_due,
        }
    }

    /// From when this host may take the lease.
    fn turn_at(&self) -> Instant {
        match self.lease {
            Lease::Other { until } if !self.is_alone && !self.reaches_back() => until + TURN,
            Lease::Own { until } | Lease::Other { until } => until,
        }
    }

    /// Whether this host has heard everything since what the list reaches to.
    fn reaches_back(&self) -> bool {
        let Some(top) = self.covered.top() else { return true };
        self.subscriptions.unbroken_since().any(|since| Position::at(since) <= top)
    }

    fn append_is_due(&self, now: Instant, holds_lease: bool) -> Option<Which> {
        if self.append_after.is_some_and(|after| now < after) {
            return None;
        }
        if holds_lease {
            let list_is_old = || {
                let since = self.heard.nothing_since();
                since.is_some_and(|since| now.saturating_duration_since(since) >= LIST_AGE_MAX)
            };
            return (!self.heard.is_empty() || list_is_old()).then_some(Which::All);
        }
        self.history?;
        let since = self.heard.passed_over_since(&self.covered)?;
        let before = now.checked_sub(self.grace())?;
        (since <= before).then_some(Which::PassedOver(before))
    }

    fn grace(&self) -> Duration {
        GRACE + self.spread(GRACE)
    }

    /// Takes messages for a round. `false`: there is nothing to append.
    fn take(&mut self, which: Which, now: Instant) -> bool {
        let messages_max = match which {
            Which::All => self.config.round_messages_max,
            Which::PassedOver(_) => self.standby_round_max,
        };
        let limits = Limits {
            messages_max,
            bytes_max: self.config.round_bytes_max,
            patience: GRACE,
            age_max: self.config.claim_age_max,
        };
        let Taken { mut then, too_old, by_claims } = self.heard.take(&self.covered, which, limits, now);
        self.counted.too_old += too_old;
        self.counted.by_claims += by_claims;
        if let Some(newest) = self.newest {
            let hole_age_ms = u64::try_from(HOLE_AGE.as_millis()).unwrap_or(u64::MAX);
            // They count once the list says that they have been counted.
            let until_ms = newest.at_ms.saturating_sub(hole_age_ms);
            self.gaps_then = then.count_gaps(until_ms, |lower, upper| self.heard.judge(lower, upper));
        }
        let is_something = then != self.covered || self.heard.under_way().next().is_some();
        if !is_something {
            self.heard.not_appended();
        }
        self.list_then = then;
        is_something
    }

    fn wake_at(&self, now: Instant, holds_lease: bool, wants_lease: bool) -> Instant {
        let mut at = self.mark_due_at(now, holds_lease, wants_lease);
        if !holds_lease
            && self.history.is_some()
            && let Some(since) = self.heard.passed_over_since(&self.covered)
        {
            at = at.min(since + self.grace());
        }
        if let Some(after) = self.append_after {
            at = at.min(after);
        }
        at.max(now + Duration::from_millis(1))
    }

    /// A random part of a wait; the same until the next mark is published from here.
    fn spread(&self, of: Duration) -> Duration {
        of * self.dice.front().copied().unwrap_or(0) / 1000
    }
}
