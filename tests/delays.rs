//! A message that says when it is due waits in Redis until then, and the promise holds meanwhile.

use redis::cmd;
use serde_json::{Value, json};

use crate::support::host::Launch;
use crate::support::http::address;
use crate::support::records::{DEAD, INBOX, OUTPUT, RETRY};
use crate::support::{Host, Publisher, Redis, expect_each_once, message, puppet, wait_until};

/// A host that looks for both properties.
fn host(redis: &Redis) -> Launch {
    following(Host::on(redis))
}

fn following(launch: Launch) -> Launch {
    launch.arg("--deliver-at-property", "deliver_at").arg("--deliver-after-property", "meta.after")
}

/// Server time in milliseconds.
fn now_ms(redis: &Redis) -> u64 {
    let (seconds, micros): (u64, u64) = redis.run(&cmd("TIME"));
    seconds * 1000 + micros / 1000
}

fn waiting(redis: &Redis) -> usize {
    redis.run(cmd("ZCARD").arg(RETRY))
}

/// When a result was written, by the server's clock.
fn written_ms(redis: &Redis, id: &str) -> u64 {
    let entry = redis.result_of(id);
    entry.id().split_once('-').expect("an entry id has two numbers").0.parse().expect("a number")
}

fn rfc3339(ms: u64) -> String {
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms)).to_string()
}

#[test]
fn a_message_is_processed_at_its_time_and_not_before() {
    let redis = Redis::start();
    let host = host(&redis).arg("--log-format", "json").arg("--report-interval", "100ms").ready(&redis, 2);
    let now = now_ms(&redis);
    let due = now + 2_000;
    let local = rfc3339(due + 7_200_000).replace('Z', "+02:00");
    let orders = [
        ("at-number", json!({"deliver_at": due})),
        ("at-utc", json!({"deliver_at": rfc3339(due)})),
        ("at-local", json!({"deliver_at": local})),
        ("after-number", json!({"meta": {"after": 2_000}})),
        ("after-text", json!({"meta": {"after": "1s 1000ms"}})),
    ];
    let with_attempt = |order: &Value| {
        let mut order = order.clone();
        order["do"] = json!("attempt");
        order
    };
    let mut publisher = Publisher::new(&redis);
    publisher.publish_all(orders.iter().map(|(id, order)| message(id, with_attempt(order))));
    for (id, order) in [
        ("usual", json!({})),
        ("past", json!({"deliver_at": "2020-01-01T00:00:00Z"})),
        ("now", json!({"meta": {"after": 0}})),
        ("null", json!({"deliver_at": null, "meta": {"after": null}})),
        ("elsewhere", json!({"x": {"deliver_at": due}, "after": "1h"})),
    ] {
        publisher.publish(message(id, order));
        redis.result_of(id);
    }
    host.wait_for_report("messages that wait and are no retries", |report| {
        report["retries_waiting"] == 5 && report["retries"] == 0
    });
    for (id, _) in &orders {
        assert!(written_ms(&redis, id) >= due, "{id}");
        assert_eq!(redis.result_of(id).text("attempt"), "1", "{id}: to wait is no attempt");
    }
    host.wait_for_report("no retry", |report| report["retries_waiting"] == 0 && report["retries"] == 0);
    assert_eq!((redis.length(OUTPUT), redis.length(DEAD)), (10, 0));
}

#[test]
fn without_the_settings_such_a_property_is_an_ordinary_one() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let order = json!({"deliver_at": "2999-01-01T00:00:00Z", "deliver_after": "1d", "meta": {"after": "nonsense"}});
    Publisher::new(&redis).publish(message("m", order));
    assert_eq!(redis.result_of("m").text("deliver_after"), "1d");
}

#[test]
fn a_time_that_cannot_be_read_or_is_too_far_ahead_makes_a_dead_letter() {
    let redis = Redis::start();
    let _host = host(&redis).arg("--max-deliver-delay", "1h").ready(&redis, 2);
    let far = now_ms(&redis) + 3_700_000;
    let mut publisher = Publisher::new(&redis);
    for (id, order, error) in [
        (
            "word",
            json!({"deliver_at": "tomorrow"}),
            "deliver_at is \"tomorrow\"; it must be a time such as \"2026-04-05T17:30:00Z\" or a number of ms since 1970",
        ),
        (
            "unit",
            json!({"meta": {"after": "10"}}),
            "meta.after is \"10\"; it must be a length of time such as \"10m\" or a number of ms",
        ),
        ("far", json!({"deliver_at": far}), "deliver_at is more than 1h ahead; --max-deliver-delay is the limit"),
        (
            "long",
            json!({"meta": {"after": "61m"}}),
            "meta.after is more than 1h ahead; --max-deliver-delay is the limit",
        ),
        (
            "both",
            json!({"deliver_at": 1, "meta": {"after": 1}}),
            "the message has both deliver_at and meta.after; it must have one of them",
        ),
    ] {
        publisher.publish(message(id, order));
        let letter = redis.dead_letter_of(id);
        assert_eq!((letter.text("reason"), letter.text("error")), ("bad-delay", error));
        assert_eq!(letter.text("attempts"), "1");
    }
    assert_eq!((redis.length(OUTPUT), waiting(&redis)), (0, 0));
}

/// The wait is longer than the dedup window, the host that has put the message off is killed, and Redis is killed as well.
#[test]
fn a_waiting_message_survives_everything_and_its_copies_are_dropped() {
    let mut redis = Redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let frail = |redis: &Redis| {
        let launch = host(redis).arg("--dedup-window", "1s").arg("--intake-lease", "500ms");
        launch.arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "1s").arg("--takeover-interval", "50ms")
    };
    let first = frail(&redis).ready(&redis, 2);
    let due = now_ms(&redis) + 5_000;
    let payload = message("m", json!({"deliver_at": due, "do": "attempt"}));
    Publisher::new(&redis).publish(&payload);
    wait_until("a waiting message", || waiting(&redis) == 1);
    first.kill();
    redis.kill();
    redis.restart();
    assert_eq!(waiting(&redis), 1);
    let second = frail(&redis).ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    wait_until("the result, among copies", || {
        publisher.publish(&payload);
        !redis.results_of("m").is_empty()
    });
    assert!(written_ms(&redis, "m") >= due);
    wait_until("an empty inbox", || redis.length(INBOX) == 0);
    assert_eq!(redis.result_of("m").text("attempt"), "1");
    expect_each_once(&redis, ["m".to_owned()]);
    second.stop();
}

#[test]
fn many_messages_that_are_due_at_once_have_one_result_each() {
    let redis = Redis::start();
    let _hosts = [host(&redis).ready(&redis, 4), host(&redis).ready(&redis, 4)];
    let due = now_ms(&redis) + 2_000;
    let ids: Vec<String> = (0..2_000).map(|number| format!("m-{number}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({"deliver_at": due}))));
    redis.wait_for_settled(ids.len());
    let early =
        redis.output().iter().filter(|entry| entry.id().split_once('-').unwrap().0 < &due.to_string()[..]).count();
    assert_eq!(early, 0);
    expect_each_once(&redis, ids);
}

#[test]
fn a_worker_gets_a_message_when_it_is_due() {
    let redis = Redis::start();
    let host = host(&redis).arg("--http", "127.0.0.1:0").consumers(0).start();
    let worker = Launch::subcommand("worker").arg("--group", format!("http://{}", address(&host)));
    let worker = worker.arg("--plugin", puppet()).arg("--redis", redis.url()).arg("--http", "127.0.0.1:0");
    let refused = worker.start().ended();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("--deliver-after-property /meta/after"), "{}", refused.stderr);
    let worker = Launch::subcommand("worker").arg("--group", format!("http://{}", address(&host)));
    let worker = worker.arg("--plugin", puppet()).arg("--redis", redis.url()).arg("--http", "127.0.0.1:0");
    let _worker = following(worker).start();
    redis.wait_for_consumers(1);
    let due = now_ms(&redis) + 1_500;
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("m", json!({"deliver_at": due, "do": "attempt"})));
    publisher.publish(message("bad", json!({"deliver_at": "soon"})));
    assert_eq!(redis.dead_letter_of("bad").text("reason"), "bad-delay");
    assert!(written_ms(&redis, "m") >= due);
    assert_eq!(redis.result_of("m").text("attempt"), "1");
}

#[test]
fn hosts_of_a_group_look_for_the_same_properties() {
    let redis = Redis::start();
    let _host = host(&redis).ready(&redis, 1);
    let refused = Host::on(&redis).arg("--deliver-at-property", "deliver_at").consumers(1).start().ended();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    for part in ["--deliver-after-property /meta/after", "the default of --deliver-after-property"] {
        assert!(refused.stderr.contains(part), "{part:?} in {}", refused.stderr);
    }
}
