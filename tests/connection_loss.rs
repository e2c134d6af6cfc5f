//! Redis goes away, returns, cuts connections, falls silent or runs full: the host always recovers.

use redis::cmd;
use serde_json::{Value, json};

use crate::support::proxy::Proxy;
use crate::support::records::{DEAD, INBOX, OUTPUT};
use crate::support::{BOUND, Host, Publisher, Redis, Signal, Traffic, expect_each_once, message, wait_for, wait_until};

fn reporting(redis: &Redis, url: String) -> Host {
    let launch = Host::on(redis).arg("--redis", url).arg("--log-format", "json");
    launch.arg("--report-interval", "200ms").ready(redis, 4)
}

fn slow(ids: &[String], ms: u32) -> impl Iterator<Item = String> {
    ids.iter().map(move |id| message(id, json!({"do": "wait", "ms": ms})))
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// Ids of the connections of hosts to Redis: tests themselves come through the Unix socket.
fn connections(redis: &Redis, kind: &str) -> Vec<String> {
    let list: String = redis.run(cmd("CLIENT").arg("LIST").arg("TYPE").arg(kind));
    let of_hosts = list.lines().filter(|line| line.contains(" addr=127.0.0.1:"));
    of_hosts.map(|line| line.split(' ').next().unwrap().trim_start_matches("id=").to_owned()).collect()
}

fn cut(redis: &Redis, kind: &str) -> usize {
    let ids = connections(redis, kind);
    ids.iter().map(|id| redis.run::<usize>(cmd("CLIENT").arg("KILL").arg("ID").arg(id))).sum()
}

#[test]
fn what_was_in_the_inbox_survives_a_restart_of_redis() {
    let mut redis = Redis::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    let host = reporting(&redis, redis.url());
    let before = numbered("before", 400);
    Publisher::new(&redis).publish_all(slow(&before, 10));
    redis.wait_until_received(&before);
    redis.kill();
    redis.restart();
    redis.wait_for_subscribers(1);
    let after = numbered("after", 400);
    Publisher::new(&redis).publish_all(slow(&after, 1));
    expect_each_once(&redis, before.into_iter().chain(after));
    host.wait_for_report("a reconnect", |report| report["reconnects"].as_u64().unwrap() > 0);
    redis.wait_for_consumers(4);
}

#[test]
fn a_host_tries_to_reconnect_for_ever() {
    let mut redis = Redis::start();
    let _host = Host::ready(&redis, 2);
    redis.kill();
    // More attempts than any client library makes by itself, on all connections of the host.
    let closed_door = Proxy::hanging_up(redis.port());
    wait_until("many attempts", || closed_door.accepted() >= 30);
    drop(closed_door);
    redis.restart();
    redis.wait_for_subscribers(1);
    redis.wait_for_consumers(2);
    Publisher::new(&redis).publish(message("after", json!({})));
    redis.result_of("after");
}

#[test]
fn a_cut_subscription_is_renewed_and_the_gap_counted() {
    let redis = Redis::start();
    let host = reporting(&redis, redis.url());
    Publisher::new(&redis).publish(message("before", json!({})));
    redis.result_of("before");
    for round in 1..=3 {
        assert_eq!(cut(&redis, "pubsub"), 1, "the host has one subscription");
        redis.wait_for_subscribers(1);
        let id = format!("after-{round}");
        Publisher::new(&redis).publish(message(&id, json!({})));
        redis.result_of(&id);
    }
    let counted = |report: &Value| report["gaps"] == 3 && report["reconnects"].as_u64().unwrap() >= 3;
    host.wait_for_report("three gaps and reconnects", counted);
}

#[test]
fn nothing_is_lost_when_the_active_host_loses_its_subscription_while_another_stands_by() {
    let redis = Redis::start();
    let first = Host::ready(&redis, 4);
    redis.wait_for_a_lease();
    let mut of_first = connections(&redis, "pubsub").pop().unwrap();
    let second = Host::ready(&redis, 4);
    let mut of_second = connections(&redis, "pubsub").into_iter().find(|id| *id != of_first).unwrap();
    let traffic = Traffic::start(&redis, 10_000, json!({}));
    for round in 0..6 {
        traffic.wait_for_more(5_000);
        // However quickly the host subscribes again: the other one has heard what was published meanwhile.
        let (cut, other) = if round % 2 == 0 { (&mut of_first, &of_second) } else { (&mut of_second, &of_first) };
        assert_eq!(redis.run::<usize>(cmd("CLIENT").arg("KILL").arg("ID").arg(&*cut)), 1);
        redis.wait_for_subscribers(2);
        *cut = connections(&redis, "pubsub").into_iter().find(|id| id != other).unwrap();
    }
    expect_each_once(&redis, traffic.finish());
    drop((first, second));
}

#[test]
fn cut_working_connections_lose_and_double_nothing() {
    let redis = Redis::start();
    let _hosts = [reporting(&redis, redis.url()), reporting(&redis, redis.url())];
    let traffic = Traffic::start(&redis, 2_000, json!({"do": "wait", "ms": 1}));
    for _ in 0..5 {
        traffic.wait_for_more(1_000);
        assert!(cut(&redis, "normal") > 0, "the hosts have working connections");
    }
    traffic.wait_for_more(1_000);
    expect_each_once(&redis, traffic.finish());
    redis.wait_for_consumers(8);
}

/// A host behind a network that delayed its settling of the only message.
fn held_up_while_settling(redis: &Redis, id: &str) -> (Proxy, Host) {
    let proxy = Proxy::start(redis);
    let host = reporting(redis, proxy.url());
    Publisher::new(redis).publish(message(id, json!({"do": "wait", "ms": 500})));
    wait_until("work in flight", || redis.pending().values().sum::<usize>() > 0);
    proxy.hold();
    wait_until("its result on the way", || proxy.holds(id));
    assert_eq!(redis.length(OUTPUT), 0, "nothing came through");
    (proxy, host)
}

/// The delayed bytes arrive; then more messages are processed, so that Redis has read those bytes at the end.
fn expect_nothing_twice(redis: &Redis, proxy: &Proxy, id: &str) {
    proxy.release();
    let more = numbered("more", 100);
    Publisher::new(redis).publish_all(slow(&more, 5));
    expect_each_once(redis, [id.to_owned()].into_iter().chain(more));
}

#[test]
fn a_result_that_reaches_redis_after_another_attempt_is_not_written_twice() {
    let redis = Redis::start();
    let (proxy, _host) = held_up_while_settling(&redis, "late");
    // The host gets no reply from Redis, drops the connection and settles on a new one.
    redis.result_of("late");
    expect_nothing_twice(&redis, &proxy, "late");
}

#[test]
fn a_result_that_reaches_redis_after_its_hosts_death_is_not_written_twice() {
    let redis = Redis::start();
    let (proxy, host) = held_up_while_settling(&redis, "late");
    host.kill();
    let _heir = reporting(&redis, redis.url());
    redis.result_of("late");
    expect_nothing_twice(&redis, &proxy, "late");
}

#[test]
fn silent_connections_are_noticed_and_replaced() {
    let redis = Redis::start();
    let proxy = Proxy::start(&redis);
    let host = reporting(&redis, proxy.url());
    let before = numbered("before", 200);
    Publisher::new(&redis).publish_all(slow(&before, 20));
    redis.wait_until_received(&before);
    proxy.silence();
    // Published until one arrives: the old subscription drops messages that it still gets.
    let mut publisher = Publisher::new(&redis);
    let mut probes = 0;
    wait_until("a probe to come through", || {
        publisher.publish(message(&format!("probe-{probes}"), json!({})));
        probes += 1;
        redis.output().iter().any(|entry| entry.text("message_id").starts_with("probe-"))
    });
    redis.wait_for_an_empty_inbox();
    let results = redis.output();
    for id in &before {
        let count = results.iter().filter(|entry| entry.text("message_id") == id).count();
        assert_eq!(count, 1, "{id} was in the inbox");
    }
    host.wait_for_report("a gap", |report| report["gaps"].as_u64().unwrap() > 0);
}

#[test]
fn a_frozen_redis_costs_nothing_that_was_in_the_inbox() {
    let redis = Redis::start();
    let host = reporting(&redis, redis.url());
    let before = numbered("before", 400);
    Publisher::new(&redis).publish_all(slow(&before, 20));
    redis.wait_until_received(&before);
    redis.signal(Signal::Stop);
    host.wait_for_report("an attempt to reconnect", |report| report["reconnects"].as_u64().unwrap() > 0);
    redis.signal(Signal::Continue);
    redis.wait_for_subscribers(1);
    let after = numbered("after", 100);
    Publisher::new(&redis).publish_all(slow(&after, 1));
    expect_each_once(&redis, before.into_iter().chain(after));
}

#[test]
fn a_host_finds_its_way_back_after_everything_was_deleted() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 4);
    for round in 0..3 {
        let ids = numbered(&format!("round-{round}"), 200);
        Publisher::new(&redis).publish_all(slow(&ids, 5));
        redis.wait_until_received(&ids);
        redis.command::<()>("FLUSHALL");
        let id = format!("after-{round}");
        Publisher::new(&redis).publish(message(&id, json!({})));
        redis.result_of(&id);
        redis.wait_for_consumers(4);
        redis.command::<()>("FLUSHALL");
    }
}

#[test]
fn what_arrives_while_the_inbox_is_no_stream_is_kept() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 4);
    let ids = numbered("m", 200);
    redis.run::<()>(cmd("SET").arg(INBOX).arg("not ours"));
    Publisher::new(&redis).publish_all(slow(&ids, 1));
    host.wait_for_log("could not append to the inbox");
    redis.run::<()>(cmd("DEL").arg(INBOX));
    expect_each_once(&redis, ids);
}

#[test]
fn what_a_full_redis_refuses_is_kept_and_what_cannot_be_kept_is_counted() {
    let redis = Redis::start();
    let limits = Host::on(&redis).arg("--intake-buffer", "64KiB").arg("--max-message-bytes", "4KiB");
    let host = limits.arg("--log-format", "json").arg("--report-interval", "200ms").ready(&redis, 2);
    redis.command::<()>("CONFIG SET maxmemory 1mb");
    let count = 2_000;
    let filler = "x".repeat(200);
    let payloads = (0..count).map(|n| message(&format!("m-{n}"), json!({"filler": filler})));
    assert_eq!(Publisher::new(&redis).publish_all(payloads), 1, "PUBLISH needs no memory");
    host.wait_for_report("shed messages", |report| report["shed"].as_u64().unwrap() > 0);
    redis.command::<()>("CONFIG SET maxmemory 0");
    let shed = wait_for("every message processed or counted as shed", BOUND, || {
        let shed = host.reports().last().map_or(0, |report| report["shed"].as_u64().unwrap());
        let processed = redis.length(OUTPUT) as u64;
        if shed + processed == count { Ok(shed) } else { Err(format!("{processed} processed, {shed} shed")) }
    });
    assert!(shed < count, "the buffer's content is kept");
    assert_eq!(redis.length(DEAD), 0);
    redis.wait_for_consumers(2);
}
