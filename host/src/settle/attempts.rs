//! Decides whether a message gets another attempt, and after which delay. A pure function of numbers.

use std::time::Duration;

use rand::RngExt as _;

use crate::config::RetryConfig;

/// The wait before the next attempt, `None` when this attempt was the last. A delay that the plugin has `asked` for is
/// used, up to its bound.
#[must_use]
pub fn next_wait(config: &RetryConfig, attempt: u32, asked: Option<u32>) -> Option<Duration> {
    if attempt >= config.attempts_max {
        return None;
    }
    Some(match asked {
        Some(delay_ms) => Duration::from_millis(delay_ms.into()).min(config.plugin_delay_max),
        None => rand::rng().random_range(Duration::ZERO..=wait_max(config, attempt)),
    })
}

/// Exponential backoff: the bound of the wait starts at `delay`, doubles with every attempt, and stops at `delay_max`.
/// The wait is a random time up to the bound (full jitter), so that messages that failed together do not return
/// together.
fn wait_max(config: &RetryConfig, attempt: u32) -> Duration {
    let doubled = 2_u32.checked_pow(attempt.saturating_sub(1)).and_then(|factor| config.delay.checked_mul(factor));
    doubled.map_or(config.delay_max, |wait| wait.min(config.delay_max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_bound_of_the_wait_doubles_up_to_its_own_bound() {
        let config = Config::default().retry;
        let bounds: Vec<u128> = (1..=9).map(|attempt| wait_max(&config, attempt).as_millis()).collect();
        assert_eq!(bounds, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000]);
        assert_eq!(wait_max(&config, u32::MAX), config.delay_max);
    }

    #[test]
    fn a_wait_is_anything_up_to_its_bound() {
        let config = Config::default().retry;
        let waits: Vec<Duration> = (0..200).filter_map(|_| next_wait(&config, 3, None)).collect();
        assert_eq!(waits.len(), 200);
        assert!(waits.iter().all(|wait| wait.as_millis() <= 800));
        assert!(waits.iter().any(|wait| wait.as_millis() < 400) && waits.iter().any(|wait| wait.as_millis() > 400));
    }

    #[test]
    fn the_plugins_own_delay_is_kept_within_its_bound() {
        let config = Config::default().retry;
        assert_eq!(next_wait(&config, 1, Some(0)), Some(Duration::ZERO));
        assert_eq!(next_wait(&config, 4, Some(70_123)), Some(Duration::from_millis(70_123)));
        assert_eq!(next_wait(&config, 1, Some(u32::MAX)), Some(config.plugin_delay_max));
    }

    #[test]
    fn after_the_last_attempt_there_is_no_other() {
        let mut config = Config::default().retry;
        assert!(next_wait(&config, 4, None).is_some());
        assert_eq!(next_wait(&config, 5, None), None);
        assert_eq!(next_wait(&config, 5, Some(1)), None);
        config.attempts_max = 1;
        assert_eq!(next_wait(&config, 1, None), None);
    }
}
