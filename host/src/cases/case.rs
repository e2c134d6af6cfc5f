//! A file of cases: read, checked as a whole, and written again by `--bless`.

use std::borrow::Cow;
use std::fmt;

use serde_json::value::RawValue;

use super::emitted::Emitted;
use super::json::{Json, Object, properties, quoted};
use super::outcome::{Came, End, Expected};
use crate::config::MAIN;
use crate::message::json::{BYTE_ORDER_MARK, decode, decode_lossy};

/// Properties of a case that are no expectation.
const PARTS: [&str; 4] = ["name", "message", "raw", "attempt"];
/// Expectations that are no [`End`].
const DECISIONS: [&str; 6] = ["emit", "emit-subset", "outputs", "outputs-subset", "drop", "retry"];

/// A byte order mark, which some editors write at the start of a file. The mark is not part of the first line.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// One line of a file of cases.
#[derive(Debug)]
pub(crate) struct Case {
    /// Line number, from 1.
    pub(crate) line: usize,
    pub(crate) name: Option<String>,
    /// The published payload, byte for byte.
    pub(crate) payload: String,
    pub(crate) attempt: u32,
    /// `None` in a case without an expectation, for `--bless`.
    pub(crate) expected: Option<Expected>,
}

/// Name of a case in reports.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        // A name must not control the terminal.
        self.name.as_deref().map_or(Ok(()), |name| write!(f, " {}", quoted(name)))
    }
}

/// Reads all cases. `shown` is the name of the file in messages.
///
/// # Errors
/// A sentence for each bad line.
pub(crate) fn read(text: &[u8], shown: &str, blessing: bool) -> Result<Vec<Case>, Vec<String>> {
    let mut cases = Vec::new();
    let mut problems = Vec::new();
    let text = text.strip_prefix(MARK).unwrap_or(text);
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let read = match std::str::from_utf8(line).map(str::trim) {
            Ok("") => continue,
            Ok(line) => read_case(index + 1, line, blessing),
            Err(error) => Err(format!("byte {} of the line is not UTF-8", error.valid_up_to())),
        };
        match read {
            Ok(case) => cases.push(case),
            Err(problem) => problems.push(format!("{shown}:{}: {problem}", index + 1)),
        }
    }
    if cases.is_empty() && problems.is_empty() {
        problems.push(format!(
            "{shown} has no cases; write one a line, such as {{\"message\": {{\"message_id\": \"1\"}}, \"drop\": true}}"
        ));
    }
    if problems.is_empty() { Ok(cases) } else { Err(problems) }
}

fn read_case(line: usize, text: &str, blessing: bool) -> Result<Case, String> {
    let parts = properties(text).map_err(|error| match error.classify() {
        _ if text.starts_with(BYTE_ORDER_MARK) => {
            "the line begins with a byte order mark (U+FEFF), which is allowed only at the start of a file; delete it"
                .to_owned()
        }
        serde_json::error::Category::Data => "a case is a JSON object".to_owned(),
        _ => format!("not JSON: {error}; a case is a JSON object on one line"),
    })?;
    let mut case = Case { line, name: None, payload: String::new(), attempt: 1, expected: None };
    let mut seen: Vec<&str> = Vec::new();
    for (word, value) in &parts {
        if seen.contains(&word.as_str()) {
            return Err(format!("{word:?} is given twice"));
        }
        seen.push(word);
        match word.as_str() {
            "name" => case.name = Some(decode_lossy(string(word, value)?).into_owned()),
            "message" => case.payload = value.get().to_owned(),
            "raw" => case.payload = payload(string(word, value)?)?,
            "attempt" => case.attempt = attempt(value)?,
            _ if case.expected.is_some() => {
                let words = seen.iter().filter(|word| !PARTS.contains(word));
                let words = words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" and ");
                return Err(format!("a case has one expected outcome, and this case has {words}; keep one of them"));
            }
            _ => case.expected = Some(expectation(word, value)?),
        }
    }
    match (seen.contains(&"message"), seen.contains(&"raw")) {
        (true, true) => {
            return Err("a case has \"message\" or \"raw\", and this case has both; keep one of them".to_owned());
        }
        (false, false) => return Err("there is no \"message\"; add the object that is published".to_owned()),
        _ => {}
    }
    if case.expected.is_none() && !blessing {
        return Err(format!(
            "nothing is expected; add one of {}, or let --bless write the actual outcome",
            words().join(", ")
        ));
    }
    Ok(case)
}

fn words() -> Vec<&'static str> {
    DECISIONS.into_iter().chain(End::ALL.map(End::word)).collect()
}

/// The JSON of a string.
fn string<'a>(word: &str, value: &'a RawValue) -> Result<&'a str, String> {
    let json = value.get();
    if json.starts_with('"') { Ok(json) } else { Err(format!("{word:?} is {value}; it must be a string")) }
}

/// The text of a JSON string, as a payload.
fn payload(json: &str) -> Result<String, String> {
    decode(json).map(Cow::into_owned).map_err(|_| {
        format!(
            "\"raw\" is {json}, and a payload cannot contain half of a surrogate pair; \\\\ud800 publishes the escape"
        )
    })
}

fn attempt(value: &RawValue) -> Result<u32, String> {
    let attempt = serde_json::from_str(value.get()).ok().filter(|attempt| *attempt > 0);
    attempt.ok_or_else(|| format!("\"attempt\" is {value}; it must be a number from 1"))
}

fn expectation(word: &str, value: &RawValue) -> Result<Expected, String> {
    let wanted = |what: &str| Err(format!("{word:?} is {value}; it must be {what}"));
    let is_true = value.get() == "true";
    match word {
        "emit" => Ok(Expected::Emit(Emitted::main(results(word, value.get())?))),
        "emit-subset" => Ok(Expected::Subset(Emitted::main(results(word, value.get())?))),
        "outputs" => Ok(Expected::Emit(outputs(word, value)?)),
        "outputs-subset" => Ok(Expected::Subset(outputs(word, value)?)),
        "drop" if is_true => Ok(Expected::Drop),
        "drop" => wanted("true"),
        "retry" if is_true => Ok(Expected::Retry(None)),
        "retry" => match serde_json::from_str(value.get()) {
            Ok(delay_ms) => Ok(Expected::Retry(Some(delay_ms))),
            Err(_) => wanted("true or the delay in milliseconds"),
        },
        _ => match End::ALL.into_iter().find(|end| end.word() == word) {
            Some(end) if is_true => Ok(Expected::End(end, None)),
            Some(end) if value.get().starts_with('"') => {
                Ok(Expected::End(end, Some(decode_lossy(value.get()).into_owned())))
            }
            Some(_) => wanted("true or a part of the reason"),
            None => Err(unknown(word)),
        },
    }
}

/// The expected results by output: an object with the results for each name.
fn outputs(word: &str, value: &RawValue) -> Result<Emitted, String> {
    let wanted = || {
        format!(
            "{word:?} is {value}; it must be an object with the results for each output, such as {{\"{MAIN}\": {{…}}, \"fraud\": [{{…}}]}}"
        )
    };
    let outputs = properties(value.get()).map_err(|_| wanted())?;
    let mut emitted = Vec::new();
    for (name, value) in outputs {
        emitted
            .extend(results(&format!("{word}.{name}"), value.get())?.into_iter().map(|result| (name.clone(), result)));
    }
    Ok(emitted.into_iter().collect())
}

/// The expected results: an object, or an array of objects. Properties that the host writes are removed.
fn results(word: &str, value: &str) -> Result<Vec<Object>, String> {
    let wanted = || format!("{word:?} is {value}; it must be a result, which is an object, or an array of results");
    let object = |value| match value {
        Json::Object(object) => Ok(object.without(&super::outcome::OWN)),
        _ => Err(wanted()),
    };
    match Json::parse(value).map_err(|error| format!("{word:?} is not valid: {error}"))? {
        Json::List(results) => results.into_iter().map(object).collect(),
        result => Ok(vec![object(result)?]),
    }
}

fn unknown(word: &str) -> String {
    let known: Vec<&str> = PARTS.into_iter().chain(words()).collect();
    let nearest = known.iter().max_by(|a, b| strsim::jaro(word, a).total_cmp(&strsim::jaro(word, b)));
    match nearest {
        Some(nearest) if strsim::jaro(word, nearest) > 0.7 => {
            format!("unknown property {word:?}; did you mean {nearest:?}?")
        }
        _ => format!("unknown property {word:?}; a case has {}", known.join(", ")),
    }
}

/// The text of the file with the actual outcomes of these cases. All other text stays the same.
pub(crate) fn bless(text: &str, blessed: &[(&Case, &Came)]) -> String {
    let mut blessed = blessed.iter().peekable();
    let mut written = String::with_capacity(text.len());
    let text = match text.strip_prefix(BYTE_ORDER_MARK) {
        Some(rest) => {
            written.push(BYTE_ORDER_MARK);
            rest
        }
        None => text,
    };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        match blessed.next_if(|(case, _)| case.line == index + 1) {
            Some((case, came)) => {
                let content = line.trim_end();
                written.push_str(&bless_line(content.trim_start(), case, came));
                written.push_str(&line[content.len()..]);
            }
            None => written.push_str(line),
        }
    }
    written
}

/// The text of a case with the actual outcome in place of the expected one.
fn bless_line(text: &str, case: &Case, came: &Came) -> String {
    let (word, value) = blessed_property(case.expected.as_ref(), came);
    let expectation = format!("{}: {value}", quoted(word));
    // The line was valid before. If it cannot be read now, it stays as it is.
    let Ok(parts) = properties(text) else { return text.to_owned() };
    let mut written: Vec<String> = Vec::with_capacity(parts.len() + 1);
    let mut placed = false;
    for (name, value) in parts {
        if PARTS.contains(&name.as_str()) {
            written.push(format!("{}: {value}", quoted(&name)));
        } else {
            written.push(expectation.clone());
            placed = true;
        }
    }
    if !placed {
        written.push(expectation);
    }
    format!("{{{}}}", written.join(", "))
}

/// The actual outcome as an expectation that stays true. For a trap only the kind, because the text contains addresses.
/// For a subset only the properties of that subset.
fn blessed_property(expected: Option<&Expected>, came: &Came) -> (&'static str, String) {
    match (expected, came) {
        (Some(Expected::Subset(expected)), Came::Emit(got)) if expected.is_alike(got) => {
            got.part(expected).as_property(false)
        }
        (_, Came::End(end @ (End::Trap | End::Timeout | End::Memory | End::BadResult), _)) => {
            (end.word(), "true".to_owned())
        }
        (_, Came::End(end @ End::NoMessage, reason)) => {
            let name = reason.split_once(':').map_or(reason.as_str(), |(name, _)| name);
            (end.word(), quoted(name))
        }
        (_, came) => came.as_property(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(line: &str) -> String {
        read_case(1, line, false).unwrap_err()
    }

    #[test]
    fn a_payload_is_kept_byte_for_byte() {
        let case = read_case(1, r#"{"message": { "message_id" : 1.0 }, "drop": true}"#, false).unwrap();
        assert_eq!(case.payload, r#"{ "message_id" : 1.0 }"#);
        let case = read_case(1, r#"{"raw": "no\u0020json", "no-message": true, "attempt": 3}"#, false).unwrap();
        assert_eq!((case.payload.as_str(), case.attempt), ("no json", 3));
    }

    #[test]
    fn a_case_that_says_nothing_or_too_much_is_refused() {
        for (line, words) in [
            ("nonsense", "not JSON"),
            ("[]", "object"),
            (r#"{"drop": true}"#, "no \"message\""),
            (r#"{"message": {}, "raw": "", "drop": true}"#, "both"),
            (r#"{"message": {}}"#, "--bless"),
            (r#"{"message": {}, "drop": true, "retry": true}"#, r#""drop" and "retry""#),
            (r#"{"message": {}, "drop": true, "drop": true}"#, "twice"),
            (r#"{"message": {}, "emitt": {}}"#, "did you mean \"emit\"?"),
            (r#"{"message": {}, "xyz": {}}"#, "a case has"),
            (r#"{"message": {}, "drop": false}"#, "must be true"),
            (r#"{"message": {}, "retry": -1}"#, "milliseconds"),
            (r#"{"message": {}, "trap": 5}"#, "part of the reason"),
            (r#"{"message": {}, "emit": [1]}"#, "array of results"),
            (r#"{"message": {}, "outputs": [1]}"#, "an object with the results for each output"),
            (r#"{"message": {}, "outputs": {"fraud": 1}}"#, "\"outputs.fraud\" is 1"),
            (r#"{"message": {}, "emit": {}, "outputs": {}}"#, r#""emit" and "outputs""#),
            (r#"{"message": {}, "attempt": 0, "drop": true}"#, "from 1"),
            (r#"{"message": {}, "name": 7, "drop": true}"#, "string"),
            (r#"{"raw": "\ud800", "no-message": true}"#, "half of a surrogate pair"),
            ("\u{feff}{\"message\": {}, \"drop\": true}", "byte order mark"),
        ] {
            assert!(problem(line).contains(words), "{line}: {}", problem(line));
        }
        assert!(read_case(1, r#"{"message": {}}"#, true).unwrap().expected.is_none());
    }

    #[test]
    fn every_bad_line_is_named() {
        let problems = read(b"\n{}\r\n\n{\"message\": {}, \"drop\": true}\n\xff\n", "cases", false).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("cases:2: ") && problems[1].starts_with("cases:5: "), "{problems:?}");
        assert!(read(b"\n \n", "cases", false).unwrap_err()[0].contains("no cases"));
    }

    #[test]
    fn a_byte_order_mark_at_the_start_is_no_part_of_the_first_line() {
        let text = "\u{feff}{\"message\": {}, \"drop\": true}\n";
        let cases = read(text.as_bytes(), "cases", false).unwrap();
        assert_eq!(bless(text, &[(&cases[0], &Came::Retry(None))]), "\u{feff}{\"message\": {}, \"retry\": true}\n");
    }

    #[test]
    fn blessing_changes_the_expectation_and_nothing_else() {
        let text =
            "\n{\"drop\": true, \"name\":\"a\\u0062\",\"message\":{ \"x\":1.0}}\r\n{\"raw\": \"x\"}\n{\"message\":1}";
        let cases = read(text.as_bytes(), "cases", true).unwrap();
        let got = Json::parse(r#"{"y":1.0}"#).unwrap();
        let Json::Object(got) = got else { panic!("{got} is an object") };
        let emitted = Came::Emit(Emitted::main(vec![got]));
        let refused = Came::End(End::NoMessage, "not-json: it is not JSON: really".into());
        assert_eq!(
            bless(text, &[(&cases[0], &emitted), (&cases[1], &refused)]),
            "\n{\"emit\": {\"y\": 1.0}, \"name\": \"a\\u0062\", \"message\": { \"x\":1.0}}\r\n\
             {\"raw\": \"x\", \"no-message\": \"not-json\"}\n{\"message\":1}"
        );
    }

    #[test]
    fn a_blessed_case_has_its_results_by_output_only_where_there_is_a_named_one() {
        let object = |text: &str| match Json::parse(text) {
            Ok(Json::Object(object)) => object,
            other => panic!("{other:?} is no object"),
        };
        let came = |names: &[&str]| {
            Came::Emit(names.iter().map(|name| ((*name).to_owned(), object(r#"{"a":1,"b":2}"#))).collect())
        };
        let blessed = |line: &str, came: &Came| bless_line(line, &read_case(1, line, true).unwrap(), came);
        let line = r#"{"message": {}, "outputs": {"fraud": {"a": 0}}}"#;
        assert_eq!(blessed(line, &came(&["main"])), r#"{"message": {}, "emit": {"a": 1, "b": 2}}"#);
        let line = r#"{"message": {}, "outputs-subset": {"fraud": [{"a": 0}, {}]}}"#;
        assert_eq!(
            blessed(line, &came(&["fraud", "fraud"])),
            r#"{"message": {}, "outputs-subset": {"fraud": [{"a": 1}, {}]}}"#
        );
        let line = r#"{"message": {}, "emit": {}}"#;
        assert_eq!(
            blessed(line, &came(&["z", "main"])),
            r#"{"message": {}, "outputs": {"main": {"a": 1, "b": 2}, "z": {"a": 1, "b": 2}}}"#
        );
    }

    #[test]
    fn a_blessed_subset_stays_a_subset() {
        let case = read_case(1, r#"{"message": {}, "emit-subset": {"a": 1, "gone": 2}}"#, true).unwrap();
        let Ok(Json::Object(got)) = Json::parse(r#"{"a":3,"b":4}"#) else { panic!("it is an object") };
        assert_eq!(
            bless_line(
                r#"{"message": {}, "emit-subset": {"a": 1, "gone": 2}}"#,
                &case,
                &Came::Emit(Emitted::main(vec![got]))
            ),
            r#"{"message": {}, "emit-subset": {"a": 3}}"#
        );
    }
}
