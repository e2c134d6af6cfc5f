//! Components of every released version of the contract, built from source against the kept files, run on this host.

use serde_json::json;

use crate::support::guests::contract_0_1_0;
use crate::support::host::Launch;
use crate::support::records::OUTPUT;
use crate::support::{Host, Publisher, Redis, message, wait_until};

#[test]
fn a_component_of_contract_0_1_0_works_in_every_way_that_its_contract_has() {
    let redis = Redis::start();
    let launch = Host::on(&redis).arg("--plugin", contract_0_1_0()).arg("--plugin-config", "greeting=hello");
    let host = launch.arg("--max-attempts", "2").arg("--retry-delay", "1ms").ready(&redis, 2);
    let words = ["echo", "emit-all", "drop", "retry", "reject", "fail", "log", "config"];
    Publisher::new(&redis).publish_all(words.map(|word| message(word, json!({"do": word}))));

    assert_eq!(redis.result_of("echo").text("do"), "echo");
    assert_eq!(redis.result_of("retry").text("attempt"), "2");
    assert_eq!(redis.result_of("config").text("greeting"), "hello");
    let rejected = redis.dead_letter_of("reject");
    assert_eq!((rejected.text("reason"), rejected.text("attempts")), ("plugin-rejected", "1"));
    assert!(rejected.text("error").contains("reject is not wanted"), "{rejected:?}");
    let failed = redis.dead_letter_of("fail");
    assert_eq!((failed.text("reason"), failed.text("attempts")), ("plugin-failed", "2"));
    assert!(failed.text("error").contains("fail cannot be done"), "{failed:?}");
    redis.result_of("log");
    host.wait_for_log("a line about log");
    wait_until("both results", || redis.results_of("emit-all").len() == 2);
    redis.wait_for_an_empty_inbox();
    let numbers: Vec<String> = redis.results_of("emit-all").iter().map(|entry| entry.text("n").to_owned()).collect();
    assert_eq!(numbers, ["1", "2"]);
    assert_eq!((redis.length(OUTPUT), redis.dead_letters().len()), (6, 2), "and nothing of the dropped one");
}

#[test]
fn host_check_accepts_a_component_of_contract_0_1_0() {
    let ended = Launch::subcommand("check").words(&[contract_0_1_0().to_str().unwrap()]).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for part in ["host:plugin/processor@0.1.0", "a host can use it"] {
        assert!(ended.stdout.contains(part), "no {part:?} in {}", ended.stdout);
    }
}

#[test]
fn a_plugin_learns_where_and_when_its_message_was_taken_in_also_at_a_later_attempt() {
    // Hosts know the clock of Redis to within the round trip of a heartbeat, and the delay is much longer.
    const TOLERANCE_MS: u64 = 1_000;
    const DELAY_MS: u64 = 3_000;
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--channel", "orders").consumers(1).start();
    host.wait_for_log("the intake is active");
    let now = || -> u64 {
        let (seconds, micros): (u64, u64) = redis.command("TIME");
        seconds * 1_000 + micros / 1_000
    };
    let before = now();
    let first = message("first", json!({"do": "context"}));
    let second = message("second", json!({"do": "context", "attempt": 2, "delay_ms": DELAY_MS}));
    for body in [first, second] {
        let heard: usize = redis.run(redis::cmd("PUBLISH").arg("orders").arg(body));
        assert_eq!(heard, 1, "the host is subscribed");
    }
    for (id, delay_ms) in [("first", 0), ("second", DELAY_MS)] {
        let entry = redis.result_of(id);
        let received: u64 = entry.text("received_ms").parse().unwrap();
        let times = before - TOLERANCE_MS..=now() - delay_ms + TOLERANCE_MS;
        assert!(times.contains(&received), "{id}: {received} is not in {times:?}");
        assert_eq!((entry.text("channel"), entry.text("generation")), ("orders", "1"));
        assert_eq!(entry.text("consumer"), entry.text("consumer_id"));
    }
}
