//! The form of an output entry.

use redis::cmd;
use serde_json::json;

use crate::support::records::{DEAD, INBOX, OUTPUT};
use crate::support::{Host, Publisher, Redis, enrich, expect_each_once, message, wait_until};

/// Publishes a message to which the puppet gives this result.
fn publish_raw(redis: &Redis, id: &str, result: &str) {
    Publisher::new(redis).publish(message(id, json!({"do": "raw", "result": result})));
}

#[test]
fn every_property_is_a_field_of_its_own_unchanged_to_the_last_digit() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let result = r#"{
        "text": "plain", "empty": "", "escaped": "a\"b\\c\n\u00e9\ud83e\udd80\/", "json in text": "{\"a\":1}",
        "one": 1.0, "large": 1e400, "long": 12345678901234567890123, "small": -0.10, "exponent": 1E+2,
        "yes": true, "no": false, "nothing": null, "list": [1, 2.50 , "x"], "object": { "b" : 1.0, "a": [ ] },
        "Füße": "🦀", "": "no name"
    }"#;
    publish_raw(&redis, "r", result);
    let entry = redis.result_of("r");
    let expected = [
        ("text", "plain"),
        ("empty", ""),
        ("escaped", "a\"b\\c\né🦀/"),
        ("json in text", r#"{"a":1}"#),
        ("one", "1.0"),
        ("large", "1e400"),
        ("long", "12345678901234567890123"),
        ("small", "-0.10"),
        ("exponent", "1E+2"),
        ("yes", "true"),
        ("no", "false"),
        ("nothing", "null"),
        ("list", r#"[1, 2.50 , "x"]"#),
        ("object", r#"{ "b" : 1.0, "a": [ ] }"#),
        ("Füße", "🦀"),
        ("", "no name"),
    ];
    for (name, value) in expected {
        assert_eq!(entry.text(name), value, "field {name:?}");
    }
    let names: Vec<&str> = ["message_id", "consumer_id"].into_iter().chain(expected.map(|(name, _)| name)).collect();
    assert_eq!(entry.names(), names, "the host's own fields, then the result's in its order");
}

#[test]
fn half_of_a_surrogate_pair_is_replaced_in_texts_and_names_and_kept_in_values() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    publish_raw(&redis, "r", r#"{"text":"cut \ud83d","\udc00":"\ud83d\ude00","list":["\ud800"],"message_id\ud800":1}"#);
    let entry = redis.result_of("r");
    let names = ["message_id", "consumer_id", "text", "\u{fffd}", "list", "message_id\u{fffd}"];
    assert_eq!(entry.names(), names);
    assert_eq!((entry.text("text"), entry.text("\u{fffd}")), ("cut \u{fffd}", "😀"));
    assert_eq!(entry.text("list"), r#"["\ud800"]"#);
    assert!(redis.dead_letters().is_empty());
}

#[test]
fn of_a_property_that_comes_twice_the_last_value_is_written() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    publish_raw(&redis, "r", r#"{"a":1,"b":2,"\u0061":3}"#);
    let entry = redis.result_of("r");
    assert_eq!(entry.names(), ["message_id", "consumer_id", "b", "a"]);
    assert_eq!(entry.text("a"), "3");
}

#[test]
fn a_result_with_more_properties_than_an_entry_holds_says_what_to_do() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let of = |count: usize| {
        let properties: Vec<String> = (0..count).map(|n| format!("\"p{n}\":{n}")).collect();
        format!("{{{}}}", properties.join(","))
    };
    publish_raw(&redis, "most", &of(3_500));
    publish_raw(&redis, "more", &of(3_501));
    assert_eq!(redis.result_of("most").names().len(), 3_502);
    let letter = redis.dead_letter_of("more");
    assert_eq!(letter.text("reason"), "bad-result");
    for part in ["3501 properties", "3500", "--output-format json"] {
        assert!(letter.text("error").contains(part), "{part} in {}", letter.text("error"));
    }
}

#[test]
fn a_plugin_cannot_forge_the_ids() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let ids = redis.consumer_ids();
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("true-1", json!({"do": "forge"})));
    let result = r#"{"message\u005fid": "forged", "a": 1, "consumer_id": ["forged"], "consumer_\u0069d": 2}"#;
    publisher.publish(message("true-2", json!({"do": "raw", "result": result})));
    for (id, rest) in [("true-1", "kept"), ("true-2", "a")] {
        let entry = redis.result_of(id);
        assert_eq!(entry.names(), ["message_id", "consumer_id", rest]);
        assert_eq!(entry.text("consumer_id"), ids[0]);
    }
    assert_eq!(redis.length(OUTPUT), 2);
}

#[test]
fn a_message_may_have_several_results_or_none() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("none", json!({"do": "drop"})));
    publisher.publish(message("empty", json!({"do": "emit-all", "results": []})));
    publisher
        .publish(message("three", json!({"do": "emit-all", "results": [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#]})));
    wait_until("three results", || redis.length(OUTPUT) == 3);
    redis.wait_for_an_empty_inbox();
    let numbers: Vec<String> = redis.results_of("three").iter().map(|entry| entry.text("n").to_owned()).collect();
    assert_eq!(numbers, ["1", "2", "3"], "in their order");
    assert!(redis.dead_letters().is_empty());
}

#[test]
fn the_example_adds_a_random_property_and_leaves_the_rest_as_it_was() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--plugin", enrich()).ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(r#"{"message_id":"a","z":1.0,"b":"text","c":{ "d":1e400 }}"#);
    publisher.publish(r#"{"message_id":"b"}"#);
    let entry = redis.result_of("a");
    assert_eq!(entry.names(), ["message_id", "consumer_id", "z", "b", "c", "random_property"]);
    assert_eq!((entry.text("z"), entry.text("b"), entry.text("c")), ("1.0", "text", "{ \"d\":1e400 }"));
    let random = entry.text("random_property");
    assert!(!random.is_empty());
    assert_ne!(random, redis.result_of("b").text("random_property"), "random values differ");
}

#[test]
fn a_result_may_be_kept_whole_as_json() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--output-format", "json").ready(&redis, 1);
    publish_raw(&redis, "r", r#"{"a": 1.0, "b": {"c": [ ]}}"#);
    let entry = redis.result_of("r");
    assert_eq!(entry.names(), ["message_id", "consumer_id", "json"]);
    assert_eq!(entry.text("json"), r#"{"a": 1.0, "b": {"c": [ ]}}"#);
}

#[test]
fn the_output_is_trimmed_only_where_a_bound_is_given() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--max-output-length", "1000").ready(&redis, 4);
    Publisher::new(&redis).publish_all((0..20_000).map(|n| message(&format!("o-{n}"), json!({}))));
    Publisher::new(&redis).publish(message("last", json!({})));
    redis.result_of("last");
    redis.wait_for_an_empty_inbox();
    let kept = redis.length(OUTPUT);
    assert!((1_000..5_000).contains(&kept), "{kept} entries are kept of 20,000, about 1,000 are wanted");
}

#[test]
fn all_names_can_be_changed_and_no_other_is_touched() {
    let redis = Redis::start();
    let names = [("--channel", "orders"), ("--output-key", "done"), ("--consumer-ids-key", "workers")];
    let launch = names.iter().fold(Host::on(&redis).consumers(2), |launch, (flag, name)| launch.arg(flag, name));
    let host = launch.start();
    wait_until("a subscription to the other channel", || {
        redis.run::<usize>(cmd("PUBLISH").arg("orders").arg(message("m", json!({})))) == 1
    });
    redis.run::<usize>(cmd("PUBLISH").arg("orders").arg("no message"));
    wait_until("a result", || redis.length("done") == 1);
    wait_until("a dead letter", || redis.length("{done}:dead") == 1);
    wait_until("registered consumers", || redis.run::<usize>(cmd("LLEN").arg("workers")) == 2);
    let keys: Vec<String> = redis.run(cmd("KEYS").arg("*"));
    let is_ours = |key: &String| ["done", "{done}:", "workers", "{workers}:"].iter().any(|name| key.starts_with(name));
    assert!(keys.iter().all(is_ours), "{keys:?}");
    host.stop();
}

/// Whether Redis has the script that settles a delivery. The script is loaded on demand.
fn has_settle_script(redis: &Redis) -> bool {
    let digest = redis::Script::new(include_str!("../host/src/redis/store/scripts/settle.lua")).get_hash().to_owned();
    redis.run::<(bool,)>(cmd("SCRIPT").arg("EXISTS").arg(digest)).0
}

#[test]
fn deliveries_that_give_results_only_need_no_script() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 4);
    // Deliveries fetched before the host had its permit may need the script.
    Publisher::new(&redis).publish(message("first", json!({})));
    redis.result_of("first");
    wait_until("an empty inbox", || redis.length(INBOX) == 0);
    redis.command::<()>("SCRIPT FLUSH");
    let ids: Vec<String> = (0..500).map(|n| format!("m-{n}")).collect();
    let orders = [json!({}), json!({"do": "drop"})];
    let payloads = ids.iter().enumerate().map(|(n, id)| message(id, orders[n % 2].clone()));
    Publisher::new(&redis).publish_all(payloads);
    redis.wait_until_known(&ids);
    wait_until("an empty inbox", || redis.length(INBOX) == 0);
    assert_eq!(redis.length(OUTPUT), 1 + 250);
    assert!(!has_settle_script(&redis));

    Publisher::new(&redis).publish(message("bad", json!({"do": "reject"})));
    wait_until("a dead letter", || redis.length(DEAD) == 1);
    assert!(has_settle_script(&redis), "a dead letter needs it, so this test would see it");
}

#[test]
fn results_wait_while_the_output_is_no_stream() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 4);
    Publisher::new(&redis).publish(message("before", json!({})));
    redis.result_of("before");
    redis.run::<()>(cmd("SET").arg(OUTPUT).arg("not ours"));
    let ids: Vec<String> = (0..100).map(|n| format!("m-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({}))));
    host.wait_for_log("messages:processed is a string, not a stream; rename or delete it");
    redis.run::<()>(cmd("DEL").arg(OUTPUT));
    expect_each_once(&redis, ids);
}
