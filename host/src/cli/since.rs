//! The value of `--since`: a time, or a duration before now.

use std::time::{Duration, SystemTime};

/// A moment, or its distance from now.
#[derive(Clone, Copy, Debug)]
pub(super) enum Since {
    At(SystemTime),
    Ago(Duration),
}

/// Reads the value of a flag.
pub(super) fn since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Since::Ago(ago));
    }
    let at = humantime::parse_rfc3339_weak(text)
        .map_err(|_| "it must be a time such as 2026-01-31T12:00:00Z, or a duration such as 30m or 2d".to_owned())?;
    Ok(Since::At(at))
}

impl Since {
    /// The moment, seen from now.
    pub(super) fn before(self, now: SystemTime) -> SystemTime {
        let at = match self {
            Since::At(at) => at,
            Since::Ago(ago) => now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
        };
        // The ids of entries count from 1970.
        at.max(SystemTime::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_distance() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let at = |text: &str| since(text).map(|since| since.before(now)).ok();
        assert_eq!(at("10m"), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(400)));
        assert_eq!(at("1970-01-01T00:00:07Z"), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(at("100y"), Some(SystemTime::UNIX_EPOCH));
        assert!(since("yesterday").is_err());
    }
}
