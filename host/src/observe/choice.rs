//! Which outcomes somebody wants to see. This file reads nothing.

use super::tail::Event;

/// A choice of outcomes. An outcome must meet every given condition.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Consumers, or hosts, of which an outcome must have one; empty for any.
    pub consumers: Vec<String>,
    /// Ids of messages, of which an outcome must have one; empty for any.
    pub ids: Vec<String>,
    /// Text in an id or in any field.
    pub text: Option<String>,
}

impl Choice {
    /// Whether an event is wanted.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        let is_of = |wanted: &String| {
            let rest = event.consumer_id.as_deref().and_then(|id| id.strip_prefix(wanted.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let has_id = |wanted: &String| event.message_id.as_ref() == Some(wanted);
        (self.consumers.is_empty() || self.consumers.iter().any(is_of))
            && (self.ids.is_empty() || self.ids.iter().any(has_id))
            && self.text.as_deref().is_none_or(|text| has_text(event, text))
    }
}

fn has_text(event: &Event, text: &str) -> bool {
    let ids = [&event.message_id, &event.consumer_id].into_iter().flatten();
    let in_ids = ids.into_iter().any(|id| id.contains(text));
    in_ids || event.fields.iter().any(|(name, value)| name.contains(text) || contains(value, text.as_bytes()))
}

fn contains(value: &[u8], text: &[u8]) -> bool {
    text.is_empty() || value.windows(text.len()).any(|window| window == text)
}
