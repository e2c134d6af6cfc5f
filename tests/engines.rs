//! Components that the full engine runs: async functions, WASI 0.3, exceptions and garbage collection. They live and fail as the
//! components of the fast engine do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::guests::wasi_0_3;
use crate::support::host::Launch;
use crate::support::records::{DEAD, OUTPUT};
use crate::support::written::{Written, asynchronous, collecting, throwing};
use crate::support::{Flow, Host, Publisher, Redis, Release, message, repository};

/// What a plugin of the full engine does with a message that has this property.
const LONG: usize = 100;
const LONGER: usize = 200;

fn file(folder: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("plugin.wasm");
    std::fs::write(&path, bytes).expect("write a component");
    path
}

/// The component of a folder in `tests/plugins` that is built by a script of its own, with the tools of an example.
fn scripted(folder: &str) -> Vec<u8> {
    let component = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{folder}.wasm"));
    let mut build = Command::new(repository().join("tests/plugins").join(folder).join("build"));
    let built = build.arg(&component).env("HOST_BINARY", env!("CARGO_BIN_EXE_host")).stdin(Stdio::null()).output();
    let built = built.expect("run the script");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::read(component).expect("read the component")
}

/// What the full engine is needed for, by `host check`.
fn full_engine_for(plugin: &Path) -> Vec<String> {
    let ended = Launch::subcommand("check").words(&[plugin.to_str().unwrap()]).switch("--json").run();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
    let uses = facts["full_engine_for"].as_array().expect("a list");
    uses.iter().map(|what| what.as_str().unwrap().to_owned()).collect()
}

/// A message of more than this many bytes.
fn long(id: &str, bytes: usize) -> String {
    message(id, json!({"filler": "x".repeat(bytes)}))
}

#[test]
fn the_engine_and_what_it_is_for_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (bytes, engine, uses) in [
        (Written::default().build(), "fast", &[] as &[&str]),
        (throwing(), "full", &["exceptions"]),
        (collecting(), "full", &["garbage collection"]),
        (asynchronous(), "full", &["async functions", "WASI 0.3"]),
    ] {
        let plugin = file(&folder, &bytes);
        let check = || Launch::subcommand("check").words(&[plugin.to_str().unwrap()]);
        let ended = check().switch("--json").run();
        assert_eq!(ended.code, Some(0), "{uses:?}: {}{}", ended.stdout, ended.stderr);
        let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
        assert_eq!(facts["engine"], engine, "{facts}");
        for what in uses {
            assert!(facts["full_engine_for"].as_array().unwrap().iter().any(|named| named == what), "{facts}");
        }
        assert_eq!(facts["pooled"], engine == "fast", "{facts}");
        let text = check().run().stdout;
        assert_eq!(text.contains("  engine "), engine == "full", "{text}");
        assert!(uses.iter().all(|what| text.contains(what)), "{text}");

        let message = r#"{"message_id":"1","a":1.0}"#;
        let ended = Launch::subcommand("test").words(&[plugin.to_str().unwrap(), "--message", message]).run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "{\"emit\": {\"a\": 1.0}}\n"), "{}", ended.stderr);
    }
}

#[test]
fn a_plugin_with_wasi_0_3_finds_what_it_finds_with_0_2() {
    let redis = Redis::start();
    let launch = Host::on(&redis).arg("--plugin", wasi_0_3()).arg("--log-format", "json");
    let host = launch.arg("--max-attempts", "1").arg("--max-plugin-time", "1s").ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    let mut calls = |id: &str| {
        publisher.publish(message(id, json!({})));
        let result = redis.result_of(id);
        // No variables, no arguments, no files.
        assert_eq!((result.text("found"), result.text("printed"), result.text("waited")), ("0", "true", "true"));
        assert!(result.text("seconds").parse::<u64>().unwrap() > 1_700_000_000, "{result:?}");
        (result.text("calls").to_owned(), result.text("random").to_owned())
    };
    let (first, second) = (calls("first"), calls("second"));
    assert_eq!((first.0.as_str(), second.0.as_str()), ("1", "2"));
    assert_ne!(first.1, second.1);
    for (id, reason, words) in [
        ("fail", "plugin-failed", "fails on purpose"),
        ("panic", "plugin-trapped", "panics on purpose"),
        ("wait", "plugin-timed-out", "1s"),
    ] {
        Publisher::new(&redis).publish(message(id, json!({"do": id})));
        let letter = redis.dead_letter_of(id);
        assert_eq!(letter.text("reason"), reason, "{}", letter.text("error"));
        assert!(letter.text("error").contains(words), "{}", letter.text("error"));
        // An error leaves the instance in use; a trap and the limit of time do not.
        assert_eq!(calls(&format!("after-{id}")).0, if id == "fail" { "4" } else { "1" });
    }
    for line in ["begins second", "prints second"] {
        host.wait_for_log(line);
        let log = host.log();
        let line = log.lines().find(|logged| logged.contains(line)).unwrap();
        assert!(line.contains(r#""message_id":"second""#), "{line}");
    }
}

#[test]
fn a_plugin_in_cpp_throws_and_catches_exceptions() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let plugin = file(&folder, &scripted("cpp"));
    assert_eq!(full_engine_for(&plugin), ["exceptions"]);
    let _host = Host::on(&redis).arg("--plugin", plugin).arg("--max-attempts", "1").ready(&redis, 1);
    let expect_caught = |id: &str, destroyed: &str| {
        Publisher::new(&redis).publish(message(id, json!({})));
        let result = redis.result_of(id);
        assert_eq!(result.text("caught"), format!("thrown for {id}"));
        assert_eq!(result.text("destroyed"), destroyed);
    };
    expect_caught("first", "1");
    expect_caught("second", "2");
    Publisher::new(&redis).publish(message("bad", json!({"do": "uncaught"})));
    let letter = redis.dead_letter_of("bad");
    assert_eq!(letter.text("reason"), "plugin-trapped", "{}", letter.text("error"));
    expect_caught("third", "1");
}

#[test]
fn a_plugin_in_javascript_waits_for_promises() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let plugin = file(&folder, &scripted("async-javascript"));
    assert_eq!(full_engine_for(&plugin), ["async functions"]);
    let _host = Host::on(&redis).arg("--plugin", plugin).arg("--max-attempts", "1").ready(&redis, 1);
    for (id, reason, words) in [
        ("reject", "plugin-rejected", "not wanted"),
        ("fail", "plugin-failed", "cannot do that"),
        ("loop", "plugin-timed-out", "1s"),
    ] {
        let mut publisher = Publisher::new(&redis);
        publisher.publish(message(id, json!({"do": id})));
        let letter = redis.dead_letter_of(id);
        assert_eq!(letter.text("reason"), reason, "{}", letter.text("error"));
        assert!(letter.text("error").contains(words), "{}", letter.text("error"));
        let after = format!("after-{id}");
        publisher.publish(message(&after, json!({})));
        assert_eq!(redis.result_of(&after).text("version"), "async");
    }
}

/// Publishes a message that makes this plugin fail between good ones for one consumer; requires the dead letter with this reason,
/// whose error has these words, and all results.
fn expect_failure(plugin: &[u8], bytes: usize, options: &[(&str, &str)], reason: &str, words: &str) {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let launch = Host::on(&redis).arg("--plugin", file(&folder, plugin)).arg("--max-attempts", "1");
    let _host = options.iter().fold(launch, |launch, (name, value)| launch.arg(name, value)).ready(&redis, 1);
    let good = |n: usize| message(&format!("good-{n}"), json!({}));
    let all: Vec<String> = (0..20).map(good).chain([long("bad", bytes)]).chain((20..40).map(good)).collect();
    Publisher::new(&redis).publish_all(&all);
    let letter = redis.dead_letter_of("bad");
    assert_eq!(letter.text("reason"), reason, "{}", letter.text("error"));
    assert!(letter.text("error").contains(words), "{}", letter.text("error"));
    redis.wait_for_settled(41);
    assert_eq!((redis.length(OUTPUT), redis.length(DEAD)), (40, 1));
}

#[test]
fn an_async_call_that_never_ends_is_ended() {
    expect_failure(&asynchronous(), LONGER, &[("--max-plugin-time", "500ms")], "plugin-timed-out", "500ms");
}

#[test]
fn an_async_call_that_traps_hurts_only_its_message() {
    expect_failure(&asynchronous(), LONG, &[], "plugin-trapped", "unreachable");
}

#[test]
fn handles_of_async_functions_are_limited_as_all_others() {
    let hoarding = Written {
        functions: "(core func $new-set (canon waitable-set.new))",
        with: r#"(with "async" (instance (export "new-set" (func $new-set))))"#,
        imports: r#"(import "async" "new-set" (func $new-set (result i32)))"#,
        first: "
            (if (i32.gt_u (local.get $bytes) (i32.const 100)) (then
                (loop $again (drop (call $new-set)) (br $again))))",
        ..Written::default()
    };
    expect_failure(&hoarding.build(), LONG, &[("--max-plugin-handles", "100")], "plugin-trapped", "handle");
}

#[test]
fn an_exception_that_nobody_catches_is_a_trap() {
    expect_failure(&throwing(), LONG, &[], "plugin-trapped", "xception");
}

#[test]
fn a_collected_heap_is_held_to_the_limit_of_memory_and_its_garbage_is_not() {
    // The good messages alone take more.
    let limits = [("--max-plugin-memory", "1MiB"), ("--max-plugin-time", "20s")];
    expect_failure(&collecting(), LONG, &limits, "plugin-memory", "1048576 bytes");
}

#[test]
fn versions_of_different_engines_are_swapped_like_any_others() {
    let fast = Release::new("fast");
    let mut flow = Flow::start(&fast);
    // Results of JavaScript have this name.
    let javascript = scripted("async-javascript");
    let full =
        [("throwing", throwing()), ("collecting", collecting()), ("waiting", asynchronous()), ("async", javascript)];
    for (name, bytes) in full {
        flow.change_to(&Release::of(name, bytes));
        flow.change_to(&fast);
    }
    let (account, host) = flow.finish();
    account.expect_turns(&["fast", "throwing", "fast", "collecting", "fast", "waiting", "fast", "async", "fast"]);
    host.wait_for_report("eight swaps", |report| report["swaps"] == 8 && report["rollbacks"] == 0);
}
