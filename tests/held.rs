//! Attacks that reviewers have tried, each in a size for every day: what a guest may ask of the host, forged data in Redis, secrets in
//! logs, and deaths at moments that other tests do not choose.

use std::collections::HashSet;
use std::fs;

use redis::cmd;
use serde_json::json;

use crate::support::host::Launch;
use crate::support::http::{Request, address};
use crate::support::records::{DEAD, INBOX, OUTPUT, RETRY};
use crate::support::{Host, Publisher, Redis, Signal, Traffic, expect_each_once, message, wait_until};

/// What a guest asks of the interfaces that are granted, and what the host answers.
#[test]
fn what_a_guest_asks_for_without_measure_ends_its_message_and_nothing_else() {
    let redis = Redis::start();
    let launch = Host::on(&redis).arg("--max-attempts", "1").arg("--max-plugin-time", "500ms");
    let host = launch.arg("--log-format", "json").ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("before", json!({})));
    redis.result_of("before");
    let before_bytes = host.resident_bytes();
    let attacks = [
        // More than a mebibyte at once.
        ("random", json!({"what": "random-bytes", "target": "1048577"}), "plugin-trapped"),
        ("random-insecure", json!({"what": "random-bytes", "target": "4294967296"}), "plugin-trapped"),
        ("random-all", json!({"what": "random-bytes", "target": "18446744073709551615"}), "plugin-trapped"),
        ("poll-nothing", json!({"what": "poll-nothing"}), "plugin-trapped"),
        ("poll-for-ever", json!({"what": "poll-for-ever", "target": "1"}), "plugin-timed-out"),
        ("poll-too-many", json!({"what": "poll-for-ever", "target": "100000"}), "plugin-trapped"),
        ("subscribe", json!({"what": "subscribe-for-ever"}), "plugin-timed-out"),
    ];
    for (id, order, reason) in &attacks {
        let mut order = order.clone();
        order["do"] = json!("try");
        publisher.publish(message(id, order));
        let letter = redis.dead_letter_of(id);
        assert_eq!(letter.text("reason"), *reason, "{id}: {}", letter.text("error"));
    }
    // What is within the bounds works.
    for (what, target) in [("random-bytes", "1048576"), ("poll-many", "500"), ("log-long", "10000000")] {
        publisher.publish(message(what, json!({"do": "try", "what": what, "target": target})));
        assert_eq!(redis.result_of(what).text("granted"), "true", "{what}");
    }
    publisher.publish(message("after", json!({})));
    redis.result_of("after");
    let (log, after_bytes) = (host.log(), host.resident_bytes());
    assert!(log.lines().all(|line| line.len() < 64 << 10), "a long line of the log");
    assert!(after_bytes < before_bytes + (128 << 20), "{before_bytes} bytes before, {after_bytes} after");
    host.stop();
}

#[test]
fn a_message_with_60_000_properties_holds_nobody_up() {
    let properties: Vec<String> = (0..60_000).map(|n| format!("\"p{n}\":{n}")).collect();
    let many = |id: &str| format!("{{\"message_id\":\"{id}\",{}}}", properties.join(","));
    let redis = Redis::start();
    let fields = Host::on(&redis).arg("--max-plugin-time", "20s").ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(many("fields"));
    publisher.publish(message("beside", json!({})));
    assert_eq!(redis.dead_letter_of("fields").text("reason"), "bad-result");
    redis.result_of("beside");
    fields.stop();
    let _json = Host::on(&redis).arg("--max-plugin-time", "20s").arg("--output-format", "json").ready(&redis, 1);
    publisher.publish(many("json"));
    assert_eq!(redis.result_of("json").text("json"), many("json"));
}

#[test]
fn forged_retries_and_deliveries_are_put_aside_and_the_flow_goes_on() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 2);
    let long = "x".repeat(1 << 20);
    let forged: [&[u8]; 10] = [
        b"",
        b"rubbish",
        b"\xff\xfe\x00",
        b"v1 ",
        b"v1 1 5-a 0 1",
        b"v1 1 5-a 0 99999999999999999999\nid{}",
        b"v1 99999999999999999999 5-a 0 2\nid{}",
        b"v1 1 99999999999999999999-a 99999999999999999999 2\nid{}",
        b"v1 -1 - - 2\nid{}",
        long.as_bytes(),
    ];
    for member in forged {
        redis.run::<usize>(cmd("ZADD").arg(RETRY).arg(0).arg(member));
    }
    for value in [b"rubbish".as_slice(), b"v1 - 0", b"v1 99999999999999999999-a 99999999999999999999", b"\xff", b""] {
        redis.run::<String>(cmd("XADD").arg(INBOX).arg("*").arg("").arg(value).arg("forged").arg("{}"));
    }
    let ids: Vec<String> = (0..200).map(|n| format!("m-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({}))));
    ids.iter().for_each(|id| drop(redis.result_of(id)));
    wait_until("the forged retries to be gone", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 0);
    redis.wait_for_an_empty_inbox();
    assert!(!host.log().contains("panicked"), "{}", host.log());
    assert_eq!(redis.wait_for_consumers(2).len(), 2);
    host.stop();
}

#[test]
fn no_secret_is_in_a_log_of_any_level() {
    let redis = Redis::start();
    redis.run::<()>(cmd("ACL").arg("SETUSER").arg("us").arg(&["on", ">redis-secret", "~*", "&*", "+@all"]));
    let file = redis.folder().join("host.toml");
    let settings = "http.token = \"http-secret-of-the-listener\"\n[plugin_config]\nkey = \"plugin-secret\"\n";
    fs::write(&file, settings).unwrap();
    let url = format!("redis://us:redis-secret@127.0.0.1:{}/0?password=query-secret", redis.port());
    let refused = Host::on(&redis).arg("--redis", &url).arg("--config", &file).arg("--http", "127.0.0.1:0");
    let refused = refused.arg("--log-level", "trace").arg("--redis-ca-file", "x").run();
    let launch = Host::on(&redis).arg("--config", &file).arg("--http", "127.0.0.1:0").arg("--max-attempts", "1");
    let launch = launch.env("HOST_REDIS", format!("redis://us:redis-secret@127.0.0.1:{}", redis.port()));
    let host = launch.arg("--redis", format!("redis://us:redis-secret@127.0.0.1:{}", redis.port()));
    let host = host.arg("--log-level", "trace").ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    for (id, order) in [("ok", json!({})), ("fails", json!({"do": "fail"})), ("key", json!({"do": "config"}))] {
        publisher.publish(message(id, order));
    }
    redis.dead_letter_of("fails");
    redis.result_of("key");
    let listener = address(&host);
    assert_eq!(Request::get("/api/v1/group").token("http-secret-of-the-listener").status(listener), 200);
    assert_eq!(Request::get("/api/v1/group").token("http-secret-of-another").status(listener), 401);
    // Connections break, and the host logs in again.
    redis.run::<usize>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal"));
    redis.run::<usize>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub"));
    host.wait_for_log("subscribed again");
    redis.run::<()>(cmd("ACL").arg("SETUSER").arg("us").arg(&["resetpass", ">another-secret"]));
    redis.run::<usize>(cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub"));
    host.wait_for_log("WRONGPASS");
    redis.run::<()>(cmd("ACL").arg("SETUSER").arg("us").arg(&["resetpass", ">redis-secret"]));
    wait_until("another subscription", || redis.subscribers() == 1);
    let ended = host.stop();
    for text in [&ended.stderr, &ended.stdout, &refused.stderr, &refused.stdout] {
        assert!(!text.contains("secret"), "{}", text.lines().find(|line| line.contains("secret")).unwrap_or_default());
    }
}

#[test]
fn names_from_elsewhere_begin_no_line_and_act_on_no_terminal() {
    let redis = Redis::start();
    let channel = "evil\u{1b}[2J\u{9b}2J\u{202e}\u{2028}\nforged line";
    let host = Host::on(&redis).arg("--channel", channel).arg("--log-level", "debug").consumers(1).start();
    host.wait_for_log("ready");
    redis.run::<usize>(cmd("PUBLISH").arg(channel).arg(message("evil\u{202e}\u{9b}2J\nforged", json!({"do": "fail"}))));
    wait_until("a message in the log", || host.log().contains("trying again in"));
    let refused = Host::on(&redis).consumers(1).run();
    assert_ne!(refused.code, Some(0));
    let look = |words: &[&str]| Launch::subcommand(words[0]).words(&words[1..]).arg("--redis", redis.url()).run();
    let seen = [look(&["status"]), look(&["tail", "--since", "1h", "--count", "1"]), refused, host.stop()];
    for text in seen.iter().flat_map(|ended| [&ended.stdout, &ended.stderr]) {
        let hidden = |c: char| c != '\n' && (c.is_control() || "\u{202e}\u{2028}".contains(c));
        assert!(!text.contains(hidden) && !text.lines().any(|line| line.starts_with("forged")), "{text:?}");
    }
    assert!(seen[2].stderr.contains("evil"), "{}", seen[2].stderr);
}

#[test]
fn hosts_that_are_killed_in_their_first_second_lose_and_double_nothing() {
    let redis = Redis::start();
    let _steady = Host::ready(&redis, 2);
    let traffic = Traffic::start(&redis, 1_000, json!({}));
    // Each line is a later moment of a start.
    let moments = ["", "starting", "subscribed", "ready"];
    for round in 0..5 {
        for moment in moments {
            let newcomer = Host::on(&redis).consumers(4).start();
            newcomer.wait_for_log(moment);
            newcomer.kill();
        }
        traffic.wait_for_more(100 * (round % 2));
    }
    expect_each_once(&redis, traffic.finish());
}

#[test]
fn sixty_four_hosts_share_the_work_and_half_of_them_may_die() {
    let redis = Redis::start();
    let mut hosts: Vec<Host> = (0..64).map(|_| Host::on(&redis).consumers(1).start()).collect();
    assert_eq!(redis.wait_for_consumers(64).iter().collect::<HashSet<_>>().len(), 64);
    redis.wait_for_subscribers(64);
    let ids: Vec<String> = (0..6_400).map(|n| format!("m-{n}")).collect();
    let mut publisher = Publisher::new(&redis);
    let (first, rest) = ids.split_at(3_200);
    publisher.publish_all(first.iter().map(|id| message(id, json!({"do": "wait", "ms": 20}))));
    redis.wait_for_settled(first.len());
    let workers: HashSet<String> = redis.output().iter().map(|entry| entry.text("consumer_id").to_owned()).collect();
    assert!(workers.len() > 32, "{} of 64 have worked", workers.len());
    publisher.publish_all(rest.iter().map(|id| message(id, json!({"do": "wait", "ms": 20}))));
    redis.wait_until_received(rest);
    hosts.drain(..32).for_each(Host::kill);
    redis.wait_for_consumers(32);
    expect_each_once(&redis, ids);
}

#[test]
fn a_replay_that_is_interrupted_again_and_again_replays_each_dead_letter_once() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--max-attempts", "1").ready(&redis, 4);
    let ids: Vec<String> = (0..20_000).map(|n| format!("d-{n}")).collect();
    let healing = json!({"do": "succeed-at", "attempt": 2, "delay_ms": 0});
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, healing.clone())));
    wait_until("a dead letter each", || redis.length(DEAD) == ids.len());
    host.stop();
    let mut interrupted = 0;
    for signal in [Signal::Interrupt, Signal::Kill, Signal::Terminate, Signal::Interrupt] {
        let before = redis.length(DEAD);
        let mut replay = Launch::subcommand("dead").words(&["replay", "--all"]).arg("--redis", redis.url()).start();
        wait_until("some of them to be replayed", || redis.length(DEAD) < before || replay.status().is_some());
        if replay.status().is_none() {
            replay.signal(signal);
            interrupted += 1;
        }
        drop(replay.ended());
        assert_eq!(redis.length(OUTPUT), 0);
    }
    assert!(interrupted > 0, "the replay was always quicker");
    Launch::subcommand("dead").words(&["replay", "--all"]).arg("--redis", redis.url()).run();
    assert_eq!(redis.length(DEAD), 0);
    let _host = Host::ready(&redis, 4);
    expect_each_once(&redis, ids);
}
