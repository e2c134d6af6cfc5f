//! What is removed from streams because of their bounds: it is counted, and what somebody still wanted is said.

use redis::cmd;
use serde_json::{Value, json};

use crate::support::host::Launch;
use crate::support::http::{Request, address};
use crate::support::openmetrics::scrape;
use crate::support::records::{DEAD, OUTPUT};
use crate::support::{Host, Publisher, Redis, message, wait_until};

/// The entry ids of dead letters without a message id.
const INDEX: &str = "{messages:processed}:dead-index";

fn reporting(redis: &Redis) -> Launch {
    Host::on(redis).arg("--log-format", "json").arg("--report-interval", "200ms").arg("--max-attempts", "1")
}

fn reports(host: &Host, field: &'static str, number: usize) -> Value {
    host.wait_for_report(&format!("{field} {number}"), |report| report[field] == json!(number))
}

/// What `host` writes for these words.
fn told(redis: &Redis, command: &str, words: &[&str]) -> String {
    Launch::subcommand(command).words(words).arg("--redis", redis.url()).run().stdout
}

fn status(redis: &Redis) -> Value {
    serde_json::from_str(&told(redis, "status", &["--json"])).unwrap()
}

/// Publishes what is no message, between two messages that become dead letters.
fn publish_junk(redis: &Redis, count: usize) {
    let junk = |range: std::ops::Range<usize>| range.map(|n| format!("junk {n}")).collect::<Vec<_>>();
    let mut publisher = Publisher::new(redis);
    publisher.publish(message("first", json!({"do": "fail"})));
    redis.dead_letter_of("first");
    publisher.publish_all(junk(0..count / 2));
    publisher.publish(message("second", json!({"do": "fail"})));
    redis.dead_letter_of("second");
    publisher.publish_all(junk(count / 2..count));
}

#[test]
fn dead_letters_that_never_were_messages_are_kept_up_to_a_bound_and_the_rest_is_counted() {
    let redis = Redis::start();
    let host = reporting(&redis).arg("--max-dead-without-id", "50").arg("--http", "127.0.0.1:0").ready(&redis, 2);
    publish_junk(&redis, 200);
    reports(&host, "dead_letters", 202);
    reports(&host, "dead_letters_trimmed", 150);
    let kept: Vec<String> = redis.dead_letters().iter().map(|letter| letter.text("payload").to_owned()).collect();
    let junk: Vec<String> = (150..200).map(|n| format!("junk {n}")).collect();
    let of_messages: Vec<&String> = kept.iter().filter(|payload| payload.contains("message_id")).collect();
    assert_eq!((kept.len(), of_messages.len(), redis.length(INDEX)), (52, 2, 50), "those with an id are never removed");
    assert_eq!(kept.iter().filter(|payload| payload.starts_with("junk")).cloned().collect::<Vec<_>>(), junk);

    // Everybody who looks sees both kinds, and the count.
    let listed = told(&redis, "dead", &["list", "--json", "--limit", "100"]);
    assert_eq!(listed.lines().count(), 52);
    assert!(told(&redis, "dead", &["show", "first"]).contains("first"));
    wait_until("the count in the status", || status(&redis)["totals"]["dead_letters_trimmed"] == 150);
    let found = status(&redis);
    assert_eq!((&found["dead_letters"]["length"], &found["dead_letters"]["without_id"]), (&json!(52), &json!(50)));
    assert!(told(&redis, "status", &[]).contains("150 dead letters"));
    let address = address(&host);
    assert_eq!(scrape(address, Request::get("/metrics")).value("host_dead_letters_trimmed_total", &[]), 150.0);
    let page = Request::get("/api/v1/dead-letters?limit=100").send(address).json();
    assert_eq!(page["dead_letters"].as_array().unwrap().len(), 52);

    // What was purged makes room.
    let purged = told(&redis, "dead", &["purge", "--reason", "not-json", "--yes"]);
    assert_eq!((purged.as_str(), redis.length(INDEX)), ("purged 50 dead letters\n", 0));
    Publisher::new(&redis).publish_all((200..240).map(|n| format!("junk {n}")));
    reports(&host, "dead_letters", 242);
    assert_eq!((redis.length(DEAD), redis.length(INDEX)), (42, 40));
    // Both those with an id go back, and fail again.
    told(&redis, "dead", &["replay", "--all"]);
    reports(&host, "dead_letters", 244);
    assert_eq!((redis.length(DEAD), redis.length(INDEX)), (42, 40));
    reports(&host, "dead_letters_trimmed", 150);
}

#[test]
fn by_default_a_hundred_thousand_of_them_are_kept() {
    let redis = Redis::start();
    let host = reporting(&redis).ready(&redis, 1);
    Publisher::new(&redis).publish_all((0..100_500).map(|n| format!("{n} junk")));
    reports(&host, "dead_letters", 100_500);
    reports(&host, "dead_letters_trimmed", 500);
    assert_eq!((redis.length(DEAD), redis.length(INDEX)), (100_000, 100_000));
}

#[test]
fn all_of_them_are_kept_where_the_operator_says_so() {
    let redis = Redis::start();
    let host = reporting(&redis).arg("--max-dead-without-id", "0").ready(&redis, 1);
    publish_junk(&redis, 100);
    reports(&host, "dead_letters", 102);
    assert_eq!((redis.length(DEAD), redis.length(INDEX)), (102, 0));
}

#[test]
fn a_bound_for_all_dead_letters_holds_as_well_and_is_counted() {
    let redis = Redis::start();
    let host = reporting(&redis).arg("--max-dead-length", "100").arg("--breaker-messages", "0").ready(&redis, 1);
    Publisher::new(&redis).publish_all((0..1_000).map(|n| message(&format!("f-{n}"), json!({"do": "fail"}))));
    reports(&host, "dead_letters", 1_000);
    let of_messages = 1_000 - redis.length(DEAD);
    assert!(of_messages > 500, "{of_messages} are trimmed");
    reports(&host, "dead_letters_trimmed", of_messages);
    Publisher::new(&redis).publish_all((0..1_000).map(|n| format!("junk {n}")));
    reports(&host, "dead_letters", 2_000);
    reports(&host, "dead_letters_trimmed", 2_000 - redis.length(DEAD));
}

#[test]
fn dead_letters_go_on_when_somebody_has_deleted_them_or_spoiled_their_index() {
    let redis = Redis::start();
    let host = reporting(&redis).arg("--max-dead-without-id", "10").ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    let mut publish = |count: usize| {
        publisher.publish_all((0..count).map(|n| format!("junk {n}")));
    };
    publish(10);
    reports(&host, "dead_letters", 10);
    redis.run::<()>(cmd("DEL").arg(DEAD));
    // The next entry has an older id than what is left of the index.
    redis.run::<()>(cmd("XADD").arg(INDEX).arg("99999999999999-0").arg("").arg(""));
    publish(5);
    reports(&host, "dead_letters", 15);
    assert_eq!((redis.length(DEAD), redis.length(INDEX)), (5, 5));

    redis.run::<()>(cmd("SET").arg(INDEX).arg("text"));
    publish(3);
    host.wait_for_log("dead-index");
    redis.run::<()>(cmd("DEL").arg(INDEX));
    reports(&host, "dead_letters", 18);
    assert_eq!(redis.length(DEAD), 8, "each once");
}

#[test]
fn many_dead_letters_with_an_id_are_warned_of_once_and_kept() {
    let redis = Redis::start();
    let hosts = [reporting(&redis).arg("--warn-dead-length", "5"), reporting(&redis).arg("--warn-dead-length", "5")];
    let hosts = hosts.map(|launch| launch.consumers(1).start());
    redis.wait_for_consumers(2);
    redis.wait_for_a_lease();
    let mut publisher = Publisher::new(&redis);
    let warnings = || {
        hosts.iter().map(|host| host.log().matches("more than 5 dead letters with a message id").count()).sum::<usize>()
    };
    let settled = |count: usize| {
        hosts
            .iter()
            .map(|host| host.reports().last().map_or(0, |report| report["dead_letters"].as_u64().unwrap()))
            .sum::<u64>()
            == count as u64
    };
    publisher.publish_all((0..20).map(|n| format!("junk {n}")));
    publisher.publish_all((0..5).map(|n| message(&format!("f-{n}"), json!({"do": "fail"}))));
    wait_until("25 dead letters in the reports", || settled(25));
    assert_eq!(warnings(), 0, "without an id they do not count");
    publisher.publish(message("f-5", json!({"do": "fail"})));
    wait_until("a warning", || warnings() == 1);
    publisher.publish(message("f-6", json!({"do": "fail"})));
    wait_until("27 dead letters in the reports", || settled(27));
    assert_eq!((warnings(), redis.length(DEAD)), (1, 27));
}

#[test]
fn trimmed_results_are_counted_whichever_way_they_were_written() {
    let redis = Redis::start();
    let host = reporting(&redis).arg("--max-output-length", "100").arg("--http", "127.0.0.1:0").ready(&redis, 2);
    Publisher::new(&redis).publish_all((0..2_000).map(|n| message(&format!("o-{n}"), json!({}))));
    reports(&host, "processed", 2_000);
    let usual = 2_000 - redis.length(OUTPUT);
    assert!(usual > 1_000, "{usual} are trimmed");
    reports(&host, "results_trimmed", usual);
    // Together with a dead letter, results are written by the script.
    for n in 0..500 {
        let orders = [json!({}), json!({"do": "fail"})];
        let both = orders.into_iter().enumerate().map(|(at, order)| message(&format!("s-{n}-{at}"), order));
        Publisher::new(&redis).publish_all(both);
    }
    reports(&host, "processed", 3_000);
    let all = 2_500 - redis.length(OUTPUT);
    assert!(all > usual, "{all} are trimmed");
    reports(&host, "results_trimmed", all);
    wait_until("the count in the status", || status(&redis)["totals"]["results_trimmed"] == json!(all));
    let scraped = scrape(address(&host), Request::get("/metrics"));
    assert_eq!(scraped.value("host_results_trimmed_total", &[]), all as f64);
}

#[test]
fn what_a_reader_had_not_read_when_it_was_trimmed_is_logged() {
    let redis = Redis::start();
    let host = reporting(&redis).arg("--max-output-length", "100").ready(&redis, 2);
    Publisher::new(&redis).publish(message("first", json!({})));
    redis.result_of("first");
    redis.run::<()>(cmd("XGROUP").arg("CREATE").arg(OUTPUT).arg("slow").arg("0"));
    redis.run::<()>(cmd("XGROUP").arg("CREATE").arg(OUTPUT).arg("quick").arg("$"));
    let read = |group: &str, count: usize| {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(group).arg("reader").arg("COUNT").arg(count).arg("STREAMS").arg(OUTPUT).arg(">");
        redis.run::<redis::Value>(&command);
    };
    read("slow", 1);
    let mut publisher = Publisher::new(&redis);
    let mut published = 1;
    wait_until("a line about the slow reader", || {
        publisher.publish_all((0..100).map(|n| message(&format!("o-{published}-{n}"), json!({}))));
        published += 100;
        reports(&host, "processed", published);
        read("quick", 1_000);
        host.log().contains("\"group\":\"slow\"")
    });
    let line = host.log().lines().find(|line| line.contains("\"group\":\"slow\"")).map(str::to_owned).unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["level"], &line["stream"]), (&json!("WARN"), &json!(OUTPUT)));
    let unread = usize::try_from(line["unread"].as_u64().unwrap()).unwrap();
    assert!((1..published).contains(&unread), "{line}");
    assert!(!host.log().contains("\"group\":\"quick\""), "it has read everything");
}
