//! Results of a message by their output, as a case expects them and as they came. This file knows no plugin and no file.

use std::collections::BTreeMap;

use super::json::{Json, Object};
use crate::config::MAIN;

/// Results by the name of their output, in their order; the main output has a name as well. No list is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Emitted(BTreeMap<String, Vec<Object>>);

impl Emitted {
    /// Results for the main output.
    pub(crate) fn main(results: Vec<Object>) -> Emitted {
        results.into_iter().map(|result| (MAIN.to_owned(), result)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both have as many results for each output.
    pub(crate) fn is_alike(&self, other: &Emitted) -> bool {
        let counts = |emitted: &Emitted| -> Vec<(String, usize)> {
            emitted.0.iter().map(|(name, results)| (name.clone(), results.len())).collect()
        };
        counts(self) == counts(other)
    }

    /// Both results at each place, with the path of the place: empty for the one result of the main output.
    pub(crate) fn pairs<'a>(&'a self, other: &'a Emitted) -> impl Iterator<Item = (String, &'a Object, &'a Object)> {
        let only_main = self.is_only_main();
        self.0.iter().zip(&other.0).flat_map(move |((name, ours), (_, theirs))| {
            let output = if only_main { String::new() } else { format!("outputs.{name}") };
            let is_one = ours.len() == 1;
            ours.iter().zip(theirs).enumerate().map(move |(index, (ours, theirs))| {
                let place = if is_one { String::new() } else { format!("[{index}]") };
                (format!("{output}{place}"), ours, theirs)
            })
        })
    }

    /// Of each result only the properties that the result of `other` at the same place has.
    pub(crate) fn part(&self, other: &Emitted) -> Emitted {
        let part = |(ours, theirs): (&Object, &Object)| -> Object {
            theirs.iter().filter_map(|(name, _)| Some((name.to_owned(), ours.get(name)?.clone()))).collect()
        };
        let outputs = self.0.iter().zip(&other.0);
        Emitted(
            outputs
                .map(|((name, ours), (_, theirs))| (name.clone(), ours.iter().zip(theirs).map(part).collect()))
                .collect(),
        )
    }

    /// The property of a case that expects these results: exactly, or with at least these properties.
    pub(crate) fn as_property(&self, exact: bool) -> (&'static str, String) {
        if self.is_only_main() {
            let results = self.0.get(MAIN).map(Vec::as_slice).unwrap_or_default();
            return (if exact { "emit" } else { "emit-subset" }, listed(results).to_string());
        }
        let outputs: Object = self.0.iter().map(|(name, results)| (name.clone(), listed(results))).collect();
        (if exact { "outputs" } else { "outputs-subset" }, outputs.to_string())
    }

    fn is_only_main(&self) -> bool {
        self.0.keys().all(|name| name == MAIN)
    }
}

impl FromIterator<(String, Object)> for Emitted {
    fn from_iter<T: IntoIterator<Item = (String, Object)>>(results: T) -> Emitted {
        let mut outputs: BTreeMap<String, Vec<Object>> = BTreeMap::new();
        for (name, result) in results {
            outputs.entry(name).or_default().push(result);
        }
        Emitted(outputs)
    }
}

/// One result as an object, several results as an array.
fn listed(results: &[Object]) -> Json {
    match results {
        [result] => Json::Object(result.clone()),
        results => Json::List(results.iter().cloned().map(Json::Object).collect()),
    }
}
