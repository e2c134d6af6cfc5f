//! Keeps a kind of log line to one a second, and counts the others.

use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Permits one line an interval.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    unlogged: u64,
}

impl Throttle {
    /// `Some(lines left out since the last permit)` when a line may be written now.
    pub fn permit(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.unlogged += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_and_the_others_are_counted() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.permit(), Some(0));
        assert_eq!(throttle.permit(), None);
        assert_eq!(throttle.permit(), None);
        throttle.last = throttle.last.and_then(|last| last.checked_sub(INTERVAL));
        assert_eq!(throttle.permit(), Some(2));
    }
}
