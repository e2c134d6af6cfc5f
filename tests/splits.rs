//! A delivery is split: what is done is settled, and the rest goes back for others. Large deliveries of slow messages follow on
//! quick messages.

use std::collections::{HashMap, HashSet};

use serde_json::json;

use tempfile::tempdir;

use crate::support::flow::IN_USE;
use crate::support::host::Launch;
use crate::support::records::INBOX;
use crate::support::{Host, Publisher, Redis, Release, Signal, Traffic, expect_each_once, message, wait_until};

const SPLIT: &str = "split a delivery";

/// The longest delivery.
const LONGEST: usize = 128;

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

fn host(redis: &Redis) -> Launch {
    Host::on(redis).arg("--log-level", "debug").arg("--max-log-rate", "1000000")
}

/// So many quick messages that a host knows the plugin as quick; returns their ids.
fn publish_quick(redis: &Redis) -> Vec<String> {
    let ids = numbered("quick", 10_000);
    Publisher::new(redis).publish_all(ids.iter().map(|id| message(id, json!({}))));
    redis.wait_for_settled(ids.len());
    ids
}

/// Messages that wait for so long, at once.
fn publish_slow(redis: &Redis, count: usize, ms: u32) -> Vec<String> {
    let ids = numbered("slow", count);
    let wait = |id: &String| message(id, json!({"do": "wait", "ms": ms, "text": format!("done {id};")}));
    Publisher::new(redis).publish_all(ids.iter().map(wait));
    redis.wait_until_received(&ids);
    ids
}

/// Quick messages, and then a delivery of slow ones; returns all ids.
fn publish_quick_and_slow(redis: &Redis) -> Vec<String> {
    let mut ids = publish_quick(redis);
    ids.extend(publish_slow(redis, LONGEST, 200));
    ids
}

/// How many of the slow messages each consumer has done.
fn shares(redis: &Redis) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for entry in redis.output() {
        if entry.text("message_id").starts_with("slow-") {
            *shares.entry(entry.text("consumer_id").to_owned()).or_insert(0) += 1;
        }
    }
    shares
}

#[test]
fn idle_consumers_share_a_delivery_that_takes_too_long() {
    let redis = Redis::start();
    let _host = host(&redis).ready(&redis, 10);
    let ids = publish_quick_and_slow(&redis);
    expect_each_once(&redis, ids);
    let shares = shares(&redis);
    assert_eq!(shares.len(), 10, "{shares:?}");
    assert!(shares.values().all(|share| *share < LONGEST / 4), "{shares:?}");
}

#[test]
fn a_host_that_joins_gets_a_share_of_what_is_in_hand() {
    let redis = Redis::start();
    let first = host(&redis).ready(&redis, 1);
    let ids = publish_quick_and_slow(&redis);
    wait_until("the delivery in hand", || first.log().contains("done slow-0;"));
    let second = host(&redis).ready(&redis, 1);
    expect_each_once(&redis, ids);
    let shares = shares(&redis);
    assert_eq!(shares.len(), 2, "{shares:?}");
    assert!(first.log().contains(SPLIT) && second.log().contains("done slow-"));
}

#[test]
fn the_first_burst_after_a_swap_to_a_slower_version_is_shared() {
    let (quick, slow) = (Release::new("quick"), Release::failing("slow", "slow", 1));
    let (redis, folder) = (Redis::start(), tempdir().unwrap());
    let (plugin, new) = (folder.path().join("plugin.wasm"), folder.path().join("new"));
    quick.write_to(&plugin);
    let host = host(&redis).arg("--plugin", &plugin).ready(&redis, 10);
    let traffic = Traffic::start(&redis, 10_000, json!({}));
    traffic.wait_for_more(20_000);
    slow.write_to(&new);
    let mut ids = traffic.finish();
    redis.wait_for_settled(ids.len());
    std::fs::rename(&new, &plugin).unwrap();
    host.wait_for_log(IN_USE);
    // It takes 3 ms a message, and one delivery could have them all.
    let burst = numbered("slow", LONGEST);
    Publisher::new(&redis).publish_all(burst.iter().map(|id| message(id, json!({}))));
    ids.extend(burst.iter().cloned());
    expect_each_once(&redis, ids);
    assert!(burst.iter().all(|id| redis.result_of(id).text("version") == "slow"));
    let shares = shares(&redis);
    assert!(shares.len() >= 5, "{shares:?}");
}

#[test]
fn what_is_done_when_the_time_to_stop_has_passed_is_not_done_again() {
    let redis = Redis::start();
    let start = || host(&redis).arg("--drain-timeout", "300ms").ready(&redis, 1);
    let first = start();
    let mut ids = publish_quick(&redis);
    let slow = publish_slow(&redis, LONGEST, 50);
    wait_until("a few that are done", || first.log().contains("done slow-3;"));
    let before = first.stop().stderr;
    let settled: HashSet<String> = redis.output().iter().map(|entry| entry.text("message_id").to_owned()).collect();
    let is_done = |log: &str, id: &String| log.contains(&format!("done {id};"));
    let done = slow.iter().filter(|id| is_done(&before, id)).count();
    assert!((4..LONGEST).contains(&done), "{done}");
    assert!(slow.iter().all(|id| settled.contains(id) == is_done(&before, id)), "what is done is settled");
    assert!(redis.pending().values().all(|count| *count == 0) && redis.length(INBOX) > 0, "the rest is back");

    let second = start();
    ids.extend(slow.iter().cloned());
    expect_each_once(&redis, ids);
    let after = second.stop().stderr;
    assert!(slow.iter().all(|id| is_done(&before, id) != is_done(&after, id)), "no call was made twice");
}

#[test]
fn large_results_are_written_in_several_steps() {
    let redis = Redis::start();
    let host = host(&redis).ready(&redis, 1);
    let mut ids = publish_quick(&redis);
    let large = numbered("large", 24);
    let grow = |id: &String| message(id, json!({"do": "grow", "bytes": 4_000_000}));
    Publisher::new(&redis).publish_all(large.iter().map(grow));
    ids.extend(large);
    expect_each_once(&redis, ids);
    assert!(host.log().matches(SPLIT).count() >= 2, "96 MB in steps of little more than 32 MiB");
}

#[test]
fn splits_and_faults_together_lose_nothing_and_write_nothing_twice() {
    let redis = Redis::start();
    // Every delivery of several messages takes too long.
    let start = || host(&redis).arg("--delivery-time", "1ms").ready(&redis, 2);
    let [steady, killed, paused] = [start(), start(), start()];
    let mut ids = publish_quick(&redis);
    ids.extend(publish_slow(&redis, 2_000, 30));
    // In the middle of what splits leave behind.
    for host in [&killed, &paused] {
        wait_until("a split", || host.log().contains(SPLIT));
    }
    killed.kill();
    paused.signal(Signal::Stop);
    wait_until("takeovers from both", || steady.log().matches("took over deliveries of a dead host").count() >= 2);
    assert!(redis.length(INBOX) > 0, "not all work is done");
    paused.signal(Signal::Continue);
    paused.wait_for_log("it continues with a new id");
    expect_each_once(&redis, ids);
    assert!(steady.log().contains(SPLIT));
    // The host that died, the one that paused, and the one that took over have all had a part in it.
    let shares = shares(&redis);
    let hosts: HashSet<&str> = shares.keys().filter_map(|consumer| Some(consumer.rsplit_once('/')?.0)).collect();
    assert!(hosts.len() >= 3, "{shares:?}");
}
