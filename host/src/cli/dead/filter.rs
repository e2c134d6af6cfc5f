//! The flags that choose dead letters. This file speaks to no Redis.

use std::time::SystemTime;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use crate::cli::since::{Since, since};
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

/// Accepts the names of reasons. The error for any other name lists the valid names.
fn reasons() -> impl clap::builder::TypedValueParser<Value = Reason> {
    PossibleValuesParser::new(Reason::ALL.map(Reason::as_str))
        .try_map(|name| Reason::named(&name).ok_or("there is no such reason"))
}

impl FilterArgs {
    /// The filter at this time.
    pub(super) fn filter(self, now: SystemTime) -> Filter {
        let since = self.since.map(|since| since.before(now));
        Filter { ids: self.ids, reasons: self.reasons, since, text: None }
    }
}
