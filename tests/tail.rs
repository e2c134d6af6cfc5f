//! `host tail`: what is shown of the outcomes in Redis, and that nobody notices the onlooker.

use std::fs;
use std::io::Read as _;

use redis::cmd;
use serde_json::{Value, json};

use crate::access::{documented_rule, with_user};
use crate::support::host::Launch;
use crate::support::records::{DEAD, INBOX, OUTPUT, RETRY};
use crate::support::{BOUND, Host, Publisher, Redis, Signal, message, wait_for, wait_until};

fn tail(redis: &Redis) -> Launch {
    Launch::subcommand("tail").arg("--redis", redis.url())
}

/// Ids of the connections that wait for entries of streams.
fn followers(redis: &Redis) -> Vec<String> {
    let list: String = redis.command("CLIENT LIST");
    let following = list.lines().filter(|line| line.contains(" cmd=xread ") && line.contains(" flags=b "));
    following.map(|line| line.split(' ').next().unwrap().trim_start_matches("id=").to_owned()).collect()
}

/// Starts it and waits until it follows.
fn following(redis: &Redis, launch: Launch) -> Host {
    let tail = launch.start();
    wait_for("a connection that follows", BOUND, || if followers(redis).is_empty() { Err(tail.log()) } else { Ok(()) });
    tail
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Waits until so many outcomes are shown.
fn shown(tail: &Host, count: usize) -> Vec<Value> {
    wait_for(&format!("{count} outcomes"), BOUND, || {
        let outcomes = tail.reports();
        if outcomes.len() >= count { Ok(outcomes) } else { Err(format!("{outcomes:?}; {}", tail.log())) }
    })
}

/// A Redis with a result, a dead letter and a waiting retry, of a host that has ended.
fn with_outcomes() -> Redis {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--max-attempts", "2").arg("--retry-delay", "1ms").ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("good", json!({"colour": "blue"})));
    redis.result_of("good");
    publisher.publish(message("bad", json!({"do": "fail", "reason": "no such\ncustomer"})));
    redis.dead_letter_of("bad");
    publisher.publish(message("later", json!({"do": "retry", "delay_ms": 600_000})));
    wait_until("a waiting retry", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 1);
    host.stop();
    redis
}

/// The outcomes since an hour ago, until so many are shown.
fn past(redis: &Redis, count: usize, words: &[&str]) -> Vec<Value> {
    let launch = tail(redis).words(words).switch("--json").arg("--since", "1h").arg("--count", count.to_string());
    let ended = launch.run();
    assert_eq!(ended.code, Some(0), "{words:?}: {}", ended.stderr);
    objects(&ended.stdout)
}

#[test]
fn results_retries_and_dead_letters_are_shown_as_they_happen() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--max-attempts", "2").ready(&redis, 1);
    let tail = following(&redis, tail(&redis).switch("--json"));
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("good", json!({"colour": "blue"})));
    let first = shown(&tail, 1).remove(0);
    let result = redis.result_of("good");
    assert_eq!(
        (&first["outcome"], &first["output"], &first["key"]),
        (&json!("result"), &json!("main"), &json!(OUTPUT))
    );
    assert_eq!((first["entry"].as_str(), first["message_id"].as_str()), (Some(result.id()), Some("good")));
    assert_eq!(first["consumer_id"].as_str(), Some(result.text("consumer_id")));
    assert_eq!(first["fields"]["colour"], "blue");

    publisher.publish(message("later", json!({"do": "retry", "delay_ms": 2_000})));
    let retry = shown(&tail, 2).remove(1);
    assert_eq!(
        (&retry["outcome"], &retry["attempt"], &retry["message_id"]),
        (&json!("retry"), &json!(2), &json!("later"))
    );
    assert!(retry["due"].as_str() > retry["time"].as_str() && retry.get("entry").is_none(), "{retry}");

    let letter = shown(&tail, 3).remove(2);
    let entry = redis.dead_letter_of("later");
    assert_eq!((&letter["outcome"], letter["entry"].as_str()), (&json!("dead-letter"), Some(entry.id())));
    assert_eq!((&letter["fields"]["reason"], &letter["fields"]["attempts"]), (&json!("plugin-retried"), &json!("2")));
    let ended = tail.stop();
    assert_eq!(objects(&ended.stdout).len(), 3, "{}", ended.stdout);
}

#[test]
fn outcomes_are_chosen_by_kind_consumer_id_and_text() {
    let redis = with_outcomes();
    let ids = |count: usize, words: &[&str]| -> Vec<String> {
        past(&redis, count, words).iter().map(|outcome| outcome["message_id"].as_str().unwrap().to_owned()).collect()
    };
    let mut all = ids(3, &[]);
    all.sort();
    assert_eq!(all, ["bad", "good", "later"]);
    assert_eq!(ids(1, &["--outcome", "dead-letter"]), ["bad"]);
    assert_eq!(ids(2, &["--outcome", "result", "--outcome", "dead-letter"]), ["good", "bad"]);
    assert_eq!(ids(1, &["--outcome", "retry"]), ["later"]);
    assert_eq!(ids(1, &["--id", "good"]), ["good"]);
    assert_eq!(ids(1, &["--grep", "blue"]), ["good"]);
    assert_eq!(ids(1, &["--grep", "no such"]), ["bad"]);
    let consumer = redis.result_of("good").text("consumer_id").to_owned();
    let (host, _) = consumer.rsplit_once('/').unwrap();
    assert_eq!(ids(2, &["--consumer", &consumer]), ["good", "bad"]);
    assert_eq!(ids(2, &["--consumer", host]), ["good", "bad"]);
    // Nothing else matches: the only outcome is that of the message that comes now.
    let _host = Host::ready(&redis, 1);
    let only = [["--id", "good"], ["--grep", "red"]].concat();
    let tail = following(&redis, tail(&redis).words(&only).switch("--json").arg("--since", "1h").arg("--count", "1"));
    Publisher::new(&redis).publish(message("good-2", json!({"colour": "red"})));
    redis.result_of("good-2");
    assert_eq!(tail.written(), "");
    tail.stop();

    let unknown = Launch::subcommand("tail").words(&["--outcome", "nope"]).run();
    assert_eq!(unknown.code, Some(2));
    for outcome in ["result", "dead-letter", "retry"] {
        assert!(unknown.stderr.contains(outcome), "{}", unknown.stderr);
    }
}

#[test]
fn a_person_reads_one_line_for_each_outcome() {
    let redis = with_outcomes();
    let ended = tail(&redis).arg("--since", "1h").arg("--count", "3").run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout.lines().count(), 3, "{}", ended.stdout);
    for parts in [
        ["  result       ", "good", "colour=blue"],
        ["  dead letter  ", "bad", "plugin-failed after 2 attempts: "],
        ["  retry        ", "later", "attempt 2 in "],
    ] {
        assert!(
            ended.stdout.lines().any(|line| parts.iter().all(|part| line.contains(part))),
            "{parts:?} in {}",
            ended.stdout
        );
    }
    assert!(ended.stdout.contains("such\\ncustomer") && !ended.stdout.contains('\u{1b}'), "{}", ended.stdout);
}

#[test]
fn named_outputs_are_followed_when_the_configuration_names_them() {
    let redis = Redis::start();
    let file = redis.folder().join("host.toml");
    fs::write(&file, "[outputs.fraud]\nkey = \"messages:fraud\"\n").unwrap();
    let _host = Host::on(&redis).arg("--config", &file).ready(&redis, 1);
    let results = json!([{"to": "fraud", "body": "{\"a\":1}"}]);
    Publisher::new(&redis).publish(message("m", json!({"do": "emit-all", "results": results})));
    wait_until("a result", || redis.length("messages:fraud") == 1);
    let words = ["--config", file.to_str().unwrap(), "tail", "--json", "--since", "1h", "--count", "1"];
    let ended = Launch::bare().words(&words).arg("--redis", redis.url()).run();
    let found = &objects(&ended.stdout)[0];
    assert_eq!((&found["output"], &found["key"]), (&json!("fraud"), &json!("messages:fraud")), "{}", ended.stderr);
}

#[test]
fn a_named_output_that_a_host_announces_later_is_followed_from_the_beginning_of_the_command() {
    let redis = Redis::start();
    let tail = following(&redis, tail(&redis).switch("--json").arg("--outcome", "result"));
    redis.run::<String>(cmd("XADD").arg("messages:audit").arg("*").arg("message_id").arg("m"));
    let outputs = r#"{"audit":"messages:audit"}"#;
    redis.run::<()>(cmd("HSET").arg("{messages:processed}:group").arg("outputs host-1-a").arg(outputs));
    assert_eq!(shown(&tail, 1)[0]["output"], "audit");
    tail.stop();
}

#[test]
fn a_lost_connection_is_opened_again_and_nothing_is_left_out_or_shown_twice() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let tail = following(&redis, tail(&redis).switch("--json").arg("--outcome", "result"));
    let mut publisher = Publisher::new(&redis);
    // A command whose first look fails gives up.
    publisher.publish(message("first", json!({})));
    shown(&tail, 1);
    for round in 0..4 {
        publisher.publish_all((0..50).map(|n| message(&format!("m-{round}-{n}"), json!({}))));
        // In the midst of it.
        let follower =
            wait_for("a connection that follows", BOUND, || followers(&redis).pop().ok_or_else(|| tail.log()));
        redis.run::<usize>(cmd("CLIENT").arg("KILL").arg("ID").arg(follower));
    }
    redis.wait_for_settled(201);
    let written: Vec<String> = redis.output().iter().map(|entry| entry.id().to_owned()).collect();
    let entries: Vec<String> =
        shown(&tail, 201).iter().map(|outcome| outcome["entry"].as_str().unwrap().to_owned()).collect();
    assert_eq!(entries, written);
    let log = tail.stop().stderr;
    assert!(log.contains("trying again") && log.contains("continues where it was"), "{log}");
}

#[test]
fn the_group_does_not_notice_an_onlooker() {
    let redis = Redis::start();
    let connections = |redis: &Redis| redis.command::<String>("CLIENT LIST").lines().count();
    let before = connections(&redis);
    let tail = following(&redis, tail(&redis).switch("--json"));
    assert_eq!(connections(&redis), before + 1);
    let _host = Host::ready(&redis, 1);
    Publisher::new(&redis).publish_all((0..20).map(|n| message(&format!("m-{n}"), json!({}))));
    shown(&tail, 20);
    for (stream, groups) in [(OUTPUT, 0), (INBOX, 1)] {
        let found: Vec<redis::Value> = redis.run(cmd("XINFO").arg("GROUPS").arg(stream));
        assert_eq!(found.len(), groups, "{stream}");
    }
    assert_eq!((redis.consumer_ids().len(), redis.length(OUTPUT)), (1, 20));
    tail.stop();
}

#[test]
fn it_says_when_it_cannot_keep_up_and_what_was_removed_unread() {
    let redis = Redis::start();
    let tail = following(&redis, tail(&redis).switch("--json"));
    // Entries as old as the clock: a reader that finds more than a page of them is far behind.
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    for n in 1..=350 {
        pipeline.cmd("XADD").arg(OUTPUT).arg(format!("{n}-1")).arg("message_id").arg(n);
    }
    pipeline.query::<()>(&mut redis.connect()).unwrap();
    shown(&tail, 350);
    tail.wait_for_log("cannot keep up");
    tail.wait_for_log("has caught up");

    let mut pipeline = redis::pipe();
    pipeline.atomic();
    for n in 1..=10 {
        pipeline.cmd("XADD").arg(OUTPUT).arg(format!("{}-1", 1_000 + n)).arg("message_id").arg(n);
    }
    pipeline.cmd("XTRIM").arg(OUTPUT).arg("MAXLEN").arg("=").arg(4);
    pipeline.query::<()>(&mut redis.connect()).unwrap();
    shown(&tail, 354);
    tail.wait_for_log("6 entries were removed from their streams before they could be read");
    tail.stop();
}

#[test]
fn it_ends_quietly_with_its_reader_and_at_ctrl_c() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let read = following(&redis, tail(&redis).stdout(writer));
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("first", json!({})));
    let mut byte = [0];
    reader.read_exact(&mut byte).unwrap();
    drop(reader);
    publisher.publish(message("second", json!({})));
    let ended = read.ended();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));

    let stopped = following(&redis, tail(&redis));
    stopped.signal(Signal::Interrupt);
    let ended = stopped.ended();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));

    // Also while nobody reads what it writes.
    let (_full, writer) = crate::support::host::full_pipe();
    let stuck = following(&redis, tail(&redis).stdout(writer));
    publisher.publish(message("third", json!({})));
    redis.result_of("third");
    wait_until("a tail that is stuck", || (0..100).all(|_| followers(&redis).is_empty()));
    stuck.signal(Signal::Interrupt);
    assert_eq!(stuck.ended().code, Some(0));
}

#[test]
fn it_needs_a_redis_that_answers_and_the_right_to_read_streams() {
    let port = crate::support::redis::free_port();
    let nobody = Launch::subcommand("tail").arg("--redis", format!("redis://127.0.0.1:{port}")).run();
    assert_eq!(nobody.code, Some(3), "{}", nobody.stderr);
    assert!(
        nobody.stderr.contains(&port.to_string()) && nobody.stderr.contains("--redis is right"),
        "{}",
        nobody.stderr
    );

    let redis = Redis::start();
    let mut rule = [documented_rule(), vec!["+xinfo|stream".to_owned()]].concat();
    with_user(&redis, &rule);
    let url = format!("redis://host:secret@127.0.0.1:{}", redis.port());
    let denied = Launch::subcommand("tail").arg("--redis", &url).run();
    assert_eq!(denied.code, Some(3), "{}", denied.stderr);
    assert!(denied.stderr.to_lowercase().contains("xread") && !denied.stderr.contains("secret"), "{}", denied.stderr);
    rule.push("+xread".to_owned());
    with_user(&redis, &rule);
    redis.run::<String>(cmd("XADD").arg(DEAD).arg("*").arg("reason").arg("bad-id"));
    let allowed = Launch::subcommand("tail").arg("--redis", &url).arg("--since", "1h").arg("--count", "1").run();
    assert_eq!((allowed.code, allowed.stdout.contains("bad-id")), (Some(0), true), "{}", allowed.stderr);
}
