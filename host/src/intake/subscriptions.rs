//! The subscriptions of one intake: usually one, and for a while a second one beside one that is silent. Each numbers what it
//! hears from the last mark on, and shows whether it is still alive.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::segment::Gap;
use crate::redis::client::subscription::Beginning;
use crate::redis::store::position::{Mark, Position};

/// How long a subscription may hear marks of another history than the one that the appends go to, or a new one no mark.
const MOVE_PATIENCE: Duration = Duration::from_millis(500);

/// How long a silent subscription is kept after another one has heard its first mark, or after it last heard anything.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// One subscription.
#[derive(Debug)]
struct Subscription {
    id: u64,
    gap: Arc<Gap>,
    /// Whether it began at a replica, or its server has changed its part since.
    may_be_replica: bool,
    /// Messages heard since the last mark.
    messages: i64,
    mark: Option<Mark>,
    /// The first mark since which every one was heard.
    unbroken_since: Option<Mark>,
    /// When a mark was last heard, or when it was opened.
    alive_at: Instant,
    /// When anything was last heard.
    heard_at: Instant,
    /// When the first mark was heard.
    placed_at: Option<Instant>,
    /// Since when its marks belong to another history than the one that is written to.
    astray_since: Option<Instant>,
    /// When a mark was first published since it was opened.
    announced_at: Option<Instant>,
    /// Whether its server is known to be the primary no more.
    is_left_behind: bool,
}

/// A mark that was heard.
#[derive(Debug)]
pub struct MarkHeard {
    /// Between this place and the mark nothing was published.
    pub nothing_since: Option<Position>,
}

/// The subscriptions of one intake, the oldest first.
#[derive(Debug)]
pub struct Subscriptions {
    list: Vec<Subscription>,
    silence_max: Duration,
}

impl Subscriptions {
    /// None yet. One without a mark for so long counts as silent.
    #[must_use]
    pub fn new(silence_max: Duration) -> Subscriptions {
        Subscriptions { list: Vec::new(), silence_max }
    }

    /// One has begun.
    pub fn opened(&mut self, id: u64, beginning: Beginning, now: Instant) {
        self.list.push(Subscription {
            id,
            gap: Arc::new(Gap::first(beginning)),
            may_be_replica: beginning.is_at_replica,
            messages: 0,
            mark: None,
            unbroken_since: None,
            alive_at: now,
            heard_at: now,
            placed_at: None,
            astray_since: None,
            announced_at: None,
            is_left_behind: false,
        });
    }

    /// One has ended.
    pub fn closed(&mut self, id: u64, now: Instant) {
        self.list.retain(|subscription| {
            if subscription.id == id {
                subscription.gap.end(now);
            }
            subscription.id != id
        });
    }

    /// The server of one is the primary no more: it counts as silent, and what it still hears is taken.
    pub fn left_behind(&mut self, id: u64) {
        for subscription in &mut self.list {
            subscription.is_left_behind |= subscription.id == id;
        }
    }

    /// So many messages were heard. Returns the gap between marks that they lie in, and how many lie there in front of them.
    pub fn messages(&mut self, id: u64, count: usize, now: Instant) -> Option<(Arc<Gap>, i64)> {
        let subscription = self.list.iter_mut().find(|subscription| subscription.id == id)?;
        let first = subscription.messages;
        subscription.messages += count as i64;
        subscription.heard_at = now;
        Some((subscription.gap.clone(), first))
    }

    /// A mark was heard, while appends go to the history `written`. `None`: it says nothing new.
    pub fn mark(&mut self, id: u64, mark: Mark, written: Option<u64>, now: Instant) -> Option<MarkHeard> {
        let subscription = self.list.iter_mut().find(|subscription| subscription.id == id)?;
        // Somebody has repeated it, who must not.
        if subscription.mark.is_some_and(|last| last.history == mark.history && last.number >= mark.number) {
            return None;
        }
        (subscription.alive_at, subscription.heard_at) = (now, now);
        subscription.placed_at.get_or_insert(now);
        let before = subscription.mark.filter(|last| last.is_before(&mark));
        // In one history a mark that is not the next one shows that something was missed, and nobody knows where.
        if before.is_some() || subscription.mark.is_none_or(|last| last.history != mark.history) {
            subscription.gap.close(mark, subscription.messages);
        }
        subscription.gap.end(now);
        let nothing_since = before.map(|last| Position { mark: last, offset: subscription.messages });
        // A replica that was promoted, or a primary that has become a replica, and may become something else again.
        subscription.may_be_replica |= subscription.mark.is_some_and(|last| last.history != mark.history);
        subscription.gap = Arc::new(Gap::behind(mark, subscription.may_be_replica));
        subscription.messages = 0;
        subscription.mark = Some(mark);
        if before.is_none() {
            subscription.unbroken_since = Some(mark);
        }
        if let Some(written) = written {
            subscription.is_written_to(written, now);
        }
        Some(MarkHeard { nothing_since })
    }

    /// A mark was published.
    pub fn announced(&mut self, now: Instant) {
        for subscription in &mut self.list {
            subscription.announced_at.get_or_insert(now);
        }
    }

    /// Appends go to this history.
    pub fn written_to(&mut self, history: u64, now: Instant) {
        for subscription in &mut self.list {
            subscription.is_written_to(history, now);
        }
    }

    /// Whether there is one that is not silent.
    #[must_use]
    pub fn hear(&self, now: Instant) -> bool {
        self.list.iter().any(|subscription| !self.is_silent(subscription, now))
    }

    fn is_silent(&self, subscription: &Subscription, now: Instant) -> bool {
        subscription.is_left_behind
            || now.saturating_duration_since(subscription.alive_at) > self.silence_max
            || subscription.astray_since.is_some_and(|since| now.saturating_duration_since(since) > MOVE_PATIENCE)
    }

    fn is_alive(&self, subscription: &Subscription, now: Instant) -> bool {
        subscription.mark.is_some() && !self.is_silent(subscription, now)
    }

    /// Whether there is one that hears another server than the one that is written to.
    #[must_use]
    pub fn is_any_astray(&self) -> bool {
        self.list.iter().any(|subscription| subscription.astray_since.is_some())
    }

    /// Whether a mark must be published because one has heard none and none was published since it began.
    #[must_use]
    pub fn want_mark(&self) -> bool {
        self.list.iter().any(|subscription| subscription.mark.is_none() && subscription.announced_at.is_none())
    }

    /// Whether a mark that was published has not arrived at a new one. It is said once.
    pub fn take_lost(&mut self, now: Instant) -> bool {
        let is_any_alive = self.list.iter().any(|subscription| self.is_alive(subscription, now));
        let is_lost = !is_any_alive
            && self.list.iter().filter(|subscription| subscription.mark.is_none()).any(|subscription| {
                subscription.announced_at.is_some_and(|at| now.saturating_duration_since(at) > MOVE_PATIENCE)
            });
        if is_lost {
            for subscription in &mut self.list {
                subscription.announced_at = None;
            }
        }
        is_lost
    }

    /// For each the first mark since which it has heard every one.
    pub fn unbroken_since(&self) -> impl Iterator<Item = Mark> {
        self.list.iter().filter_map(|subscription| subscription.unbroken_since)
    }

    /// The whole process has paused for so long: it is no silence.
    pub fn paused(&mut self, pause: Duration, now: Instant) {
        for subscription in &mut self.list {
            subscription.alive_at = (subscription.alive_at + pause).min(now);
            subscription.astray_since = subscription.astray_since.map(|since| (since + pause).min(now));
        }
    }

    /// Whether another one should be opened: there is none, or the only one is silent or at another server.
    #[must_use]
    pub fn want_another(&self, now: Instant) -> bool {
        match self.list.as_slice() {
            [] => true,
            [only] => self.is_silent(only, now),
            _ => false,
        }
    }

    /// One to be closed, because another one is alive in its place.
    #[must_use]
    pub fn useless(&self, now: Instant) -> Option<u64> {
        let [old, new] = self.list.as_slice() else { return None };
        match (self.is_alive(old, now), self.is_alive(new, now)) {
            // Messages that it has heard have a position only from its first mark on, and without one claims must decide.
            (true, false) if new.messages > 0 && !self.is_silent(new, now) => None,
            (true, _) => Some(new.id),
            // What Redis has written to the old one before may still be on its way, seconds after a stall.
            (false, true) => {
                let quiet_since = new.placed_at.map_or(now, |placed_at| placed_at.max(old.heard_at));
                (now.saturating_duration_since(quiet_since) > LAST_WORDS).then_some(old.id)
            }
            // The new one has come to nothing, and another one is tried.
            (false, false) => self.is_silent(new, now).then_some(new.id),
        }
    }
}

impl Subscription {
    fn is_written_to(&mut self, history: u64, now: Instant) {
        self.astray_since = match self.mark {
            Some(mark) if mark.history != history => self.astray_since.or(Some(now)),
            _ => None,
        };
    }
}
