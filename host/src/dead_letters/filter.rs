//! Which dead letters are meant. It knows fields and times and asks nobody.

use std::time::SystemTime;

use crate::message::Reason;
use crate::redis::store::dead::Letter;

/// Which dead letters are meant: all conditions that are given must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Ids of messages or of entries, one of which it must have; empty for any.
    pub ids: Vec<String>,
    /// Reasons, one of which it must have; empty for any.
    pub reasons: Vec<Reason>,
    /// The earliest time at which it was written, by the server's clock.
    pub since: Option<SystemTime>,
}

impl Filter {
    /// Dead letters of this message, or this entry.
    #[must_use]
    pub fn of_id(id: &str) -> Filter {
        Filter { ids: vec![id.to_owned()], ..Filter::default() }
    }

    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.reasons.is_empty() && self.since.is_none()
    }

    /// Whether this one is meant, apart from its time, by which dead letters are read.
    pub(super) fn matches(&self, letter: &Letter) -> bool {
        let has = |name: &str, value: &str| letter.get(name) == Some(value.as_bytes());
        let id = |id: &String| *id == letter.entry_id || has("message_id", id);
        (self.ids.is_empty() || self.ids.iter().any(id))
            && (self.reasons.is_empty() || self.reasons.iter().any(|reason| has("reason", reason.as_str())))
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
        let ids = vec!["a".to_owned(), "5-0".to_owned()];
        let filter = Filter { ids, reasons: vec![Reason::BadId, Reason::NoId], since: None };
        assert!(filter.matches(&letter("1-0", "a", "bad-id")));
        assert!(filter.matches(&letter("5-0", "b", "no-id")));
        assert!(!filter.matches(&letter("1-0", "a", "too-big")));
        assert!(!filter.matches(&letter("1-0", "b", "bad-id")));
    }
}
