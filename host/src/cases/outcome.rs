//! Expected and actual outcomes, and their differences. This file knows no plugin and no file.

use std::fmt;

use super::emitted::Emitted;
use super::json::{Json, Object, quoted};
use crate::config::MAIN;
use crate::plugin::{Failure, Outcome, Output};

/// Properties of an output entry that the host writes. A comparison ignores them.
pub(crate) const OWN: [&str; 2] = ["message_id", "consumer_id"];

/// Maximum number of characters of a shown value.
const VALUE_CHARS_MAX: usize = 300;

/// Ways in which a message becomes a dead letter, by their names in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reject,
    Fail,
    Trap,
    Timeout,
    Memory,
    BadResult,
    NoMessage,
}

impl End {
    pub(crate) const ALL: [End; 7] =
        [End::Reject, End::Fail, End::Trap, End::Timeout, End::Memory, End::BadResult, End::NoMessage];

    pub(crate) fn word(self) -> &'static str {
        match self {
            End::Reject => "reject",
            End::Fail => "fail",
            End::Trap => "trap",
            End::Timeout => "timeout",
            End::Memory => "memory",
            End::BadResult => "bad-result",
            End::NoMessage => "no-message",
        }
    }
}

/// Expected outcome of a case.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    /// Exactly these results.
    Emit(Emitted),
    /// The same number of results, each with at least these properties.
    Subset(Emitted),
    Drop,
    /// With this delay in milliseconds, if it is given.
    Retry(Option<u32>),
    /// With this text in the reason, if it is given.
    End(End, Option<String>),
}

/// Actual outcome of a message.
#[derive(Clone, Debug)]
pub(crate) enum Came {
    /// Results without the properties that the host writes.
    Emit(Emitted),
    Drop,
    Retry(Option<u32>),
    End(End, String),
}

impl Came {
    /// The actual outcome for an outcome of the plugin.
    pub(crate) fn of(outcome: Result<Outcome, Failure>) -> Came {
        let emit = |results: Vec<Output>| {
            let read = |Output { to, body }: Output| match Json::parse(&body) {
                Ok(Json::Object(object)) => Ok((to.unwrap_or_else(|| MAIN.to_owned()), object.without(&OWN))),
                Ok(_) => Err("the plugin's result is JSON but not an object".to_owned()),
                Err(error) => Err(format!("the plugin's result is not JSON: {error}")),
            };
            match results.into_iter().map(read).collect::<Result<Emitted, _>>() {
                Ok(results) if results.is_empty() => Came::Drop,
                Ok(results) => Came::Emit(results),
                Err(sentence) => Came::End(End::BadResult, sentence),
            }
        };
        match outcome {
            Ok(Outcome::Emit(result)) => emit(vec![Output::main(result)]),
            Ok(Outcome::EmitAll(results)) => emit(results),
            Ok(Outcome::Drop) => Came::Drop,
            Ok(Outcome::Retry(delay_ms)) => Came::Retry(delay_ms),
            Ok(Outcome::Reject(reason)) => Came::End(End::Reject, reason),
            Err(Failure::Failed(reason)) => Came::End(End::Fail, reason),
            Err(failure) => Came::End(end(&failure), failure.to_string()),
        }
    }

    /// Whether the plugin decided the outcome. A failure is no decision.
    pub(crate) fn is_decision(&self) -> bool {
        !matches!(self, Came::End(end, _) if *end != End::Reject)
    }

    /// The property of a case that expects exactly this outcome.
    pub(crate) fn as_property(&self) -> (&'static str, String) {
        match self {
            Came::Emit(results) => results.as_property(true),
            Came::Drop => ("drop", "true".to_owned()),
            Came::Retry(delay_ms) => ("retry", delay(*delay_ms)),
            Came::End(end, reason) => (end.word(), quoted(reason)),
        }
    }
}

fn end(failure: &Failure) -> End {
    match failure {
        Failure::Failed(_) => End::Fail,
        Failure::TimedOut(_) => End::Timeout,
        Failure::OutOfMemory { .. } => End::Memory,
        Failure::ResultTooLong { .. } | Failure::TooManyResults(_) | Failure::NotText | Failure::BadResult(_) => {
            End::BadResult
        }
        Failure::Trapped(_) | Failure::Start(_) => End::Trap,
    }
}

impl Expected {
    /// The property in a case.
    pub(crate) fn as_property(&self) -> (&'static str, String) {
        match self {
            Expected::Emit(results) => results.as_property(true),
            Expected::Subset(results) => results.as_property(false),
            Expected::Drop => ("drop", "true".to_owned()),
            Expected::Retry(delay_ms) => ("retry", delay(*delay_ms)),
            Expected::End(end, None) => (end.word(), "true".to_owned()),
            Expected::End(end, Some(text)) => (end.word(), quoted(text)),
        }
    }

    /// The differences from the actual outcome; empty if the case passes.
    pub(crate) fn differences(&self, came: &Came) -> Vec<Difference> {
        let mut differences = Vec::new();
        let same = match (self, came) {
            (Expected::Emit(expected), Came::Emit(got)) if expected.is_alike(got) => {
                compare_results(expected, got, true, &mut differences);
                return differences;
            }
            (Expected::Subset(expected), Came::Emit(got)) if expected.is_alike(got) => {
                compare_results(expected, got, false, &mut differences);
                return differences;
            }
            (Expected::Emit(expected) | Expected::Subset(expected), Came::Drop) => expected.is_empty(),
            (Expected::Drop, Came::Drop) => true,
            (Expected::Retry(expected), Came::Retry(got)) => expected.is_none() || expected == got,
            (Expected::End(expected, text), Came::End(got, reason)) => {
                expected == got && text.as_ref().is_none_or(|text| reason.contains(text))
            }
            _ => false,
        };
        if !same {
            let show = |(word, value): (&str, String)| Some(format!("{word}: {value}"));
            differences.push(Difference {
                path: "outcome".to_owned(),
                expected: show(self.as_property()),
                got: show(came.as_property()),
            });
        }
        differences
    }
}

fn delay(delay_ms: Option<u32>) -> String {
    delay_ms.map_or_else(|| "true".to_owned(), |delay_ms| delay_ms.to_string())
}

/// A difference between expected and actual outcome.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Path, such as `total`, `items[2].price` or `outcome`.
    pub(crate) path: String,
    /// The expected value, if there is one.
    pub(crate) expected: Option<String>,
    /// The actual value, if there is one.
    pub(crate) got: Option<String>,
}

/// The difference on one line.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} expected {}, got {}", self.path, shown(&self.expected), shown(&self.got))
    }
}

/// A value of a difference, shortened.
pub(crate) fn shown(value: &Option<String>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    match value.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{} … ({} bytes)", &value[..end], value.len()),
        None => value.clone(),
    }
}

fn compare_results(expected: &Emitted, got: &Emitted, exact: bool, differences: &mut Vec<Difference>) {
    for (path, expected, got) in expected.pairs(got) {
        compare_objects(&path, expected, got, exact, differences);
    }
}

/// Compares property by property. A property that is not expected is a difference only in an exact comparison.
fn compare_objects(path: &str, expected: &Object, got: &Object, exact: bool, differences: &mut Vec<Difference>) {
    for (name, value) in expected.iter() {
        compare(Some(value), got.get(name), &|| property(path, name), differences);
    }
    let unexpected = got.iter().filter(|(name, _)| exact && expected.get(name).is_none());
    for (name, value) in unexpected {
        compare(None, Some(value), &|| property(path, name), differences);
    }
}

/// The path is built only if there is a difference.
fn compare(expected: Option<&Json>, got: Option<&Json>, path: &dyn Fn() -> String, differences: &mut Vec<Difference>) {
    match (expected, got) {
        (Some(Json::Object(expected)), Some(Json::Object(got))) => {
            compare_objects(&path(), expected, got, true, differences);
        }
        (Some(Json::List(expected)), Some(Json::List(got))) => {
            for index in 0..expected.len().max(got.len()) {
                compare(expected.get(index), got.get(index), &|| format!("{}[{index}]", path()), differences);
            }
        }
        (Some(Json::Plain(expected)), Some(Json::Plain(got))) if expected == got => {}
        (Some(Json::Text(expected)), Some(Json::Text(got))) if expected == got => {}
        (expected, got) => {
            let show = |value: Option<&Json>| value.map(Json::to_string);
            differences.push(Difference { path: path(), expected: show(expected), got: show(got) });
        }
    }
}

/// The path of a property: with a dot if the name is an ordinary word, else in brackets.
fn property(path: &str, name: &str) -> String {
    let ordinary = !name.is_empty() && name.chars().all(|char| char.is_alphanumeric() || char == '_' || char == '-');
    match (ordinary, path) {
        (true, "") => name.to_owned(),
        (true, path) => format!("{path}.{name}"),
        (false, path) => format!("{path}[{}]", quoted(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        match Json::parse(text).unwrap() {
            Json::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    fn came(outcome: Outcome) -> Came {
        Came::of(Ok(outcome))
    }

    /// The differences between an expected and a real result, one a line.
    fn differences(expected: &str, got: &str) -> String {
        let expected = Expected::Emit(Emitted::main(vec![object(expected)]));
        let lines = expected.differences(&came(Outcome::Emit(got.into()))).into_iter().map(|difference| {
            let Difference { path, expected, got } = difference;
            format!("{path}: {} / {}", expected.unwrap_or_default(), got.unwrap_or_default())
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn numbers_are_compared_by_their_text_and_objects_whatever_their_order() {
        assert_eq!(differences(r#"{"a": 1.0, "b": {"c": 1, "d": "é"}}"#, r#"{"b":{"d":"\u00e9","c":1},"a":1.0}"#), "");
        assert_eq!(differences(r#"{"a": 1}"#, r#"{"a":1.0}"#), "a: 1 / 1.0");
        assert_eq!(differences(r#"{"a": 1}"#, r#"{"a":"1"}"#), r#"a: 1 / "1""#);
    }

    #[test]
    fn every_difference_is_named_by_its_path() {
        let expected = r#"{"a": [1, {"b c": 2}, 3], "gone": null}"#;
        let got = r#"{"a":[1,{"b c":4}],"more":true}"#;
        assert_eq!(differences(expected, got), "a[1][\"b c\"]: 2 / 4\na[2]: 3 / \ngone: null / \nmore:  / true");
    }

    #[test]
    fn what_is_the_hosts_own_takes_no_part() {
        assert_eq!(differences(r#"{"a": 1}"#, r#"{"message_id":"forged","a":1,"consumer_id":"forged"}"#), "");
    }

    #[test]
    fn one_result_in_a_list_is_one_result_and_none_is_a_drop() {
        assert!(matches!(came(Outcome::EmitAll(vec![])), Came::Drop));
        let one = Expected::Emit(Emitted::main(vec![object("{}")]));
        assert_eq!(one.differences(&came(Outcome::EmitAll(vec![Output::main("{}".into())]))), []);
        assert_eq!(
            one.differences(&came(Outcome::EmitAll(vec![Output::main("{}".into()), Output::main("{}".into())]))).len(),
            1
        );
    }

    #[test]
    fn results_are_compared_output_by_output() {
        let emitted = |results: &[(&str, &str)]| -> Emitted {
            results.iter().map(|(name, text)| ((*name).to_owned(), object(text))).collect()
        };
        let output = |to: Option<&str>, body: &str| Output { to: to.map(str::to_owned), body: body.to_owned() };
        let got = came(Outcome::EmitAll(vec![output(Some("fraud"), r#"{"a":1}"#), output(None, r#"{"b":2}"#)]));
        let same = Expected::Emit(emitted(&[("main", r#"{"b":2}"#), ("fraud", r#"{"a":1}"#)]));
        assert_eq!(same.differences(&got), []);
        assert_eq!(same.as_property(), ("outputs", r#"{"fraud": {"a": 1}, "main": {"b": 2}}"#.to_owned()));
        assert_eq!(got.as_property(), same.as_property());
        let other = Expected::Subset(emitted(&[("main", r#"{"b":3}"#), ("fraud", "{}")]));
        let differences = other.differences(&got);
        assert_eq!(differences.iter().map(|one| one.path.as_str()).collect::<Vec<_>>(), ["outputs.main.b"]);
        let elsewhere = Expected::Emit(emitted(&[("main", r#"{"a":1}"#), ("main", r#"{"b":2}"#)]));
        assert_eq!(elsewhere.differences(&got)[0].path, "outcome");
    }

    #[test]
    fn a_subset_lets_other_properties_be_but_is_exact_about_its_own() {
        let subset = Expected::Subset(Emitted::main(vec![object(r#"{"a": {"b": 1}}"#)]));
        assert_eq!(subset.differences(&came(Outcome::Emit(r#"{"a":{"b":1},"x":2}"#.into()))), []);
        assert_eq!(subset.differences(&came(Outcome::Emit(r#"{"a":{"b":1,"c":2}}"#.into()))).len(), 1);
        assert_eq!(subset.differences(&Came::Drop).len(), 1);
    }

    #[test]
    fn a_reason_is_looked_for_and_a_delay_is_exact() {
        let rejected = came(Outcome::Reject("no price".into()));
        assert_eq!(Expected::End(End::Reject, Some("price".into())).differences(&rejected), []);
        assert_eq!(Expected::End(End::Reject, None).differences(&rejected), []);
        assert_eq!(Expected::End(End::Reject, Some("total".into())).differences(&rejected).len(), 1);
        assert_eq!(Expected::End(End::Fail, None).differences(&rejected).len(), 1);
        let retried = came(Outcome::Retry(Some(500)));
        assert_eq!(Expected::Retry(None).differences(&retried), []);
        assert_eq!(Expected::Retry(Some(500)).differences(&retried), []);
        assert_eq!(Expected::Retry(Some(50)).differences(&retried).len(), 1);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        let value = "é".repeat(VALUE_CHARS_MAX);
        assert_eq!(shown(&Some(value.clone())), value);
        assert!(shown(&Some(value + "x")).ends_with("é … (601 bytes)"));
    }
}
