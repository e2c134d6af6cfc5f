//! Any string of up to 512 bytes and any number is an id, and no id means anything to Redis.

use serde_json::{Value, json};

use crate::support::{Host, Publisher, Redis, expect_each_once, message};

#[test]
fn strings_that_mean_something_elsewhere_are_ordinary_ids() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 3);
    let long = "l".repeat(512);
    let unicode = "€".repeat(170);
    let ids = [
        "END",
        "*",
        "$",
        ">",
        "-",
        "+",
        "0",
        "0-1",
        "a:b{c}d",
        "{messages:processed}",
        "}{",
        "NX",
        "PX",
        "a b",
        " ",
        "\"quoted\"",
        "back\\slash",
        "line\nfeed",
        "tab\t",
        "nul\0byte",
        "%s",
        "$1",
        "KEYS[1]",
        "'; DROP",
        "../../etc",
        "Füße",
        "日本語",
        "🦀",
        "e\u{301}",
        "\u{200d}",
        "\u{7f}",
        "message_id",
        "consumer_id",
        "null",
        "true",
        "messages:processed",
        long.as_str(),
        unicode.as_str(),
    ];
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({}))));
    expect_each_once(&redis, ids.iter().map(|id| (*id).to_owned()));
}

#[test]
fn an_escaped_string_is_the_id_that_it_stands_for() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 3);
    let payloads = [
        (r#"{"message_id":"\u0061bc"}"#, "abc"),
        (r#"{"message_id":"\ud83e\udd80"}"#, "🦀"),
        (r#"{"message_id":"a\/b"}"#, "a/b"),
        ("  {\t\"other\" : 1 ,\r\n \"message_id\" :\"spaced\" }  ", "spaced"),
        (r#"{"message\u005fid":"escaped name"}"#, "escaped name"),
    ];
    Publisher::new(&redis).publish_all(payloads.iter().map(|(payload, _)| payload));
    expect_each_once(&redis, payloads.iter().map(|(_, id)| (*id).to_owned()));
    // The escaped spelling is a copy of the plain one.
    Publisher::new(&redis).publish_all([message("abc", json!({})), message("later", json!({}))]);
    let all = payloads.iter().map(|(_, id)| *id).chain(["later"]);
    expect_each_once(&redis, all.map(str::to_owned));
}

#[test]
fn the_id_of_a_number_is_its_json_text() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 3);
    let numbers =
        ["7", "1.50", "-0", "0", "1e400", "1E+2", "12345678901234567890123", "0.1000000000000000055511151231257827"];
    Publisher::new(&redis).publish_all(numbers.iter().map(|number| format!(r#"{{"message_id":{number}}}"#)));
    expect_each_once(&redis, numbers.iter().map(|number| (*number).to_owned()));
}

#[test]
fn the_message_reaches_the_plugin_as_it_was_published() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let payload = r#"{ "z":1.0, "message_id" : "as it was", "a":"\u00e9\/" , "n":[ 1e400 ] }"#;
    Publisher::new(&redis).publish(payload);
    let entry = redis.result_of("as it was");
    assert_eq!(entry.text("z"), "1.0");
    assert_eq!(entry.text("a"), "é/");
    assert_eq!(entry.text("n"), "[ 1e400 ]");
    assert!(serde_json::from_str::<Value>(payload).is_err(), "the number does not even fit a float");
}
