//! Which dead letters are meant. It knows fields and times and asks nobody.

use std::time::{Duration, SystemTime};

use clap::Args;

use crate::redis::store::dead::Letter;

/// Flags that choose dead letters; all that are given must hold.
#[derive(Args, Debug)]
pub(super) struct FilterArgs {
    /// Only of this message, or this entry; may be given several times
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,

    /// Only with this reason, such as plugin-failed; may be given several times
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,

    /// Only written since then: a time such as 2026-01-31T12:00:00Z, or so long ago, such as 30m
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
}

/// A moment, or its distance from now.
#[derive(Clone, Copy, Debug)]
enum Since {
    At(SystemTime),
    Ago(Duration),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Since::Ago(ago));
    }
    let at = humantime::parse_rfc3339_weak(text).map_err(|_| {
        "it must be a time such as 2026-01-31T12:00:00Z, or a number with a unit of time such as 30m or 2d".to_owned()
    })?;
    Ok(Since::At(at))
}

impl FilterArgs {
    /// The filter at this time.
    pub(super) fn filter(self, now: SystemTime) -> Filter {
        let since = self.since.map(|since| match since {
            Since::At(at) => at,
            Since::Ago(ago) => now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
        });
        // Redis numbers entries from 1970 on.
        let since = since.map(|since| since.max(SystemTime::UNIX_EPOCH));
        Filter { ids: self.ids, reasons: self.reasons, since }
    }
}

/// Which dead letters are meant.
#[derive(Debug)]
pub(super) struct Filter {
    ids: Vec<String>,
    reasons: Vec<String>,
    since: Option<SystemTime>,
}

impl Filter {
    /// Dead letters of this message, or this entry.
    pub(super) fn of_id(id: &str) -> Filter {
        Filter { ids: vec![id.to_owned()], reasons: Vec::new(), since: None }
    }

    /// Whether it lets everything through.
    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.reasons.is_empty() && self.since.is_none()
    }

    /// The earliest time; whoever reads begins there.
    pub(super) fn since(&self) -> Option<SystemTime> {
        self.since
    }

    /// Whether this one is meant, apart from its time.
    pub(super) fn matches(&self, letter: &Letter) -> bool {
        let has = |name: &str, value: &String| letter.get(name) == Some(value.as_bytes());
        let id = |id: &String| *id == letter.entry_id || has("message_id", id);
        (self.ids.is_empty() || self.ids.iter().any(id))
            && (self.reasons.is_empty() || self.reasons.iter().any(|reason| has("reason", reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(entry_id: &str, message_id: &str, reason: &str) -> Letter {
        let fields = [("message_id", message_id), ("reason", reason)];
        let fields = fields.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).to_vec();
        Letter { entry_id: entry_id.into(), fields }
    }

    #[test]
    fn ids_are_alternatives_and_reasons_are_and_both_must_hold() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let filter = Filter { ids: words(&["a", "5-0"]), reasons: words(&["x", "y"]), since: None };
        assert!(filter.matches(&letter("1-0", "a", "x")));
        assert!(filter.matches(&letter("5-0", "b", "y")));
        assert!(!filter.matches(&letter("1-0", "a", "z")));
        assert!(!filter.matches(&letter("1-0", "b", "x")));
    }

    #[test]
    fn since_is_a_time_or_a_distance() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let at = |text: &str| {
            let args = FilterArgs { ids: Vec::new(), reasons: Vec::new(), since: since(text).ok() };
            args.filter(now).since()
        };
        assert_eq!(at("10m"), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(400)));
        assert_eq!(at("1970-01-01T00:00:07Z"), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(at("100y"), Some(SystemTime::UNIX_EPOCH));
        assert!(since("yesterday").is_err());
    }
}
