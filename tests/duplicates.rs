//! A message id gives one result, however often and by whomever it is published.

use std::thread;

use redis::cmd;
use serde_json::json;

use crate::support::records::OUTPUT;
use crate::support::{Host, Publisher, Redis, expect_each_once, message, wait_until};

/// Publishes a last message and waits until it and everything before it has been settled.
fn flush(redis: &Redis) {
    Publisher::new(redis).publish(message("last", json!({})));
    redis.result_of("last");
    redis.wait_for_an_empty_inbox();
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
    // Neighbours share a delivery, the second round does not.
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
    let _host = Host::on(&redis).arg("--dedup-window", "2s").ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("again", json!({})));
    redis.result_of("again");
    wait_until("the end of the window", || !redis.run::<bool>(cmd("EXISTS").arg("{messages:processed}:claim:again")));
    publisher.publish(message("again", json!({})));
    wait_until("a second result", || redis.length(OUTPUT) == 2);
}
