//! The tools for authors of plugins, `host check` and `host test`: their output and their exit codes.
//! No Redis runs here, and the address that the tools are given is closed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::guests::{unknown_import, wrong_world};
use crate::support::host::Ended;
use crate::support::redis::free_port;
use crate::support::{enrich, puppet, repository};

/// Compiled plugins are shared with the other tests, and kept apart from the user's.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");

/// One call of the binary. Output goes to files, so that a full pipe blocks nothing.
struct Call {
    arguments: Vec<String>,
    input: Option<String>,
}

fn call(arguments: &[&str]) -> Call {
    Call { arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(), input: None }
}

impl Call {
    fn input(self, input: &str) -> Call {
        Call { input: Some(input.to_owned()), ..self }
    }

    /// Runs the command to its end, in an environment without a reachable Redis.
    fn run(self) -> Ended {
        let mut child = Command::new(env!("CARGO_BIN_EXE_host"))
            .args(&self.arguments)
            .env_clear()
            .env("XDG_CACHE_HOME", CACHE)
            .env("HOST_REDIS", format!("redis://127.0.0.1:{}", free_port()))
            .current_dir(repository())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the binary");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A command that does not read its standard input may close it.
        let _ = stdin.write_all(self.input.unwrap_or_default().as_bytes());
        drop(stdin);
        let output = child.wait_with_output().expect("wait for the binary");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// `host test` with the puppet, a file of cases and further arguments.
fn test_puppet(cases: &Path, more: &[&str]) -> Ended {
    let (plugin, cases) = (puppet(), cases.display().to_string());
    let mut arguments = vec!["test", plugin.to_str().unwrap(), &cases];
    arguments.extend(more);
    call(&arguments).run()
}

/// A folder with this text as `cases.jsonl`.
fn cases(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("make a folder");
    let path = folder.path().join("cases.jsonl");
    fs::write(&path, text).expect("write the cases");
    (folder, path)
}

#[track_caller]
fn expect(ended: &Ended, code: i32, stdout: &[&str], stderr: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
    for (text, words) in [(&ended.stdout, stdout), (&ended.stderr, stderr)] {
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
        assert!(!text.contains("panicked at host"), "{text}");
        assert!(!text.contains('\x1b'), "colours belong on a terminal: {text}");
    }
}

#[test]
fn a_good_plugin_is_told_about_and_can_be_used() {
    let plugin = enrich();
    let plugin = plugin.to_str().unwrap();
    let ended = call(&["check", plugin]).run();
    let lines =
        ["a host can use it", "host:plugin/processor@1.0.0", "wasi:random/random@", "granted", "empty: no variables"];
    expect(&ended, 0, &lines, &[]);
    assert_eq!(ended.stderr, "");

    let ended = call(&["check", "--json", plugin, "--max-plugin-memory", "100MiB"]).run();
    expect(&ended, 0, &[], &[]);
    let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
    let bytes = fs::read(plugin).unwrap();
    assert_eq!(facts["usable"], true);
    assert_eq!(facts["bytes"], bytes.len());
    assert_eq!(facts["digest"].as_str().map(str::len), Some(64));
    assert_eq!(facts["contract"], "host:plugin/processor@1.0.0");
    assert_eq!(facts["memory_limit_bytes"], 100 << 20);
    assert_eq!(facts["problems"], Value::Array(vec![]));
    assert!(facts["memory_bytes"].as_u64().is_some_and(|bytes| bytes >= 64 << 10), "{facts}");
    assert_eq!(facts["pooled"], true);
    assert!(facts["compile_ms"].is_number() && facts["start_ms"].is_number(), "{facts}");
    let imports = facts["imports"].as_array().expect("a list of imports");
    let of = |name: &str| imports.iter().find(|import| import["name"].as_str().unwrap().starts_with(name)).unwrap();
    assert_eq!(of("wasi:random/random@")["grant"], "granted");
    assert_eq!(of("wasi:cli/environment@")["grant"], "empty");
}

#[test]
fn the_language_of_a_plugin_is_read_from_it() {
    for plugin in [enrich(), puppet(), unknown_import(), wrong_world()] {
        let ended = call(&["check", plugin.to_str().unwrap(), "--json"]).run();
        let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
        assert_eq!((&facts["language"], &facts["toolchain"]), (&"Rust".into(), &"rustc".into()), "{facts}");
    }
    // A component out of text has no traces of a toolchain, and nothing is said of it.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plugin.wasm");
    fs::write(&file, wat::parse_str("(component (core module (memory 1)))").unwrap()).unwrap();
    let file = file.to_str().unwrap();
    let ended = call(&["check", file, "--json"]).run();
    let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
    assert_eq!((&facts["language"], &facts["toolchain"]), (&Value::Null, &Value::Null));
    let text = call(&["check", file]).run().stdout;
    assert!(!text.contains("language") && !text.contains("made by"), "{text}");
}

#[test]
fn what_is_missing_is_named_and_the_exit_code_is_for_scripts() {
    let plugin = unknown_import();
    let ended = call(&["check", plugin.to_str().unwrap()]).run();
    expect(&ended, 4, &["a host cannot use it", "MISSING"], &["example:thing/api"]);
    let missing: Vec<&str> = ended.stdout.lines().filter(|line| line.ends_with("MISSING")).collect();
    assert!(missing.len() == 1 && missing[0].contains("example:thing/api"), "{missing:?}");

    let plugin = wrong_world();
    let ended = call(&["check", plugin.to_str().unwrap(), "--json"]).run();
    expect(&ended, 4, &[], &["host:plugin/processor", "wit/"]);
    let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
    assert_eq!((&facts["usable"], &facts["contract"], &facts["start_ms"]), (&false.into(), &Value::Null, &Value::Null));
    assert!(facts["problems"][0].as_str().unwrap().contains("host:plugin/processor"), "{facts}");
}

#[test]
fn what_is_no_component_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("core.wasm");
    fs::write(&file, b"\0asm\x01\0\0\0").unwrap();
    let file = file.to_str().unwrap();
    let ended = call(&["check", file]).run();
    expect(&ended, 4, &[], &["core module", "wasm32-wasip2"]);
    assert_eq!(ended.stdout, "");
    let ended = call(&["check", "--json", file]).run();
    expect(&ended, 4, &[], &["core module"]);
    let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
    assert_eq!((&facts["usable"], &facts["digest"]), (&false.into(), &Value::Null));
    assert!(facts["problems"][0].as_str().unwrap().contains("core module"), "{facts}");

    expect(&call(&["check", "no/such.wasm"]).run(), 4, &[], &["no/such.wasm"]);
    expect(&call(&["test", "no/such.wasm", "--message", "{}"]).run(), 4, &[], &["no/such.wasm"]);
    expect(&call(&["test", file, "--message", "{}"]).run(), 4, &[], &["core module"]);
}

#[test]
fn a_limit_that_is_too_low_for_the_start_is_a_problem_of_the_plugin() {
    let plugin = puppet();
    let ended = call(&["check", plugin.to_str().unwrap(), "--max-plugin-memory", "64KiB"]).run();
    expect(&ended, 4, &["a host cannot use it"], &["does not start", "65536 bytes of memory"]);
}

#[test]
fn the_cases_of_the_example_pass() {
    let plugin = enrich();
    let ended = call(&["test", plugin.to_str().unwrap(), "plugins/enrich/cases.jsonl"]).run();
    expect(&ended, 0, &["5 passed\n", "time    p50 ", "memory  ", "limit 256.00 MiB"], &[]);
}

/// A case for every kind of expectation. The puppet fulfils all of them.
const ALL_TRUE: &str = r#"
{"name": "exact", "message": {"message_id": "1", "a": 1.0, "b": {"c": [1, 2]}}, "emit": {"b": {"c": [1, 2]}, "a": 1.0}}
{"name": "exact with ids", "message": {"message_id": 7}, "emit": {"message_id": "other", "consumer_id": "x"}}
{"name": "several", "message": {"message_id": "2", "do": "emit-all", "results": ["{\"n\":1}", "{\"n\":2}"]}, "emit": [{"n": 1}, {"n": 2}]}
{"name": "subset", "message": {"message_id": "3", "a": 1, "b": 2}, "emit-subset": {"b": 2}}
{"name": "none", "message": {"message_id": "4", "do": "emit-all", "results": []}, "drop": true}
{"name": "drop", "message": {"message_id": "5", "do": "drop"}, "drop": true}
{"name": "retry", "message": {"message_id": "6", "do": "retry"}, "retry": true}
{"name": "retry later", "message": {"message_id": "7", "do": "retry", "delay_ms": 1500}, "retry": 1500}
{"name": "reject", "message": {"message_id": "8", "do": "reject", "reason": "no price"}, "reject": "price"}
{"name": "fail", "message": {"message_id": "9", "do": "fail", "reason": "no luck"}, "fail": "no luck"}
{"name": "trap", "message": {"message_id": "10", "do": "trap"}, "trap": true}
{"name": "panic", "message": {"message_id": "11", "do": "panic", "reason": "oh dear"}, "trap": "oh dear"}
{"name": "loop", "message": {"message_id": "12", "do": "loop"}, "timeout": true}
{"name": "sleep", "message": {"message_id": "13", "do": "sleep"}, "timeout": "300ms"}
{"name": "memory", "message": {"message_id": "14", "do": "eat-memory"}, "memory": true}
{"name": "nonsense", "message": {"message_id": "15", "do": "raw", "result": "nonsense"}, "bad-result": "not JSON"}
{"name": "list", "message": {"message_id": "16", "do": "raw", "result": "[]"}, "bad-result": "not an object"}
{"name": "too long", "message": {"message_id": "17", "do": "grow", "bytes": 1000000}, "bad-result": true}
{"name": "no json", "raw": "{", "no-message": "not-json"}
{"name": "no object", "message": [1], "no-message": "not-an-object"}
{"name": "attempt", "attempt": 4, "message": {"message_id": "18", "do": "attempt"}, "emit": {"attempt": 4}}
"#;

#[test]
fn everything_that_may_become_of_a_message_can_be_expected() {
    let (_folder, path) = cases(ALL_TRUE);
    let limits = ["--max-plugin-time", "300ms", "--max-plugin-memory", "32MiB", "--max-result-bytes", "64KiB"];
    let ended = test_puppet(&path, &limits);
    expect(&ended, 0, &["21 passed\n", "limit 32.00 MiB", "time    p50 "], &[]);
    // Both end at the limit, in either order.
    assert!(["(line 14 \"loop\")", "(line 15 \"sleep\")"].iter().any(|slowest| ended.stdout.contains(slowest)));
    let ok = ended.stdout.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(ok, 21, "{}", ended.stdout);
}

#[test]
fn what_a_running_host_writes_is_what_is_compared() {
    let (_folder, path) = cases(
        r#"{"name": "text", "message": {"message_id": "1", "do": "raw", "result": "{\"a\":\"\\ud800\"}"}, "emit": {"a": "\ufffd"}}
{"name": "same", "message": {"message_id": "2", "do": "raw", "result": "{\"a\":\"\\ud800\"}"}, "emit": {"a": "\ud800"}}
{"name": "name", "message": {"message_id": "3", "do": "raw", "result": "{\"\\ud800\":1}"}, "emit": {"\ufffd": 1}}
{"name": "value", "message": {"message_id": "4", "do": "raw", "result": "{\"a\":[\"\\ud800\"]}"}, "emit": {"a": ["\uD800"]}}
{"name": "twice", "message": {"message_id": "5", "do": "raw", "result": "{\"a\":1,\"a\":2}"}, "emit": {"a": 2}}
{"name": "id", "message": {"message_id": "\ud800"}, "no-message": "bad-id"}
{"name": "mark", "raw": "\ufeff{}", "no-message": "byte order mark"}
"#,
    );
    let text = format!("\u{feff}{}", fs::read_to_string(&path).unwrap());
    fs::write(&path, text).unwrap();
    expect(&test_puppet(&path, &[]), 0, &["7 passed\n"], &[]);
    let (_folder, path) = cases(
        r#"{"message": {"message_id": "4", "do": "raw", "result": "{\"a\":[\"\\ud800\"]}"}, "emit": {"a": ["\ud801"]}}"#,
    );
    expect(&test_puppet(&path, &[]), 1, &[r#"expected "\ud801""#, r#"got      "\ud800""#], &[]);
}

#[test]
fn limits_come_from_file_and_environment_as_for_a_host() {
    let (folder, path) = cases(r#"{"message": {"message_id": "1", "do": "sleep"}, "timeout": "50ms"}"#);
    let file = folder.path().join("host.toml");
    fs::write(&file, "consumers = 3\nplugin = \"other.wasm\"\n[limits]\ntime_max = \"50ms\"\n").unwrap();
    let file = file.to_str().unwrap();
    expect(&test_puppet(&path, &["--config", file]), 0, &["1 passed"], &[]);
    let (plugin, path) = (puppet(), path.to_str().unwrap().to_owned());
    let plugin = plugin.to_str().unwrap();
    expect(&call(&["--config", file, "test", plugin, &path]).run(), 0, &["1 passed"], &[]);
    expect(&call(&["--max-plugin-time", "50ms", "test", plugin, &path]).run(), 0, &["1 passed"], &[]);
    let ended = call(&["--consumers", "3", "test", plugin, &path]).run();
    expect(&ended, 2, &[], &["`host test` does not use --consumers"]);
    expect(&call(&["--plugin", plugin, "check", plugin]).run(), 2, &[], &["does not use --plugin"]);
}

#[test]
fn a_plugins_configuration_is_handed_over() {
    let (folder, path) = cases(
        r#"{"message": {"message_id": "1", "do": "config", "key": "a"}, "emit": {"value": "of a flag"}}
{"message": {"message_id": "2", "do": "config"}, "emit": {"values": {"a": "of a flag", "b": "7"}}}
{"message": {"message_id": "3", "do": "config", "key": "c"}, "emit": {"value": null}}
"#,
    );
    let file = folder.path().join("host.toml");
    fs::write(&file, "[plugin_config]\na = 'of the file'\nb = 7\n").unwrap();
    let flags = ["--config", file.to_str().unwrap(), "--plugin-config", "a=of a flag"];
    expect(&test_puppet(&path, &flags), 0, &["3 passed"], &[]);
    // Flags work before the command as well; flags behind the command take precedence.
    let (plugin, path) = (puppet(), path.to_str().unwrap().to_owned());
    let arguments =
        ["--plugin-config=a=1", "--plugin-config=b=7", "test", plugin.to_str().unwrap(), &path, "--plugin-config"];
    expect(&call(&[&arguments[..], &["a=of a flag"]].concat()).run(), 0, &["3 passed"], &[]);

    let ended = call(&["check", plugin.to_str().unwrap(), "--plugin-config", "a=1"]).run();
    let line = ended.stdout.lines().find(|line| line.contains("wasi:config/store@0.2.0-rc.1"));
    assert!(line.is_some_and(|line| line.ends_with("granted")), "{}", ended.stdout);
}

#[test]
fn one_instance_works_on_all_messages_until_it_traps() {
    let (_folder, path) = cases(
        "{\"message\": {\"message_id\": \"1\"}, \"emit-subset\": {}}\n\
         {\"message\": {\"message_id\": \"2\", \"do\": \"state\"}, \"emit\": {\"calls\": 2}}\n\
         {\"message\": {\"message_id\": \"3\", \"do\": \"trap\"}, \"trap\": \"unreachable\"}\n\
         {\"message\": {\"message_id\": \"4\", \"do\": \"state\"}, \"emit\": {\"calls\": 1}}\n",
    );
    expect(&test_puppet(&path, &[]), 0, &["4 passed"], &[]);
}

#[test]
fn what_differs_is_shown_property_by_property() {
    let (_folder, path) = cases(
        r#"{"message": {"message_id": "1", "a": 1.0, "o": {"x": [1, 2]}, "more": "é\u001b"}, "emit": {"a": 1, "o": {"x": [1, 3]}, "gone": null}}
{"message": {"message_id": "2", "do": "drop"}, "retry": 5}
{"message": {"message_id": "3", "do": "trap"}, "drop": true}
{"message": {"message_id": "4", "b": 1}, "emit": {"b": 1}}
"#,
    );
    let ended = test_puppet(&path, &[]);
    let differences = [
        "FAILED ",
        "          a\n            expected 1\n            got      1.0\n",
        "          o.x[1]\n            expected 3\n            got      2\n",
        "          gone\n            expected null\n            got      nothing\n",
        "          more\n            expected nothing\n            got      \"é\\u001b\"\n",
        "            expected retry: 5\n            got      drop: true\n",
        "            expected drop: true\n            got      trap: \"the plugin trapped",
        "1 passed, 3 failed\n",
    ];
    expect(&ended, 1, &differences, &["3 of 4 cases failed"]);
}

#[test]
fn blessing_writes_what_came_and_then_everything_passes() {
    let text = r#"{"name": "kept", "message": {"message_id": "1"}, "emit-subset": {}}

{"name": "emit", "emit": {"a": 2}, "message": { "message_id": "2", "a": 1.0 }}
{"name": "new", "message": {"message_id": "3", "do": "reject", "reason": "no \"price\""}}
{"name": "subset", "message": {"message_id": "4", "a": 1, "b": 2}, "emit-subset": {"a": 0}}
{"name": "trap", "message": {"message_id": "5", "do": "trap"}, "drop": true}
{"name": "raw", "raw": "{", "drop": true}
"#;
    let (_folder, path) = cases(text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let unblessed = test_puppet(&path, &[]);
    expect(&unblessed, 2, &[], &["cases.jsonl:4: nothing is expected", "--bless"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), text, "nothing is written without being asked");

    expect(
        &test_puppet(&path, &["--bless"]),
        0,
        &["1 passed, 5 blessed\n", "expected 2\n            got      1.0"],
        &[],
    );
    let blessed = r#"{"name": "kept", "message": {"message_id": "1"}, "emit-subset": {}}

{"name": "emit", "emit": {"a": 1.0}, "message": { "message_id": "2", "a": 1.0 }}
{"name": "new", "message": {"message_id": "3", "do": "reject", "reason": "no \"price\""}, "reject": "no \"price\""}
{"name": "subset", "message": {"message_id": "4", "a": 1, "b": 2}, "emit-subset": {"a": 1}}
{"name": "trap", "message": {"message_id": "5", "do": "trap"}, "trap": true}
{"name": "raw", "raw": "{", "no-message": "not-json"}
"#;
    assert_eq!(fs::read_to_string(&path).unwrap(), blessed);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    expect(&test_puppet(&path, &[]), 0, &["6 passed\n"], &[]);
    expect(&test_puppet(&path, &["--bless"]), 0, &["6 passed\n"], &[]);
    assert_eq!(fs::read_to_string(&path).unwrap(), blessed);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.jsonl");
    expect(&test_puppet(&missing, &[]), 2, &[], &["cannot read the cases", "missing.jsonl"]);
    expect(&test_puppet(folder.path(), &["--bless"]), 2, &[], &["cannot read", folder.path().to_str().unwrap()]);
}

#[test]
fn cases_come_from_the_standard_input_too() {
    let plugin = puppet();
    let plugin = plugin.to_str().unwrap();
    let input = r#"{"message": {"message_id": "1"}, "drop": true}"#;
    let ended = call(&["test", plugin, "-"]).input(input).run();
    expect(&ended, 1, &["expected drop: true\n            got      emit: {}"], &["1 of 1 cases failed"]);
    let ended = call(&["test", plugin, "-"]).input("\n{\"message\": 1}\nx\n").run();
    expect(&ended, 2, &[], &["standard input:2:", "standard input:3: not JSON"]);
    expect(&call(&["test", plugin, "-", "--bless"]).input(input).run(), 2, &[], &["--bless", "standard input"]);
}

#[test]
fn a_bad_file_of_cases_is_refused_with_all_its_lines_and_before_the_plugin() {
    let (_folder, path) =
        cases("{\"message\": {}, \"emitt\": {}}\n\n{\"message\": {}, \"drop\": true}\n{\"drop\": true}\n");
    let ended = call(&["test", "no/such.wasm", path.to_str().unwrap()]).run();
    expect(&ended, 2, &[], &["cases.jsonl:1: unknown property \"emitt\"; did you mean \"emit\"?", "cases.jsonl:4: "]);
    assert_eq!(ended.stdout, "");
    let (_folder, empty) = cases("\n");
    expect(&test_puppet(&empty, &[]), 2, &[], &["has no cases"]);
    let plugin = puppet();
    let plugin = plugin.to_str().unwrap();
    expect(&call(&["test", plugin]).run(), 2, &[], &["<CASES>"]);
    expect(&call(&["test", plugin, "x.jsonl", "--message", "{}"]).run(), 2, &[], &["--message"]);
}

#[test]
fn a_single_message_is_answered_with_its_outcome() {
    let plugin = puppet();
    let single = |message: &str| call(&["test", plugin.to_str().unwrap(), "--message", message]).run();
    for (message, code, outcome) in [
        (r#"{"message_id":"1","a":1.0}"#, 0, "{\"emit\": {\"a\": 1.0}}\n"),
        (r#"{"message_id":"1","do":"drop"}"#, 0, "{\"drop\": true}\n"),
        (r#"{"message_id":"1","do":"retry","delay_ms":7}"#, 0, "{\"retry\": 7}\n"),
        (r#"{"message_id":"1","do":"reject","reason":"no"}"#, 0, "{\"reject\": \"no\"}\n"),
        (r#"{"message_id":"1","do":"fail","reason":"no"}"#, 1, "{\"fail\": \"no\"}\n"),
        (r#"{"message_id":"1","do":"trap"}"#, 1, "{\"trap\": \"the plugin trapped: "),
        (r#"{"message_id":"1","do":"raw","result":"[]"}"#, 1, "{\"bad-result\": "),
        ("{}", 1, "{\"no-message\": \"no-id: "),
    ] {
        let ended = single(message);
        expect(&ended, code, &[outcome], &[]);
        assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
        // The outcome is a case's expectation, ready to be pasted.
        let case = format!("{{\"raw\": {}, {}", Value::from(message), &ended.stdout[1..]);
        let (_folder, path) = cases(&case);
        expect(&test_puppet(&path, &[]), 0, &["1 passed"], &[]);
    }
    expect(
        &single(r#"{"message_id":"1","do":"log","text":"hello there"}"#),
        0,
        &["{\"emit\": "],
        &["hello there", "memory"],
    );
}

#[test]
fn a_reader_that_leaves_early_is_no_failure_and_a_full_disk_is_one() {
    let (_folder, path) = cases(ALL_TRUE);
    let (plugin, path) = (puppet(), path.to_str().unwrap().to_owned());
    let plugin = plugin.to_str().unwrap();
    let message = r#"{"message_id":"1"}"#;
    for arguments in [
        &["check", plugin][..],
        &["check", plugin, "--json"],
        &["test", plugin, &path],
        &["test", plugin, "--message", message],
    ] {
        let run = |stdout: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
            command.args(arguments).env("XDG_CACHE_HOME", CACHE).stdout(stdout);
            let output = command.output().expect("start");
            (output.status.code(), String::from_utf8(output.stderr).expect("output is UTF-8"))
        };
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let (code, stderr) = run(writer.into());
        assert!(code == Some(0) && !stderr.contains("error: "), "{arguments:?}: {stderr}");
        let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("open a full device");
        let (code, stderr) = run(full.into());
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: cannot write to standard output: "), "{arguments:?}: {stderr}");
    }
}
