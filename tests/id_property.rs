//! The id of a message may be in any property: events of other systems are messages as they are.

use redis::cmd;
use serde_json::{Value, json};

use crate::support::host::Launch;
use crate::support::http::{Request, address};
use crate::support::records::{CHANNEL, DEAD, OUTPUT};
use crate::support::{Host, Publisher, Redis, puppet, wait_until};

/// A host that looks for the id there.
fn host(redis: &Redis, property: &str) -> Launch {
    Host::on(redis).arg("--id-property", property)
}

/// Publishes two events, the first of them twice, and requires a result each that is the event.
fn expect_a_result_each(property: &str, events: &[(&str, Value); 2]) {
    let redis = Redis::start();
    let _hosts = [host(&redis, property).ready(&redis, 2), host(&redis, property).ready(&redis, 2)];
    let mut publisher = Publisher::new(&redis);
    for (id, event) in [&events[0], &events[0], &events[1]] {
        publisher.publish(event.to_string());
        redis.result_of(id);
    }
    assert_eq!(redis.length(OUTPUT), 2, "a copy has no result");
    assert_eq!(redis.length(DEAD), 0);
    for (id, event) in events {
        let result = redis.result_of(id);
        for (name, value) in event.as_object().unwrap() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            assert_eq!(result.text(name), text, "{name}");
        }
        assert!(redis.consumer_ids().contains(&result.text("consumer_id").to_owned()));
    }
}

#[test]
fn a_cloud_event_is_a_message() {
    let event = |id: &str| {
        json!({
            "specversion": "1.0", "type": "com.example.order.created", "source": "/orders", "subject": "17", "id": id,
            "time": "2026-04-05T17:31:00Z", "datacontenttype": "application/json",
            "data": {"id": "inner", "total": 12.5, "lines": [{"sku": "a", "count": 2}]}
        })
    };
    expect_a_result_each("id", &[("A234-1234-1234", event("A234-1234-1234")), ("B-2", event("B-2"))]);
}

#[test]
fn an_event_of_stripe_is_a_message() {
    let event = |id: &str| {
        json!({
            "id": id, "object": "event", "api_version": "2025-03-31.basil", "created": 1_775_404_260, "livemode": false,
            "type": "payment_intent.succeeded", "pending_webhooks": 1,
            "data": {"object": {"id": "pi_3Q", "object": "payment_intent", "amount": 2000, "currency": "eur"}},
            "request": {"id": "req_1", "idempotency_key": "idem-1"}
        })
    };
    expect_a_result_each("/id", &[("evt_1Q", event("evt_1Q")), ("evt_2Q", event("evt_2Q"))]);
}

#[test]
fn a_push_of_github_is_a_message() {
    let event = |commit: &str| {
        json!({
            "ref": "refs/heads/main", "before": "0000000000000000000000000000000000000000", "after": commit,
            "repository": {"id": 186_853_002, "full_name": "octo/shop", "private": false, "topics": []},
            "pusher": {"name": "octo", "email": null}, "forced": false,
            "commits": [{"id": commit, "message": "Say \"hello\"", "added": [], "modified": ["README.md"]}],
            "head_commit": {"id": commit, "message": "Say \"hello\"", "timestamp": "2026-04-05T17:31:00+02:00"}
        })
    };
    let (one, two) = ("1481a2de7b2a7d02428ad93446ab166be7793fbb", "6dcb09b5b57875f334f61aebed695e2e4193db5e");
    expect_a_result_each("head_commit.id", &[(one, event(one)), (two, event(two))]);
}

#[test]
fn a_change_of_debezium_is_a_message_whose_id_is_a_number() {
    let event = |lsn: u64| {
        json!({
            "schema": {"type": "struct", "optional": false, "fields": [{"type": "int64", "field": "lsn"}]},
            "payload": {
                "before": null, "after": {"id": 1004, "first_name": "Anne", "weight": 1.5}, "op": "c", "ts_ms": 1_775_404_260_000_u64,
                "source": {"connector": "postgresql", "name": "shop", "snapshot": "false", "schema": "public",
                           "table": "customers", "txId": 555, "lsn": lsn, "xmin": null}
            }
        })
    };
    expect_a_result_each("/payload/source/lsn", &[("24023128", event(24_023_128)), ("24023400", event(24_023_400))]);
}

#[test]
fn a_message_without_the_property_becomes_a_dead_letter_that_names_it() {
    let redis = Redis::start();
    let _host = host(&redis, "event.id").ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    for (count, payload, reason, error) in [
        (1, r#"{"message_id":"1"}"#, "no-id", "the message has no property event.id"),
        (2, r#"{"event":{"id":null}}"#, "bad-id", "event.id must be a string or a number"),
        (3, r#"{"event":{"id":1},"event":{"id":1}}"#, "bad-id", "the message has the property event.id more than once"),
        (4, "[]", "not-an-object", r#"the message is JSON but not an object; publish {"event": {"id": …, …}, …}"#),
    ] {
        publisher.publish(payload);
        wait_until("a dead letter", || redis.length(DEAD) == count);
        let letter = redis.dead_letters().pop().unwrap();
        assert_eq!((letter.text("reason"), letter.text("error")), (reason, error), "{payload}");
    }
    // A message that fails keeps its id, and a false one at the usual place does not count.
    publisher.publish(r#"{"event":{"id":"e"},"message_id":"false","do":"reject","reason":"no"}"#);
    assert_eq!(redis.dead_letter_of("e").text("reason"), "plugin-rejected");
    publisher.publish(r#"{"event":{"id":"r"},"message_id":"false","do":"succeed-at","attempt":2,"delay_ms":1}"#);
    let result = redis.result_of("r");
    assert_eq!(result.names(), ["message_id", "consumer_id", "event", "do", "attempt", "delay_ms"]);
}

#[test]
fn a_host_with_another_id_property_is_refused() {
    let redis = Redis::start();
    let first = host(&redis, "event.id").ready(&redis, 1);
    let refused = Host::on(&redis).consumers(1).start().ended();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    for part in ["--id-property /event/id", "the default of --id-property", "--output-key", "messages:processed"] {
        assert!(refused.stderr.contains(part), "{part:?} in {}", refused.stderr);
    }
    // The same property written in the other way is the same.
    let second = host(&redis, "/event/id").ready(&redis, 1);
    second.stop();
    // What a host compares that does not know the setting is not the mere channel.
    let descriptor: String = redis.run(cmd("HGET").arg("{messages:processed}:group").arg("channel"));
    assert_eq!(descriptor, format!("{CHANNEL}, --id-property /event/id"));
    let status = Launch::subcommand("status").arg("--redis", redis.url()).switch("--json").run();
    let status: Value = serde_json::from_str(&status.stdout).expect(&status.stdout);
    assert_eq!(status["group"]["channel"], CHANNEL);
    first.stop();
    Host::on(&redis).ready(&redis, 1);
}

#[test]
fn a_worker_and_what_is_handed_in_follow_the_property() {
    let redis = Redis::start();
    let host = host(&redis, "event.id").arg("--http", "127.0.0.1:0").consumers(0).start();
    let group = address(&host);
    let worker = |property: &str| {
        let launch = Launch::subcommand("worker").arg("--group", format!("http://{group}")).arg("--plugin", puppet());
        launch.arg("--redis", redis.url()).arg("--http", "127.0.0.1:0").arg("--id-property", property)
    };
    let refused = worker("message_id").start().ended();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("--id-property"), "{}", refused.stderr);
    let worker = worker("event.id").start();
    redis.wait_for_consumers(1);
    Publisher::new(&redis).publish(r#"{"event":{"id":"published"}}"#);
    redis.result_of("published");
    let hand_in = |event: Value| Request::post("/processMessage", &event).send(address(&worker));
    let answer = hand_in(json!({"event": {"id": "handed"}, "do": "drop"}));
    assert_eq!((answer.status, answer.json()), (200, json!({"outcome": "dropped"})));
    let answer = hand_in(json!({"message_id": "m"}));
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("no property event.id"), "{}", answer.text());
}

#[test]
fn generated_messages_and_cases_follow_the_property() {
    let redis = Redis::start();
    let _host = host(&redis, "event.id").ready(&redis, 1);
    let publish = |bytes: &str| {
        let launch = Launch::bare().words(&["--id-property", "event.id", "publish"]);
        launch.arg("--redis", redis.url()).arg("--count", "20").arg("--payload-bytes", bytes).run()
    };
    let refused = publish("67");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("must be at least 68"), "{}", refused.stderr);
    let published = publish("68");
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    redis.wait_for_settled(20);
    assert_eq!(redis.length(OUTPUT), 20);

    let test = |property: &str| {
        let plugin = puppet();
        let launch = Launch::subcommand("test").words(&[plugin.to_str().unwrap()]).arg("--id-property", property);
        launch.arg("--message", r#"{"event":{"id":"e"},"do":"drop"}"#).run()
    };
    let tried = test("event.id");
    assert!(tried.code == Some(0) && tried.stdout.contains("drop"), "{}{}", tried.stdout, tried.stderr);
    let tried = test("other");
    assert!(tried.stdout.contains("no property other"), "{}{}", tried.stdout, tried.stderr);
}
