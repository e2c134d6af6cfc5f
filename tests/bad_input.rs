//! Every payload that is not a message becomes one dead letter, and other messages are processed.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{iter, thread};

use redis::cmd;
use serde_json::json;

use crate::support::host::Launch;
use crate::support::records::{DEAD, INBOX, OUTPUT};
use crate::support::{BOUND, Entry, Host, Publisher, Redis, enrich, message, wait_for, wait_until};

/// A bad payload, the expected reason, and the expected id in the dead letter.
struct Bad {
    payload: Vec<u8>,
    reason: &'static str,
    id: Option<String>,
}

fn bad(reason: &'static str, payload: impl Into<Vec<u8>>) -> Bad {
    Bad { payload: payload.into(), reason, id: None }
}

/// Publishes a good message before and after every bad one, and returns the dead letters in the order of the bad
/// messages.
fn dead_letters_among_good_messages(redis: &Redis, all: &[Bad]) -> Vec<Entry> {
    let good = |n: usize| message(&format!("good-{n}"), json!({"n": n})).into_bytes();
    let around = all.iter().enumerate().flat_map(|(n, bad)| [good(n), bad.payload.clone()]);
    Publisher::new(redis).publish_all(around.chain(iter::once(good(all.len()))));

    wait_for("the good messages' results and the dead letters", BOUND, || {
        let (results, letters) = (redis.length(OUTPUT), redis.length(DEAD));
        let is_complete = results > all.len() && letters >= all.len();
        if is_complete { Ok(()) } else { Err(format!("{results} results, {letters} dead letters of {}", all.len())) }
    });
    redis.wait_for_an_empty_inbox();
    assert_eq!(redis.length(OUTPUT), all.len() + 1, "one result for every good message");
    let letters = redis.dead_letters();
    assert_eq!(letters.len(), all.len(), "one dead letter for every bad message");
    letters
}

/// Requires that each bad payload has exactly one dead letter, with its reason and its bytes.
fn expect_one_dead_letter_each(redis: &Redis, all: &[Bad]) {
    let mut letters = dead_letters_among_good_messages(redis, all);
    for bad in all {
        let shown = String::from_utf8_lossy(&bad.payload[..bad.payload.len().min(80)]);
        let is_its = |entry: &Entry| entry.bytes("payload") == Some(&bad.payload);
        let position = letters.iter().position(is_its).unwrap_or_else(|| panic!("no dead letter with {shown:?}"));
        let letter = letters.swap_remove(position);
        assert_eq!(letter.text("reason"), bad.reason, "of {shown:?}: {}", letter.text("error"));
        assert_eq!(letter.text("payload_bytes"), bad.payload.len().to_string(), "of {shown:?}");
        assert!(letter.text("error").contains(' '), "a sentence for people: {:?}", letter.text("error"));
        assert!(!letter.text("host_id").is_empty() && !letter.text("time").is_empty());
        if let Some(id) = &bad.id {
            assert_eq!(letter.text("message_id"), id);
        }
    }
}

fn nested(arrays: usize) -> Vec<u8> {
    format!(r#"{{"message_id":"deep-{arrays}","a":{}{}}}"#, "[".repeat(arrays), "]".repeat(arrays)).into_bytes()
}

#[test]
fn what_is_no_json_object_becomes_a_dead_letter() {
    let redis = Redis::start();
    // A standby sees the bad messages as well, and must not count them twice.
    let _hosts = [Host::ready(&redis, 3), Host::ready(&redis, 3)];
    let every_byte: Vec<u8> = (0..=255).collect();
    expect_one_dead_letter_each(
        &redis,
        &[
            bad("not-utf8", b"\xff\xfe\xfd"),
            bad("not-utf8", b"{\"message_id\":\"\xc3\x28\"}"),
            bad("not-utf8", b"{\"message_id\":\"x\",\"text\":\"\xed\xa0\x80\"}"),
            bad("not-utf8", every_byte),
            bad("not-json", ""),
            bad("not-json", " \r\n "),
            bad("not-json", "\0\0\0"),
            bad("not-json", "hello"),
            bad("not-json", r#"{"message_id":"cut off""#),
            bad("not-json", r#"{"message_id":"comma",}"#),
            bad("not-json", r#"{'message_id':'quotes'}"#),
            bad("not-json", r#"{"message_id":"tail"} {"message_id":"tail"}"#),
            bad("not-json", r#"{"message_id":"nan","n":NaN}"#),
            bad("not-json", r#"{"message_id":"zero","n":01}"#),
            bad("not-json", "\u{feff}{\"message_id\":\"bom\"}"),
            bad("not-json", "{\"message_id\":\"line\nfeed\"}"),
            bad("not-an-object", "[]"),
            bad("not-an-object", r#"[{"message_id":"in an array"}]"#),
            bad("not-an-object", "null"),
            bad("not-an-object", "true"),
            bad("not-an-object", "12"),
            bad("not-an-object", r#""text""#),
            bad("not-an-object", r#""\ud800""#),
            bad("not-an-object", "1e400"),
            bad("not-json", "[1,"),
        ],
    );
}

#[test]
fn a_message_without_a_usable_id_becomes_a_dead_letter() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 3);
    let of_bytes = |count: usize| format!(r#"{{"message_id":"{}"}}"#, "i".repeat(count));
    expect_one_dead_letter_each(
        &redis,
        &[
            bad("no-id", "{}"),
            bad("no-id", r#"{"id":"x"}"#),
            bad("no-id", r#"{"Message_ID":"x"}"#),
            bad("no-id", r#"{"a":{"message_id":"inside"}}"#),
            bad("bad-id", r#"{"message_id":""}"#),
            bad("bad-id", r#"{"message_id":null}"#),
            bad("bad-id", r#"{"message_id":true}"#),
            bad("bad-id", r#"{"message_id":false}"#),
            bad("bad-id", r#"{"message_id":{}}"#),
            bad("bad-id", r#"{"message_id":["x"]}"#),
            bad("bad-id", r#"{"message_id":"cut \ud83d"}"#),
            bad("bad-id", r#"{"message_id":"a","message_id":"b"}"#),
            bad("id-too-long", of_bytes(513)),
            // 171 characters of three bytes.
            bad("id-too-long", format!(r#"{{"message_id":"{}"}}"#, "€".repeat(171))),
            bad("id-too-long", format!(r#"{{"message_id":1{}}}"#, "0".repeat(512))),
        ],
    );
}

#[test]
fn half_of_a_surrogate_pair_outside_the_id_is_no_reason_to_give_a_message_up() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--plugin", enrich()).ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(r#"{"message_id":"value","text":"cut \ud83d","list":["\udc00",{"\ud800":1}]}"#);
    publisher.publish(r#"{"text":"cut \ud83d","message_id":"before"}"#);
    let entry = redis.result_of("value");
    assert_eq!(entry.text("text"), "cut \u{fffd}");
    assert_eq!(entry.text("list"), r#"["\udc00",{"\ud800":1}]"#, "byte for byte");
    assert_eq!(redis.result_of("before").text("text"), "cut \u{fffd}");
    // The plugin rejects this message, not the host: the plugin gets the message unchanged.
    publisher.publish(r#"{"message_id":"name","\ud800":1}"#);
    assert_eq!(redis.dead_letter_of("name").text("reason"), "plugin-failed");
}

#[test]
fn an_entry_with_an_impossible_time_ends_no_consumer() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 1);
    // As no host writes it: the claim is of the year 571,000,000, and its window lasts as long.
    let (forged, largest) = (message("forged", json!({"do": "reject", "reason": "no"})), u64::MAX);
    let note = format!("1 {largest}-0 0");
    let opening = format!("v1 {largest}-0 {largest}");
    redis.run::<()>(cmd("SET").arg("{messages:processed}:claim:forged").arg(format!("{largest}-0")));
    let fields = ["", &opening, "", &note, "forged", &forged];
    redis.run::<String>(cmd("XADD").arg(INBOX).arg("*").arg(&fields));
    let letter = redis.dead_letter_of("forged");
    assert_eq!((letter.text("reason"), letter.text("first_seen")), ("plugin-rejected", "9999-12-31T23:59:59.999Z"));
    // The only consumer goes on.
    Publisher::new(&redis).publish(message("after", json!({})));
    redis.result_of("after");
    let ended = host.stop();
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
}

#[test]
fn a_byte_order_mark_is_named() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    Publisher::new(&redis).publish("\u{feff}{\"message_id\":\"bom\"}");
    wait_until("a dead letter", || redis.length(DEAD) == 1);
    let letter = redis.dead_letters().remove(0);
    assert_eq!(letter.text("reason"), "not-json");
    assert!(letter.text("error").contains("begins with a byte order mark (U+FEFF)"), "{}", letter.text("error"));
    // At the start of a file the mark is not part of the first message.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "\u{feff}{\"message_id\":\"of a file\"}\n").unwrap();
    let published = Launch::subcommand("publish").arg("--file", file.path()).arg("--redis", redis.url()).run();
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    redis.result_of("of a file");
    assert_eq!(redis.length(DEAD), 1);
}

#[test]
fn a_message_too_deep_becomes_a_dead_letter() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 3);
    let deep = |arrays: usize| Bad { id: None, ..bad("too-deep", nested(arrays)) };
    let objects = format!(r#"{{"message_id":"objects","a":{}1{}}}"#, r#"{"a":"#.repeat(200), "}".repeat(200));
    expect_one_dead_letter_each(&redis, &[deep(128), deep(200), deep(100_000), bad("too-deep", objects)]);
    Publisher::new(&redis).publish(nested(100));
    redis.result_of("deep-100");
}

#[test]
fn an_oversized_message_becomes_a_dead_letter_with_its_beginning_and_its_length() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 3);
    let of_bytes = |id: &str, bytes: usize| {
        let empty = message(id, json!({"filler": ""})).len();
        message(id, json!({"filler": "x".repeat(bytes - empty)}))
    };
    let mega = 1 << 20;
    let largest = of_bytes("largest", mega);
    Publisher::new(&redis).publish(&largest);
    assert_eq!(redis.result_of("largest").text("filler").len(), mega - message("largest", json!({"filler": ""})).len());

    let too_big = [of_bytes("one too many", mega + 1), of_bytes("huge", 20 * mega)];
    for payload in &too_big {
        Publisher::new(&redis).publish(payload);
    }
    let letters = wait_for("two dead letters", BOUND, || {
        let letters = redis.dead_letters();
        if letters.len() >= 2 { Ok(letters) } else { Err(format!("{}", letters.len())) }
    });
    for payload in &too_big {
        let length = payload.len().to_string();
        let letter = letters.iter().find(|letter| letter.text("payload_bytes") == length).unwrap();
        assert_eq!(letter.text("reason"), "too-big");
        assert_eq!(letter.bytes("payload").unwrap(), &payload.as_bytes()[..64 << 10]);
    }
    Publisher::new(&redis).publish(message("after", json!({})));
    redis.result_of("after");
    assert_eq!(redis.length(DEAD), 2);
}

#[test]
fn a_bad_message_is_kept_once_also_when_a_standby_takes_over() {
    let redis = Redis::start();
    let active = Host::ready(&redis, 2);
    let lease = redis.wait_for_a_lease();
    let _standby = Host::ready(&redis, 2);
    // Three publications are three bad messages.
    let all = (0..20).map(|n| format!("bad {n}")).chain(iter::repeat_n("again".to_owned(), 3));
    let mut publisher = Publisher::new(&redis);
    publisher.publish_all(all);
    let letters = || redis.length(DEAD);
    wait_until("a dead letter each", || letters() == 23);
    active.kill();
    wait_until("another active intake", || redis.lease().is_some_and(|now| now != lease));
    // When the new intake appends something new, it has already replayed its kept messages.
    publisher.publish("new");
    publisher.publish(message("after", json!({})));
    redis.result_of("after");
    assert_eq!(letters(), 24);
}

#[test]
fn a_flood_of_bad_messages_is_logged_at_a_bounded_rate_and_stops_nothing() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 3);
    let count = 20_000;
    let mut publisher = Publisher::new(&redis);
    publisher.publish_all((0..count).map(|n| format!("not json {n}")));
    publisher.publish(message("after", json!({})));
    redis.result_of("after");
    wait_for("a dead letter each", BOUND, || match redis.length(DEAD) {
        letters if letters == count => Ok(()),
        letters => Err(format!("{letters} dead letters")),
    });
    let lines = host.log().lines().count();
    assert!(lines < 500, "{count} bad messages made {lines} lines of log");
}

#[test]
fn what_is_no_message_becomes_one_dead_letter_while_hosts_join() {
    let redis = Redis::start();
    let is_enough = AtomicBool::new(false);
    let join = || {
        let launch = Host::on(&redis).arg("--log-format", "json").arg("--report-interval", "100ms");
        launch.arg("--max-dead-without-id", "0").consumers(1).start()
    };
    let (heard, hosts) = thread::scope(|scope| {
        let publishing = scope.spawn(|| {
            let mut publisher = Publisher::new(&redis);
            let junk = (0..).map(|n| format!("junk {n}")).take_while(|_| !is_enough.load(Ordering::Relaxed));
            junk.filter(|junk| publisher.publish(junk) > 0).collect::<HashSet<String>>()
        });
        // The first ones while the history of the marks begins, each other one when those before it are there.
        let mut hosts = vec![join(), join(), join()];
        for count in 4..=6 {
            redis.wait_for_subscribers(count - 1);
            hosts.push(join());
        }
        redis.wait_for_consumers(6);
        is_enough.store(true, Ordering::Relaxed);
        (publishing.join().expect("a publisher"), hosts)
    });
    // What a host would append once more it would append before it has nothing that waits.
    for host in &hosts {
        let reports = host.reports().len();
        let is_at_rest = || {
            let now = host.reports();
            now.len() > reports + 1
                && now.last().is_some_and(|last| last["intake_active"].is_string() && last["position_lag"] == 0)
        };
        wait_until("nothing that waits", is_at_rest);
    }
    let letters = redis.dead_letters();
    let payload = |letter: &Entry| letter.text("payload").to_owned();
    assert_eq!(letters.iter().map(payload).collect::<HashSet<String>>(), heard);
    assert_eq!(letters.len(), heard.len(), "some twice");
}
