//! The breaker of a host: when the plugin fails nearly everything, the host stops giving it messages, except single ones now and
//! then. This file counts, and knows neither messages nor Redis.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Failures in twenty messages from which on nearly everything fails.
const FAILURES_IN_TWENTY: u64 = 19;

/// Time until the first try of a single message, which doubles with each try that fails, up to a bound.
const TRY_AFTER: Duration = Duration::from_millis(500);
const TRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// What a consumer does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Process it, as always.
    Ordinary,
    /// Process it as the single message that is tried.
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
    /// 1 while a single message may be tried.
    tries: AtomicU8,
    /// When the next single message is due; `None` while the breaker is closed.
    next_try: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Recent {
    messages: u64,
    failures: u64,
    /// Tries that have failed since the breaker opened.
    tried: u32,
}

impl Breaker {
    /// A closed breaker.
    pub(super) fn new(messages_min: u64) -> Breaker {
        Breaker {
            messages_min,
            is_open: AtomicBool::default(),
            recent: Mutex::default(),
            counts: AtomicBool::default(),
            tries: AtomicU8::default(),
            next_try: watch::Sender::new(None),
        }
    }

    /// Whether the plugin gets single messages only.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// What to do with the next message.
    #[must_use]
    pub fn turn(&self) -> Turn {
        if !self.is_open() {
            return Turn::Ordinary;
        }
        let is_taken = self.tries.compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed);
        if is_taken.is_ok() { Turn::Try } else { Turn::Later }
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

    /// A single message has failed as well.
    pub(super) fn failed_again(&self) {
        let mut recent = self.recent();
        recent.tried = recent.tried.saturating_add(1);
        if self.is_open() {
            self.next_try.send_replace(Some(Instant::now() + try_after(recent.tried)));
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

    /// Waits until deliveries may be fetched; returns whether only a single one may.
    pub async fn admits(&self) -> bool {
        let mut next_try = self.next_try.subscribe();
        loop {
            let due = *next_try.borrow_and_update();
            let Some(due) = due else { return false };
            tokio::select! {
                () = sleep_until(due) => return true,
                _ = next_try.changed() => {}
            }
        }
    }

    /// A delivery was fetched of which one message may be tried. The next one is due when that was, or in a while if nobody has
    /// seen it.
    pub fn begin_try(&self) {
        if self.is_open() {
            self.tries.store(1, Ordering::Relaxed);
            self.next_try.send_replace(Some(Instant::now() + TRY_AFTER_MAX));
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Time until the next try after this number of tries that have failed.
fn try_after(tried: u32) -> Duration {
    TRY_AFTER.saturating_mul(2_u32.saturating_pow(tried)).min(TRY_AFTER_MAX)
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
    fn one_message_is_tried_at_a_time() {
        let breaker = Breaker::new(1);
        assert_eq!(breaker.turn(), Turn::Ordinary);
        breaker.add(1, 1);
        assert_eq!(breaker.turn(), Turn::Later);
        breaker.begin_try();
        assert_eq!([breaker.turn(), breaker.turn()], [Turn::Try, Turn::Later]);
        breaker.close();
        assert_eq!(breaker.turn(), Turn::Ordinary);
    }

    #[test]
    fn tries_become_rare() {
        let waits: Vec<u128> = (0..4).map(|tried| try_after(tried).as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 2_000]);
        assert_eq!(try_after(u32::MAX), TRY_AFTER_MAX);
    }
}
