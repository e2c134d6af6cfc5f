//! Results that are large in number instead of bytes: the message ends in any case, and nothing is blocked.

use serde_json::json;

use crate::support::records::{DEAD, OUTPUT};
use crate::support::{Host, Publisher, Redis, message, wait_until};

fn with_properties(id: &str, count: usize) -> String {
    let properties: serde_json::Map<_, _> = (0..count).map(|n| (format!("p{n}"), json!(n))).collect();
    message(id, properties.into())
}

#[test]
fn thousands_of_properties_are_written_or_refused_as_a_whole() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    for count in [1_000, 3_000] {
        let id = format!("{count} properties");
        publisher.publish(with_properties(&id, count));
        assert_eq!(redis.result_of(&id).fields.len(), 2 + count);
    }
    publisher.publish(with_properties("too many", 20_000));
    assert_eq!(redis.dead_letter_of("too many").text("reason"), "bad-result");
    // A flood of them shares deliveries.
    let dead = redis.length(DEAD);
    publisher.publish_all((0..300).map(|n| with_properties(&format!("wide-{n}"), 3_000)));
    publisher.publish(message("after", json!({})));
    redis.result_of("after");
    wait_until("all wide results", || redis.length(OUTPUT) == 303);
    assert_eq!(redis.length(DEAD), dead);
}

#[test]
fn a_whole_result_may_have_any_number_of_properties() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--output-format", "json").ready(&redis, 2);
    let payload = with_properties("wide", 20_000);
    Publisher::new(&redis).publish(&payload);
    assert_eq!(redis.result_of("wide").text("json"), payload);
}

#[test]
fn thousands_of_results_of_one_message_are_written_or_refused_as_a_whole() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--max-message-bytes", "16MiB").arg("--max-plugin-time", "20s");
    let _host = host.arg("--max-results", "10000").ready(&redis, 2);
    let mut publisher = Publisher::new(&redis);
    let many = |id: &str, count: usize| {
        let results: Vec<&str> = std::iter::repeat_n("{}", count).collect();
        message(id, json!({"do": "emit-all", "results": results}))
    };
    publisher.publish(many("many", 10_000));
    wait_until("all results", || redis.length(OUTPUT) == 10_000);
    // So many fields would block Redis for seconds.
    publisher.publish(many("too many", 600_000));
    publisher.publish_all((0..100).map(|n| message(&format!("m-{n}"), json!({}))));
    assert_eq!(redis.dead_letter_of("too many").text("reason"), "bad-result");
    redis.wait_for_settled(10_101);
    assert_eq!((redis.length(OUTPUT), redis.length(DEAD)), (10_100, 1));
}
