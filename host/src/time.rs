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

/// The two numbers of an entry id, by which entries are in order.
#[must_use]
pub fn entry_id(text: &str) -> Option<(u64, u64)> {
    let (ms, number) = text.split_once('-')?;
    Some((ms.parse().ok()?, number.parse().ok()?))
}

/// The same time as a `SystemTime`.
#[must_use]
pub fn stamp(id_or_token: &str) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(stamp_ms(id_or_token)?))
}

/// The last millisecond that RFC 3339 can express, in the year 9999.
const RFC3339_MS_MAX: u64 = 253_402_300_799_999;

/// A time as RFC 3339 in UTC, with milliseconds. Times come from Redis as well, where anything may stand: what is outside of the
/// years 1970 to 9999 becomes the first or the last time within them.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + Duration::from_millis(RFC3339_MS_MAX);
    humantime::format_rfc3339_millis(time.clamp(SystemTime::UNIX_EPOCH, last)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_has_a_text() {
        let text = |ms| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(text(1_000), "1970-01-01T00:00:01.000Z");
        assert_eq!(text(RFC3339_MS_MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!([text(RFC3339_MS_MAX + 1), text(u64::MAX)], ["9999-12-31T23:59:59.999Z"; 2]);
        assert_eq!(rfc3339(SystemTime::UNIX_EPOCH - Duration::from_millis(1)), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(&format!("{}-1", u64::MAX)).map(rfc3339), Some("9999-12-31T23:59:59.999Z".into()));
    }
}
