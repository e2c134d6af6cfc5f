//! The server's clock as this host knows it. Ids of entries and expiry of keys follow that clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::time::{millis, stamp_ms};

/// The server's time, continued with the host's own clock since the last reply. The uncertainty is the time of that
/// reply.
#[derive(Debug)]
pub struct ServerClock {
    start: Instant,
    /// The earliest and the latest value of the server's time at `start`, in ms since 1970; 0 while unknown.
    earliest_ms: AtomicU64,
    latest_ms: AtomicU64,
}

impl Default for ServerClock {
    fn default() -> ServerClock {
        ServerClock { start: Instant::now(), earliest_ms: AtomicU64::new(0), latest_ms: AtomicU64::new(0) }
    }
}

impl ServerClock {
    /// Sets the clock from a reply of the server to a request at the time `asked`.
    pub fn set(&self, asked: Instant, server_ms: u64) {
        let at_start = |heard: Duration| server_ms.saturating_sub(millis(heard));
        self.earliest_ms.store(at_start(self.start.elapsed()), Ordering::Relaxed);
        self.latest_ms.store(at_start(asked.saturating_duration_since(self.start)), Ordering::Relaxed);
    }

    /// The server's time in ms since 1970, or slightly less.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.earliest_ms.load(Ordering::Relaxed).saturating_add(millis(self.start.elapsed()))
    }

    /// The age of an entry, by its id, or slightly more; `None` when the text is not such an id.
    #[must_use]
    pub fn age_of(&self, entry_id: &str) -> Option<Duration> {
        let appended_ms = stamp_ms(entry_id)?;
        let now_ms = self.latest_ms.load(Ordering::Relaxed).saturating_add(millis(self.start.elapsed()));
        Some(Duration::from_millis(now_ms.saturating_sub(appended_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_old_as_the_server_says() {
        let clock = ServerClock::default();
        clock.set(Instant::now(), 1_700_000_005_000);
        let age = clock.age_of("1700000000000-7").unwrap();
        assert!((5_000..60_000).contains(&age.as_millis()), "{age:?}");
        assert_eq!(clock.age_of("1800000000000-0"), Some(Duration::ZERO));
        assert_eq!(clock.age_of("nonsense"), None);
    }

    #[test]
    fn an_answer_that_takes_long_makes_nothing_later_and_no_entry_younger() {
        let clock = ServerClock::default();
        let asked = Instant::now();
        std::thread::sleep(Duration::from_millis(200));
        let answered = Instant::now();
        clock.set(asked, 1_000_000);
        assert!(clock.now_ms() <= 1_000_001 + millis(answered.elapsed()), "{}", clock.now_ms());
        assert!(clock.age_of("1000000-0").unwrap() >= Duration::from_millis(200));
    }
}
