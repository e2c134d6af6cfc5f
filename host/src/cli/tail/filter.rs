//! The flags that choose outcomes. This file reads nothing.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::observe::tail::{Event, Outcome};

/// Flags that choose outcomes. An outcome must match every given flag.
#[derive(Args, Clone, Debug)]
pub(super) struct FilterArgs {
    /// Only this outcome; may be repeated
    #[arg(long = "outcome", value_name = "OUTCOME", value_parser = outcomes())]
    outcomes: Vec<Outcome>,

    /// Only outcomes of this consumer, or of all consumers of this host; may be repeated
    #[arg(long = "consumer", value_name = "ID")]
    consumers: Vec<String>,

    /// Only outcomes of the message with this id; may be repeated
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,

    /// Only outcomes with this text in an id or in any field
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
}

fn outcomes() -> impl TypedValueParser<Value = Outcome> {
    let named = |name: String| Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name);
    PossibleValuesParser::new(Outcome::ALL.map(Outcome::as_str))
        .try_map(move |name| named(name).ok_or("there is no such outcome"))
}

impl FilterArgs {
    /// The outcomes to follow.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        if self.outcomes.is_empty() { Outcome::ALL.to_vec() } else { self.outcomes.clone() }
    }

    /// Whether an event is wanted.
    pub(super) fn matches(&self, event: &Event) -> bool {
        let is_of = |wanted: &String| {
            let rest = event.consumer_id.as_deref().and_then(|id| id.strip_prefix(wanted.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let has_id = |wanted: &String| event.message_id.as_ref() == Some(wanted);
        (self.consumers.is_empty() || self.consumers.iter().any(is_of))
            && (self.ids.is_empty() || self.ids.iter().any(has_id))
            && self.grep.as_deref().is_none_or(|text| has_text(event, text))
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
