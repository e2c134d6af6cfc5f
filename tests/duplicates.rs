//! A message id gives one result, however often and by whichever publisher it is published.

use std::thread;

use redis::cmd;
use serde_json::json;

use crate::support::host::Launch;
use crate::support::records::{INBOX, OUTPUT};
use crate::support::{Host, Publisher, Redis, Traffic, expect_each_once, message, wait_until};

/// Publishes a last message and waits until it and everything before it has been settled.
fn flush(redis: &Redis) {
    Publisher::new(redis).publish(message("last", json!({})));
    redis.result_of("last");
    redis.wait_for_an_empty_inbox();
}

/// The claim of this id.
fn claim(id: &str) -> String {
    format!("{{messages:processed}}:claim:{id}")
}

fn is_claimed(redis: &Redis, id: &str) -> bool {
    redis.run(cmd("EXISTS").arg(claim(id)))
}

/// A host with one consumer, which a message keeps busy for so long.
fn busy_host(redis: &Redis, ms: u64, options: impl FnOnce(Launch) -> Launch) -> Host {
    let launch = Host::on(redis).arg("--max-plugin-time", "60s").arg("--log-format", "json");
    let host = options(launch.arg("--report-interval", "200ms")).ready(redis, 1);
    Publisher::new(redis).publish(message("busy", json!({"do": "wait", "ms": ms})));
    wait_until("the consumer at work", || redis.pending().values().sum::<usize>() == 1);
    host
}

fn with_last(ids: impl IntoIterator<Item = String>) -> impl Iterator<Item = String> {
    ids.into_iter().chain(["last".to_owned()])
}

#[test]
fn an_id_published_again_and_again_gives_one_result() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--log-format", "json").arg("--report-interval", "200ms").ready(&redis, 10);
    let mut publisher = Publisher::new(&redis);
    for copy in 0..200 {
        publisher.publish(message("same", json!({"copy": copy})));
    }
    flush(&redis);
    expect_each_once(&redis, with_last(["same".into()]));
    host.wait_for_report("199 duplicates", |report| report["duplicates"] == 199);
}

#[test]
fn copies_in_one_burst_give_one_result_each() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 4);
    // Neighbours share a delivery; the second round does not.
    let ids: Vec<String> = (0..2_000).map(|n| format!("twin-{n}")).collect();
    let neighbours = ids.iter().flat_map(|id| [id, id]);
    let all = neighbours.chain(&ids).map(|id| message(id, json!({})));
    Publisher::new(&redis).publish_all(all);
    flush(&redis);
    expect_each_once(&redis, with_last(ids));
}

#[test]
fn copies_from_several_publishers_at_the_same_time_give_one_result_each() {
    let redis = Redis::start();
    let _hosts = [Host::ready(&redis, 5), Host::ready(&redis, 5)];
    let ids: Vec<String> = (0..1_000).map(|n| format!("shared-{n}")).collect();
    thread::scope(|scope| {
        for publisher in 0..4 {
            let (redis, ids) = (&redis, &ids);
            scope.spawn(move || {
                let payloads = ids.iter().map(|id| message(id, json!({"publisher": publisher})));
                Publisher::new(redis).publish_all(payloads);
            });
        }
    });
    flush(&redis);
    expect_each_once(&redis, with_last(ids));
}

#[test]
fn a_number_and_a_string_of_the_same_text_are_the_same_id() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    publisher.publish_all([r#"{"message_id":7}"#, r#"{"message_id":"7"}"#]);
    flush(&redis);
    expect_each_once(&redis, with_last(["7".into()]));
}

#[test]
fn an_id_is_new_again_after_the_dedup_window() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--dedup-window", "2s").arg("--intake-lease", "1s").ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("again", json!({})));
    redis.result_of("again");
    wait_until("the end of the window", || !is_claimed(&redis, "again"));
    publisher.publish(message("again", json!({})));
    wait_until("a second result", || redis.length(OUTPUT) == 2);
}

#[test]
fn copies_do_not_reach_the_inbox() {
    let redis = Redis::start();
    let host = busy_host(&redis, 8_000, |launch| launch);
    // In one delivery and in others, beside messages that are new.
    let mut publisher = Publisher::new(&redis);
    for round in 1..=3 {
        publisher.publish_all((0..30 * round).flat_map(|n| [n, n]).map(|n| message(&format!("m-{n}"), json!({}))));
    }
    let report = host.wait_for_report("270 duplicates", |report| report["duplicates"] == 270);
    assert_eq!(report["processed"], 0, "{report}");
    let ids: Vec<String> = (0..90).map(|n| format!("m-{n}")).chain(["busy".into()]).collect();
    let mut waiting: Vec<String> = redis
        .inbox()
        .iter()
        .flat_map(|entry| entry.names())
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    waiting.sort();
    let mut expected = ids.clone();
    expected.sort();
    assert_eq!(waiting, expected);
    assert!(redis.inbox().iter().all(|entry| entry.names().len() > 1), "no entry is left without a message");
    expect_each_once(&redis, ids);
}

/// A message waits for ten seconds; after this window, which is shorter, its id is published again.
fn expect_one_result_although_it_waits(window: &str) {
    let redis = Redis::start();
    let host = busy_host(&redis, 10_000, |launch| launch.arg("--dedup-window", window).arg("--intake-lease", "500ms"));
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("late", json!({"copy": 1})));
    wait_until("a claim", || is_claimed(&redis, "late"));
    wait_until("the end of the window", || !is_claimed(&redis, "late"));
    publisher.publish(message("late", json!({"copy": 2})));
    wait_until("both in the inbox", || redis.length(INBOX) == 3);
    assert_eq!(redis.length(OUTPUT), 0, "the consumer is still busy");
    expect_each_once(&redis, ["busy".into(), "late".into()]);
    host.wait_for_report("one duplicate", |report| report["duplicates"] == 1);
}

#[test]
fn an_id_that_waits_longer_than_the_dedup_window_gives_one_result_while_its_copy_is_claimed() {
    expect_one_result_although_it_waits("6s");
}

#[test]
fn an_id_that_waits_longer_than_the_dedup_window_gives_one_result_when_no_claim_is_left() {
    expect_one_result_although_it_waits("2s");
}

#[test]
fn claims_are_made_although_redis_forgets_its_scripts() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 4);
    let traffic = Traffic::start(&redis, 2_000, json!({}));
    for _ in 0..20 {
        traffic.wait_for_more(100);
        redis.command::<()>("SCRIPT FLUSH");
    }
    let ids = traffic.finish();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({}))));
    flush(&redis);
    expect_each_once(&redis, with_last(ids));
}

#[test]
fn a_key_that_is_no_claim_holds_nothing_up() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 2);
    redis.run::<()>(cmd("RPUSH").arg(claim("odd")).arg("not ours"));
    Publisher::new(&redis).publish_all(["even", "odd"].map(|id| message(id, json!({}))));
    flush(&redis);
    expect_each_once(&redis, with_last(["even".into(), "odd".into()]));
}
