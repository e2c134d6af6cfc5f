//! Facts on which the hosts of a group must agree, and the effect of different settings.

use std::collections::HashSet;

use redis::cmd;
use serde_json::json;

use crate::support::host::{Ended, Launch, Signal};
use crate::support::records::{CHANNEL, COVERED, DEAD, GROUP, INBOX, LEASE, MARKS};
use crate::support::{BOUND, Host, Publisher, Redis, expect_each_once, message, wait_for, wait_until};

const DESCRIPTOR: &str = "{messages:processed}:group";

/// A host without any relevant limits except time limits.
fn patient(redis: &Redis) -> Launch {
    Host::on(redis).arg("--max-plugin-time", "1h").arg("--delivery-time", "1ms")
}

/// Ids of messages that a host has fetched and not settled.
fn in_hand(redis: &Redis, owner: &str) -> usize {
    let pending: Vec<(String, String, u64, u64)> =
        redis.run(cmd("XPENDING").arg(INBOX).arg(GROUP).arg("-").arg("+").arg(1_000).arg(owner));
    pending.len()
}

/// The id of the host that is not among these.
fn host_id(redis: &Redis, others: &[String]) -> String {
    let ids = redis.consumer_ids();
    let id = ids.iter().find(|id| !others.contains(id)).expect("a new consumer");
    id.rsplit_once('/').expect("an id has a slash").0.to_owned()
}

#[test]
fn a_host_that_takes_in_another_channel_is_refused_and_told_how_to_separate() {
    let redis = Redis::start();
    let first = Host::ready(&redis, 2);
    let refused = Host::on(&redis).arg("--channel", "orders").consumers(2).start().ended();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    for part in [CHANNEL, "orders", "--output-key", "messages:processed"] {
        assert!(refused.stderr.contains(part), "{part:?} in {}", refused.stderr);
    }
    // A separate group works, and each message goes through the plugin of its own channel.
    let other = Host::on(&redis).arg("--channel", "orders").arg("--output-key", "done").consumers(2).start();
    other.wait_for_log("ready");
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.result_of("m");
    assert_eq!(redis.length("done"), 0);
    other.stop();
    // When the only host of the first group has stopped, the group has no hosts.
    first.stop();
    assert!(!redis.run::<bool>(cmd("EXISTS").arg(DESCRIPTOR)));
    let next = Host::on(&redis).arg("--channel", "orders").consumers(2).start();
    next.wait_for_log("ready");
    next.stop();
}

#[test]
fn of_two_hosts_with_different_channels_that_start_at_the_same_moment_one_runs() {
    let redis = Redis::start();
    let hosts: Vec<Host> = ["one", "two"].map(|channel| Host::on(&redis).arg("--channel", channel).start()).into();
    let refused: Vec<bool> = wait_for("one host that is ready and one that has ended", BOUND, || {
        let logs: Vec<String> = hosts.iter().map(Host::log).collect();
        let (ready, refused): (Vec<bool>, Vec<bool>) =
            logs.iter().map(|log| (log.contains("ready"), log.contains("cannot join the group"))).unzip();
        let count = |all: &[bool]| all.iter().filter(|is| **is).count();
        if count(&ready) == 1 && count(&refused) == 1 { Ok(refused) } else { Err(format!("{logs:?}")) }
    });
    for (host, refused) in hosts.into_iter().zip(refused) {
        let ended: Ended = if refused { host.ended() } else { host.stop() };
        assert_eq!(ended.code, Some(if refused { 2 } else { 0 }), "{}", ended.stderr);
    }
}

#[test]
fn hosts_in_another_database_that_take_in_the_same_channel_are_named() {
    let redis = Redis::start();
    let first = Host::ready(&redis, 1);
    assert!(!first.log().contains("database"), "{}", first.log());
    let second = Host::on(&redis).arg("--redis", format!("{}/3", redis.url())).consumers(1).start();
    second.wait_for_log("a database does not separate Pub/Sub");
    second.wait_for_log("[0]");
}

/// A host with a short window receives messages, and another host with a long window processes them. The window of the
/// first host decides how long the claims are valid.
#[test]
fn a_claim_is_trusted_by_the_window_with_which_it_was_made() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let _intake = patient(&redis).arg("--dedup-window", "1s").arg("--intake-lease", "500ms").ready(&redis, 1);
    redis.wait_for_a_lease();
    let ids = redis.consumer_ids();
    let first = host_id(&redis, &[]);
    // The host has room for one delivery in progress and one waiting.
    for (count, id) in [(1, "busy-1"), (2, "busy-2")] {
        publisher.publish(message(id, json!({"do": "wait", "ms": 5_000})));
        wait_until("a delivery of its own", || in_hand(&redis, &first) == count);
    }
    let _worker = patient(&redis).arg("--dedup-window", "1h").ready(&redis, 1);
    let second = host_id(&redis, &ids);
    publisher.publish(message("busy-3", json!({"do": "wait", "ms": 2_500})));
    wait_until("the second host is at work", || in_hand(&redis, &second) == 1);
    publisher.publish(message("m", json!({})));
    wait_until("the message waits for the second host", || in_hand(&redis, &second) == 2);
    let claim = "{messages:processed}:claim:m";
    wait_until("the claim has ended", || !redis.run::<bool>(cmd("EXISTS").arg(claim)));
    publisher.publish(message("m", json!({})));
    redis.wait_for_settled(4);
    wait_until("an empty inbox", || redis.length(INBOX) == 0);
    expect_each_once(&redis, ["busy-1", "busy-2", "busy-3", "m"].map(str::to_owned));
}

/// Publishes copies of a message until it has its result, and then requires that it is the only one.
fn expect_one_result_among_copies(redis: &Redis, id: &str, payload: &str) {
    let mut publisher = Publisher::new(redis);
    wait_until("the result, among copies", || {
        publisher.publish(payload);
        !redis.results_of(id).is_empty()
    });
    wait_until("an empty inbox", || redis.length(INBOX) == 0);
    assert_eq!(redis.results_of(id).len(), 1);
}

#[test]
fn a_call_that_takes_longer_than_the_dedup_window_still_gives_one_result() {
    let redis = Redis::start();
    let _host = patient(&redis).arg("--dedup-window", "1s").arg("--intake-lease", "500ms").ready(&redis, 4);
    redis.wait_for_a_lease();
    expect_one_result_among_copies(&redis, "slow", &message("slow", json!({"do": "wait", "ms": 3_000})));
}

#[test]
fn a_message_that_begins_late_in_its_window_renews_its_claim() {
    let redis = Redis::start();
    let _host = patient(&redis).arg("--dedup-window", "2s").arg("--intake-lease", "1s").ready(&redis, 1);
    redis.wait_for_a_lease();
    // The first message is processed for more than half of the window, so that the second one begins late in its own
    // window.
    Publisher::new(&redis).publish(message("busy", json!({"do": "wait", "ms": 1_500})));
    wait_until("the host is at work", || redis.length(INBOX) == 1);
    expect_one_result_among_copies(&redis, "late", &message("late", json!({"do": "wait", "ms": 1_500})));
    expect_each_once(&redis, ["busy", "late"].map(str::to_owned));
}

#[test]
fn stops_with_a_message_in_hand_are_no_deaths() {
    let redis = Redis::start();
    let mut seen = HashSet::new();
    for stop in 0..7 {
        let host = patient(&redis).arg("--drain-timeout", "50ms").arg("--takeover-interval", "50ms").ready(&redis, 1);
        if stop == 0 {
            redis.wait_for_a_lease();
            Publisher::new(&redis).publish(message("slow", json!({"do": "wait", "ms": 4_000})));
        }
        let id = host_id(&redis, &[]);
        wait_until("the message is in this host's hands", || in_hand(&redis, &id) == 1);
        assert!(seen.insert(id), "each host has an id of its own");
        let ended = host.stop();
        assert!(ended.stderr.contains("handed deliveries back"), "{}", ended.stderr);
    }
    let host = patient(&redis).arg("--takeover-interval", "50ms").ready(&redis, 1);
    redis.result_of("slow");
    assert_eq!(redis.length(DEAD), 0);
    let log = host.stop().stderr;
    assert!(!log.contains("isolated") && !log.contains("hosts died"), "{log}");
}

#[test]
fn what_spoils_the_keys_of_the_intake_is_named_and_mended() {
    for (key, command) in [(LEASE, "RPUSH"), (MARKS, "SET"), (COVERED, "RPUSH")] {
        let redis = Redis::start();
        let host = Host::ready(&redis, 2);
        redis.wait_for_a_lease();
        Publisher::new(&redis).publish(message("before", json!({})));
        redis.result_of("before");
        let mut spoil = redis::pipe();
        spoil.atomic().cmd("DEL").arg(key).cmd(command).arg(key).arg("not ours");
        spoil.query::<redis::Value>(&mut redis.connect()).expect("DEL and another command");
        host.wait_for_log(&format!("{key} was a"));
        Publisher::new(&redis).publish(message("after", json!({})));
        expect_each_once(&redis, ["before", "after"].map(str::to_owned));
        let aside: Vec<String> = redis.run(cmd("KEYS").arg(format!("{key}:set-aside-*")));
        assert_eq!(aside.len(), 1, "what lay there is kept: {aside:?}");
    }
}

#[test]
fn a_lease_that_nobody_would_let_go_is_named_and_cut() {
    for (value, expiry) in [("somebody", None), ("somebody else", Some(3_600_000)), ("", None)] {
        let redis = Redis::start();
        let mut set = cmd("SET");
        set.arg(LEASE).arg(value);
        if let Some(ms) = expiry {
            set.arg("PX").arg(ms);
        }
        redis.run::<()>(&set);
        let host = Host::ready(&redis, 2);
        Publisher::new(&redis).publish(message("one", json!({})));
        expect_each_once(&redis, ["one".to_owned()]);
        let log = host.log();
        assert_eq!(log.matches("longer than any host holds it").count(), 1, "{log}");
    }
}

#[test]
fn a_lease_stays_with_a_host_that_goes_on_under_another_id() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "1s").ready(&redis, 1);
    redis.wait_for_a_lease();
    let holder = || redis.run::<Option<String>>(cmd("GET").arg(LEASE));
    let former = holder();
    host.signal(Signal::Stop);
    wait_until("a host that counts as dead", || redis.consumer_ids().is_empty());
    host.signal(Signal::Continue);
    host.wait_for_log("it continues with a new id");
    // What a host does that takes the lease before it learns that it has counted as dead.
    wait_until("the lease under the new id", || holder().is_some_and(|id| Some(&id) != former.as_ref()));
    let id = holder();
    redis.run::<()>(cmd("SET").arg(LEASE).arg(&former).arg("PX").arg(60_000));
    wait_until("the lease under the new id again", || holder() == id);
    Publisher::new(&redis).publish(message("one", json!({})));
    expect_each_once(&redis, ["one".to_owned()]);
}

#[test]
fn a_key_of_a_wrong_type_is_named_while_a_host_runs() {
    let registry = ["consumer:ids", "{consumer:ids}:heartbeat", "{consumer:ids}:hosts", DESCRIPTOR];
    let path = ["{messages:processed}:retry", INBOX, DEAD];
    for key in registry.into_iter().chain(path) {
        let redis = Redis::start();
        let host = Host::on(&redis).arg("--heartbeat-interval", "100ms").ready(&redis, 1);
        redis.wait_for_a_lease();
        let mut spoil = redis::pipe();
        spoil.atomic().cmd("DEL").arg(key).cmd("SET").arg(key).arg("not ours");
        wait_for(&format!("a line that names {key}"), BOUND, || {
            spoil.query::<redis::Value>(&mut redis.connect()).expect("DEL and another command");
            Publisher::new(&redis).publish("no message");
            let (log, named) = (host.log(), format!("WRONGTYPE\": {key} "));
            if log.contains(&named) || log.contains(&format!("WRONGTYPE: {key} ")) { Ok(()) } else { Err(log) }
        });
    }
}
