//! The flags that choose outcomes. This file reads nothing.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::observe::choice::Choice;
use crate::observe::tail::Outcome;

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

    /// The choice among them.
    pub(super) fn choice(&self) -> Choice {
        Choice { consumers: self.consumers.clone(), ids: self.ids.clone(), text: self.grep.clone() }
    }
}
