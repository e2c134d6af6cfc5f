//! State of plugins: what messages write takes effect together with their results, exactly once, or never.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use redis::cmd;
use serde_json::{Value, json};

use crate::support::guests::bank;
use crate::support::host::Launch;
use crate::support::records::OUTPUT;
use crate::support::{Host, Publisher, Redis, Signal, expect_each_once, message, wait_until};

const PREFIX: &str = "{messages:processed}:state:";

fn allowed(redis: &Redis, buckets: &str) -> Launch {
    with_plugin(redis, &bank(), buckets)
}

fn with_plugin(redis: &Redis, plugin: &Path, buckets: &str) -> Launch {
    Host::on(redis).arg("--plugin", plugin).arg("--allow-keyvalue", buckets)
}

/// The value of a key in the bucket `accounts`.
fn value(redis: &Redis, key: &str) -> Option<String> {
    redis.run(cmd("GET").arg(format!("{PREFIX}accounts:{key}")))
}

fn state_keys(redis: &Redis) -> Vec<String> {
    let mut keys: Vec<String> = redis.run(cmd("KEYS").arg(format!("{PREFIX}*")));
    keys.sort();
    keys
}

/// What the plugin has got for the calls of this message.
fn answers(redis: &Redis, id: &str) -> Value {
    serde_json::from_str(redis.result_of(id).text("answers")).expect("answers")
}

fn publish_and_wait(redis: &Redis, id: &str, order: Value) -> Value {
    Publisher::new(redis).publish(message(id, order));
    wait_until("a result", || !redis.results_of(id).is_empty());
    answers(redis, id)
}

#[test]
fn a_message_sees_what_it_has_written_and_the_next_one_as_well() {
    let redis = Redis::start();
    let _host = allowed(&redis, "accounts").ready(&redis, 1);
    let calls = json!([
        ["get", "a"],
        ["set", "a", "1"],
        ["get", "a"],
        ["add", "a", 4],
        ["get", "a"],
        ["exists", "a"],
        ["delete", "a"],
        ["get", "a"],
        ["set-many", ["b", "c"], "7"],
        ["get-many", ["c", "x", "b"]],
        ["delete-many", ["c", "x"]],
        ["list"],
        ["add", "n", -3],
        ["swap", "s", "one", "two"],
        ["get", "s"],
    ]);
    let seen = publish_and_wait(&redis, "m-1", json!({"calls": calls}));
    let expected = json!([
        null,
        null,
        "1",
        5,
        "5",
        true,
        null,
        null,
        null,
        [["c", "7"], ["x", null], ["b", "7"]],
        null,
        ["b"],
        -3,
        ["one", true],
        "two",
    ]);
    assert_eq!(seen, expected);
    let calls = json!([["get", "b"], ["get", "s"], ["add", "n", 1], ["list"], ["exists", "a"]]);
    let seen = publish_and_wait(&redis, "m-2", json!({"calls": calls}));
    assert_eq!(seen, json!(["7", "two", -2, ["b", "n", "s"], false]));
    assert_eq!(state_keys(&redis), ["b", "n", "s"].map(|key| format!("{PREFIX}accounts:{key}")));
}

#[test]
fn the_messages_of_one_delivery_see_each_other() {
    let redis = Redis::start();
    let host = allowed(&redis, "accounts").ready(&redis, 1);
    host.signal(Signal::Stop);
    let ids: Vec<String> = (0..50).map(|n| format!("m-{n}")).collect();
    Publisher::new(&redis)
        .publish_all(ids.iter().map(|id| message(id, json!({"calls": [["add", "n", 1], ["get", "n"]]}))));
    host.signal(Signal::Continue);
    expect_each_once(&redis, ids.iter().cloned());
    let mut counts: Vec<i64> = ids.iter().map(|id| answers(&redis, id)[0].as_i64().expect("a number")).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=50).collect::<Vec<_>>());
    assert_eq!(value(&redis, "n").as_deref(), Some("50"));
}

#[test]
fn what_does_not_succeed_leaves_nothing_behind() {
    let redis = Redis::start();
    let _host = allowed(&redis, "accounts").arg("--max-plugin-time", "300ms").ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    for then in ["retry", "fail", "trap", "reject", "bad-result"] {
        let calls = json!([["add", "n", 1], ["set", then, "x"]]);
        publisher.publish(message(then, json!({"calls": calls, "then": then})));
    }
    publisher.publish(message("slow", json!({"calls": [["set", "slow", "x"], ["wait", 60_000]]})));
    redis.wait_for_settled(6);
    let again = ["fail", "retry", "trap"];
    assert_eq!(state_keys(&redis), ["fail", "n", "retry", "trap"].map(|key| format!("{PREFIX}accounts:{key}")));
    assert_eq!(value(&redis, "n").as_deref(), Some("3"), "once for each of {again:?}, at the second attempt");
}

#[test]
fn transfers_keep_their_sum_while_hosts_are_killed_paused_and_redis_restarts() {
    const ACCOUNTS: usize = 12;
    const TRANSFERS: usize = 4_000;
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    for account in 0..ACCOUNTS {
        let key = format!("{PREFIX}accounts:a-{account}");
        redis.run::<()>(cmd("SET").arg(key).arg(1_000));
    }
    let plugin = redis.folder().join("plugin.wasm");
    let code = fs::read(bank()).expect("read the plugin");
    fs::write(&plugin, &code).expect("write the plugin");
    let launch = |redis: &Redis| {
        with_plugin(redis, &plugin, "accounts")
            .arg("--heartbeat-interval", "200ms")
            .arg("--heartbeat-ttl", "1s")
            .arg("--max-attempts", "50")
    };
    let first = launch(&redis).ready(&redis, 4);
    let mut second = launch(&redis).ready(&redis, 4);
    let transfer = |n: usize| (n * 7 % ACCOUNTS, (n * 5 + 1 + n / 50) % ACCOUNTS, 1 + n % 9);
    let ids: Vec<String> = (0..TRANSFERS).map(|n| format!("t-{n}")).collect();
    let order = |n: usize| {
        let (from, to, amount) = transfer(n);
        let is_own = from == to;
        let calls = json!([
            ["transfer", format!("a-{from}"), format!("a-{}", if is_own { (to + 1) % ACCOUNTS } else { to }), amount],
            ["add", "transfers", 1]
        ]);
        json!({"calls": calls})
    };
    let mut publisher = Publisher::new(&redis);
    publisher.publish_all(ids.iter().enumerate().map(|(n, id)| message(id, order(n))));
    redis.wait_until_received(&ids);
    let progress = |redis: &Redis, more: usize| {
        let goal = (redis.length(OUTPUT) + more).min(TRANSFERS);
        wait_until("more transfers", || redis.length(OUTPUT) >= goal);
    };
    progress(&redis, 300);
    second.kill();
    second = launch(&redis).consumers(4).start();
    progress(&redis, 300);
    first.signal(Signal::Stop);
    progress(&redis, 600);
    first.signal(Signal::Continue);
    // A custom section makes another version of the same code.
    fs::write(redis.folder().join("new"), [&code[..], &[0, 3, 2, b'v', b'2']].concat()).expect("write a new version");
    fs::rename(redis.folder().join("new"), &plugin).expect("rename the new version");
    first.wait_for_log("a new version of the plugin is in use");
    progress(&redis, 300);
    redis.kill();
    redis.restart();
    expect_each_once(&redis, ids);
    let mut expected: HashMap<String, i64> = (0..ACCOUNTS).map(|account| (format!("a-{account}"), 1_000)).collect();
    for n in 0..TRANSFERS {
        let calls = &order(n)["calls"][0];
        let (from, to, amount) = (calls[1].as_str(), calls[2].as_str(), calls[3].as_i64());
        *expected.get_mut(from.expect("an account")).expect("an account") -= amount.expect("an amount");
        *expected.get_mut(to.expect("an account")).expect("an account") += amount.expect("an amount");
    }
    for (account, balance) in &expected {
        assert_eq!(value(&redis, account), Some(balance.to_string()), "{account}");
    }
    assert_eq!(value(&redis, "transfers"), Some(TRANSFERS.to_string()));
    drop((first, second));
}

#[test]
fn messages_that_read_the_same_key_are_processed_again_and_counters_are_not() {
    let redis = Redis::start();
    let launch = || allowed(&redis, "accounts").arg("--log-format", "json").arg("--report-interval", "100ms");
    let hosts = [launch().ready(&redis, 4), launch().ready(&redis, 4)];
    let conflicts = || {
        hosts
            .iter()
            .map(|host| host.reports().last().map_or(0, |line| line["state_conflicts"].as_u64().expect("a count")))
            .sum::<u64>()
    };
    let mut publisher = Publisher::new(&redis);
    let counted: Vec<String> = (0..2_000).map(|n| format!("c-{n}")).collect();
    publisher.publish_all(counted.iter().map(|id| message(id, json!({"calls": [["add", "hot", 1]]}))));
    redis.wait_for_settled(2_000);
    assert_eq!(value(&redis, "hot").as_deref(), Some("2000"));
    assert_eq!(conflicts(), 0, "counters that nobody reads do not conflict");
    // Each waits between its read and its write, so that others come in between.
    let read: Vec<String> = (0..60).map(|n| format!("r-{n}")).collect();
    publisher.publish_all(
        read.iter().map(|id| message(id, json!({"calls": [["get", "hot"], ["wait", 5], ["add", "hot", 1]]}))),
    );
    expect_each_once(&redis, counted.into_iter().chain(read));
    assert_eq!(value(&redis, "hot").as_deref(), Some("2060"));
    wait_until("conflicts in the report", || conflicts() > 0);
    assert_eq!(redis.dead_letters().len(), 0, "no attempt was counted");
}

#[test]
fn a_bucket_that_is_not_granted_is_denied_and_the_log_says_how_to_grant_it() {
    let redis = Redis::start();
    let host = allowed(&redis, "other,accounts=1h").ready(&redis, 1);
    let seen = publish_and_wait(
        &redis,
        "m-1",
        json!({"calls": [["open", "secrets"], ["open", "accounts"], ["set", "k", "v"]]}),
    );
    assert_eq!(seen, json!(["access denied", "opened", null]));
    host.wait_for_log("--allow-keyvalue secrets");
    let ttl: i64 = redis.run(cmd("PTTL").arg(format!("{PREFIX}accounts:k")));
    assert!((3_000_000..=3_600_000).contains(&ttl), "{ttl}");
    drop(host);
    let _bare = Host::on(&redis).arg("--plugin", bank()).ready(&redis, 1);
    Publisher::new(&redis).publish(message("m-2", json!({"calls": []})));
    wait_until("a result", || !redis.results_of("m-2").is_empty());
    assert_eq!(redis.result_of("m-2").text("error"), "access denied");
}

#[test]
fn no_key_leaves_its_bucket_and_floods_and_long_values_are_refused() {
    let redis = Redis::start();
    redis.run::<()>(cmd("SET").arg("secret").arg("of the operator"));
    let _host = allowed(&redis, "accounts,other").ready(&redis, 1);
    let hostile = ["../other:x", ":", "}{messages:processed}:inbox", "*", "\u{0}", "a\r\nSET b c", "other:y", "%s"];
    let sets: Vec<Value> =
        hostile.iter().map(|key| json!(["set", key, "x"])).chain([json!(["get", "secret"]), json!(["list"])]).collect();
    let seen = publish_and_wait(&redis, "m-1", json!({"calls": sets}));
    let mut expected = hostile.to_vec();
    expected.sort_unstable();
    assert_eq!((&seen[8], &seen[9]), (&Value::Null, &json!(expected)));
    let mut keys: Vec<String> = hostile.iter().map(|key| format!("{PREFIX}accounts:{key}")).collect();
    keys.sort();
    assert_eq!(state_keys(&redis), keys, "nothing in the other bucket");
    let seen = publish_and_wait(&redis, "m-2", json!({"bucket": "other", "calls": [["list"]]}));
    assert_eq!(seen, json!([[]]));
    let calls = json!([
        ["set-long", "a", 131_073],
        ["long-key", 1_025],
        ["set", "", "x"],
        ["set", "word", "x"],
        ["add", "word", 1],
        ["add", "n", 1_000_000_000_000_000_000_i64],
        ["flood", 3_000, 200]
    ]);
    let seen = publish_and_wait(&redis, "m-3", json!({"bucket": "other", "calls": calls}));
    for (at, words) in [
        (0, "may have 131072"),
        (1, "may have 1024"),
        (2, "must not be empty"),
        (4, "no number"),
        (5, "too much"),
        (6, "2048 times"),
    ] {
        let sentence = seen[at]["error"].as_str().or(seen[at].as_str()).unwrap_or_default();
        assert!(sentence.contains(words), "{at}: {seen}");
    }
    let keys: Vec<String> = redis.run(cmd("KEYS").arg(format!("{PREFIX}other:flood-*")));
    assert!(keys.len() <= 128, "{}", keys.len());
}

#[test]
fn operators_read_and_write_state() {
    let redis = Redis::start();
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_host"))
            .arg("state")
            .args(words)
            .args(["--redis", &redis.url()])
            .output()
            .expect("run host");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(run(&["set", "accounts", "a", "5"]).0, Some(0));
    assert_eq!(run(&["set", "accounts", "b c", "x", "--ttl", "1h"]).0, Some(0));
    redis.run::<()>(cmd("SET").arg(format!("{PREFIX}accounts:raw")).arg(&[0xff_u8, 0][..]));
    assert_eq!(run(&["get", "accounts", "a"]), (Some(0), "5".to_owned(), String::new()));
    let (code, _, error) = run(&["get", "accounts", "none"]);
    assert!(code == Some(1) && error.contains("no value"), "{error}");
    assert_eq!(run(&["get", "a:b", "c"]).0, Some(2));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&run(&["list", "accounts"]).1), ["\"a\"", "\"b c\"", "\"raw\""]);
    let exported = run(&["export", "accounts"]).1;
    let lines = sorted(&exported);
    assert_eq!((&*lines[0], &*lines[2]), (r#"{"key":"a","value":"5"}"#, r#"{"key":"raw","value_hex":"ff00"}"#));
    assert!(lines[1].starts_with(r#"{"key":"b c","value":"x","ttl_ms":"#), "{exported}");
    let import = |text: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_host"))
            .args(["state", "import", "copies", "--redis", &redis.url()])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run host");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write the lines");
        let output = child.wait_with_output().expect("the end");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(import(&exported), (Some(0), "imported 3 keys\n".to_owned()));
    assert_eq!(sorted(&run(&["list", "copies"]).1), sorted(&run(&["list", "accounts"]).1));
    let raw: Vec<u8> = redis.run(cmd("GET").arg(format!("{PREFIX}copies:raw")));
    assert_eq!(raw, [0xff, 0]);
    let (code, error) = import("{\"key\":\"z\",\"value\":\"1\"}\n{\"key\":\"y\"}\n");
    assert!(code == Some(1) && error.contains("line 2") && error.contains("1 keys were imported"), "{error}");
}

#[test]
fn a_plugin_with_state_is_tried_without_redis() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = folder.path().join("cases.jsonl");
    let case = |n: u32, calls: Value, answers: Value| {
        json!({"message": {"message_id": n.to_string(), "calls": calls}, "emit": {"answers": answers}}).to_string()
            + "\n"
    };
    let text = case(1, json!([["add", "n", 2], ["get", "n"]]), json!([2, "2"]))
        + &json!({"message": {"message_id": "2", "calls": [["add", "n", 5]], "then": "fail"}, "fail": true})
            .to_string()
        + "\n"
        + &case(3, json!([["get", "n"], ["list"]]), json!(["2", ["n"]]));
    fs::write(&cases, text).expect("write the cases");
    let run = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_host")).args(words).arg(bank()).output().expect("run host");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let tested = Command::new(env!("CARGO_BIN_EXE_host"))
        .args(["test", "--allow-keyvalue", "accounts"])
        .arg(bank())
        .arg(&cases)
        .output()
        .expect("run");
    assert!(tested.status.success(), "{}", String::from_utf8_lossy(&tested.stdout));
    let (code, text) = run(&["check"]);
    assert!(code == Some(0) && text.contains("[allow] keyvalue = [\"NAME\"]"), "{text}");
    let (code, text) = run(&["check", "--allow-keyvalue", "accounts"]);
    assert!(code == Some(0) && !text.contains("access is denied"), "{text}");
}
