//! The wait before the next attempt to reach Redis.

use std::time::Duration;

use rand::RngExt as _;

const FIRST_MS: u64 = 50;
const LAST_MS: u64 = 2_000;

/// Exponential backoff with jitter: from 50 ms, doubled at every attempt, at most 2 s.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait: a random time between half of the step and the step, so that the wait never is close to zero.
    pub fn next_wait(&mut self) -> Duration {
        let step = (FIRST_MS << self.attempts.min(10)).min(LAST_MS);
        self.attempts += 1;
        Duration::from_millis(rand::rng().random_range(step / 2..=step))
    }

    /// Waits for that time.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }

    /// Starts again from the first step, after a success.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Attempts since the last success.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_start_again() {
        let mut backoff = Backoff::default();
        let first = backoff.next_wait().as_millis();
        assert!((25..=50).contains(&first), "{first}");
        for _ in 0..100 {
            assert!(backoff.next_wait().as_millis() <= 2_000);
        }
        assert!(backoff.next_wait().as_millis() >= 1_000);
        backoff.reset();
        assert!(backoff.next_wait().as_millis() <= 50);
    }
}
