//! What Redis keeps for the subscription when it publishes a mark: the bytes that arrive between the answer to the mark and the mark
//! itself. Redis cuts a subscriber off when they are too many, and what it had kept is lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::redis::store::buffer_limit::BufferLimit;
use crate::redis::store::position::Mark;

/// Marks under way that are remembered, at most; they are published four times a second.
const MARKS_MAX: usize = 64;
/// Shortest time between two warnings.
const QUIET: Duration = Duration::from_secs(60);

/// Measures the backlog of the subscription by this host's own marks.
#[derive(Debug)]
pub(super) struct Backlog {
    limit: BufferLimit,
    received_bytes: u64,
    /// Marks that were published and not heard, with the bytes received until then.
    published: VecDeque<(Mark, u64)>,
    /// Since when there is more than the soft limit.
    above_soft: Option<Instant>,
    /// When it was last said that there is much.
    told: Option<Instant>,
}

impl Backlog {
    pub(super) fn new(limit: BufferLimit) -> Backlog {
        Backlog { limit, received_bytes: 0, published: VecDeque::new(), above_soft: None, told: None }
    }

    /// Bytes have arrived on the subscription.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received_bytes += bytes as u64;
    }

    /// This host has published a mark, and has not heard it.
    pub(super) fn published(&mut self, mark: Mark) {
        self.published.truncate(MARKS_MAX - 1);
        self.published.push_front((mark, self.received_bytes));
    }

    /// A mark has been heard. Returns the bytes that were kept when it was published, if they come near a limit and that has not been
    /// said for a minute.
    pub(super) fn heard(&mut self, mark: Mark, now: Instant) -> Option<u64> {
        let place = self.published.iter().position(|(published, _)| *published == mark)?;
        let (_, received_then) = self.published[place];
        self.published.truncate(place);
        let bytes = self.received_bytes - received_then;
        let was_told = self.told.is_some_and(|told| now.saturating_duration_since(told) < QUIET);
        let is_due = self.is_near(bytes, now) && !was_told;
        is_due.then(|| {
            self.told = Some(now);
            bytes
        })
    }

    /// The limits.
    pub(super) fn limit(&self) -> BufferLimit {
        self.limit
    }

    /// Half of the hard limit, or more than the soft limit for half of its time.
    fn is_near(&mut self, bytes: u64, now: Instant) -> bool {
        let BufferLimit { soft_bytes, soft_time, .. } = self.limit;
        let is_above_soft = soft_bytes > 0 && bytes > soft_bytes;
        let since = is_above_soft.then(|| self.above_soft.unwrap_or(now));
        self.above_soft = since;
        let for_long = |since: Instant| now.saturating_duration_since(since) >= soft_time / 2;
        self.limit.near_bytes().is_some_and(|near| bytes >= near) || since.is_some_and(for_long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: BufferLimit = BufferLimit { hard_bytes: 1_000, soft_bytes: 200, soft_time: Duration::from_secs(60) };

    fn mark(number: u64) -> Mark {
        Mark { history: 1, number, at_ms: 0 }
    }

    #[test]
    fn what_arrives_between_a_mark_and_its_echo_was_waiting() {
        let (mut backlog, now) = (Backlog::new(LIMIT), Instant::now());
        backlog.received(5_000);
        backlog.published(mark(1));
        backlog.received(300);
        backlog.published(mark(2));
        backlog.received(199);
        assert_eq!(backlog.heard(mark(1), now), None);
        backlog.received(301);
        assert_eq!(backlog.heard(mark(2), now), Some(500));
        assert_eq!(backlog.heard(mark(2), now), None, "it is heard once more on a second subscription");
        assert_eq!(backlog.heard(mark(7), now), None, "of another host");
        for (number, seconds, said) in [(3, 59, None), (4, 60, Some(700))] {
            backlog.published(mark(number));
            backlog.received(700);
            assert_eq!(backlog.heard(mark(number), now + Duration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn the_soft_limit_counts_after_half_of_its_time() {
        let (mut backlog, now) = (Backlog::new(LIMIT), Instant::now());
        let mut heard = |number: u64, bytes: usize, seconds: u64| {
            backlog.published(mark(number));
            backlog.received(bytes);
            backlog.heard(mark(number), now + Duration::from_secs(seconds))
        };
        assert_eq!(heard(1, 300, 0), None);
        assert_eq!(heard(2, 300, 29), None);
        assert_eq!(heard(3, 300, 30), Some(300));
        assert_eq!(heard(4, 100, 31), None);
        assert_eq!(heard(5, 300, 90), None, "it begins anew");
    }

    #[test]
    fn marks_that_are_never_heard_are_forgotten() {
        let mut backlog = Backlog::new(LIMIT);
        (0..1_000).for_each(|number| backlog.published(mark(number)));
        assert_eq!(backlog.published.len(), MARKS_MAX);
    }
}
