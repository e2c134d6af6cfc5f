//! Times as numbers and as text.

use std::time::{Duration, SystemTime};

/// Whole milliseconds, as a number that every log format shows as a number.
#[must_use]
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970; 0 for a time before.
#[must_use]
pub fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, millis)
}

/// The server's time at the start of an entry id or of a claim's token, in milliseconds since 1970. `None` when the
/// text is neither.
#[must_use]
pub fn stamp_ms(id_or_token: &str) -> Option<u64> {
    id_or_token.split('-').next()?.parse().ok()
}

/// The same time as a `SystemTime`.
#[must_use]
pub fn stamp(id_or_token: &str) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(stamp_ms(id_or_token)?))
}

/// A time as RFC 3339 in UTC, with milliseconds.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
