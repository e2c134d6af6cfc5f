//! The commands around the host: `publish` and `demo`.

use std::collections::HashSet;
use std::fs;

use serde_json::json;

use crate::support::host::{Ended, Launch};
use crate::support::records::{DEAD, OUTPUT};
use crate::support::{Host, Redis, enrich, expect_each_once, message, wait_until};

fn publish(redis: &Redis, options: &[(&str, &str)]) -> Ended {
    let launch = Launch::subcommand("publish").arg("--redis", redis.url());
    let ended = options.iter().fold(launch, |launch, (name, value)| launch.arg(name, value)).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

#[test]
fn publish_sends_so_many_messages_with_ids_of_their_own() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--plugin", enrich()).ready(&redis, 4);
    let ended = publish(&redis, &[("--count", "5000"), ("--batch", "300")]);
    assert!(ended.stdout.contains("5,000") && ended.stdout.contains("1 subscriber"), "{}", ended.stdout);
    redis.wait_for_settled(5_000);
    let ids: HashSet<String> = redis.output().iter().map(|entry| entry.text("message_id").to_owned()).collect();
    assert_eq!(ids.len(), 5_000);
    assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'4'), "random UUIDs");
    assert_eq!((redis.length(OUTPUT), redis.length(DEAD)), (5_000, 0));
}

#[test]
fn publish_repeats_ids_when_asked_to() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--log-format", "json").arg("--report-interval", "200ms").ready(&redis, 4);
    publish(&redis, &[("--count", "4000"), ("--duplicates", "25")]);
    let report = host.wait_for_report("all messages", |report| {
        let count = |name: &str| report[name].as_u64().unwrap();
        count("processed") + count("duplicates") == 4_000
    });
    let duplicates = report["duplicates"].as_u64().unwrap();
    assert!((800..1_200).contains(&duplicates), "a quarter of 4,000 is about 1,000, not {duplicates}");
    assert_eq!(redis.length(OUTPUT) as u64 + duplicates, 4_000);
}

#[test]
fn publish_makes_messages_of_the_wanted_length() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--output-format", "json").ready(&redis, 2);
    publish(&redis, &[("--count", "10"), ("--payload-bytes", "3000")]);
    redis.wait_for_settled(10);
    assert!(redis.output().iter().all(|entry| entry.text("json").len() == 3_000));
}

#[test]
fn publish_sends_the_lines_of_a_file_as_they_are() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 2);
    let lines: Vec<String> = (0..50).map(|n| message(&format!("line-{n}"), json!({"n": n}))).collect();
    let file = redis.folder().join("messages.jsonl");
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    publish(&redis, &[("--file", file.to_str().unwrap())]);
    expect_each_once(&redis, (0..50).map(|n| format!("line-{n}")));
}

#[test]
fn publish_to_nobody_is_warned_about() {
    let redis = Redis::start();
    let ended = publish(&redis, &[("--count", "10")]);
    assert!(ended.stderr.contains("10"), "{}", ended.stderr);
    assert!(ended.stderr.contains("nobody"), "{}", ended.stderr);
}

#[test]
fn the_demo_loses_nothing_and_ends_by_itself() {
    enrich();
    let launch = Launch::subcommand("demo").arg("--for", "3s").arg("--plugin", enrich());
    let ended = launch.run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let summary = ended.stdout.lines().rev().take(12).collect::<Vec<_>>().join("\n").to_lowercase();
    for word in ["published", "processed", "duplicates", "lost"] {
        assert!(summary.contains(word), "no {word:?} in {}", ended.stdout);
    }
}

#[test]
fn the_demo_is_ended_by_ctrl_c_with_its_summary() {
    let demo = Launch::subcommand("demo").arg("--plugin", enrich()).start();
    wait_until("a report of the demo", || demo.written().lines().count() > 1);
    demo.signal(crate::support::Signal::Interrupt);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.to_lowercase().contains("lost"), "{}", ended.stdout);
}
