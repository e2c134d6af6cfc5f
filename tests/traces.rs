//! Traces: which messages have spans, what the spans say, and that no collector can do harm.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::collector::{Collector, Manner, Span};
use crate::support::consumer::post;
use crate::support::host::Launch;
use crate::support::http::{Request, address};
use crate::support::openmetrics;
use crate::support::redis::free_port;
use crate::support::{BOUND, Host, Publisher, Redis, expect_each_once, message, puppet, wait_for, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

const LOST: &str = "the collector does not take spans";
const FOUND: &str = "the collector takes spans again";

fn traced(launch: Launch, collector: &Collector) -> Launch {
    launch.arg("--trace-endpoint", collector.endpoint()).arg("--log-format", "json")
}

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// A message with a `traceparent` of a publisher that traces it.
fn sampled(id: &str, mut order: Value) -> String {
    order["traceparent"] = traceparent("01").into();
    message(id, order)
}

/// Value of the metric for spans with this result.
fn spans_counted(host: &Host, result: &str) -> f64 {
    let scraped = openmetrics::scrape(address(host), Request::get("/metrics"));
    scraped.value("host_trace_spans_total", &[("result", result)])
}

fn wait_until_lost(host: &Host) {
    wait_until("lost spans in the metrics", || spans_counted(host, "lost") > 0.5);
}

/// Log lines with this text, of a host that logs JSON.
fn logged(log: &str, text: &str) -> Vec<Value> {
    let lines =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    lines.filter(|line| line["message"].as_str().is_some_and(|message| message.contains(text))).collect()
}

/// The spans of one attempt in their order: five, one inside the other, of two hosts if `hosts` says so.
fn expect_one_attempt<'a>(spans: &'a [Span], parent: Option<&str>) -> [&'a Span; 5] {
    let names = ["heard", "appended", "delivered", "call", "settled"];
    let found = names.map(|name| {
        let all: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(all.len(), 1, "{name}: {spans:#?}");
        all[0]
    });
    let [heard, appended, delivered, call, settled] = found;
    assert_eq!(spans.len(), 5, "{spans:#?}");
    assert!(spans.iter().all(|span| span.trace == heard.trace), "{spans:#?}");
    assert_eq!(heard.parent.as_deref(), parent);
    assert_eq!(appended.parent.as_ref(), Some(&heard.id));
    assert_eq!(delivered.parent.as_ref(), Some(&appended.id));
    assert_eq!((call.parent.as_ref(), settled.parent.as_ref()), (Some(&delivered.id), Some(&delivered.id)));
    assert!(heard.start <= heard.end && heard.end <= appended.start && appended.start <= appended.end, "{spans:#?}");
    assert!(appended.start <= delivered.start && delivered.end <= call.start, "{spans:#?}");
    assert!(call.end <= settled.start, "{spans:#?}");
    found
}

#[test]
fn a_message_with_a_traceparent_is_followed_through_two_hosts() {
    let redis = Redis::start();
    let collector = Collector::start(Manner::Takes);
    let launch = || traced(Host::on(&redis), &collector).arg("--trace-sample", "0");
    let intake = launch().arg("--http", "127.0.0.1:0").ready(&redis, 0);
    intake.wait_for_log("the intake is active");
    let consumer = launch().arg("--trace-service", "orders").ready(&redis, 1);
    let id = redis.consumer_ids().remove(0);
    let (host_id, _) = id.split_once('/').unwrap();
    Publisher::new(&redis).publish(sampled("m", json!({})));
    redis.result_of("m");
    let spans = collector.wait_for_spans_of("m", 5);
    let [heard, appended, delivered, call, settled] = expect_one_attempt(&spans, Some(PARENT));
    assert_eq!(heard.trace, TRACE);
    assert_eq!(heard.host(), appended.host());
    assert!([delivered, call, settled].iter().all(|span| span.host() == host_id), "{spans:#?}");
    assert_ne!(heard.host(), host_id);
    assert_eq!((&*heard.resource["service.name"], &*call.resource["service.name"]), ("host", "orders"));
    // 1 is sampled, 0x100 and 0x200 say that the parent is remote.
    assert_eq!((heard.flags, appended.flags, call.flags), (0x301, 0x101, 0x101));
    for (span, kind, operation, destination) in [
        (heard, 3, "receive", "messages:published"),
        (appended, 4, "send", "{messages:processed}:inbox"),
        (delivered, 3, "receive", "{messages:processed}:inbox"),
        (call, 5, "process", "{messages:processed}:inbox"),
        (settled, 3, "settle", "{messages:processed}:inbox"),
    ] {
        assert_eq!(span.kind, kind, "{span:?}");
        assert_eq!(span.attribute("messaging.system"), "redis");
        assert_eq!(span.attribute("messaging.operation.name"), span.name);
        assert_eq!(span.attribute("messaging.operation.type"), operation);
        assert_eq!(span.attribute("messaging.destination.name"), destination);
        assert_eq!(span.attribute("messaging.consumer.group.name"), "messages:processed");
        assert_eq!(span.error, None);
    }
    for span in [delivered, call, settled] {
        assert_eq!(span.attribute("messaging.client.id"), id);
        assert_eq!((span.attribute("message.attempt"), span.attribute("plugin.generation")), ("1", "1"));
        assert_eq!(span.attribute("plugin.digest").len(), 64);
    }
    assert_eq!((call.attribute("message.outcome"), settled.attribute("message.outcome")), ("emit", "written"));
    consumer.stop();
    intake.stop();
    assert_eq!(collector.spans().len(), 5);
}

#[test]
fn a_message_without_a_traceparent_has_a_trace_of_its_own() {
    let redis = Redis::start();
    let collector = Collector::start(Manner::Takes);
    let launch = traced(Host::on(&redis), &collector).arg("--trace-sample", "1").arg("--report-interval", "100ms");
    let host = launch.ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    // What is no message has no trace, and does not disturb the times of the others.
    publisher.publish_all([
        "nonsense".to_owned(),
        message("a", json!({})),
        "{}".to_owned(),
        message("b", json!({"do": "drop"})),
    ]);
    let [a, b] = ["a", "b"].map(|id| collector.wait_for_spans_of(id, 5));
    let outcomes = [&a, &b].map(|spans| {
        let [.., call, settled] = expect_one_attempt(spans, None);
        (call.attribute("message.outcome").to_owned(), settled.attribute("message.outcome").to_owned())
    });
    assert_eq!(
        outcomes,
        [("emit", "written"), ("drop", "dropped")].map(|(call, settled)| (call.into(), settled.into()))
    );
    assert_ne!(a[0].trace, b[0].trace);
    // A copy is heard, and has no spans of its own.
    publisher.publish(message("a", json!({})));
    host.wait_for_report("a duplicate", |report| report["duplicates"] == 1);
    publisher.publish(message("c", json!({})));
    collector.wait_for_spans_of("c", 5);
    host.stop();
    assert_eq!(collector.spans().len(), 15);
}

#[test]
fn the_publishers_flag_decides_and_otherwise_the_share() {
    for (share, expected) in [("0", ["flagged"].as_slice()), ("1", &["flagged", "plain"])] {
        let redis = Redis::start();
        let collector = Collector::start(Manner::Takes);
        let host = traced(Host::on(&redis), &collector).arg("--trace-sample", share).ready(&redis, 1);
        let mut publisher = Publisher::new(&redis);
        publisher.publish(message("plain", json!({})));
        publisher.publish(message("unflagged", json!({"traceparent": traceparent("00")})));
        publisher.publish(sampled("flagged", json!({})));
        expect_each_once(&redis, ["plain", "unflagged", "flagged"].map(str::to_owned));
        host.stop();
        let spans = collector.spans();
        let of: HashSet<&str> = spans.iter().map(|span| span.attribute("messaging.message.id")).collect();
        assert_eq!(of, expected.iter().copied().collect(), "{share}");
        assert_eq!(spans.len(), 5 * expected.len());
    }
}

#[test]
fn a_wrong_traceparent_is_ignored_and_its_message_flows_on() {
    let redis = Redis::start();
    let collector = Collector::start(Manner::Takes);
    let launch = traced(Host::on(&redis), &collector).arg("--trace-sample", "0").arg("--trace-property", "trace");
    let host = launch.ready(&redis, 2);
    let wrong = [
        json!("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01"),
        json!("00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01"),
        json!(traceparent("01").to_uppercase()),
        json!(format!("00-{}-{PARENT}-01", "0".repeat(32))),
        json!(format!("00-{TRACE}-{}-01", "0".repeat(16))),
        json!(format!("{}-01", traceparent("01"))),
        json!(format!("ff-{TRACE}-{PARENT}-01")),
        json!("x".repeat(100_000)),
        json!("\u{0}é🦀"),
        json!(7),
        json!(null),
        json!([traceparent("01")]),
        json!({"trace": traceparent("01")}),
    ];
    let mut publisher = Publisher::new(&redis);
    let ids: Vec<String> = (0..wrong.len()).map(|number| format!("wrong-{number}")).collect();
    publisher.publish_all(ids.iter().zip(&wrong).map(|(id, value)| message(id, json!({ "trace": value }))));
    publisher.publish(sampled("other property", json!({})));
    publisher.publish(message("right", json!({"trace": traceparent("01")})));
    expect_each_once(&redis, ids.into_iter().chain(["other property", "right"].map(str::to_owned)));
    host.stop();
    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.attribute("messaging.message.id") == "right"), "{spans:#?}");
    expect_one_attempt(&spans, Some(PARENT));
}

/// Outcome of the call, outcome of the settling, kind of the error and error of each attempt.
fn attempts(spans: &[Span]) -> Vec<[String; 4]> {
    let appended = spans.iter().find(|span| span.name == "appended").unwrap();
    let mut delivered: Vec<&Span> = spans.iter().filter(|span| span.name == "delivered").collect();
    delivered.sort_by_key(|span| span.attribute("message.attempt").parse::<u32>().unwrap());
    let one = |(number, delivered): (usize, &&Span)| {
        assert_eq!(delivered.parent.as_ref(), Some(&appended.id));
        assert_eq!(delivered.attribute("message.attempt"), (number + 1).to_string());
        let inside = |name: &str| {
            let is_it = |span: &&Span| span.name == name && span.parent.as_ref() == Some(&delivered.id);
            spans.iter().find(is_it).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
        };
        let (call, settled) = (inside("call"), inside("settled"));
        let has_failed = call.attribute("message.outcome") == "failure";
        assert_eq!(call.error.is_some(), has_failed, "{call:?}");
        assert_eq!(settled.error.is_some(), settled.attributes.contains_key("error.type"), "{settled:?}");
        [
            call.attribute("message.outcome").to_owned(),
            settled.attribute("message.outcome").to_owned(),
            settled.attributes.get("error.type").cloned().unwrap_or_default(),
            settled.error.clone().unwrap_or_default(),
        ]
    };
    delivered.iter().enumerate().map(one).collect()
}

#[test]
fn each_attempt_has_its_spans_and_a_dead_letter_ends_a_trace_with_an_error() {
    let redis = Redis::start();
    let collector = Collector::start(Manner::Takes);
    let launch = traced(Host::on(&redis), &collector).arg("--retry-delay", "1ms").arg("--max-attempts", "3");
    let host = launch.ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(sampled("third", json!({"do": "succeed-at", "attempt": 3, "delay_ms": 1})));
    publisher.publish(sampled("bad", json!({"do": "fail", "reason": "no such customer"})));
    publisher.publish(sampled("refused", json!({"do": "reject", "reason": "too old"})));
    let third = attempts(&collector.wait_for_spans_of("third", 2 + 3 * 3));
    let again = ["retry", "put-off", "", ""];
    assert_eq!(third, [again, again, ["emit", "written", "", ""]]);
    let bad = attempts(&collector.wait_for_spans_of("bad", 2 + 3 * 3));
    assert_eq!(bad[..2], [["failure", "put-off", "", ""]; 2]);
    assert_eq!(bad[2][..3], ["failure", "dead-letter", "plugin-failed"]);
    assert!(bad[2][3].contains("no such customer"), "{bad:?}");
    let refused = attempts(&collector.wait_for_spans_of("refused", 5));
    assert_eq!(refused[0][..3], ["reject", "dead-letter", "plugin-rejected"]);
    host.stop();
    assert_eq!(collector.spans().len(), 11 + 11 + 5);
}

#[test]
fn a_collector_that_takes_nothing_costs_nothing_but_spans() {
    let away = format!("http://127.0.0.1:{}", free_port());
    let manners = [Manner::Answers(503), Manner::Answers(400), Manner::SaysNothing, Manner::NeverEnds];
    let endpoints = manners.map(|manner| {
        let collector = Collector::start(manner);
        (collector.endpoint(), Some(collector))
    });
    for (endpoint, collector) in [(away, None)].into_iter().chain(endpoints) {
        let redis = Redis::start();
        let launch = Host::on(&redis).arg("--trace-endpoint", &endpoint).arg("--trace-sample", "1");
        let launch = launch.arg("--log-format", "json").arg("--report-interval", "100ms").arg("--http", "127.0.0.1:0");
        let host = launch.ready(&redis, 4);
        // More spans than there is room for.
        let ids = || (0..4_000).map(|number| format!("m-{number}"));
        Publisher::new(&redis).publish_all(ids().map(|id| message(&id, json!({}))));
        expect_each_once(&redis, ids());
        wait_until_lost(&host);
        host.wait_for_report("lost spans", |report| report["spans_lost"].as_u64().unwrap() > 0);
        host.wait_for_log(LOST);
        let log = host.stop().stderr;
        assert_eq!(logged(&log, LOST).len(), 1, "{log}");
        assert!(collector.is_none_or(|collector| collector.spans().is_empty()));
    }
}

#[test]
fn spans_wait_for_a_collector_that_comes_back_soon() {
    let redis = Redis::start();
    let collector = Collector::start(Manner::Answers(503));
    let launch = traced(Host::on(&redis), &collector).arg("--http", "127.0.0.1:0");
    let host = launch.ready(&redis, 1);
    Publisher::new(&redis).publish(sampled("m", json!({})));
    redis.result_of("m");
    wait_until("a refused request", || collector.requests() > 0);
    collector.change_to(Manner::Takes);
    expect_one_attempt(&collector.wait_for_spans_of("m", 5), Some(PARENT));
    host.wait_for_log(FOUND);
    wait_until("the spans in the metrics", || spans_counted(&host, "sent") > 4.5);
    assert_eq!((spans_counted(&host, "sent"), spans_counted(&host, "lost")), (5.0, 0.0));
    collector.change_to(Manner::TakesAllBut(2));
    Publisher::new(&redis).publish(sampled("n", json!({})));
    wait_until_lost(&host);
    let counted = wait_for("all spans in the metrics", BOUND, || {
        let counted = (spans_counted(&host, "sent"), spans_counted(&host, "lost"));
        if counted.0 + counted.1 > 9.5 { Ok(counted) } else { Err(format!("{counted:?}")) }
    });
    assert!(counted == (8.0, 2.0) || counted == (6.0, 4.0), "in one request or in two: {counted:?}");
    assert_eq!(logged(&host.log(), LOST).len(), 2, "{}", host.log());
    host.stop();
}

#[test]
fn log_lines_about_a_message_carry_its_trace() {
    let redis = Redis::start();
    let collector = Collector::start(Manner::Takes);
    let host = traced(Host::on(&redis), &collector).arg("--trace-sample", "0").ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    let order = |text: &str| json!({"do": "log", "level": "warn", "context": "c", "text": text});
    publisher.publish(sampled("m", order("of a traced message")));
    let mut unflagged = order("of a publisher's own trace");
    unflagged["traceparent"] = traceparent("00").into();
    publisher.publish(message("n", unflagged));
    publisher.publish(message("o", order("of no trace")));
    expect_each_once(&redis, ["m", "n", "o"].map(str::to_owned));
    let log = host.stop().stderr;
    for (text, trace) in [
        ("of a traced message", json!(TRACE)),
        ("of a publisher's own trace", json!(TRACE)),
        ("of no trace", Value::Null),
    ] {
        let lines = logged(&log, text);
        assert_eq!(lines.len(), 1, "{log}");
        assert_eq!(lines[0]["trace_id"], trace, "{}", lines[0]);
    }
}

#[test]
fn log_lines_about_another_attempt_and_the_end_of_all_carry_the_trace() {
    let redis = Redis::start();
    let collector = Collector::start(Manner::Takes);
    let host = traced(Host::on(&redis), &collector).arg("--max-attempts", "2").ready(&redis, 1);
    Publisher::new(&redis).publish(sampled("bad", json!({"do": "fail", "reason": "no such customer"})));
    redis.dead_letter_of("bad");
    let log = host.stop().stderr;
    for text in ["no such customer; trying again", "no such customer; the message is kept"] {
        let lines = logged(&log, text);
        assert_eq!(lines.len(), 1, "{log}");
        assert_eq!(lines[0]["trace_id"], TRACE, "{}", lines[0]);
    }
}

#[test]
fn without_an_endpoint_nothing_is_traced() {
    let redis = Redis::start();
    let collector = Collector::start(Manner::Takes);
    let launch = Host::on(&redis).env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).arg("--log-format", "json");
    let host = launch.arg("--http", "127.0.0.1:0").ready(&redis, 1);
    Publisher::new(&redis)
        .publish(sampled("m", json!({"do": "log", "level": "warn", "context": "c", "text": "a line"})));
    redis.result_of("m");
    assert_eq!((spans_counted(&host, "sent"), spans_counted(&host, "lost")), (0.0, 0.0));
    let log = host.stop().stderr;
    assert_eq!(logged(&log, "a line")[0]["trace_id"], Value::Null);
    assert_eq!(collector.connections(), 0);
}

#[test]
fn messages_that_workers_process_and_that_come_over_http_are_followed_as_well() {
    let redis = Redis::start();
    let collector = Collector::start(Manner::Takes);
    let host = traced(Host::on(&redis), &collector).arg("--http", "127.0.0.1:0").ready(&redis, 0);
    let group = address(&host);
    let launch = Launch::subcommand("worker").arg("--group", format!("http://{group}")).arg("--plugin", puppet());
    let launch = traced(launch, &collector).arg("--redis", redis.url()).arg("--http", "127.0.0.1:0");
    let worker = launch.start();
    let id = address(&worker).to_string();
    wait_until("the worker on the list", || redis.consumer_ids().contains(&id));
    Publisher::new(&redis).publish(sampled("by a worker", json!({})));
    let spans = collector.wait_for_spans_of("by a worker", 5);
    let [heard, .., settled] = expect_one_attempt(&spans, Some(PARENT));
    assert_ne!(heard.host(), settled.host());
    assert_eq!(settled.attribute("messaging.client.id"), id);
    let (status, answer) = post(group, "/processMessage", &sampled("handed in", json!({})));
    assert_eq!(status, 200, "{answer}");
    let spans = collector.wait_for_spans_of("handed in", 5);
    let [heard, appended, ..] = expect_one_attempt(&spans, Some(PARENT));
    assert_eq!(heard.attribute("messaging.destination.name"), "/processMessage");
    assert_eq!(appended.attribute("messaging.destination.name"), "{messages:processed}:retry");
    worker.stop();
    host.stop();
}
