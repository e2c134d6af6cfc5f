//! Consumers that live elsewhere and speak HTTP: plain ones written here, and our own workers, with kills on both sides.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use redis::cmd;
use serde_json::{Value, json};

use crate::support::consumer::{Consumer, post, post_as};
use crate::support::host::Launch;
use crate::support::http::address;
use crate::support::records::{IDS, OUTPUT, RETRY};
use crate::support::{
    BOUND, Host, Publisher, Redis, Release, Signal, Traffic, expect_each_once, message, puppet, wait_for, wait_until,
};

const REMOTES: &str = "{consumer:ids}:remote";

fn member(address: SocketAddr, path: &str, id: &str) -> u16 {
    post(address, path, &json!({ "consumer_id": id }).to_string()).0
}

fn listening(redis: &Redis) -> Launch {
    Host::on(redis).arg("--http", "127.0.0.1:0")
}

/// A host without consumers of its own.
fn distributor(redis: &Redis) -> Host {
    listening(redis).ready(redis, 0)
}

fn worker(redis: &Redis, group: SocketAddr) -> Launch {
    Launch::subcommand("worker")
        .arg("--group", format!("http://{group}"))
        .arg("--plugin", puppet())
        .arg("--redis", redis.url())
        .arg("--http", "127.0.0.1:0")
        .arg("--membership-interval", "200ms")
}

/// Starts a worker and waits until it is on the list.
fn registered(redis: &Redis, launch: Launch) -> (Host, String) {
    let worker = launch.start();
    let id = address(&worker).to_string();
    wait_until("the worker on the list", || redis.consumer_ids().contains(&id));
    (worker, id)
}

fn register(redis: &Redis, group: SocketAddr, consumer: &Consumer) {
    assert_eq!(member(group, "/register", &consumer.id()), 200);
    assert!(redis.consumer_ids().contains(&consumer.id()));
}

#[test]
fn every_answer_about_membership_has_its_code() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let group = address(&host);
    let consumer = Consumer::start(|_| Some(200));
    let id = consumer.id();
    assert_eq!(member(group, "/checkMembership", &id), 404);
    for _ in 0..2 {
        let (status, answer) = post(group, "/register", &json!({ "consumer_id": id }).to_string());
        assert_eq!(status, 200);
        assert!(answer["message"].as_str().unwrap().contains(&id), "{answer}");
    }
    assert_eq!(redis.consumer_ids().iter().filter(|listed| **listed == id).count(), 1);
    assert_eq!(member(group, "/checkMembership", &id), 200);
    assert_eq!(member(group, "/unregister", &id), 200);
    assert_eq!(member(group, "/checkMembership", &id), 404);
    assert_eq!(redis.wait_for_consumers(1).len(), 1);
    assert_eq!(member(group, "/unregister", &id), 200);

    for path in ["/register", "/unregister", "/checkMembership"] {
        for wrong in ["", "{", "[]", "{}", "{\"consumer_id\": 5}", "{\"consumer_id\": \"\"}"] {
            let (status, answer) = post(group, path, wrong);
            assert_eq!(status, 400, "{path} {wrong}");
            assert!(answer["error"].as_str().unwrap().contains("consumer_id"), "{answer}");
        }
        for wrong in ["127.0.0.1", "127.0.0.1:0", "u@127.0.0.1:80", "127.0.0.1:80/x", "http://127.0.0.1:80", "a b:80"] {
            assert_eq!(member(group, path, wrong), 400, "{path} {wrong}");
        }
        let body = json!({ "consumer_id": id }).to_string();
        for kind in ["", "Content-Type: text/plain\r\n", "Content-Type: application/jsonp\r\n"] {
            assert_eq!(post_as(kind, group, path, "", &body).0, 400, "{path} {kind}");
        }
    }
    let with_charset = "Content-Type: Application/JSON; charset=utf-8\r\n";
    assert_eq!(post_as(with_charset, group, "/unregister", "", &json!({ "consumer_id": id }).to_string()).0, 200);
}

#[test]
fn the_routes_need_the_token() {
    let redis = Redis::start();
    let token = "0123456789abcdef0123456789abcdef";
    let host = listening(&redis).env("HOST_HTTP_TOKEN", token).ready(&redis, 1);
    let group = address(&host);
    let kind = "Content-Type: application/json\r\n";
    for path in ["/register", "/unregister", "/checkMembership", "/processMessage"] {
        assert_eq!(post(group, path, "{}").0, 401, "{path}");
        assert_eq!(post_as(kind, group, path, &format!("Authorization: Bearer {token}\r\n"), "{}").0, 400, "{path}");
    }
}

#[test]
fn a_full_group_takes_nobody_until_somebody_leaves() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--max-consumer-group-size", "3").ready(&redis, 2);
    let group = address(&host);
    let [first, second] = [(), ()].map(|()| Consumer::start(|_| Some(200)));
    register(&redis, group, &first);
    let (status, answer) = post(group, "/register", &json!({ "consumer_id": second.id() }).to_string());
    assert_eq!(status, 500);
    assert!(answer["error"].as_str().unwrap().contains("--max-consumer-group-size is 3"), "{answer}");
    assert_eq!(member(group, "/register", &first.id()), 200, "it has a place already");
    assert_eq!(member(group, "/unregister", &first.id()), 200);
    register(&redis, group, &second);
}

#[test]
fn without_redis_a_registration_fails() {
    let mut redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let group = address(&host);
    redis.kill();
    for path in ["/register", "/unregister", "/checkMembership"] {
        assert_eq!(member(group, path, "127.0.0.1:80"), 500, "{path}");
    }
}

#[test]
fn a_remote_consumer_leaves_the_list_with_its_host() {
    let redis = Redis::start();
    let doomed = listening(&redis).ready(&redis, 1);
    let other = listening(&redis).ready(&redis, 1);
    let consumer = Consumer::start(|_| Some(200));
    register(&redis, address(&doomed), &consumer);
    assert_eq!(member(address(&other), "/checkMembership", &consumer.id()), 200, "every host knows it");
    doomed.kill();
    redis.wait_for_consumers(1);
    wait_until("nothing of it left", || !redis.run::<bool>(cmd("HEXISTS").arg(REMOTES).arg(consumer.id())));
    assert_eq!(member(address(&other), "/checkMembership", &consumer.id()), 404);
    register(&redis, address(&other), &consumer);
    other.stop();
    assert_eq!(redis.consumer_ids(), Vec::<String>::new());
}

#[test]
fn a_consumer_that_is_gone_is_removed() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--consumer-health-interval", "100ms").ready(&redis, 1);
    let group = address(&host);
    let healthy = Consumer::start(|_| Some(200));
    register(&redis, group, &healthy);
    // Nobody listens there any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(member(group, "/register", &gone), 200);
    wait_until("its removal", || member(group, "/checkMembership", &gone) == 404);
    wait_until("several checks", || healthy.checks() > 2);
    assert_eq!(redis.wait_for_consumers(2)[1], healthy.id());
}

#[test]
fn a_message_may_be_handed_in() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let group = address(&host);
    let hand_in = |id: &str, properties: Value| post(group, "/processMessage", &message(id, properties));
    let (status, answer) = hand_in("a", json!({"do": "emit-all", "results": ["{\"x\":1.0}", "{}"]}));
    assert_eq!((status, answer), (200, json!({"outcome": "emitted", "results": [{"x": 1.0}, {}]})));
    let results = redis.results_of("a");
    assert_eq!(results.len(), 2);
    assert_eq!(results[0].text("x"), "1.0");
    assert!(results[0].text("consumer_id").ends_with("/0"), "{results:?}");

    assert_eq!(hand_in("a", json!({})), (200, json!({"outcome": "duplicate"})));
    Publisher::new(&redis).publish(message("p", json!({})));
    redis.result_of("p");
    assert_eq!(hand_in("p", json!({})), (200, json!({"outcome": "duplicate"})));
    assert_eq!(hand_in("d", json!({"do": "drop"})), (200, json!({"outcome": "dropped"})));
    let rejected = hand_in("r", json!({"do": "reject", "reason": "too old"}));
    assert_eq!(rejected, (200, json!({"outcome": "rejected", "error": "too old"})));
    assert_eq!(redis.dead_letter_of("r").text("reason"), "plugin-rejected");
    let (status, answer) = hand_in("s", json!({"do": "succeed-at", "attempt": 2, "delay_ms": 1}));
    assert_eq!((status, &answer["outcome"]), (200, &json!("retry")), "{answer}");
    redis.result_of("s");
    let (status, answer) = hand_in("t", json!({"do": "raw", "result": "no JSON"}));
    assert_eq!((status, &answer["outcome"]), (200, &json!("failed")), "{answer}");
    assert_eq!(redis.dead_letter_of("t").text("reason"), "bad-result");
    wait_until("nothing waits", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 0);
    assert_eq!(redis.output().len(), 4);
}

#[test]
fn what_is_no_message_is_refused() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--max-message-bytes", "100").ready(&redis, 1);
    let group = address(&host);
    let long = message("m", json!({"text": "x".repeat(100)}));
    for wrong in ["", "{", "[]", "{}", "{\"message_id\": \"\"}", "{\"message_id\": null}", &long] {
        let (status, answer) = post(group, "/processMessage", wrong);
        assert_eq!(status, 400, "{wrong}: {answer}");
    }
    let body = message("m", json!({}));
    assert_eq!(post_as("", group, "/processMessage", "", &body).0, 400);
    assert_eq!(post_as("Content-Type: text/plain\r\n", group, "/processMessage", "", &body).0, 400);
    let kind = "Content-Type: application/json\r\n";
    assert_eq!(post_as(kind, group, "/processMessage", "Host-Waiting: nonsense\r\n", &body).0, 400);
    // Who says that a message waits which does not wait, writes nothing.
    let forged = post_as(kind, group, "/processMessage", "Host-Waiting: v1 1 5-a 0\r\n", &body);
    assert_eq!(forged, (200, json!({"outcome": "superseded"})));
    assert_eq!(redis.output().len(), 0);
}

#[test]
fn a_message_whose_host_dies_after_it_was_handed_in_is_processed_by_another() {
    let redis = Redis::start();
    let doomed = listening(&redis).arg("--max-plugin-time", "1h").ready(&redis, 1);
    let group = address(&doomed);
    let body = message("m", json!({"do": "wait", "ms": 500}));
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(group).unwrap();
        let length = body.len();
        let head = "POST /processMessage HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n";
        stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
        let _ = stream.read(&mut [0]);
    });
    wait_until("the message waits", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 1);
    doomed.kill();
    client.join().unwrap();
    let _heir = listening(&redis).ready(&redis, 1);
    redis.result_of("m");
    expect_each_once(&redis, ["m".to_owned()]);
}

#[test]
fn a_plain_consumer_gets_messages_and_settles_them_with_200() {
    let redis = Redis::start();
    let host = distributor(&redis);
    let consumer = Consumer::start(|_| Some(200));
    let published: Vec<String> = (0..20).map(|n| message(&format!("m-{n}"), json!({"n": n}))).collect();
    // What waits before the first consumer registers is not lost.
    Publisher::new(&redis).publish_all(&published[..10]);
    redis.wait_until_received(&(0..10).map(|n| format!("m-{n}")).collect::<Vec<_>>());
    register(&redis, address(&host), &consumer);
    Publisher::new(&redis).publish_all(&published[10..]);
    wait_until("all messages at the consumer", || consumer.messages().len() >= 20);
    redis.wait_for_an_empty_inbox();
    wait_until("nothing waits", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 0);
    let mut bodies: Vec<String> = consumer.messages().into_iter().map(|(_, body)| body).collect();
    bodies.sort();
    let mut expected = published;
    expected.sort();
    assert_eq!(bodies, expected);
    let heads = consumer.messages().into_iter().map(|(head, _)| head.to_ascii_lowercase());
    for head in heads {
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(head.contains(&format!("host: {}", consumer.id())), "{head}");
        assert!(!head.contains("authorization"), "{head}");
    }
    assert_eq!((redis.length(OUTPUT), redis.dead_letters().len()), (0, 0), "the consumer writes, not the host");
    assert!(host.stop().stderr.contains("processed=20"));
}

#[test]
fn a_consumer_that_fails_hands_over_to_another_one() {
    let redis = Redis::start();
    let host = distributor(&redis);
    let [failing, silent, working] = [Some(500), None, Some(200)].map(|status| Consumer::start(move |_| status));
    for consumer in [&failing, &silent, &working] {
        register(&redis, address(&host), consumer);
    }
    for n in 0..12 {
        Publisher::new(&redis).publish(message(&format!("m-{n}"), json!({})));
    }
    wait_until("all messages at the one that works", || working.messages().len() == 12);
    wait_until("nothing waits", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 0);
    assert!(!failing.messages().is_empty() && !silent.messages().is_empty());
    assert_eq!(redis.dead_letters().len(), 0);
}

#[test]
fn what_no_consumer_processes_is_tried_again_and_given_up_at_the_end() {
    let redis = Redis::start();
    let host = listening(&redis).arg("--max-attempts", "3").arg("--retry-delay", "1ms").ready(&redis, 0);
    let failing = Consumer::start(|_| Some(503));
    register(&redis, address(&host), &failing);
    Publisher::new(&redis).publish(message("m", json!({})));
    let letter = redis.dead_letter_of("m");
    assert_eq!((letter.text("reason"), letter.text("attempts")), ("plugin-failed", "3"));
    assert!(letter.text("error").contains("answered 503"), "{letter:?}");
    assert_eq!(letter.text("consumer_id"), failing.id());
    assert_eq!(failing.messages().len(), 3);
}

#[test]
fn own_and_remote_consumers_work_side_by_side() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let (_worker, id) = registered(&redis, worker(&redis, address(&host)));
    let traffic = Traffic::start(&redis, 200, json!({"do": "wait", "ms": 20}));
    let by = |id: &str| redis.output().iter().any(|entry| entry.text("consumer_id") == id);
    let own = redis.consumer_ids().into_iter().find(|listed| *listed != id).unwrap();
    wait_until("results of both", || by(&id) && by(&own));
    expect_each_once(&redis, traffic.finish());
}

#[test]
fn a_worker_processes_writes_and_leaves_at_a_stop() {
    let redis = Redis::start();
    let host = distributor(&redis);
    let (worker, id) = registered(&redis, worker(&redis, address(&host)));
    Publisher::new(&redis).publish(message("m", json!({"do": "attempt"})));
    let result = redis.result_of("m");
    assert_eq!((result.text("consumer_id"), result.text("attempt")), (id.as_str(), "1"));
    Publisher::new(&redis).publish(message("s", json!({"do": "succeed-at", "attempt": 3, "delay_ms": 1})));
    redis.result_of("s");
    Publisher::new(&redis).publish(message("r", json!({"do": "reject", "reason": "no"})));
    assert_eq!(redis.dead_letter_of("r").text("consumer_id"), id);
    Publisher::new(&redis).publish(message("w", json!({"do": "wait", "ms": 700})));
    wait_until("work at the worker", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 1);
    let ended = worker.stop();
    assert!(ended.stderr.contains("left the group"), "{}", ended.stderr);
    assert_eq!(redis.results_of("w").len(), 1, "a stop finishes what is in work");
    assert_eq!(redis.consumer_ids(), Vec::<String>::new());
}

#[test]
fn a_worker_registers_again_when_the_group_does_not_know_it() {
    let redis = Redis::start();
    let first = distributor(&redis);
    let (_worker, id) = registered(&redis, worker(&redis, address(&first)));
    assert_eq!(member(address(&first), "/unregister", &id), 200);
    wait_until("its return", || redis.consumer_ids().contains(&id));
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.result_of("m");
}

#[test]
fn a_worker_takes_up_a_new_version_of_its_plugin_and_refuses_a_wrong_one() {
    let redis = Redis::start();
    let host = distributor(&redis);
    let file = redis.folder().join("plugin.wasm");
    Release::new("A").write_to(&file);
    let reloading = worker(&redis, address(&host)).arg("--plugin", &file).arg("--rollback", "off");
    let (worker, id) = registered(&redis, reloading);
    let version_for = |message_id: &str| {
        Publisher::new(&redis).publish(message(message_id, json!({})));
        let result = redis.result_of(message_id);
        assert_eq!(result.text("consumer_id"), id);
        result.text("version").to_owned()
    };
    assert_eq!(version_for("a"), "A");
    std::fs::write(&file, "no component").unwrap();
    worker.wait_for_log("refused a new version of the plugin");
    assert_eq!(version_for("still-a"), "A");
    Release::new("B").write_to(&file);
    worker.wait_for_log("a new version of the plugin is in use");
    assert_eq!(version_for("b"), "B");
    worker.signal(Signal::Hangup);
    worker.wait_for_log("reloading the plugin and the configuration after SIGHUP");
    assert_eq!(version_for("still-b"), "B");
    worker.stop();
}

#[test]
fn a_worker_without_what_it_needs_is_refused() {
    let redis = Redis::start();
    let group = "127.0.0.1:1".parse().unwrap();
    let ended = worker(&redis, group).arg("--group", "http://127.0.0.1:1/path").run();
    assert!(ended.code == Some(2) && ended.stderr.contains("no path"), "{}", ended.stderr);
    let ended = worker(&redis, group).arg("--http", "0.0.0.0:0").env("HOST_HTTP_TOKEN", "0123456789abcdef").run();
    assert!(ended.code == Some(2) && ended.stderr.contains("--advertise"), "{}", ended.stderr);
    let ended = worker(&redis, group).arg("--remote-token-file", "/does/not/exist").run();
    assert!(ended.code == Some(2) && ended.stderr.contains("--remote-token-file"), "{}", ended.stderr);
    let ended = Host::on(&redis).consumers(0).run();
    assert!(ended.code == Some(2) && ended.stderr.contains("--http"), "{}", ended.stderr);
}

#[test]
fn with_a_token_for_the_other_side_both_sides_send_it() {
    let redis = Redis::start();
    let file = redis.folder().join("token");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").unwrap();
    let guarded = |launch: Launch| launch.arg("--http-token-file", &file).arg("--remote-token-file", &file);
    let host = guarded(listening(&redis)).ready(&redis, 0);
    let (_worker, id) = registered(&redis, guarded(worker(&redis, address(&host))));
    Publisher::new(&redis).publish(message("m", json!({})));
    assert_eq!(redis.result_of("m").text("consumer_id"), id);
}

#[test]
fn messages_have_one_result_each_when_workers_are_killed() {
    let redis = Redis::start();
    let host = distributor(&redis);
    let group = address(&host);
    let (doomed, _) = registered(&redis, worker(&redis, group));
    let (_worker, _) = registered(&redis, worker(&redis, group));
    let traffic = Traffic::start(&redis, 100, json!({"do": "wait", "ms": 10}));
    traffic.wait_for_more(100);
    doomed.kill();
    traffic.wait_for_more(50);
    let (second, _) = registered(&redis, worker(&redis, group));
    traffic.wait_for_more(100);
    second.kill();
    expect_each_once_over_http(&redis, traffic.finish());
}

#[test]
fn messages_have_one_result_each_when_distributors_are_killed() {
    let redis = Redis::start();
    let doomed = distributor(&redis);
    let other = distributor(&redis);
    // A worker for each, whose results do not depend on who has handed the message over.
    let (_first, _) = registered(&redis, worker(&redis, address(&doomed)));
    let (_second, _) = registered(&redis, worker(&redis, address(&other)));
    // More than both can do, so that each always has a message in hand.
    let traffic = Traffic::start(&redis, 40, json!({"do": "wait", "ms": 60}));
    traffic.wait_for_more(40);
    wait_until("messages in the hands of both", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) >= 2);
    doomed.kill();
    traffic.wait_for_more(40);
    expect_each_once_over_http(&redis, traffic.finish());
}

#[test]
fn a_worker_that_was_paused_writes_nothing_twice() {
    let redis = Redis::start();
    let host = distributor(&redis);
    let group = address(&host);
    let (paused, id) = registered(&redis, worker(&redis, group));
    Publisher::new(&redis).publish(message("m", json!({"do": "wait", "ms": 900})));
    wait_until("work at the worker", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 1);
    paused.signal(Signal::Stop);
    let (_other, other_id) = registered(&redis, worker(&redis, group));
    let result = redis.result_of("m");
    assert_eq!(result.text("consumer_id"), other_id);
    paused.signal(Signal::Continue);
    // It registers again once it runs, after it has found that the message is not its own any more.
    paused.wait_for_log("was taken over; nothing was written");
    wait_until("its return", || redis.consumer_ids().contains(&id));
    expect_each_once(&redis, ["m".to_owned()]);
}

/// Waits until nothing is in the inbox or waits, and requires one result for each message.
fn expect_each_once_over_http(redis: &Redis, ids: Vec<String>) {
    wait_for("all results", 2 * BOUND, || {
        let (output, waiting) = (redis.length(OUTPUT), redis.run::<usize>(cmd("ZCARD").arg(RETRY)));
        if output >= ids.len() && waiting == 0 {
            Ok(())
        } else {
            Err(format!("{output} of {}, {waiting} wait", ids.len()))
        }
    });
    assert!(redis.run::<usize>(cmd("LLEN").arg(IDS)) > 0);
    expect_each_once(redis, ids);
}
