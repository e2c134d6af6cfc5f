//! A choice of dead letters. This file knows fields and times, and no Redis.

use std::time::SystemTime;

use crate::message::Reason;
use crate::redis::store::dead::Letter;

/// A choice of dead letters. A letter must meet every given condition.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Ids of messages or entries, of which a letter must have one; empty for any id.
    pub ids: Vec<String>,
    /// Reasons, of which a letter must have one; empty for any reason.
    pub reasons: Vec<Reason>,
    /// Earliest time at which a letter was written, by the server's clock.
    pub since: Option<SystemTime>,
    /// Text in any field, the payload included.
    pub text: Option<String>,
}

impl Filter {
    /// A filter for one message id or entry id.
    #[must_use]
    pub fn of_id(id: &str) -> Filter {
        Filter { ids: vec![id.to_owned()], ..Filter::default() }
    }

    /// Whether every letter matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.reasons.is_empty() && self.since.is_none() && self.text.is_none()
    }

    /// Whether this letter matches, apart from its time. The time is a bound of the read from Redis.
    pub(super) fn matches(&self, letter: &Letter) -> bool {
        let has = |name: &str, value: &str| letter.get(name) == Some(value.as_bytes());
        let id = |id: &String| *id == letter.entry_id || has("message_id", id);
        (self.ids.is_empty() || self.ids.iter().any(id))
            && (self.reasons.is_empty() || self.reasons.iter().any(|reason| has("reason", reason.as_str())))
            && self
                .text
                .as_ref()
                .is_none_or(|text| letter.fields.iter().any(|(_, value)| contains(value, text.as_bytes())))
    }
}

fn contains(value: &[u8], text: &[u8]) -> bool {
    text.is_empty() || value.windows(text.len()).any(|window| window == text)
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
        let filter = Filter { ids, reasons: vec![Reason::BadId, Reason::NoId], ..Filter::default() };
        assert!(filter.matches(&letter("1-0", "a", "bad-id")));
        assert!(filter.matches(&letter("5-0", "b", "no-id")));
        assert!(!filter.matches(&letter("1-0", "a", "too-big")));
        assert!(!filter.matches(&letter("1-0", "b", "bad-id")));
    }

    #[test]
    fn a_text_may_be_in_any_field() {
        let with = |text: &str| Filter { text: Some(text.to_owned()), ..Filter::default() };
        for (text, is_there) in [("rder-1", true), ("too-", true), ("", true), ("order-17-", false)] {
            assert_eq!(with(text).matches(&letter("1-0", "order-17", "too-big")), is_there, "{text}");
        }
        assert!(!with("x").is_empty());
    }
}
