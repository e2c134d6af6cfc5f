//! `/api/v1`: what an operator reads over HTTP. The commands and the document have files of their own.

mod commands;
mod openapi;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use redis::cmd;
use serde_json::{Value, json};

use crate::access::{denied, documented_rule, with_user};
use crate::support::host::Launch;
use crate::support::http::{Answer, Request, address};
use crate::support::records::{DEAD, INBOX, OUTPUT, RETRY};
use crate::support::{Host, Publisher, Redis, Release, message, wait_until};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const READS: [&str; 8] =
    ["group", "versions", "inbox", "retries", "dead-letters", "dead-letters/1-1", "events", "tail"];

fn listening(redis: &Redis) -> Launch {
    Host::on(redis).arg("--http", "127.0.0.1:0")
}

fn get(address: SocketAddr, path: &str) -> Answer {
    Request::get(&format!("/api/v1/{path}")).send(address)
}

/// The answer to a question that must be answered.
fn read(address: SocketAddr, path: &str) -> Value {
    let answer = get(address, path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Requires an error with this status and these words in its sentence.
fn expect_error(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status, status, "{words}: {}", answer.text());
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    assert!(body["error"].as_str().unwrap().contains(words), "{words}: {body}");
}

/// A host that takes new versions from a file, and that file.
fn with_version(redis: &Redis, release: &Release) -> (Launch, PathBuf) {
    let file = redis.folder().join("plugin.wasm");
    deploy(&file, release);
    let launch = listening(redis).arg("--plugin", &file);
    (launch, file)
}

/// Puts a version in place of the file, in one step.
fn deploy(file: &PathBuf, release: &Release) {
    let new = file.with_extension("new");
    fs::write(&new, &release.bytes).unwrap();
    fs::rename(&new, file).unwrap();
}

/// A host with one attempt for each message, and dead letters of several kinds: with the ids `l-0` to `l-4`, one that is
/// rejected, and one that is no text.
fn with_dead_letters(redis: &Redis) -> Host {
    let host = listening(redis).arg("--max-attempts", "1").ready(redis, 1);
    let mut publisher = Publisher::new(redis);
    for n in 0..5 {
        publisher.publish(message(&format!("l-{n}"), json!({"do": "fail", "reason": format!("reason {n}")})));
        redis.dead_letter_of(&format!("l-{n}"));
    }
    publisher.publish(message("rejected", json!({"do": "reject", "reason": "x".repeat(3_000)})));
    redis.dead_letter_of("rejected");
    publisher.publish(b"\xff\xfe no message");
    wait_until("the dead letter of what is no text", || redis.length(DEAD) == 7);
    host
}

#[test]
fn every_path_needs_the_token_and_takes_get() {
    let redis = Redis::start();
    let host = listening(&redis).env("HOST_HTTP_TOKEN", TOKEN).ready(&redis, 1);
    let address = address(&host);
    for path in READS {
        let path = format!("/api/v1/{path}");
        assert_eq!(Request::get(&path).send(address).status, 401, "{path}");
        let answer = Request::get(&path).method("DELETE").token(TOKEN).send(address);
        expect_error(&answer, 405, "does not take DELETE");
    }
    assert_eq!(Request::get("/api/v1/group").token(TOKEN).send(address).status, 200);
}

#[test]
fn the_group_is_what_redis_shows() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 2);
    let other = Host::ready(&redis, 3);
    let address = address(&host);
    wait_until("all consumers", || read(address, "group")["totals"]["consumers"] == 5);
    let group = read(address, "group");
    let shown = Launch::subcommand("status").switch("--json").arg("--redis", redis.url()).run();
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(
        group.as_object().unwrap().keys().collect::<Vec<_>>(),
        shown.as_object().unwrap().keys().collect::<Vec<_>>()
    );
    assert_eq!((&group["group"], &group["consumers"][4]["id"]), (&shown["group"], &shown["consumers"][4]["id"]));
    drop(other);
}

#[test]
fn versions_have_a_history() {
    let redis = Redis::start();
    let (a, b) = (Release::new("A"), Release::new("B"));
    let (launch, file) = with_version(&redis, &a);
    let host = launch.ready(&redis, 1);
    let address = address(&host);
    let mut events = Request::get("/api/v1/events").follow(address);
    let versions = read(address, "versions");
    assert_eq!(versions["current"]["digest"], a.digest.as_str());
    let started = json!({"at": versions["history"][0]["at"], "event": "started", "digest": a.digest, "before": null,
        "generation": 1, "reason": null});
    assert_eq!(versions["history"], json!([started]));

    deploy(&file, &b);
    let swapped = events.next_of("version");
    assert_eq!((&swapped["event"], &swapped["digest"]), (&json!("swapped"), &json!(b.digest)));
    assert_eq!((&swapped["before"], &swapped["generation"]), (&json!(a.digest), &json!(2)));
    deploy(&file, &Release::of("no plugin", *b"no component"));
    let refused = events.next_of("version");
    assert_eq!((&refused["event"], &refused["before"]), (&json!("refused"), &json!(b.digest)));
    assert!(refused["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{refused}");
    let versions = read(address, "versions");
    assert_eq!(versions["history"], json!([refused, swapped, started]));
    assert_eq!(versions["current"]["digest"], b.digest.as_str());
}

#[test]
fn the_inbox_and_the_retries_are_shown_without_their_messages() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    assert_eq!(read(address, "inbox"), json!({"entries": [], "more": false}));
    assert_eq!(read(address, "retries"), json!({"retries": [], "more": false}));
    let mut publisher = Publisher::new(&redis);
    for n in 0..3 {
        publisher.publish(message(&format!("r-{n}"), json!({"do": "retry", "delay_ms": 600_000 + n * 60_000})));
    }
    wait_until("retries", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 3);
    let retries = read(address, "retries?limit=2");
    assert_eq!(retries["more"], true);
    let retries = retries["retries"].as_array().unwrap();
    let ids: Vec<&Value> = retries.iter().map(|retry| &retry["message_id"]).collect();
    assert_eq!(ids, ["r-0", "r-1"]);
    assert_eq!(retries[0]["attempt"], 2);
    assert!(retries[0]["due_at"].as_str().unwrap() < retries[1]["due_at"].as_str().unwrap());

    // One is in work for as long as the test takes; the others wait, with two messages in the last delivery.
    publisher.publish(message("busy", json!({"do": "sleep"})));
    redis.wait_until_in_work("busy");
    for n in 0..40 {
        let fields = [("a", "{}"), ("", "1 5-0 0"), ("b", "{}")];
        redis.run::<String>(cmd("XADD").arg(INBOX).arg(format!("9000000000000-{}", n + 1)).arg(&fields));
    }
    wait_until("two deliveries in the host", || redis.pending().values().sum::<usize>() == 2);
    let inbox = read(address, "inbox");
    let entries = inbox["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &inbox["more"]), (41, &json!(false)));
    let first = &entries[0];
    let owner = redis.pending().into_keys().next().unwrap();
    assert_eq!((&first["messages"], &first["deliveries"], &first["consumer"]), (&json!(1), &json!(1), &json!(owner)));
    assert!(first["age_ms"].as_u64().is_some());
    assert_eq!(entries[40], json!({"entry_id": "9000000000000-40", "age_ms": 0, "messages": 2}));
    let some = read(address, "inbox?limit=30");
    let ids = |entries: &[Value]| entries.iter().map(|entry| entry["entry_id"].clone()).collect::<Vec<_>>();
    assert_eq!((ids(some["entries"].as_array().unwrap()), &some["more"]), (ids(&entries[..30]), &json!(true)));
}

#[test]
fn dead_letters_are_read_in_pages() {
    let redis = Redis::start();
    let host = with_dead_letters(&redis);
    let address = address(&host);
    let (mut ids, mut after) = (Vec::new(), String::new());
    for _ in 0..4 {
        let page = read(address, &format!("dead-letters?limit=2{after}"));
        ids.extend(page["dead_letters"].as_array().unwrap().iter().map(|letter| letter["message_id"].clone()));
        after = page["next"].as_str().map(|next| format!("&after={next}")).unwrap_or_default();
    }
    assert!(after.is_empty(), "the last page is the end");
    assert_eq!(json!(ids), json!([null, "rejected", "l-4", "l-3", "l-2", "l-1", "l-0"]));

    let of = |choice: &str| -> Vec<Value> {
        read(address, &format!("dead-letters?{choice}"))["dead_letters"].as_array().unwrap().clone()
    };
    assert_eq!(of("reason=plugin-rejected").len(), 1);
    assert_eq!(of("text=reason%203")[0]["message_id"], "l-3");
    assert_eq!(of("id=l-2")[0]["error"], of("text=reason%202")[0]["error"]);
    assert_eq!(of("id=l-2&reason=not-utf8"), [json!(null); 0]);
    let bytes = of("reason=not-utf8").remove(0);
    assert_eq!((&bytes["payload"], &bytes["payload_encoding"]), (&json!("//4gbm8gbWVzc2FnZQ=="), &json!("base64")));
    assert_eq!(
        (&bytes["payload_bytes"], &bytes["message_id"], &bytes["cut"]),
        (&json!(13), &json!(null), &json!(false))
    );
    let long = of("id=rejected").remove(0);
    assert_eq!((&long["cut"], &long["payload_encoding"]), (&json!(true), &json!("text")));
    assert!(long["payload"].as_str().unwrap().len() <= 2_000);
}

#[test]
fn one_dead_letter_is_shown_whole() {
    let redis = Redis::start();
    let host = with_dead_letters(&redis);
    let address = address(&host);
    let entry = redis.dead_letter_of("rejected");
    let letter = read(address, &format!("dead-letters/{}", entry.id()));
    assert_eq!(letter["payload"], message("rejected", json!({"do": "reject", "reason": "x".repeat(3_000)})));
    for name in ["message_id", "reason", "error", "host_id", "consumer_id", "plugin_digest", "first_seen"] {
        assert_eq!(letter[name], entry.text(name), "{name}");
    }
    assert_eq!((&letter["attempts"], &letter["cut"]), (&json!(1), &json!(false)));
    assert!(letter["at"].as_str().unwrap().starts_with("20"), "{letter}");
    expect_error(&get(address, "dead-letters/5-5"), 404, "there is no dead letter 5-5");
    expect_error(&get(address, "dead-letters/latest"), 400, "no entry id");
    // Whatever somebody has written into the stream.
    redis.run::<String>(cmd("XADD").arg(DEAD).arg("18446744073709551615-0").arg("note").arg("x"));
    let foreign = read(address, "dead-letters/18446744073709551615-0");
    assert_eq!((&foreign["reason"], &foreign["payload"], &foreign["at"]), (&json!(null), &json!(null), &json!(null)));
}

#[test]
fn wrong_parameters_are_named() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    for (path, words) in [
        ("inbox?limit=0", "limit: it must be a number from 1 to 1000"),
        ("retries?limit=1001", "limit"),
        ("inbox?limit=many", "limit"),
        ("inbox?limit=1&limit=2", "duplicate field `limit`"),
        ("inbox?pages=1", "unknown field `pages`"),
        ("dead-letters?after=x", "no entry id"),
        ("dead-letters?reason=none", "plugin-failed"),
        ("tail?kind=result,none", "dead-letter"),
        ("tail?rate=1001", "from 1 to 1000"),
        ("tail?speed=1", "unknown field `speed`"),
    ] {
        expect_error(&get(address, path), 400, words);
    }
}

#[test]
fn the_documented_rights_are_enough() {
    let redis = Redis::start();
    let mut rule = documented_rule();
    rule.extend(["+xinfo|stream".to_owned(), "+xread".to_owned()]);
    let host = with_user(&redis, &rule).arg("--http", "127.0.0.1:0").ready(&redis, 1);
    let address = address(&host);
    for path in ["group", "versions", "inbox", "retries", "dead-letters?text=x"] {
        read(address, path);
    }
    let mut tail = Request::get("/api/v1/tail").follow(address);
    Request::get("/api/v1/events").follow(address).next_of("group");
    wait_until("somebody who follows", || redis.command::<String>("CLIENT LIST").contains(" cmd=xread "));
    Publisher::new(&redis).publish(b"no message");
    let letter = tail.next_of("outcome")["entry"].clone();
    read(address, &format!("dead-letters/{}", letter.as_str().unwrap()));
    for command in ["replay", "purge"] {
        let path = format!("/api/v1/dead-letters/{command}");
        assert_eq!(Request::post(&path, &json!({"entry_ids": [letter]})).send(address).status, 200, "{command}");
    }
    assert_eq!(denied(&redis), Vec::<String>::new());
}

#[test]
fn events_show_the_group_each_second() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let mut events = Request::get("/api/v1/events").follow(address(&host));
    assert_eq!(events.next_of("group")["hosts"].as_array().unwrap().len(), 1);
    let other = Host::ready(&redis, 2);
    events.wait_for("group", |group| group["totals"]["consumers"] == 3);
    other.stop();
    events.wait_for("group", |group| group["totals"]["consumers"] == 1);
    // A stop is not kept waiting by those who follow, and is seen by them.
    assert_eq!(host.stop().code, Some(0));
    while events.next().is_some() {}
}

#[test]
fn those_who_follow_hear_that_redis_is_away() {
    let mut redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let mut events = Request::get("/api/v1/events").follow(address(&host));
    let mut tail = Request::get("/api/v1/tail").follow(address(&host));
    events.next_of("group");
    redis.kill();
    for stream in [&mut events, &mut tail] {
        assert!(stream.next_of("problem")["error"].as_str().unwrap().contains("cannot read"));
    }
    expect_error(&get(address(&host), "inbox"), 503, "Redis at");
    expect_error(&get(address(&host), "group"), 503, "Redis at");
    redis.restart();
    events.next_of("group");
    wait_until("the inbox again", || get(address(&host), "inbox").status == 200);
}

#[test]
fn a_tail_shows_the_outcomes_that_are_wanted() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--max-attempts", "2").ready(&redis, 1);
    let address = address(&host);
    let follow = |choice: &str| Request::get(&format!("/api/v1/tail{choice}")).follow(address);
    let mut all = follow("");
    let mut chosen = [
        follow("?kind=dead-letter"),
        follow("?kind=retry,result&id=later"),
        follow("?text=blue"),
        follow("?consumer=somebody/1"),
    ];
    let mut publisher = Publisher::new(&redis);
    // Whoever follows begins at some moment after the answer.
    let mut n = 0;
    wait_until("all who follow", || {
        n += 1;
        publisher.publish(message(&format!("before-{n}"), json!({})));
        redis.command::<String>("CLIENT LIST").lines().filter(|line| line.contains(" cmd=xread ")).count() == 5
    });
    publisher.publish(message("good", json!({"colour": "blue", "long": "y".repeat(5_000)})));
    publisher.publish(message("later", json!({"do": "retry", "delay_ms": 1_000})));
    publisher.publish(message("bad", json!({"do": "reject", "reason": "no"})));
    let good = all.wait_for("outcome", |outcome| outcome["message_id"] == "good");
    let result = redis.result_of("good");
    assert_eq!((&good["outcome"], &good["key"], &good["output"]), (&json!("result"), &json!(OUTPUT), &json!("main")));
    assert_eq!((good["entry"].as_str(), &good["fields"]["colour"]), (Some(result.id()), &json!("blue")));
    assert_eq!((&good["cut"], good["fields"]["long"].as_str().unwrap().len()), (&json!(true), 1_000));
    assert_eq!(chosen[0].next_of("outcome")["message_id"], "bad");
    let retry = chosen[1].next_of("outcome");
    assert_eq!((&retry["message_id"], &retry["attempt"], &retry["fields"]), (&json!("later"), &json!(2), &json!({})));
    assert_eq!(chosen[2].next_of("outcome")["message_id"], "good");
    let later = chosen[0].next_of("outcome");
    assert_eq!((&later["message_id"], &later["fields"]["reason"]), (&json!("later"), &json!("plugin-retried")));
    let ended = host.stop();
    assert_eq!(ended.code, Some(0));
    while let Some((name, data)) = chosen[3].next() {
        assert_ne!(name, "outcome", "{data}");
    }
}

#[test]
fn a_tail_is_sampled_and_says_what_it_left_out() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 2);
    let mut tail = Request::get("/api/v1/tail?rate=10").follow(address(&host));
    wait_until("somebody who follows", || redis.command::<String>("CLIENT LIST").contains(" cmd=xread "));
    let count = 20_000;
    Publisher::new(&redis).publish_all((0..count).map(|n| message(&format!("m-{n}"), json!({}))));
    redis.wait_for_settled(count);
    let (mut shown, mut skipped) = (0, 0);
    while shown + skipped < count as u64 {
        match tail.next().expect("an event") {
            (name, _) if name == "outcome" => shown += 1,
            (name, data) if name == "skipped" => skipped += data["events"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert_eq!(shown + skipped, count as u64);
    assert!((10..1_000).contains(&shown), "{shown} shown");
}

#[test]
fn clients_that_follow_are_bounded_and_slow_ones_lose_events() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 2);
    let address = address(&host);
    let follow = || Request::get("/api/v1/tail?rate=1000").follow(address);
    let mut tails: Vec<_> = (0..16).map(|_| follow()).collect();
    let refused = get(address, "tail");
    expect_error(&refused, 503, "16 clients follow");
    let mut slow = tails.pop().unwrap();
    tails.clear();
    let following =
        || redis.command::<String>("CLIENT LIST").lines().filter(|line| line.contains(" cmd=xread ")).count();
    wait_until("the others to be gone", || following() == 1);
    // Far more than the buffers between the host and a client that reads nothing.
    let long = "z".repeat(900);
    let fields = json!({"a": long, "b": long, "c": long, "d": long, "e": long, "f": long});
    let mut publisher = Publisher::new(&redis);
    let mut published = 0;
    for _ in 0..10 {
        publisher.publish_all((0..2_000).map(|n| message(&format!("m-{}", published + n), fields.clone())));
        published += 2_000;
        redis.wait_for_settled(published);
    }
    assert!(slow.next_of("skipped")["events"].as_u64().unwrap() > 0);
    drop(follow());
}
