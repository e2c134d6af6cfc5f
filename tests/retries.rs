//! A message that fails is tried again later and is given up after a bound, and the promise holds throughout.

use std::collections::{HashMap, HashSet};

use redis::cmd;
use serde_json::json;

use crate::support::host::Launch;
use crate::support::records::{DEAD, GROUP, INBOX, OUTPUT, RETRY};
use crate::support::{BOUND, Entry, Host, Publisher, Redis, Traffic, expect_each_once, message, wait_for};

/// A host with short waits between attempts.
fn hasty(redis: &Redis) -> Launch {
    Host::on(redis).arg("--retry-delay", "10ms").arg("--max-retry-delay", "50ms")
}

/// A host whose death is detected soon.
fn frail(redis: &Redis) -> Launch {
    let launch = hasty(redis).arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "1s");
    launch.arg("--takeover-interval", "50ms").arg("--max-plugin-time", "1h")
}

fn waiting(redis: &Redis) -> usize {
    redis.run(cmd("ZCARD").arg(RETRY))
}

fn wait_until_waiting(redis: &Redis, count: usize) {
    wait_for(&format!("{count} waiting retries"), BOUND, || match waiting(redis) {
        now if now == count => Ok(()),
        now => Err(format!("{now}; {:?}", redis.dead_letters())),
    });
}

/// Server time in milliseconds.
fn now_ms(redis: &Redis) -> u64 {
    let (seconds, micros): (u64, u64) = redis.run(&cmd("TIME"));
    seconds * 1000 + micros / 1000
}

/// Makes all waiting retries due now.
fn make_due(redis: &Redis) {
    let members: Vec<Vec<u8>> = redis.run(cmd("ZRANGE").arg(RETRY).arg(0).arg(-1));
    for member in members {
        redis.run::<usize>(cmd("ZADD").arg(RETRY).arg("XX").arg(0).arg(member));
    }
}

#[test]
fn the_attempt_number_reaches_the_plugin_and_success_at_the_third_gives_one_result() {
    let redis = Redis::start();
    let host = hasty(&redis).arg("--log-format", "json").arg("--report-interval", "100ms").ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("first", json!({"do": "attempt"})));
    assert_eq!(redis.result_of("first").text("attempt"), "1");
    publisher.publish(message("third", json!({"do": "succeed-at", "attempt": 3, "kept": "ü\n"})));
    assert_eq!(redis.result_of("third").text("kept"), "ü\n", "the message is the same at every attempt");
    host.wait_for_report("two retries", |report| report["retries"] == 2 && report["retries_waiting"] == 0);
    expect_each_once(&redis, ["first".into(), "third".into()]);
}

#[test]
fn a_message_that_fails_at_every_attempt_becomes_a_dead_letter_with_everything_known_of_it() {
    let redis = Redis::start();
    let _host = hasty(&redis).arg("--max-attempts", "3").ready(&redis, 2);
    let ids = redis.consumer_ids();
    let before = now_ms(&redis);
    let payload = message("bad", json!({"do": "fail", "reason": "no such customer"}));
    Publisher::new(&redis).publish(&payload);
    let letter = redis.dead_letter_of("bad");
    let names = [
        "message_id",
        "payload",
        "payload_bytes",
        "reason",
        "error",
        "attempts",
        "host_id",
        "consumer_id",
        "plugin_digest",
        "plugin_generation",
        "token",
        "first_seen",
        "time",
        "format",
    ];
    assert_eq!(letter.names(), names);
    assert_eq!(letter.text("payload"), payload);
    assert_eq!((letter.text("reason"), letter.text("attempts")), ("plugin-failed", "3"));
    assert!(letter.text("error").contains("no such customer"));
    assert!(ids.iter().any(|id| id == letter.text("consumer_id")));
    assert_eq!((letter.text("plugin_digest").len(), letter.text("plugin_generation")), (64, "1"));
    // The token begins with the time at which the message was appended, as well as the host knows the server's clock.
    let first_seen: u64 = letter.text("token").split('-').next().unwrap().parse().unwrap();
    assert!(first_seen + 1_000 >= before && first_seen <= now_ms(&redis), "{before} {letter:?}");
    assert!(letter.text("first_seen") <= letter.text("time"), "{letter:?}");
    assert_eq!((redis.length(OUTPUT), waiting(&redis)), (0, 0));
}

#[test]
fn traps_and_limits_are_attempts_and_rejections_and_bad_results_are_not() {
    let redis = Redis::start();
    let _host = hasty(&redis).arg("--max-attempts", "2").arg("--max-plugin-time", "100ms").ready(&redis, 4);
    let cases = [
        ("trap", json!({"do": "trap"}), "plugin-trapped", "2"),
        ("loop", json!({"do": "loop"}), "plugin-timed-out", "2"),
        ("sleep", json!({"do": "sleep"}), "plugin-timed-out", "2"),
        ("fail", json!({"do": "fail"}), "plugin-failed", "2"),
        ("retry", json!({"do": "retry"}), "plugin-retried", "2"),
        ("reject", json!({"do": "reject"}), "plugin-rejected", "1"),
        ("raw", json!({"do": "raw", "result": "[]"}), "bad-result", "1"),
    ];
    for (id, order, _, _) in &cases {
        Publisher::new(&redis).publish(message(id, order.clone()));
    }
    for (id, _, reason, attempts) in cases {
        let letter = redis.dead_letter_of(id);
        assert_eq!((letter.text("reason"), letter.text("attempts")), (reason, attempts), "{id}");
    }
}

#[test]
fn the_delay_that_a_plugin_names_is_kept_within_its_bound() {
    let redis = Redis::start();
    let _host = hasty(&redis).arg("--max-plugin-retry-delay", "2h").ready(&redis, 1);
    let due_in = |id: &str, delay_ms: u64| {
        let before = now_ms(&redis);
        Publisher::new(&redis).publish(message(id, json!({"do": "retry", "delay_ms": delay_ms})));
        wait_until_waiting(&redis, 1);
        let after = now_ms(&redis);
        let members: Vec<(Vec<u8>, u64)> = redis.run(cmd("ZRANGE").arg(RETRY).arg(0).arg(-1).arg("WITHSCORES"));
        redis.run::<usize>(cmd("DEL").arg(RETRY));
        let due = members[0].1;
        // Scheduled at some moment between the two looks at the clock.
        (due.saturating_sub(after), due.saturating_sub(before))
    };
    let hour = 3_600_000;
    let (least, most) = due_in("hour", hour);
    assert!(least <= hour && hour <= most, "{least} {most}");
    let (least, most) = due_in("day", 24 * hour);
    assert!(least <= 2 * hour && 2 * hour <= most, "{least} {most}");
}

#[test]
fn what_waits_blocks_nothing_behind_it_and_comes_when_it_is_due() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let order = json!({"do": "succeed-at", "attempt": 2, "delay_ms": 3_600_000});
    Publisher::new(&redis).publish(message("patient", order));
    wait_until_waiting(&redis, 1);
    let behind: Vec<String> = (0..500).map(|n| format!("m-{n}")).collect();
    Publisher::new(&redis).publish_all(behind.iter().map(|id| message(id, json!({}))));
    expect_each_once(&redis, behind.clone());
    assert_eq!(waiting(&redis), 1);
    make_due(&redis);
    redis.result_of("patient");
    expect_each_once(&redis, behind.into_iter().chain(["patient".into()]));
}

#[test]
fn a_copy_published_while_a_retry_waits_is_a_duplicate_even_after_the_dedup_window() {
    let redis = Redis::start();
    let launch =
        Host::on(&redis).arg("--dedup-window", "1s").arg("--intake-lease", "500ms").arg("--log-format", "json");
    let host = launch.arg("--report-interval", "100ms").ready(&redis, 2);
    let order = json!({"do": "succeed-at", "attempt": 2, "delay_ms": 600_000});
    let payload = message("same", order);
    Publisher::new(&redis).publish(&payload);
    wait_until_waiting(&redis, 1);
    // The claim lasts as long as the message waits, and the window longer.
    let left_ms: u64 = redis.run(cmd("PTTL").arg("{messages:processed}:claim:same"));
    assert!((540_000..=601_000).contains(&left_ms), "{left_ms}");
    Publisher::new(&redis).publish_all([&payload; 3]);
    host.wait_for_report("three duplicates", |report| report["duplicates"] == 3);
    make_due(&redis);
    redis.result_of("same");
    assert_eq!((redis.length(OUTPUT), redis.length(DEAD), waiting(&redis)), (1, 0, 0));
}

#[test]
fn retries_outlive_every_host() {
    let redis = Redis::start();
    let hosts = [Host::ready(&redis, 2), Host::ready(&redis, 2)];
    let ids: Vec<String> = (0..2_000).map(|n| format!("r-{n}")).collect();
    let order = json!({"do": "succeed-at", "attempt": 2, "delay_ms": 3_600_000});
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, order.clone())));
    wait_until_waiting(&redis, ids.len());
    hosts.into_iter().for_each(Host::kill);
    make_due(&redis);
    let _heir = Host::on(&redis).consumers(2).start();
    expect_each_once(&redis, ids);
    assert_eq!(waiting(&redis), 0);
}

#[test]
fn every_message_gives_one_result_while_plugins_fail_at_random_and_hosts_are_killed() {
    let redis = Redis::start();
    let start = || frail(&redis).arg("--intake-lease", "500ms").arg("--max-attempts", "1000").consumers(3).start();
    let mut hosts: Vec<Host> = (0..2).map(|_| start()).collect();
    redis.wait_for_subscribers(2);
    redis.wait_for_a_lease();
    let ids: Vec<String> = (0..6_000).map(|n| format!("c-{n}")).collect();
    let payloads: Vec<String> = ids.iter().map(|id| message(id, json!({"do": "flaky"}))).collect();
    let mut publisher = Publisher::new(&redis);
    for round in 0..6 {
        publisher.publish_all(&payloads[round * 1_000..(round + 1) * 1_000]);
        // Copies of what may be waiting, in work or done.
        publisher.publish_all(payloads[..(round + 1) * 1_000].iter().skip(round).step_by(7));
        redis.wait_until_known(&ids[..(round + 1) * 1_000]);
        hosts.swap_remove(rand::random_range(0..hosts.len())).kill();
        hosts.push(start());
        redis.wait_for_subscribers(2);
    }
    redis.wait_for_settled(ids.len());
    wait_until_waiting(&redis, 0);
    expect_each_once(&redis, ids);
}

#[test]
fn retries_wait_while_redis_is_away_and_traffic_flows_on() {
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let _host = hasty(&redis).ready(&redis, 2);
    let ids: Vec<String> = (0..200).map(|n| format!("r-{n}")).collect();
    let order = json!({"do": "succeed-at", "attempt": 2, "delay_ms": 3_600_000});
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, order.clone())));
    wait_until_waiting(&redis, ids.len());
    redis.kill();
    redis.restart();
    redis.wait_for_subscribers(1);
    make_due(&redis);
    let traffic = Traffic::start(&redis, 500, json!({}));
    traffic.wait_for_more(200);
    expect_each_once(&redis, ids.into_iter().chain(traffic.finish()));
}

#[test]
fn of_messages_with_one_id_in_a_delivery_the_one_that_has_the_claim_counts() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    redis.run::<()>(cmd("SET").arg("{messages:processed}:claim:x").arg("7-0"));
    let body = |from: &str| message("x", json!({"from": from}));
    let (other, own) = (body("other"), body("own"));
    let fields = ["", "2 6-0 0", "x", &other, "", "2 7-0 0", "x", &own, "", "2 7-0 0", "x", &own, "x", &other];
    redis.run::<String>(cmd("XADD").arg(INBOX).arg("*").arg(&fields));
    expect_each_once(&redis, ["x".into()]);
    assert_eq!(redis.result_of("x").text("from"), "own");
}

/// Ids of messages in an entry of the inbox.
fn messages_of(entry: &Entry) -> Vec<&str> {
    entry.names().into_iter().filter(|name| !name.is_empty()).collect()
}

/// Entries handed out and not settled: to whom, and how often.
fn deliveries(redis: &Redis) -> HashMap<String, (String, u64)> {
    type Pending = Vec<(String, String, u64, u64)>;
    let pending: Pending = redis.run(cmd("XPENDING").arg(INBOX).arg(GROUP).arg("-").arg("+").arg(10_000));
    pending.into_iter().map(|(entry, owner, _, count)| (entry, (owner, count))).collect()
}

/// The host in which the killer is where it would kill it: in a consumer's hands. A delivery of several messages counts
/// as soon as it is handed out; a message apart from others waits for its trial, which is marked by a huge count.
fn host_in_danger(redis: &Redis, killer: &str) -> Option<String> {
    let pending = deliveries(redis);
    let inbox = redis.inbox();
    let with_killer = inbox.iter().find(|entry| messages_of(entry).contains(&killer))?;
    let has_history =
        |(name, value): &(String, Vec<u8>)| name.is_empty() && value.contains(&b' ') && !value.starts_with(b"v");
    let is_alone = with_killer.fields.iter().any(has_history);
    let (owner, count) = pending.get(with_killer.id())?;
    (!is_alone || *count > 1_000).then(|| owner.clone())
}

#[test]
fn a_message_that_kills_its_hosts_is_given_up_on_and_its_neighbours_come_through() {
    let redis = Redis::start();
    // A guest cannot kill its host; so the test does it whenever the killer, which never answers, is in work.
    let start = || frail(&redis).consumers(4).start();
    let mut host = start();
    redis.wait_for_subscribers(1);
    redis.wait_for_a_lease();
    let neighbours: Vec<String> = (0..60).map(|n| format!("n-{n}")).collect();
    let mut payloads: Vec<String> = neighbours.iter().map(|id| message(id, json!({"do": "wait", "ms": 1}))).collect();
    payloads.insert(30, message("killer", json!({"do": "sleep"})));
    Publisher::new(&redis).publish_all(&payloads);

    let mut killed = Vec::new();
    loop {
        let in_danger = wait_for("the killer in work or given up", BOUND, || {
            if redis.length(DEAD) > 0 {
                return Ok(None);
            }
            match host_in_danger(&redis, "killer") {
                Some(owner) if !killed.contains(&owner) => Ok(Some(owner)),
                _ => Err(format!("killed {killed:?}; {:?}; {}", deliveries(&redis), host.log())),
            }
        });
        let Some(owner) = in_danger else { break };
        host.kill();
        killed.push(owner);
        assert!(killed.len() <= 5, "it is given up after five deaths");
        host = start();
    }
    assert_eq!(killed.len(), 5);
    let letter = redis.dead_letter_of("killer");
    assert_eq!((letter.text("reason"), letter.text("attempts")), ("host-killer", "1"));
    assert!(letter.text("error").contains("5 hosts"), "{letter:?}");
    redis.wait_for_settled(61);
    let results: Vec<String> = redis.output().iter().map(|entry| entry.text("message_id").to_owned()).collect();
    let different: HashSet<&String> = results.iter().collect();
    assert_eq!((results.len(), different), (60, neighbours.iter().collect()));
}

#[test]
fn messages_of_a_suspect_delivery_give_one_result_each_when_they_survive_their_trials() {
    let redis = Redis::start();
    // What three hosts have died with, as they leave it behind: handed out three times to a host that is no more.
    let start = || frail(&redis).consumers(2).start();
    let host = start();
    redis.wait_for_consumers(2);
    host.stop();
    // A copy in the same delivery must not become a second message when the delivery is split.
    let (a, b) = (message("a", json!({})), message("b", json!({"do": "succeed-at", "attempt": 3})));
    let fields = ["a", &a, "b", &b, "a", &a, "b", &b];
    let entry: String = redis.run(cmd("XADD").arg(INBOX).arg("*").arg(&fields));
    let read = ["GROUP", GROUP, "dead-host", "STREAMS", INBOX, ">"];
    redis.run::<redis::Value>(cmd("XREADGROUP").arg(&read));
    let claim = ["dead-host", "0", &entry, "RETRYCOUNT", "3", "JUSTID"];
    redis.run::<redis::Value>(cmd("XCLAIM").arg(INBOX).arg(GROUP).arg(&claim));
    let host = start();
    expect_each_once(&redis, ["a".into(), "b".into()]);
    assert!(host.log().contains("isolated deliveries"), "{}", host.log());
    // The claim is still the one that the first delivery would have made.
    assert_eq!(redis.run::<String>(cmd("GET").arg("{messages:processed}:claim:b")), entry);
}
