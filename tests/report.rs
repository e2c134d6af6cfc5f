//! The line that every host writes at every report interval.

use serde_json::{Value, json};

use crate::support::{Host, Publisher, Redis, Signal, message, wait_until};

const COUNTERS: [&str; 11] = [
    "messages_per_second",
    "group_messages_per_second",
    "processed",
    "group_processed",
    "duplicates",
    "dead_letters",
    "inbox",
    "retries_waiting",
    "shed",
    "reconnects",
    "gaps",
];

fn reporting(redis: &Redis, consumers: usize) -> Host {
    Host::on(redis).arg("--log-format", "json").arg("--report-interval", "200ms").ready(redis, consumers)
}

#[test]
fn a_host_without_traffic_reports_zeros() {
    let redis = Redis::start();
    let host = reporting(&redis, 2);
    wait_until("three reports", || host.reports().len() >= 3);
    for report in host.reports() {
        for counter in COUNTERS {
            assert_eq!(report[counter].as_f64(), Some(0.0), "{counter} in {report}");
        }
        assert!(report["timestamp"].is_string(), "{report}");
        assert!(redis.consumer_ids()[0].starts_with(report["host"].as_str().unwrap()), "{report}");
    }
}

#[test]
fn the_report_counts_what_happened() {
    let redis = Redis::start();
    let host = reporting(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    publisher.publish_all((0..100).map(|n| message(&format!("m-{n}"), json!({}))));
    publisher.publish_all((0..10).map(|n| message(&format!("m-{n}"), json!({}))));
    publisher.publish_all(["not json", "{}"]);
    publisher.publish(message("bad", json!({"do": "fail"})));
    redis.wait_for_settled(103);
    let is_complete = |report: &Value| report["dead_letters"] == 3 && report["duplicates"] == 10;
    let report = host.wait_for_report("3 dead letters and 10 duplicates", is_complete);
    assert!(report["processed"].as_u64().unwrap() >= 100, "{report}");
    host.wait_for_report("a rate", |report| report["messages_per_second"].as_f64().unwrap() > 0.0);
    // And back to zero, because no more messages arrive.
    host.wait_for_report("quiet", |report| is_complete(report) && report["messages_per_second"].as_f64() == Some(0.0));
}

#[test]
fn the_inbox_length_shows_what_waits() {
    let redis = Redis::start();
    let host = reporting(&redis, 1);
    Publisher::new(&redis).publish_all((0..100).map(|n| message(&format!("m-{n}"), json!({"do": "wait", "ms": 50}))));
    host.wait_for_report("messages in the inbox", |report| report["inbox"].as_u64().unwrap() > 0);
    redis.wait_for_settled(100);
    let quiet = |report: &Value| report["inbox"] == 0 && report["processed"] == 100;
    host.wait_for_report("an empty inbox", quiet);
}

#[test]
fn every_host_knows_the_numbers_of_the_group() {
    let redis = Redis::start();
    let hosts = [reporting(&redis, 3), reporting(&redis, 3)];
    let payloads = (0..600).map(|n| message(&format!("m-{n}"), json!({"do": "wait", "ms": 10})));
    Publisher::new(&redis).publish_all(payloads);
    redis.wait_for_settled(600);
    let last = |host: &Host| host.wait_for_report("600 of the group", |report| report["group_processed"] == 600);
    let own: u64 = hosts.iter().map(|host| last(host)["processed"].as_u64().unwrap()).sum();
    assert_eq!(own, 600, "the group's total is the sum of its hosts'");
    let is_faster = |report: &Value| {
        let rate = |name: &str| report[name].as_f64().unwrap();
        rate("group_messages_per_second") > rate("messages_per_second")
    };
    hosts[0].wait_for_report("a group faster than one host", is_faster);
}

#[test]
fn the_text_report_is_one_line_for_people() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--report-interval", "200ms").ready(&redis, 2);
    Publisher::new(&redis).publish_all((0..50).map(|n| message(&format!("m-{n}"), json!({}))));
    wait_until("a report of 50 messages", || host.written().lines().any(|line| line.contains("50")));
    for line in host.written().lines() {
        assert!(line.contains("/s"), "a rate in {line:?}");
        assert!(serde_json::from_str::<Value>(line).is_err(), "{line:?}");
    }
}

#[test]
fn log_lines_are_json_where_json_is_asked_for() {
    let redis = Redis::start();
    let ended = reporting(&redis, 2).stop();
    assert!(!ended.stderr.is_empty(), "a host says what it does");
    for line in ended.stderr.lines().chain(ended.stdout.lines()) {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok_and(|value| value.is_object()), "{line:?}");
    }
}

#[test]
fn a_report_asks_once_more_when_its_idle_connection_was_cut() {
    let redis = Redis::start();
    let host = reporting(&redis, 1);
    for _ in 0..5 {
        let before = host.reports().len();
        wait_until("two further reports", || host.reports().len() >= before + 2);
        redis.command::<usize>("CLIENT KILL TYPE normal SKIPME yes");
    }
    let last = host.reports().len();
    wait_until("two further reports", || host.reports().len() >= last + 2);
    for report in host.reports() {
        assert!(report["inbox"].is_number(), "Redis was there all the time: {report}");
    }
}

#[test]
fn the_report_tells_who_is_active_and_what_waits_to_be_appended() {
    let redis = Redis::start();
    let first = reporting(&redis, 1);
    first.wait_for_report("the active host", |report| {
        report["intake"] == "active" && report["intake_active"] == report["host"] && report["position_lag"] == 0
    });
    let second = reporting(&redis, 1);
    let active = first.reports().last().expect("a report")["host"].clone();
    second.wait_for_report("a standby", |report| report["intake"] == "standby" && report["intake_active"] == active);
    // Nothing can be appended: the message waits in both hosts.
    redis.command::<()>("CONFIG SET maxmemory 1mb");
    Publisher::new(&redis).publish(message("waits", json!({})));
    for host in [&first, &second] {
        host.wait_for_report("a message that waits", |report| report["position_lag"] == 1);
    }
    redis.command::<()>("CONFIG SET maxmemory 0");
    redis.result_of("waits");
    for host in [&first, &second] {
        host.wait_for_report("nothing that waits", |report| report["position_lag"] == 0);
    }
}

#[test]
fn the_group_counts_messages_wherever_their_results_went() {
    let redis = Redis::start();
    let path = redis.folder().join("host.toml");
    std::fs::write(&path, "[outputs.fraud]\nkey = \"messages:fraud\"\n").unwrap();
    let launch = || {
        let launch = Host::on(&redis).arg("--config", &path).arg("--log-format", "json");
        launch.arg("--report-interval", "200ms").arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "1s")
    };
    let [first, second, third] = [(); 3].map(|()| launch().ready(&redis, 2));
    let to_fraud =
        json!({"do": "emit-all", "ms": 5, "results": [{"to": "fraud", "body": "{}"}, {"to": "fraud", "body": "{}"}]});
    let order = |n: usize| [to_fraud.clone(), json!({"do": "drop"}), json!({"do": "reject"})][n % 3].clone();
    Publisher::new(&redis).publish_all((0..300).map(|n| message(&format!("m-{n}"), order(n))));
    let all = |report: &Value| report["group_processed"] == 300;
    for host in [&first, &second, &third] {
        host.wait_for_report("all messages of the group", all);
        assert!(host.reports().iter().any(|report| report["group_messages_per_second"].as_f64() > Some(0.0)));
    }
    assert_eq!((redis.length("messages:fraud"), redis.length(crate::support::records::OUTPUT)), (200, 0));

    // A host that was paused for too long counts as dead, and continues with a new id. What it has done counts once.
    second.signal(Signal::Stop);
    wait_until("a host that counts as dead", || redis.consumer_ids().len() == 4);
    second.signal(Signal::Continue);
    second.wait_for_log("it continues with a new id");
    wait_until("its return", || redis.consumer_ids().len() == 6);

    // A host that leaves and a host that dies have done what they have done.
    first.stop();
    second.kill();
    wait_until("the end of both", || redis.consumer_ids().len() == 2);
    let seen = third.reports().len();
    wait_until("two further reports", || third.reports().len() >= seen + 2);
    Publisher::new(&redis).publish(message("last", to_fraud));
    third.wait_for_report("one more", |report| report["group_processed"] == 301);
    let counts: Vec<u64> = third.reports().iter().map(|report| report["group_processed"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted() && counts.iter().all(|count| *count <= 301), "{counts:?}");
}
