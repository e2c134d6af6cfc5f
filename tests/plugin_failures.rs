//! A plugin that fails in any way: its message becomes a dead letter, and all other messages are processed.

use serde_json::{Value, json};

use crate::support::host::Launch;
use crate::support::records::{DEAD, OUTPUT};
use crate::support::{BOUND, Host, Publisher, Redis, message, puppet, wait_for};

/// Publishes one message that makes the puppet fail among a hundred good ones; requires the dead letter with
/// this reason and a result for each of the others.
fn expect_failure(options: &[(&str, &str)], order: Value, reason: &str) {
    let redis = Redis::start();
    // The last value counts.
    let options = [&[("--max-attempts", "1")], options].concat();
    let launch = options.iter().fold(Host::on(&redis), |launch, (name, value)| launch.arg(name, value));
    let _host = launch.ready(&redis, 2);
    let ids = redis.consumer_ids();

    let bad = message("bad", order);
    let good = |n: usize| message(&format!("good-{n}"), json!({}));
    let all: Vec<String> = (0..50).map(good).chain([bad.clone()]).chain((50..100).map(good)).collect();
    Publisher::new(&redis).publish_all(&all);

    let letter = redis.dead_letter_of("bad");
    assert_eq!(letter.text("reason"), reason, "{}", letter.text("error"));
    assert_eq!(letter.text("payload"), bad);
    assert_eq!(letter.text("payload_bytes"), bad.len().to_string());
    assert_eq!(letter.text("attempts"), "1");
    assert!(ids.iter().any(|id| id == letter.text("consumer_id")), "{letter:?}");
    assert!(letter.text("consumer_id").starts_with(letter.text("host_id")), "{letter:?}");
    assert_eq!(letter.text("plugin_digest").len(), 64, "{letter:?}");
    assert!(!letter.text("error").is_empty() && !letter.text("time").is_empty());

    wait_for("the good messages", BOUND, || match redis.length(OUTPUT) {
        100 => Ok(()),
        results => Err(format!("{results} results")),
    });
    redis.wait_for_an_empty_inbox();
    assert_eq!(redis.length(DEAD), 1);
    // The consumer that failed continues, with a fresh instance if necessary.
    Publisher::new(&redis).publish_all((100..200).map(good));
    redis.wait_for_settled(201);
    assert_eq!((redis.length(OUTPUT), redis.length(DEAD)), (200, 1));
}

#[test]
fn a_plugin_that_returns_an_error_is_named_in_the_dead_letter() {
    expect_failure(&[], json!({"do": "fail", "reason": "no such customer"}), "plugin-failed");
}

#[test]
fn the_plugins_own_words_stand_in_the_dead_letter() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    for action in ["fail", "reject"] {
        publisher.publish(message(action, json!({"do": action, "reason": "Füße: no \"such\" thing"})));
        let error = redis.dead_letter_of(action).text("error").to_owned();
        assert!(error.contains("Füße: no \"such\" thing"), "{error}");
    }
}

#[test]
fn a_rejected_message_is_a_dead_letter() {
    expect_failure(&[], json!({"do": "reject", "reason": "not for us"}), "plugin-rejected");
}

#[test]
fn a_message_to_be_retried_is_a_dead_letter_when_no_attempt_is_left() {
    expect_failure(&[], json!({"do": "retry"}), "plugin-retried");
}

#[test]
fn a_plugin_that_traps_hurts_only_its_message() {
    expect_failure(&[], json!({"do": "trap"}), "plugin-trapped");
}

#[test]
fn a_plugin_that_panics_hurts_only_its_message() {
    expect_failure(&[], json!({"do": "panic", "reason": "oh no"}), "plugin-trapped");
}

#[test]
fn a_plugin_that_computes_for_ever_is_ended() {
    expect_failure(&[], json!({"do": "loop"}), "plugin-timed-out");
}

#[test]
fn a_plugin_that_sleeps_for_ever_is_ended() {
    expect_failure(&[], json!({"do": "sleep"}), "plugin-timed-out");
}

#[test]
fn a_plugin_that_eats_memory_is_stopped_at_its_limit() {
    let limits = [("--max-plugin-memory", "32MiB"), ("--max-plugin-time", "20s")];
    expect_failure(&limits, json!({"do": "eat-memory"}), "plugin-memory");
}

#[test]
fn a_result_that_is_no_json_is_a_dead_letter() {
    expect_failure(&[], json!({"do": "raw", "result": "{\"a\":"}), "bad-result");
}

#[test]
fn a_result_that_is_no_object_is_a_dead_letter() {
    for result in ["[]", "1", "\"text\"", "null", ""] {
        expect_failure(&[], json!({"do": "raw", "result": result}), "bad-result");
    }
}

#[test]
fn a_result_that_is_too_long_is_a_dead_letter() {
    let limits = [("--max-result-bytes", "10KiB")];
    expect_failure(&limits, json!({"do": "grow", "bytes": 20_000}), "bad-result");
}

#[test]
fn one_wrong_result_among_several_is_a_dead_letter_and_none_is_written() {
    expect_failure(&[], json!({"do": "emit-all", "results": ["{\"n\":1}", "wrong"]}), "bad-result");
}

#[test]
fn text_that_is_not_utf_8_is_a_dead_letter_at_once() {
    // Although attempts are left: another attempt would give the same bytes.
    for place in ["emit", "emit-all", "reject", "fail"] {
        let order = json!({"do": "not-utf-8", "place": place});
        expect_failure(&[("--max-attempts", "5")], order, "bad-result");
    }
}

#[test]
fn a_plugin_that_always_fails_stops_nobody() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 4);
    let order = |n: usize| match n % 4 {
        0 => json!({"do": "trap"}),
        1 => json!({"do": "fail"}),
        2 => json!({"do": "panic"}),
        _ => json!({"do": "reject"}),
    };
    Publisher::new(&redis).publish_all((0..400).map(|n| message(&format!("f-{n}"), order(n))));
    Publisher::new(&redis).publish(message("after", json!({})));
    redis.wait_for_settled(401);
    assert_eq!((redis.length(OUTPUT), redis.length(DEAD)), (1, 400));
}

#[test]
fn instances_live_on_between_messages_and_are_replaced_after_a_trap() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--max-attempts", "1").ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    let mut calls = |id: &str, action: &str| {
        publisher.publish(message(id, json!({"do": action})));
    };
    calls("first", "state");
    calls("second", "state");
    calls("broken", "trap");
    calls("fresh", "state");
    let count = |id: &str| redis.result_of(id).text("calls").to_owned();
    assert_eq!((count("first").as_str(), count("second").as_str(), count("fresh").as_str()), ("1", "2", "1"));
}

/// What `host test` tells of a trap, with this value of RUST_BACKTRACE: the outcome, and the log line with the stack.
fn told_of_a_trap(backtrace: &str) -> (String, String) {
    let plugin = puppet();
    let message = r#"{"message_id":"1","do":"trap"}"#;
    let launch = Launch::subcommand("test").words(&[plugin.to_str().unwrap(), "--message", message]);
    let ended = launch.arg("--log-level", "debug").env("RUST_BACKTRACE", backtrace).run();
    let (_, rest) = ended.stderr.split_once("a call of the plugin ended: ").expect("a log line with the stack");
    // The next line begins with its time.
    let stack = rest.lines().take_while(|line| !line.contains(" DEBUG ")).collect::<Vec<_>>().join("\n");
    (ended.stdout, stack)
}

#[test]
fn a_trap_names_functions_of_the_guest_and_never_those_of_the_host() {
    let (outcome, stack) = told_of_a_trap("0");
    assert!(outcome.starts_with("{\"trap\": ") && outcome.contains("unreachable"), "{outcome}");
    assert!(stack.contains("puppet.wasm!<puppet::Puppet as "), "{stack}");
    for backtrace in ["1", "full"] {
        // To walk and name the host's own stack costs a hundred times as much as the trap.
        assert_eq!(told_of_a_trap(backtrace), (outcome.clone(), stack.clone()), "RUST_BACKTRACE={backtrace}");
    }
}
