//! Bursts: Redis sends faster than usual.

use redis::cmd;
use serde_json::json;

use crate::support::{BOUND, Host, Publisher, Redis, Signal, enrich, expect_each_once, message, wait_for};

#[test]
fn a_burst_of_400_000_messages_is_received_whole_under_the_limits_of_a_stock_redis() {
    // Debian's redis.conf: snapshots, and subscribers are cut off at 32 MB of backlog.
    let limits = "pubsub 32mb 8mb 60";
    let redis = Redis::start_with(&["--save", "3600 1 300 100 60 10000", "--client-output-buffer-limit", limits]);
    let (_, in_use): (String, String) = redis.run(cmd("CONFIG").arg("GET").arg("client-output-buffer-limit"));
    assert!(in_use.contains("pubsub 33554432 8388608 60"), "{in_use}");

    let _host = Host::on(&redis).arg("--plugin", enrich()).ready(&redis, 10);
    let ids: Vec<String> = (0..400_000).map(|n| format!("0d5a2a5c-0000-4000-8000-{n:012}")).collect();
    let payloads: Vec<String> = ids.iter().map(|id| message(id, json!({"random_number": 12_345}))).collect();
    assert_eq!(Publisher::new(&redis).publish_all(payloads), 1, "the host stays subscribed during the burst");
    expect_each_once(&redis, ids);
}

#[test]
fn a_backlog_that_comes_near_the_limit_of_a_subscriber_is_warned_about() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 1);
    redis.wait_for_a_lease();
    let filler = "x".repeat((1 << 20) - 100);
    let mut round = 0;
    wait_for("a warning", BOUND, || {
        // What the host finds when it continues was published before its next mark.
        host.signal(Signal::Stop);
        round += 1;
        let ids = (0..28).map(|n| format!("backlog-{round}-{n}"));
        Publisher::new(&redis).publish_all(ids.map(|id| message(&id, json!({"filler": filler}))));
        host.signal(Signal::Continue);
        redis.wait_for_settled(28 * round);
        let log = host.log();
        if log.contains("client-output-buffer-limit pubsub") { Ok(()) } else { Err(log) }
    });
    let log = host.log();
    let warning = log.lines().find(|line| line.contains("the subscription lags")).unwrap();
    let bytes = warning.split("backlog_bytes=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!((16 << 20..32 << 20).contains(&bytes.parse::<u64>().unwrap()), "{warning}");
    assert!(warning.contains("hard_bytes=33554432"), "{warning}");
}

#[test]
fn the_largest_messages_arrive_whole() {
    let redis = Redis::start();
    let _hosts = [Host::ready(&redis, 3), Host::ready(&redis, 3)];
    let filler = "x".repeat((1 << 20) - 100);
    let ids: Vec<String> = (0..100).map(|n| format!("large-{n}")).collect();
    let mut publisher = Publisher::new(&redis);
    // Redis disconnects subscribers that are 32 messages behind, and on a busy machine that happens soon.
    for (round, some) in ids.chunks(10).enumerate() {
        publisher.publish_all(some.iter().map(|id| message(id, json!({"filler": filler}))));
        redis.wait_for_settled((round + 1) * 10);
    }
    let output = redis.output();
    assert!(output.iter().all(|entry| entry.text("filler") == filler));
    drop(output);
    expect_each_once(&redis, ids);
}

#[test]
fn the_memory_that_a_burst_took_is_given_back() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 4);
    let before = host.resident_bytes();
    let filler = "x".repeat(1_000);
    let mut publisher = Publisher::new(&redis);
    let ids: Vec<String> = (0..150_000).map(|n| format!("burst-{n}")).collect();
    for (round, some) in ids.chunks(10_000).enumerate() {
        publisher.publish_all(some.iter().map(|id| message(id, json!({"filler": filler}))));
        redis.wait_for_settled((round + 1) * 10_000);
    }
    let after = host.resident_bytes();
    assert!(
        after > before + (100 << 20),
        "covered messages are kept for a while: {before} bytes before, {after} after"
    );
    // Then they are forgotten.
    wait_for("the memory to be given back", BOUND, || {
        let now = host.resident_bytes();
        if now < before + (50 << 20) { Ok(()) } else { Err(format!("{before} bytes before, {after} after, {now} now")) }
    });
}

#[test]
fn large_and_small_messages_do_not_hold_each_other_up() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 4);
    let size = |n: usize| if n.is_multiple_of(100) { 500_000 } else { n % 300 };
    let ids: Vec<String> = (0..5_000).map(|n| format!("mixed-{n}")).collect();
    let payloads = ids.iter().enumerate().map(|(n, id)| message(id, json!({"filler": "x".repeat(size(n))})));
    Publisher::new(&redis).publish_all(payloads);
    expect_each_once(&redis, ids);
}
