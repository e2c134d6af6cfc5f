//! What a version takes for a message, in time and in memory, and how that compares with the version before. This file knows no
//! messages and changes no version in use.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fleet::Compared;

/// Messages of each version without which nothing is compared.
const MESSAGES_MIN: u64 = 100;

/// Messages after which older ones count half. So the figures are those of the present load.
const MESSAGES_MAX: u64 = 10_000;

/// A message in a large delivery takes less time than one alone. So deliveries are told apart by the power of two that their
/// number of messages reaches.
const SIZES: usize = 8;

/// A version that takes so much more time than the version before is worth a warning. Less happens by chance.
const SLOW_PERCENT: u64 = 300;
/// And this much time more, because a few microseconds are the weather of the machine.
const SLOW_MIN: Duration = Duration::from_micros(10);

/// Growth of all instances below which no leak is suspected: memory grows in pages of 64 KiB, and caches fill.
const GROWTH_MIN: u64 = 2 << 20;

/// What a version takes for its messages, as sums.
#[derive(Debug, Default)]
pub struct Costs(Mutex<Sums>);

#[derive(Clone, Debug, Default)]
struct Sums {
    /// By the number of messages in a delivery.
    time: [Sum; SIZES],
    memory: Sum,
    compared: Option<Compared>,
}

/// Nanoseconds or bytes, and the messages that took them.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    messages: u64,
    taken: u64,
}

impl Costs {
    /// Adds a delivery.
    pub fn add(&self, messages: u64, time: Duration, growth_bytes: u64) {
        let mut sums = self.sums();
        let size = (messages.max(1).ilog2() as usize).min(SIZES - 1);
        sums.time[size].add(messages, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        sums.memory.add(messages, growth_bytes);
    }

    /// The last comparison.
    pub fn compared(&self) -> Option<Compared> {
        self.sums().compared.clone()
    }

    /// Compares with what the version before takes. `None` while either of them has processed too little.
    pub(super) fn compare(&self, before: &Costs) -> Option<Compared> {
        let before = before.sums().clone();
        let mut sums = self.sums();
        sums.compared = sums.against(&before).or(sums.compared.take());
        sums.compared.clone()
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sums {
    fn against(&self, before: &Sums) -> Option<Compared> {
        let total = |sums: &Sums| sums.time.iter().map(|sum| sum.messages).sum::<u64>();
        let messages = total(self);
        if messages < MESSAGES_MIN || total(before) < MESSAGES_MIN {
            return None;
        }
        let taken: u64 = self.time.iter().map(|sum| sum.taken).fold(0, u64::saturating_add);
        let expected: u64 = self.time.iter().enumerate().map(|(size, sum)| before.expected(size, sum.messages)).sum();
        let more = Duration::from_nanos(taken.saturating_sub(expected) / messages);
        let time_percent = taken.saturating_mul(100) / expected.max(1);
        let (growth_bytes, growth_bytes_before) = (self.memory.mean(), before.memory.mean());
        Some(Compared {
            time_percent,
            growth_bytes,
            growth_bytes_before,
            slow: time_percent >= SLOW_PERCENT && more >= SLOW_MIN,
            leaking: self.memory.taken >= GROWTH_MIN && growth_bytes > 2 * growth_bytes_before,
        })
    }

    /// The time that this many messages would take in deliveries of this size, or of the size nearest to it that there was.
    fn expected(&self, size: usize, messages: u64) -> u64 {
        let known = self.time.iter().enumerate().filter(|(_, sum)| sum.messages > 0);
        let nearest = known.min_by_key(|(other, _)| other.abs_diff(size));
        nearest.map_or(0, |(_, sum)| {
            let expected = u128::from(sum.taken) * u128::from(messages) / u128::from(sum.messages);
            u64::try_from(expected).unwrap_or(u64::MAX)
        })
    }
}

impl Sum {
    fn add(&mut self, messages: u64, taken: u64) {
        if self.messages > MESSAGES_MAX {
            (self.messages, self.taken) = (self.messages / 2, self.taken / 2);
        }
        self.messages += messages;
        self.taken = self.taken.saturating_add(taken);
    }

    fn mean(self) -> u64 {
        self.taken.checked_div(self.messages).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(deliveries: &[(u64, u64)]) -> Costs {
        let costs = Costs::default();
        deliveries.iter().for_each(|(messages, micros)| costs.add(*messages, Duration::from_micros(*micros), 0));
        costs
    }

    #[test]
    fn nothing_is_compared_before_both_versions_have_had_enough_messages() {
        let (few, enough) = (costs(&[(99, 1)]), costs(&[(100, 1)]));
        assert_eq!((few.compare(&enough), enough.compare(&few)), (None, None));
        assert!(enough.compare(&costs(&[(128, 1)])).is_some());
    }

    #[test]
    fn a_version_is_compared_by_deliveries_of_the_same_size() {
        // Alone, a message takes ten times as long as among many.
        let before = costs(&[(1, 30); 200].into_iter().chain([(128, 384); 10]).collect::<Vec<_>>());
        let percent = |deliveries: &[(u64, u64)]| costs(deliveries).compare(&before).map(|all| all.time_percent);
        assert_eq!(percent(&[(1, 30); 100]), Some(100));
        assert_eq!(percent(&[(128, 384)]), Some(100));
        // The nearest size counts for one that was not there before.
        assert_eq!(percent(&[(2, 600); 50]), Some(1_000));
        assert_eq!(percent(&[(64, 960); 2]), Some(500));
    }

    #[test]
    fn a_few_microseconds_and_a_few_pages_are_no_reason_for_a_warning() {
        let compared = |micros: u64, growth| {
            let new = Costs::default();
            new.add(128, Duration::from_micros(128 * micros), growth);
            let found = new.compare(&costs(&[(128, 128)])).unwrap();
            (found.slow, found.leaking)
        };
        assert_eq!(compared(8, GROWTH_MIN - 1), (false, false));
        assert_eq!(compared(20, GROWTH_MIN), (true, true));
    }

    #[test]
    fn old_messages_are_forgotten() {
        let before = costs(&[(128, 128); 1_000].into_iter().chain([(128, 12_800); 1_000]).collect::<Vec<_>>());
        let found = costs(&[(128, 12_800)]).compare(&before).unwrap();
        assert!((99..=101).contains(&found.time_percent), "{found:?}");
    }
}
