//! The breaker of a host: when the plugin fails nearly everything, the host stops giving it messages, except a few now and then, each
//! from another delivery. This file counts, and knows neither messages nor Redis.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Failures in twenty messages from which on nearly everything fails.
const FAILURES_IN_TWENTY: u64 = 19;

/// Deliveries of which one message each is tried together. Bad messages come in crowds, and good ones may wait behind them.
const TRIED_TOGETHER: usize = 10;

/// Time until the first tries, which doubles with each round of tries that fail, up to a bound.
const TRY_AFTER: Duration = Duration::from_millis(500);
const TRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// What a consumer does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Process it, as always.
    Ordinary,
    /// Process it as the message of its delivery that is tried.
    Try,
    /// Leave it for later.
    Later,
}

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    /// Messages that must have been processed before the breaker opens; 0 never opens it.
    messages_min: u64,
    is_open: AtomicBool,
    /// Messages at their first attempt, and failures among them, since most of them came through.
    recent: Mutex<Recent>,
    /// Whether one of them failed. Almost always none did.
    counts: AtomicBool,
    /// Number of messages that may be tried.
    tries: AtomicUsize,
    /// When the next round of tries is due; `None` while the breaker is closed.
    next_try: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Recent {
    messages: u64,
    failures: u64,
    /// Rounds of tries since the breaker opened.
    rounds: u32,
}

impl Breaker {
    /// A closed breaker.
    pub(super) fn new(messages_min: u64) -> Breaker {
        Breaker {
            messages_min,
            is_open: AtomicBool::default(),
            recent: Mutex::default(),
            counts: AtomicBool::default(),
            tries: AtomicUsize::default(),
            next_try: watch::Sender::new(None),
        }
    }

    /// Whether the plugin gets single messages only.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// What to do with the next message, of whose delivery none was tried yet if `may_try`.
    #[must_use]
    pub fn turn(&self, may_try: bool) -> Turn {
        if !self.is_open() {
            return Turn::Ordinary;
        }
        let take = |tries: usize| tries.checked_sub(1);
        let is_taken = may_try && self.tries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if is_taken { Turn::Try } else { Turn::Later }
    }

    /// Adds messages and failures among them. Returns the counts at which the breaker opened, if it does now.
    pub(super) fn add(&self, messages: u64, failures: u64) -> Option<(u64, u64)> {
        // Messages that come through cost nothing here.
        if failures == 0 && !self.counts.load(Ordering::Relaxed) || self.is_open() {
            return None;
        }
        let mut recent = self.recent();
        recent.messages += messages;
        recent.failures += failures;
        self.counts.store(true, Ordering::Relaxed);
        if recent.failures * 20 < recent.messages * FAILURES_IN_TWENTY {
            *recent = Recent::default();
            self.counts.store(false, Ordering::Relaxed);
            return None;
        }
        let counted = (recent.messages, recent.failures);
        if self.messages_min == 0 || recent.messages < self.messages_min {
            return None;
        }
        *recent = Recent::default();
        self.is_open.store(true, Ordering::Relaxed);
        self.next_try.send_replace(Some(Instant::now() + try_after(0)));
        Some(counted)
    }

    /// A message that was tried has failed as well.
    pub(super) fn failed_again(&self) {
        let recent = self.recent();
        if self.is_open() {
            self.next_try.send_replace(Some(Instant::now() + try_after(recent.rounds)));
        }
    }

    /// Gives the plugin all messages again. Returns whether that is a change.
    pub(super) fn close(&self) -> bool {
        *self.recent() = Recent::default();
        self.counts.store(false, Ordering::Relaxed);
        self.tries.store(0, Ordering::Relaxed);
        let was_open = self.is_open.swap(false, Ordering::Relaxed);
        self.next_try.send_replace(None);
        was_open
    }

    /// Waits until deliveries may be fetched; returns how many at most if the breaker is open.
    pub async fn admits(&self) -> Option<usize> {
        let mut next_try = self.next_try.subscribe();
        loop {
            let due = (*next_try.borrow_and_update())?;
            tokio::select! {
                () = sleep_until(due) => return Some(TRIED_TOGETHER),
                _ = next_try.changed() => {}
            }
        }
    }

    /// So many deliveries were fetched of which one message each may be tried. The next ones are due when these were, or in a while
    /// if nobody has seen them.
    pub fn begin_tries(&self, deliveries: usize) {
        let mut recent = self.recent();
        if self.is_open() {
            recent.rounds = recent.rounds.saturating_add(1);
            self.tries.store(deliveries, Ordering::Relaxed);
            self.next_try.send_replace(Some(Instant::now() + TRY_AFTER_MAX));
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time until the next tries after this number of rounds that have failed.
fn try_after(rounds: u32) -> Duration {
    TRY_AFTER.saturating_mul(2_u32.saturating_pow(rounds)).min(TRY_AFTER_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_breaker_opens_when_nearly_all_of_enough_messages_fail() {
        let breaker = Breaker::new(100);
        assert_eq!((0..99).find_map(|_| breaker.add(1, 1)), None);
        assert_eq!((breaker.add(1, 1), breaker.is_open()), (Some((100, 100)), true));
        // Once it is open, nothing counts.
        assert_eq!(breaker.add(1, 1), None);
        assert!(breaker.close() && !breaker.is_open() && !breaker.close());
        assert_eq!(breaker.add(1, 1), None, "it begins anew");
    }

    #[test]
    fn messages_that_come_through_now_and_then_keep_it_closed() {
        let breaker = Breaker::new(100);
        for _ in 0..1_000 {
            assert_eq!((breaker.add(18, 18), breaker.add(2, 0)), (None, None));
        }
        assert_eq!(Breaker::new(0).add(1_000, 1_000), None, "it is switched off");
    }

    #[test]
    fn one_message_of_each_delivery_is_tried() {
        let breaker = Breaker::new(1);
        assert_eq!(breaker.turn(true), Turn::Ordinary);
        breaker.add(1, 1);
        assert_eq!(breaker.turn(true), Turn::Later);
        breaker.begin_tries(2);
        assert_eq!([true, false, true, true].map(|may_try| breaker.turn(may_try)), {
            [Turn::Try, Turn::Later, Turn::Try, Turn::Later]
        });
        breaker.begin_tries(2);
        breaker.close();
        assert_eq!((breaker.turn(true), breaker.turn(false)), (Turn::Ordinary, Turn::Ordinary));
        breaker.add(1, 1);
        assert_eq!(breaker.turn(true), Turn::Later, "tries that are left end with the breaker");
    }

    #[test]
    fn a_round_of_tries_counts_once() {
        let breaker = Breaker::new(1);
        breaker.add(1, 1);
        for round in 1..=3 {
            breaker.begin_tries(TRIED_TOGETHER);
            (0..TRIED_TOGETHER).for_each(|_| breaker.failed_again());
            assert_eq!(breaker.recent().rounds, round);
            let wait = breaker.next_try.borrow().unwrap().saturating_duration_since(Instant::now());
            assert!(wait <= try_after(round), "{wait:?}");
        }
    }

    #[test]
    fn tries_become_rare() {
        let waits: Vec<u128> = (0..4).map(|rounds| try_after(rounds).as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 2_000]);
        assert_eq!(try_after(u32::MAX), TRY_AFTER_MAX);
    }
}
