//! The results that the consumers of a host hold until they are settled. All of them together are bounded, so that memory does not
//! grow with the number of consumers. This file knows lengths only.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The consumers of a host hold so many bytes of results together, and one message's results more each.
const BYTES_MAX: usize = 32 << 20;

/// Results of a delivery count from this length on. Shorter ones cost nothing here.
const COUNTED_BYTES_MIN: usize = 64 << 10;

/// Bytes of results that are counted, over all consumers of a host.
#[derive(Debug, Default)]
pub struct Unsettled(Arc<AtomicUsize>);

/// A consumer's part of them. A drop gives it back.
#[derive(Debug)]
pub(super) struct Share {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Unsettled {
    /// The part of a consumer that has no results.
    pub(super) fn share(&self) -> Share {
        Share { all: self.0.clone(), own: 0 }
    }
}

impl Share {
    /// The consumer, one of `consumers`, holds results of this length now. Returns whether it must settle them before it makes more: all
    /// consumers hold too much together, and this one holds its part of that.
    pub(super) fn must_settle(&mut self, bytes: usize, consumers: impl FnOnce() -> u32) -> bool {
        if bytes < COUNTED_BYTES_MIN {
            return false;
        }
        let others = if bytes >= self.own {
            self.all.fetch_add(bytes - self.own, Ordering::Relaxed) - self.own
        } else {
            self.all.fetch_sub(self.own - bytes, Ordering::Relaxed) - self.own
        };
        self.own = bytes;
        others + bytes > BYTES_MAX && bytes >= BYTES_MAX / consumers().max(1) as usize
    }

    /// The results are settled. Returns whether they were long enough to count.
    pub(super) fn end(&mut self) -> bool {
        let own = std::mem::take(&mut self.own);
        if own > 0 {
            self.all.fetch_sub(own, Ordering::Relaxed);
        }
        own > 0
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn one_consumer_settles_when_it_holds_more_than_the_bound() {
        let mut only = Unsettled::default().share();
        assert!(!only.must_settle(16 * MIB, || 1) && !only.must_settle(32 * MIB, || 1));
        assert!(only.must_settle(33 * MIB, || 1) && only.end() && !only.end());
        assert!(!only.must_settle(20 * MIB, || 1), "it begins anew");
    }

    #[test]
    fn consumers_settle_when_all_hold_too_much_and_they_hold_their_part() {
        let unsettled = Unsettled::default();
        let mut shares: Vec<Share> = (0..10).map(|_| unsettled.share()).collect();
        assert!(shares[..2].iter_mut().all(|share| !share.must_settle(16 * MIB, || 10)), "that is what all may hold");
        assert!(shares[2].must_settle(16 * MIB, || 10) && shares[0].must_settle(16 * MIB + 1, || 10));
        assert!(!shares[3].must_settle(MIB, || 10), "others hold more");
        assert!(shares[0].end() && shares[1].end());
        assert!(!shares[2].must_settle(17 * MIB, || 10), "others have settled");
        drop(shares);
        assert_eq!(unsettled.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn short_results_do_not_count() {
        let unsettled = Unsettled::default();
        let mut share = unsettled.share();
        assert!(!share.must_settle(COUNTED_BYTES_MIN - 1, || 10_000) && !share.end());
        assert_eq!(unsettled.0.load(Ordering::Relaxed), 0);
    }
}
