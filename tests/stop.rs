//! An ordered stop loses nothing, leaves the registry, and ends in any case.

use redis::cmd;
use serde_json::json;

use crate::support::records::{HEARTBEAT, INBOX};
use crate::support::{Host, Publisher, Redis, Signal, Traffic, expect_each_once, message, wait_until};

#[test]
fn a_host_stopped_under_load_hands_over_and_loses_nothing() {
    let redis = Redis::start();
    let first = Host::ready(&redis, 4);
    redis.wait_for_a_lease();
    let _second = Host::ready(&redis, 4);
    let ids = redis.consumer_ids();
    let traffic = Traffic::start(&redis, 5_000, json!({}));
    traffic.wait_for_more(10_000);
    // The first one is the active intake.
    first.stop();
    assert_eq!(redis.consumer_ids(), ids[4..], "its ids are off the list, the others are on it");
    traffic.wait_for_more(10_000);
    expect_each_once(&redis, traffic.finish());
}

#[test]
fn the_last_host_takes_in_what_redis_had_sent_it_before_it_ends() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 4);
    let ids: Vec<String> = (0..20_000).map(|n| format!("m-{n}")).collect();
    let fewest = Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({}))));
    host.stop();
    assert_eq!(fewest, 1, "Redis sent every message to the host");
    assert!(redis.consumer_ids().is_empty());
    let _next = Host::ready(&redis, 4);
    expect_each_once(&redis, ids);
}

#[test]
fn ctrl_c_is_a_clean_stop_as_well() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 2);
    let ids: Vec<String> = (0..20).map(|n| format!("m-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({"do": "wait", "ms": 100}))));
    redis.wait_until_received(&ids);
    redis.wait_until_all_is_in_work();
    host.signal(Signal::Interrupt);
    let ended = host.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(redis.consumer_ids().is_empty());
    assert!(redis.pending().is_empty(), "what was in work is settled");
    let _next = Host::ready(&redis, 2);
    expect_each_once(&redis, ids);
}

#[test]
fn what_is_unfinished_after_the_drain_timeout_is_handed_back_at_once() {
    let redis = Redis::start();
    let patient = || Host::on(&redis).arg("--max-plugin-time", "30s").arg("--drain-timeout", "200ms");
    let first = patient().ready(&redis, 1);
    let ids: Vec<String> = (0..3).map(|n| format!("slow-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({"do": "wait", "ms": 3_000}))));
    redis.wait_until_received(&ids);
    wait_until("work in flight", || !redis.pending().is_empty());
    first.stop();
    // Other hosts need not wait for the expiry of a heartbeat: no host owns the deliveries any more.
    let alive: Vec<String> = redis.run(cmd("ZRANGE").arg(HEARTBEAT).arg(0).arg(-1));
    assert!(alive.is_empty(), "the stopped host counts as alive: {alive:?}");
    assert!(redis.length(INBOX) > 0, "what it has not finished is not lost");
    assert!(redis.output().is_empty());
    let _second = patient().ready(&redis, 1);
    expect_each_once(&redis, ids);
}

#[test]
fn a_second_signal_ends_the_host_immediately() {
    for signal in [Signal::Interrupt, Signal::Terminate] {
        let redis = Redis::start();
        let patient = || Host::on(&redis).arg("--max-plugin-time", "1h").arg("--drain-timeout", "1h");
        let host = patient().ready(&redis, 1);
        Publisher::new(&redis).publish(message("sleeper", json!({"do": "sleep"})));
        wait_until("work in flight", || !redis.pending().is_empty());
        host.signal(signal);
        // The host has handled the first signal.
        host.wait_for_log("stopping");
        // Another signal counts as the same one until a second has passed.
        wait_until("the end", || {
            host.log().contains("ended at once") || {
                host.signal(signal);
                false
            }
        });
        let ended = host.ended();
        assert_eq!(ended.code, Some(130), "{signal:?}: {}", ended.stderr);
    }
}

#[test]
fn a_host_can_be_stopped_while_redis_is_away() {
    // From the first sign of life in Redis on, which is in the middle of the start, and later.
    let has_begun = |redis: &Redis| redis.run::<bool>(cmd("EXISTS").arg(INBOX));
    let is_registered = |redis: &Redis| !redis.consumer_ids().is_empty();
    let is_active = |redis: &Redis| redis.lease().is_some();
    for sign in [has_begun, is_registered, is_active] {
        let mut redis = Redis::start();
        let host = Host::on(&redis).arg("--drain-timeout", "1s").start();
        wait_until("the sign", || sign(&redis));
        redis.kill();
        host.signal(Signal::Terminate);
        let ended = host.ended();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
}

#[test]
fn what_a_stop_leaves_behind_is_told_by_the_exit_code() {
    let redis = Redis::start();
    let limited = |drain| Host::on(&redis).arg("--drain-timeout", drain).ready(&redis, 1);
    let alone = limited("1s");
    redis.wait_for_a_lease();
    redis.command::<()>("CONFIG SET maxmemory 1mb");
    Publisher::new(&redis).publish_all((0..3).map(|number| message(&format!("left-{number}"), json!({}))));
    alone.signal(Signal::Terminate);
    let ended = alone.ended();
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    assert!(ended.stderr.contains("3 messages were received and could not be appended"), "{}", ended.stderr);
    redis.command::<()>("CONFIG SET maxmemory 0");

    // Another host has heard them as well.
    let first = limited("1s");
    redis.wait_for_a_lease();
    let _second = limited("10s");
    redis.wait_for_consumers(2);
    redis.command::<()>("CONFIG SET maxmemory 1mb");
    Publisher::new(&redis).publish(message("kept", json!({})));
    assert_eq!(first.stop().code, Some(0));
    redis.command::<()>("CONFIG SET maxmemory 0");
    redis.result_of("kept");
}
