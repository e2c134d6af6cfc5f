//! Limits a kind of log line to one line a second, and counts the suppressed lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// Permits one line an interval, over all tasks that share the throttle.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    unlogged: u64,
}

impl Throttle {
    /// `Some(suppressed lines since the last permit)` when a line may be written now.
    pub fn permit(&self) -> Option<u64> {
        self.permit_at(Instant::now())
    }

    fn permit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            state.unlogged += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_an_interval_and_the_others_are_counted() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(throttle.permit_at(now), Some(0));
        assert_eq!(throttle.permit_at(now), None);
        assert_eq!(throttle.permit_at(now + INTERVAL / 2), None);
        assert_eq!(throttle.permit_at(now + INTERVAL), Some(2));
    }
}
