//! `/metrics`: the values against Redis, the names against the handbook, and what it shows when Redis or a host is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::time::Instant;

use redis::cmd;
use serde_json::json;

use crate::support::host::Launch;
use crate::support::http::{Request, address};
use crate::support::openmetrics::{self, Exposition};
use crate::support::records::{DEAD, OUTPUT, RETRY};
use crate::support::{BOUND, Host, Publisher, Redis, Release, message, repository, wait_for};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn listening(redis: &Redis) -> Launch {
    Host::on(redis).arg("--http", "127.0.0.1:0").arg("--heartbeat-interval", "100ms")
}

fn scrape(address: SocketAddr) -> Exposition {
    openmetrics::scrape(address, Request::get("/metrics"))
}

/// Scrapes until the answer fulfils the condition.
fn wait_for_scrape(address: SocketAddr, what: &str, is_it: impl Fn(&Exposition) -> bool) -> Exposition {
    wait_for(what, BOUND, || {
        let scraped = scrape(address);
        if is_it(&scraped) { Ok(scraped) } else { Err(format!("{scraped:?}")) }
    })
}

/// A row of the table in the handbook.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    pub kind: String,
    /// Names of the labels, with the values that the handbook lists.
    pub labels: BTreeMap<String, BTreeSet<String>>,
}

/// All metrics of the handbook by name, as a query names them.
pub fn documented() -> BTreeMap<String, Row> {
    let text = fs::read_to_string(repository().join("host/docs/operating.md")).unwrap();
    let (_, table) = text.split_once("| metric | type | labels | meaning |\n").expect("the table of metrics");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, _] = cells[..] else { panic!("{row}") };
        let labels = labels.split("; ").filter(|label| !label.is_empty()).map(|label| {
            let mut words = label.split('`').skip(1).step_by(2).map(str::to_owned);
            (words.next().unwrap_or_else(|| panic!("{row}")), words.collect())
        });
        (name.trim_matches('`').to_owned(), Row { kind: kind.to_owned(), labels: labels.collect() })
    })
    .collect()
}

/// Publishes one message for each outcome and reason that the puppet can bring about, and waits for their end.
fn publish_of_each_kind(redis: &Redis) {
    let mut publisher = Publisher::new(redis);
    publisher.publish_all((0..100).map(|n| message(&format!("m-{n}"), json!({}))));
    publisher.publish_all((0..3).map(|n| message(&format!("d-{n}"), json!({"do": "drop"}))));
    publisher.publish_all((0..2).map(|n| message(&format!("r-{n}"), json!({"do": "reject"}))));
    publisher.publish(message("bad", json!({"do": "raw", "result": "[]"})));
    publisher.publish(message("fails", json!({"do": "fail"})));
    publisher.publish(message("later", json!({"do": "retry", "delay_ms": 3_600_000})));
    publisher.publish(message("m-0", json!({})));
    publisher.publish("no message");
    // m, r, bad, fails, no message
    redis.wait_for_settled(100 + 2 + 1 + 1 + 1);
    redis.wait_for_an_empty_inbox();
}

#[test]
fn the_values_are_those_in_redis() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--max-attempts", "2").arg("--retry-delay", "1ms").ready(&redis, 1);
    let address = address(&host);
    publish_of_each_kind(&redis);
    let is_complete = |scraped: &Exposition| {
        scraped.sum("host_messages_total") > 109.5 && (scraped.value("host_dead_letters", &[]) - 5.0).abs() < 0.5
    };
    let scraped = wait_for_scrape(address, "all messages in the metrics", is_complete);
    let value = |name: &str, labels: &[(&str, &str)]| scraped.value(name, labels);
    let count = |command: &str, key: &str| f64::from(redis.run::<u32>(cmd(command).arg(key)));
    assert_eq!(value("host_messages_total", &[("outcome", "emitted")]), count("XLEN", OUTPUT));
    for (outcome, messages) in
        [("dropped", 3.0), ("rejected", 2.0), ("retried", 1.0), ("failed", 3.0), ("duplicate", 1.0)]
    {
        assert_eq!(value("host_messages_total", &[("outcome", outcome)]), messages, "{outcome}");
    }
    assert_eq!(value("host_dead_letters", &[]), count("XLEN", DEAD));
    for letter in redis.dead_letters() {
        let reason = letter.text("reason");
        let messages = if reason == "plugin-rejected" { 2.0 } else { 1.0 };
        assert_eq!(value("host_dead_letters_written_total", &[("reason", reason)]), messages, "{reason}");
    }
    assert_eq!(scraped.sum("host_dead_letters_written_total"), 5.0);
    assert_eq!(value("host_retries_waiting", &[]), count("ZCARD", RETRY));
    assert_eq!((value("host_inbox_entries", &[]), value("host_inbox_oldest_age_seconds", &[])), (0.0, 0.0));
    // 100, 3 and 2; two attempts of the message that fails, and one of each other one.
    let calls = 109.0;
    assert_eq!(value("host_message_latency_seconds_count", &[]), calls);
    assert_eq!(value("host_plugin_call_seconds_count", &[]), ((calls + 1.0) / 16.0).floor(), "one in 16");
    assert_eq!(value("host_received_messages_total", &[]), 110.0);
    for (name, expected) in [
        ("host_redis_up", 1.0),
        ("host_group_hosts", 1.0),
        ("host_group_consumers", 1.0),
        ("host_consumers", 1.0),
        ("host_instances", 1.0),
        ("host_position_lag_messages", 0.0),
        ("host_gaps_total", 0.0),
        ("host_shed_messages_total", 0.0),
        ("host_dead_letters_trimmed_total", 0.0),
        ("host_results_trimmed_total", 0.0),
    ] {
        assert_eq!(value(name, &[]), expected, "{name}");
    }
    assert_eq!((value("host_intake_state", &[("state", "active")]), scraped.sum("host_intake_state")), (1.0, 1.0));
    let resident = value("host_process_resident_memory_bytes", &[]);
    assert!(resident > 1e6 && resident < 1e10, "{resident}");
    assert!(value("host_instances_memory_bytes", &[]) >= 65_536.0);
    assert!(value("host_process_cpu_seconds_total", &[]) > 0.0);
    assert!(value("host_consumer_threads_busy_seconds_total", &[]) > 0.0);
    assert_eq!(value("host_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
}

#[test]
fn the_inbox_and_the_age_of_its_oldest_delivery_are_shown() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--max-plugin-time", "1m").ready(&redis, 1);
    Publisher::new(&redis).publish(message("slow", json!({"do": "wait", "ms": 60_000})));
    redis.wait_until_in_work("slow");
    let grows = |scraped: &Exposition| scraped.value("host_inbox_oldest_age_seconds", &[]) > 1.0;
    let scraped = wait_for_scrape(address(&host), "an old delivery", grows);
    assert_eq!(scraped.value("host_inbox_entries", &[]), 1.0);
    host.kill();
}

#[test]
fn a_plugin_is_busy_while_it_computes_and_not_while_it_waits() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--max-plugin-time", "3s").arg("--max-attempts", "1").ready(&redis, 1);
    let busy = || scrape(address(&host)).sum("host_plugin_busy_seconds_total");
    Publisher::new(&redis).publish(message("waits", json!({"do": "wait", "ms": 2_500})));
    redis.result_of("waits");
    let waited = busy();
    assert!(waited < 1.0, "{waited}");
    Publisher::new(&redis).publish(message("computes", json!({"do": "loop"})));
    redis.dead_letter_of("computes");
    let computed = busy() - waited;
    assert!(computed > 0.2, "{computed}");
}

#[test]
fn every_metric_is_in_the_handbook_and_the_handbook_names_no_other() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let documented = documented();
    let scraped = scrape(address(&host));
    let answered: BTreeMap<String, Row> = scraped
        .metrics()
        .into_iter()
        .map(|(name, family)| {
            let labels = family.labels().into_iter().map(|label| {
                let values: BTreeSet<String> =
                    family.samples.iter().filter_map(|sample| sample.labels.get(label).cloned()).collect();
                // The handbook lists the values of a label that has few.
                let listed = documented.get(&name).and_then(|row| row.labels.get(label));
                (label.to_owned(), if listed.is_some_and(BTreeSet::is_empty) { BTreeSet::new() } else { values })
            });
            let labels = labels.collect();
            (name, Row { kind: family.kind.clone(), labels })
        })
        .collect();
    assert_eq!(answered, documented);
    assert!(documented.len() > 25, "{documented:?}");
}

#[test]
fn swaps_and_refusals_are_counted_and_calls_are_told_apart_by_version() {
    let redis = Redis::start();
    let plugin = redis.folder().join("plugin.wasm");
    let (a, b) = (Release::new("A"), Release::new("B"));
    a.write_to(&plugin);
    let host = listening(&redis).arg("--plugin", &plugin).ready(&redis, 10);
    let address = address(&host);
    let mut publisher = Publisher::new(&redis);
    publisher.publish_all((0..400).map(|n| message(&format!("a-{n}"), json!({}))));
    redis.wait_for_settled(400);
    b.write_to(&plugin);
    let swapped = |scraped: &Exposition| scraped.sum("host_plugin_swaps_total") > 0.5;
    let scraped = wait_for_scrape(address, "a swap", swapped);
    assert_eq!(scraped.value("host_plugin_info", &[("digest", &b.digest), ("generation", "2")]), 1.0);
    assert_eq!(scraped.samples("host_plugin_info").len(), 1, "the version before is not in use");
    publisher.publish_all((0..400).map(|n| message(&format!("b-{n}"), json!({}))));
    redis.wait_for_settled(800);
    Release::of("C", "no component").write_to(&plugin);
    let refused = |scraped: &Exposition| scraped.sum("host_plugin_refusals_total") > 0.5;
    let scraped = wait_for_scrape(address, "a refusal", refused);
    for Release { digest, .. } in [a, b] {
        let calls = scraped.value("host_plugin_call_seconds_count", &[("digest", &digest)]);
        assert!((15.0..=35.0).contains(&calls), "one in 16 of 400: {calls}");
    }
    assert_eq!((scraped.sum("host_plugin_swaps_total"), scraped.sum("host_plugin_rollbacks_total")), (1.0, 0.0));
}

#[test]
fn without_redis_a_host_tells_its_own_figures_and_none_of_the_group() {
    let mut redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    Publisher::new(&redis).publish_all((0..10).map(|n| message(&format!("m-{n}"), json!({}))));
    redis.wait_for_settled(10);
    let of_group =
        ["host_group_hosts", "host_group_consumers", "host_inbox_entries", "host_retries_waiting", "host_dead_letters"];
    let all = wait_for_scrape(address, "the figures of the group", |scraped| scraped.sum("host_redis_up") > 0.5);
    of_group.iter().for_each(|name| _ = all.value(name, &[]));
    redis.kill();
    let down = wait_for_scrape(address, "Redis is away", |scraped| scraped.sum("host_redis_up") < 0.5);
    assert_eq!(down.value("host_messages_total", &[("outcome", "emitted")]), 10.0);
    of_group.iter().for_each(|name| assert!(down.samples(name).is_empty(), "{name}"));
    redis.restart();
    let up = wait_for_scrape(address, "Redis is back", |scraped| scraped.sum("host_redis_up") > 0.5);
    of_group.iter().for_each(|name| _ = up.value(name, &[]));
    assert!(up.value("host_reconnects_total", &[]) > 0.0);
}

#[test]
fn a_redis_that_does_not_answer_holds_no_scrape_up() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    redis.signal(crate::support::Signal::Stop);
    let down = wait_for_scrape(address(&host), "Redis is away", |scraped| scraped.sum("host_redis_up") < 0.5);
    assert_eq!(down.value("host_consumers", &[]), 1.0);
    // The look was given up, long before the connection would have been.
    let group = Request::get("/api/v1/group").send(address(&host));
    assert!(group.status == 503 && group.text().contains("has not answered within 2s"), "{}", group.text());
    redis.signal(crate::support::Signal::Continue);
}

#[test]
fn nothing_is_left_of_a_host_that_is_gone() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--heartbeat-ttl", "1s").ready(&redis, 1);
    let other = Host::on(&redis).arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "1s").ready(&redis, 3);
    let of_group = |scraped: &Exposition| (scraped.sum("host_group_hosts"), scraped.sum("host_group_consumers"));
    let address = address(&host);
    let both = wait_for_scrape(address, "two hosts", |scraped| of_group(scraped) == (2.0, 4.0));
    other.kill();
    let one = wait_for_scrape(address, "one host", |scraped| of_group(scraped) == (1.0, 1.0));
    let series = |scraped: &Exposition| -> BTreeSet<String> {
        let samples = scraped.0.values().flat_map(|family| &family.samples);
        samples.map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
    };
    assert_eq!(series(&one), series(&both), "no label names a host");
}

/// How often Redis was asked for this by anybody.
fn asked(redis: &Redis, command: &str) -> u64 {
    let info: String = redis.run(cmd("INFO").arg("commandstats"));
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn many_scrapers_cost_redis_one_look_a_second() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    assert_eq!(asked(&redis, "xinfo|stream"), 0, "nobody has asked for metrics");
    let start = Instant::now();
    scrape(address);
    let of_one_look = asked(&redis, "xinfo|stream");
    assert!(of_one_look > 0);
    (0..200).for_each(|_| _ = scrape(address));
    let looks_max = start.elapsed().as_secs() + 1;
    let of_all = asked(&redis, "xinfo|stream");
    assert!(of_all <= looks_max * of_one_look, "{of_all} in {:?}", start.elapsed());
}

#[test]
fn a_scraper_needs_the_token() {
    let redis = Redis::start();
    let host = listening(&redis).env("HOST_HTTP_TOKEN", TOKEN).ready(&redis, 1);
    let address = address(&host);
    let get = || Request::get("/metrics");
    for request in [get(), get().token(&TOKEN.replace('0', "1"))] {
        let refused = request.send(address);
        assert_eq!(refused.status, 401);
        assert!(!refused.text().contains("host_"), "{}", refused.text());
    }
    openmetrics::scrape(address, get().token(TOKEN));
}
