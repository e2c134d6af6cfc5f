//! What a host tells about itself: counters, and the report line made from them every interval.

pub mod counters;
pub mod report;
pub mod throttle;

use std::time::Duration;

/// Whole milliseconds as a number that every form of log shows as a number.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
