//! The flags that choose dead letters. This file speaks to no Redis.

use std::time::{Duration, SystemTime};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use crate::dead_letters::Filter;
use crate::message::Reason;

/// Flags that choose dead letters. A letter must match every given flag.
#[derive(Args, Debug)]
pub(super) struct FilterArgs {
    /// Only dead letters with this message id or entry id; may be repeated
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,

    /// Only dead letters with this reason, such as plugin-failed; may be repeated
    #[arg(long = "reason", value_name = "REASON", value_parser = reasons(), hide_possible_values = true)]
    reasons: Vec<Reason>,

    /// Only dead letters written since a time, such as 2026-01-31T12:00:00Z, or within a duration, such as 30m
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
}

/// A moment, or its distance from now.
#[derive(Clone, Copy, Debug)]
enum Since {
    At(SystemTime),
    Ago(Duration),
}

/// Accepts the names of reasons. The error for any other name lists the valid names.
fn reasons() -> impl clap::builder::TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::as_str))
        .try_map(|name| Reason::named(&name).ok_or("there is no such reason"))
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Since::Ago(ago));
    }
    let at = humantime::parse_rfc3339_weak(text)
        .map_err(|_| "it must be a time such as 2026-01-31T12:00:00Z, or a duration such as 30m or 2d".to_owned())?;
    Ok(Since::At(at))
}

impl FilterArgs {
    /// The filter at this time.
    pub(super) fn filter(self, now: SystemTime) -> Filter {
        let since = self.since.map(|since| match since {
            Since::At(at) => at,
            Since::Ago(ago) => now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH),
        });
        // The ids of entries count from 1970.
        let since = since.map(|since| since.max(SystemTime::UNIX_EPOCH));
        Filter { ids: self.ids, reasons: self.reasons, since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_distance() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let at = |text: &str| {
            let args = FilterArgs { ids: Vec::new(), reasons: Vec::new(), since: since(text).ok() };
            args.filter(now).since
        };
        assert_eq!(at("10m"), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(400)));
        assert_eq!(at("1970-01-01T00:00:07Z"), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(7)));
        assert_eq!(at("100y"), Some(SystemTime::UNIX_EPOCH));
        assert!(since("yesterday").is_err());
    }
}
