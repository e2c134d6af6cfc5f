//! One suite for every language: the same messages, with the same outcomes. tests/languages has the plugin in each
//! language and the cases that need no host. What a language cannot keep is a row in the handbook's chapter on languages,
//! and these rows are compared with what really happens.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::flow::Flow;
use crate::support::host::{Ended, Launch};
use crate::support::languages::{C, LANGUAGES, Language, RUST, TYPESCRIPT};
use crate::support::{Host, Publisher, Redis, Release, message, repository};

/// With little memory, so that a plugin reaches the limit before its time is over.
const MEMORY: &str = "64MiB";
/// The default of `--max-message-bytes`.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// One less than the default of `--max-message-depth`. Some libraries end there.
const LEVELS: usize = 127;

/// Values of JSON for the tables in the handbook.
const VALUES: [&str; 16] = [
    r#""é\u00e9\ud83d\ude00😀\/\u0000""#,
    "0.1",
    "12.50",
    "1.0",
    "9007199254740993",
    "100000000000000000000000",
    "1E400",
    "1E-400",
    "-0",
    r#""\ud800""#,
    r#"{"\ud800":1}"#,
    "{}",
    r#"{"b":1,"a":2}"#,
    r#"{"b":1,"10":2}"#,
    r#"{"a":1,"b":2,"a":3}"#,
    "[[],null,true]",
];

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

fn host_test(language: &Language, more: &[&str]) -> Ended {
    let (plugin, config) = (language.plugin(), repository().join("tests/languages/host.toml"));
    let words = ["--config", path_text(&config), "--max-plugin-memory", MEMORY];
    Launch::subcommand("test").words(&[path_text(&plugin)]).words(more).words(&words).run()
}

/// The result of one message in a fresh instance.
fn result(language: &Language, order: Value) -> Value {
    let ended = host_test(language, &["--message", &message("1", order)]);
    assert_eq!(ended.code, Some(0), "{}: {}{}", language.name, ended.stdout, ended.stderr);
    let outcome: Value = serde_json::from_str(&ended.stdout).expect("an outcome");
    outcome["emit"].clone()
}

/// What becomes of each of these messages in one instance, as properties of cases.
fn outcomes(language: &Language, messages: &[String]) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("make a folder");
    let cases = folder.path().join("cases.jsonl");
    let lines: String = messages.iter().map(|message| format!("{{\"message\": {message}}}\n")).collect();
    fs::write(&cases, lines).expect("write the cases");
    let ended = host_test(language, &[path_text(&cases), "--bless"]);
    assert_eq!(ended.code, Some(0), "{}: {}{}", language.name, ended.stdout, ended.stderr);
    let blessed = fs::read_to_string(&cases).expect("read the cases");
    let outcome = |line: &str| -> Value {
        let mut case: HashMap<String, Box<RawValue>> = serde_json::from_str(line).expect("a case");
        // The message may have numbers that are too large for a `Value`.
        case.remove("message");
        serde_json::to_value(case).expect("an outcome")
    };
    blessed.lines().map(outcome).collect()
}

/// Requires that every language passes these cases.
fn expect_to_pass(cases: &Path, more: &[&str]) {
    let failed: Vec<String> = LANGUAGES
        .iter()
        .map(|language| (language.name, host_test(language, &[&[path_text(cases)], more].concat())))
        .filter(|(_, ended)| ended.code != Some(0))
        .map(|(name, ended)| format!("{name}: {}{}", ended.stdout, ended.stderr))
        .collect();
    assert!(failed.is_empty(), "{}", failed.concat());
}

#[test]
fn every_language_gives_the_same_outcomes() {
    expect_to_pass(&repository().join("tests/languages/cases.jsonl"), &[]);
}

#[test]
fn every_language_takes_the_longest_and_the_deepest_message() {
    let folder = tempfile::tempdir().expect("make a folder");
    let cases = folder.path().join("cases.jsonl");
    let mut lines = String::new();
    let mut case = |message: &str, result: &str| lines += &format!("{{\"message\": {message}, \"emit\": {result}}}\n");
    // A message of the greatest length with a value that repeats a part, and that value.
    let longest = |order: &str, [open, part, close]: [&str; 3]| {
        let around = format!(r#"{{"message_id":"1",{order},"value":{open}{close}}}"#).len();
        let room = MESSAGE_BYTES_MAX - around;
        let value = format!("{open}{}{close}", part.repeat(room / part.len()));
        let blanks = " ".repeat(room % part.len());
        let message = format!(r#"{{"message_id":"1",{blanks}{order},"value":{value}}}"#);
        assert_eq!(message.len(), MESSAGE_BYTES_MAX);
        (message, value)
    };
    let text = |value: &str| json!({ "text": value }).to_string();

    let (message, value) = longest(r#""do":"echo""#, ["\"", r#"é😀\u00e9\ud83d\ude00\n"#, "\""]);
    case(&message, &format!(r#"{{"do": "echo", "value": {value}}}"#));
    let (message, value) = longest(r#""do":"exact""#, ["[", "12.50,9007199254740993,", "0]"]);
    case(&message, &text(&value));
    let (message, value) = longest(r#""do":"exact""#, ["\"", "\\n", "\""]);
    case(&message, &text(&value));
    let (message, value) = longest(r#""do":"add","name":"a""#, ["[", r#"{"a":12.50},"#, "{}]"]);
    case(&message, &format!(r#"{{"do": "add", "name": "a", "value": {value}, "a": {value}}}"#));

    // The message is one level, and each round two.
    let rounds = (LEVELS - 1) / 2;
    let deep = format!("{}{}", r#"[{"a":"#.repeat(rounds), "12.50") + &"}]".repeat(rounds);
    case(&format!(r#"{{"message_id":"1","do":"exact","value":{deep}}}"#), &text(&deep));
    case(
        &format!(r#"{{"message_id":"1","do":"add","name":"a","value":{deep}}}"#),
        &format!(r#"{{"do": "add", "name": "a", "value": {deep}, "a": {deep}}}"#),
    );
    // Twice, because what the first round leaves in memory is collected in the second one.
    fs::write(&cases, lines.repeat(2)).expect("write the cases");
    expect_to_pass(&cases, &["--max-plugin-time", "60s"]);
}

#[test]
fn what_a_language_changes_in_json_is_what_the_handbook_says() {
    let libraries =
        ["`serde_json::Value`", "`JSON.parse`, `JSON.stringify`", "`json`", "`encoding/json`", "none in the library"];
    expect_in_the_handbook(&table("ordinary", &libraries));
    let helpers = ["raw values, `IndexMap`", "`parseExact`", "`loads`, `dumps`", "`host.Property`", "`host_property`"];
    expect_in_the_handbook(&table("exact", &helpers));
}

/// A table of the values that some language does not keep.
fn table(word: &str, tools: &[&str]) -> String {
    let messages = VALUES.map(|value| format!(r#"{{"message_id":"1","do":"{word}","value":{value}}}"#));
    let columns = LANGUAGES.map(|language| -> Vec<String> {
        let outcomes = outcomes(language, &messages);
        outcomes.iter().zip(VALUES).map(|(outcome, value)| cell(outcome, value)).collect()
    });
    let tools: String =
        LANGUAGES.iter().zip(tools).map(|(language, tool)| format!(" {}: {tool} |", language.name)).collect();
    let mut table = format!("| in the message |{tools}\n| --- |{}\n", " --- |".repeat(LANGUAGES.len()));
    for (row, value) in VALUES.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| &*column[row]).collect();
        if cells.iter().any(|cell| *cell != "kept") {
            table += &format!("| `{value}` | {} |\n", cells.join(" | "));
        }
    }
    table
}

/// What has become of a value, as the handbook tells.
fn cell(outcome: &Value, value: &str) -> String {
    let Some(text) = outcome["emit"]["text"].as_str() else {
        assert!(outcome["fail"].is_string(), "{outcome}");
        return "an error".to_owned();
    };
    let text = canonical(text);
    if text == canonical(value) { "kept".to_owned() } else { format!("`{text}`") }
}

/// The JSON text without blanks, and with the same escapes for the same strings.
fn canonical(json: &str) -> String {
    let mut plain = String::new();
    let mut rest = json.chars();
    let mut is_string = false;
    while let Some(char) = rest.next() {
        match char {
            '"' => is_string = !is_string,
            _ if !is_string && char.is_ascii_whitespace() => continue,
            '\\' => {
                let code = match rest.next().expect("an escape") {
                    'u' => u16::from_str_radix(&rest.by_ref().take(4).collect::<String>(), 16).expect("four digits"),
                    letter => letter as u16,
                };
                plain += &escaped(code);
                continue;
            }
            _ if !char.is_ascii() => {
                let units = char.encode_utf16(&mut [0; 2]).iter().map(|unit| escaped(*unit)).collect::<String>();
                plain += &units;
                continue;
            }
            _ => {}
        }
        plain.push(char);
    }
    plain
}

fn escaped(unit: u16) -> String {
    match u8::try_from(unit).map(char::from) {
        Ok('"') => "\\\"".to_owned(),
        Ok(char) if (' '..='~').contains(&char) && char != '\\' => char.to_string(),
        _ => format!("\\u{unit:04x}"),
    }
}

#[track_caller]
fn expect_in_the_handbook(table: &str) {
    let handbook = fs::read_to_string(repository().join("host/docs/languages.md")).expect("read the handbook");
    assert!(handbook.contains(table), "host/docs/languages.md does not have this table:\n{table}");
}

#[test]
fn what_differs_from_language_to_language_is_what_the_handbook_says() {
    let levels = ["trace", "debug", "info", "warn", "error", "critical"];
    let facts = LANGUAGES.map(|language| {
        let orders = ["state", "throw", "state"].map(|word| message("1", json!({ "do": word })));
        let [_, thrown, after] = &outcomes(language, &orders)[..] else { panic!("three outcomes") };
        let is = |end: &str| thrown.get(end).is_some();
        let failure = match (is("fail"), is("trap"), after["emit"]["calls"].as_u64()) {
            (true, false, Some(2)) => "`plugin-failed`; the instance goes on",
            (false, true, Some(1)) => "`plugin-trapped`; a fresh instance follows",
            _ => panic!("{}: {thrown} {after}", language.name),
        };
        let order = message("1", json!({"do": "log"}));
        let log = host_test(language, &["--message", &order, "--log-level", "trace"]).stderr;
        let missing: Vec<&str> =
            levels.into_iter().filter(|level| !log.contains(&format!("to {level}: é😀"))).collect();
        let levels = if missing.is_empty() { "all six".to_owned() } else { format!("without {}", missing.join(", ")) };
        [failure.to_owned(), levels]
    });
    let names: String = LANGUAGES.iter().map(|language| format!(" {} |", language.name)).collect();
    let mut table = format!("| |{names}\n| --- |{}\n", " --- |".repeat(LANGUAGES.len()));
    for (row, name) in ["an exception, a panic, `abort`", "levels of the log"].iter().enumerate() {
        table += &format!("| {name} | {} |\n", facts.each_ref().map(|facts| &*facts[row]).join(" | "));
    }
    expect_in_the_handbook(&table);
}

#[test]
fn every_instance_has_random_values_and_a_time_of_its_own() {
    for language in LANGUAGES {
        let random = || result(language, json!({"do": "random"}));
        assert_ne!(random(), random(), "{}", language.name);
        let time = || result(language, json!({"do": "time"}))["ms"].as_u64().expect("a time");
        assert!(time() < time(), "{}", language.name);
    }
}

#[test]
fn the_log_of_every_language_is_the_log_of_the_host() {
    for language in LANGUAGES {
        let log = |word: &str| {
            let order = message("order-1", json!({ "do": word }));
            host_test(language, &["--message", &order, "--log-level", "trace"]).stderr
        };
        let expect = |log: &str, level: &str, text: &str| {
            let is_it = |line: &str| line.contains(level) && line.contains(text) && line.contains("order-1");
            assert!(log.lines().any(is_it), "{}: {level} {text}: {log}", language.name);
        };
        let lines = log("log");
        for (level, text) in [
            ("TRACE", "to trace: é😀"),
            ("DEBUG", "to debug: é😀"),
            ("INFO", "to info: é😀"),
            ("WARN", "to warn: é😀"),
            ("ERROR", "to error: é😀"),
        ] {
            expect(&lines, level, text);
        }
        if language.name == TYPESCRIPT.name {
            // The console takes any value.
            expect(&lines, "INFO", r#"to info: é😀 {"total":1.5} [1,null]"#);
            continue;
        }
        expect(&lines, "ERROR", "to critical: é😀");
        let printed = log("print");
        expect(&printed, "INFO", "to stdout: é😀");
        expect(&printed, "INFO", "to stderr: é😀");
    }
}

#[test]
fn a_string_of_a_property_is_text_in_c() {
    let text = |value: &str| {
        let order = format!(r#"{{"message_id":"1","do":"raw","result":{value}}}"#);
        let ended = host_test(&C, &["--message", &order]);
        ended.stdout.trim().to_owned()
    };
    let escapes = r#""{\"a\u003A\u00e9\ud83d\ude00\\\\\/\":\t\r\n1}""#;
    assert_eq!(text(escapes), r#"{"emit": {"a:é😀\\/": 1}}"#);
    assert_eq!(text(r#""{\"\ud800\":\"\udc00x\"}""#), "{\"emit\": {\"\u{fffd}\": \"\u{fffd}x\"}}");
    // No string is no text.
    assert!(text("1").starts_with(r#"{"bad-result": "#), "{}", text("1"));
}

#[test]
fn every_language_does_in_a_host_what_it_does_in_a_test() {
    for language in LANGUAGES {
        let redis = Redis::start();
        let launch = Host::on(&redis)
            .arg("--plugin", language.plugin())
            .arg("--config", repository().join("tests/languages/host.toml"))
            .arg("--max-plugin-memory", MEMORY)
            .arg("--max-attempts", "2")
            .arg("--retry-delay", "1ms");
        let host = launch.ready(&redis, 1);
        let consumer = redis.consumer_ids().remove(0);
        let orders = [
            message("state-1", json!({"do": "state"})),
            message("state-2", json!({"do": "state"})),
            message("context", json!({"do": "context"})),
            message("config", json!({"do": "config", "key": "symbol"})),
            message("attempt", json!({"do": "attempt", "until": 2, "delay": 20})),
            message("outputs", json!({"do": "outputs"})),
            message("drop", json!({"do": "drop"})),
            message("reject", json!({"do": "reject"})),
            message("fail", json!({"do": "fail"})),
            message("throw", json!({"do": "throw"})),
            message("loop", json!({"do": "loop"})),
            message("eat", json!({"do": "eat"})),
            r#"{"message_id":"add","do":"add","name":"é","value":{"n":1E400},"z":12.50,"a":-0,"10":"\u00e9"}"#
                .to_owned(),
        ];
        Publisher::new(&redis).publish_all(&orders);
        expect_letters(language, &redis);
        expect_results(language, &redis, &consumer);
        redis.wait_for_an_empty_inbox();
        assert!(redis.results_of("drop").is_empty() && redis.dead_letters().len() == 5, "{:?}", redis.dead_letters());
        let log = host.stop().stderr;
        let is_told = |line: &str| line.contains("asked for: é😀") && line.contains("throw");
        assert!(log.lines().any(is_told), "{}: {log}", language.name);
    }
}

/// Requires the dead letters of the messages that fail, each with its text.
fn expect_letters(language: &Language, redis: &Redis) {
    let traps = [RUST.name, C.name].contains(&language.name);
    let place = match language.name {
        "TypeScript" => "at broken (",
        "Python" => "in broken",
        _ => "",
    };
    for (id, reason, words) in [
        ("reject", "plugin-rejected", ["asked for: é😀", ""]),
        ("fail", "plugin-failed", ["asked for: é😀", ""]),
        ("throw", if traps { "plugin-trapped" } else { "plugin-failed" }, ["asked for: é😀", place]),
        ("loop", "plugin-timed-out", ["longer than 1s", ""]),
        ("eat", "plugin-memory", ["67108864 bytes", "--max-plugin-memory"]),
    ] {
        let letter = redis.dead_letter_of(id);
        let error = letter.text("error");
        assert_eq!(letter.text("reason"), reason, "{}: {error}", language.name);
        assert_eq!(letter.text("attempts"), if id == "reject" { "1" } else { "2" }, "{}: {id}", language.name);
        assert!(words.iter().all(|word| error.contains(word)), "{}: {words:?}: {error}", language.name);
    }
}

/// Requires the results of the messages that have some.
fn expect_results(language: &Language, redis: &Redis, consumer: &str) {
    let value = |id: &str, name: &str| redis.result_of(id).text(name).to_owned();
    assert_eq!([value("state-1", "calls"), value("state-2", "calls")], ["1", "2"], "{}", language.name);
    assert_eq!(value("config", "value"), "€ = \"é😀\"", "{}", language.name);
    assert_eq!(value("attempt", "attempt"), "2", "{}", language.name);
    let facts = ["channel", "consumer", "generation"].map(|name| value("context", name));
    assert_eq!(facts, ["messages:published", consumer, "1"], "{}", language.name);
    let received: u64 = value("context", "received").parse().expect("a time");
    assert!(received > 1_700_000_000_000, "{}: {received}", language.name);

    let added = redis.result_of("add");
    let names = ["message_id", "consumer_id", "do", "name", "value", "z", "a", "10", "é"];
    assert_eq!(added.names(), names, "{}", language.name);
    let values = ["z", "a", "10", "é"].map(|name| added.text(name));
    assert_eq!(values, ["12.50", "-0", "é", r#"{"n":1E400}"#], "{}", language.name);

    assert_eq!(value("outputs", "n"), "2", "{}", language.name);
    let named = |stream| redis.stream(stream).iter().map(|entry| entry.text("n").to_owned()).collect::<Vec<_>>();
    assert_eq!((named("messages:audit"), named("messages:fraud")), (vec!["1".into(), "4".into()], vec!["3".into()]));
}

#[test]
fn every_language_has_a_fresh_instance_for_each_message_if_the_operator_wants_that() {
    let redis = Redis::start();
    for language in LANGUAGES {
        let launch = Host::on(&redis).arg("--plugin", language.plugin()).switch("--instance-per-message");
        let host = launch.ready(&redis, 4);
        let mut publisher = Publisher::new(&redis);
        let id = |number: usize| format!("{}-{number}", language.name);
        let order = |number: usize| json!({"do": if number < 50 { "random" } else { "state" }});
        publisher.publish_all((0..60).map(|number| message(&id(number), order(number))));
        let random: HashSet<String> =
            (0..50).map(|number| redis.result_of(&id(number)).text("random").to_owned()).collect();
        assert_eq!(random.len(), 50, "{}", language.name);
        assert!((50..60).all(|number| redis.result_of(&id(number)).text("calls") == "1"), "{}", language.name);
        assert_eq!(host.stop().code, Some(0));
    }
}

/// A version of the plugin that writes this number in its results.
fn version(language: &Language, number: u8) -> Release {
    let mut bytes = fs::read(language.plugin()).expect("read the plugin");
    let of = |number| format!("{}-version-{number}", language.name.to_lowercase());
    let (first, wanted) = (of(1), of(number));
    let starts: Vec<usize> =
        (0..bytes.len() - first.len()).filter(|start| bytes[*start..].starts_with(first.as_bytes())).collect();
    assert!(!starts.is_empty(), "{first} is in the component");
    for start in starts {
        bytes[start..start + wanted.len()].copy_from_slice(wanted.as_bytes());
    }
    Release::of(&wanted, bytes)
}

#[test]
fn from_version_to_version_and_from_language_to_language_nothing_is_lost() {
    let versions: Vec<Release> =
        LANGUAGES.iter().flat_map(|language| [version(language, 1), version(language, 2)]).collect();
    // Compiled before, so that the traffic need not last for a minute.
    let folder = tempfile::tempdir().expect("make a folder");
    for version in &versions {
        let file = folder.path().join(&version.name);
        version.write_to(&file);
        assert_eq!(Launch::subcommand("check").words(&[path_text(&file)]).run().code, Some(0), "{}", version.name);
    }
    let mut flow = Flow::start(&versions[0]);
    for version in &versions[1..] {
        flow.change_to(version);
    }
    let names: Vec<&str> = versions.iter().map(|version| version.name.as_str()).collect();
    flow.finish_with_turns(&names);
}
