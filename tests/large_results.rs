//! Results that are large in number instead of bytes: the message ends in any case, and nothing is blocked.

use serde_json::json;

use crate::support::records::{DEAD, OUTPUT};
use crate::support::{Host, Publisher, Redis, message, wait_until};

/// The most memory of a host with ten consumers whose results have 2 MB each: 100 MB for ten guests, 32 MiB of results and one more
/// for each consumer, copies of those that are written, and room. With 32 MiB for each consumer it is 500 MB.
const PEAK_BYTES_MAX: u64 = 300 << 20;

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

#[test]
fn results_of_all_consumers_together_take_a_bounded_amount_of_memory() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--log-format", "json").arg("--report-interval", "200ms");
    // What is freed counts no more, however busy the machine is.
    let host =
        host.env("MIMALLOC_PURGE_DELAY", "0").arg("--max-output-length", "4").arg("--max-plugin-memory", "64MiB");
    let host = host.ready(&redis, 10);
    let mut publisher = Publisher::new(&redis);
    // So that deliveries are as long as can be.
    let (quick, large) = (10_000, 500);
    publisher.publish_all((0..quick).map(|n| message(&format!("quick-{n}"), json!({}))));
    host.wait_for_report("all quick messages", |report| report["processed"] == quick);
    let grow = |n| message(&format!("large-{n}"), json!({"do": "grow", "bytes": 2_000_000}));
    publisher.publish_all((0..large).map(grow));
    host.wait_for_report("all large messages", |report| report["processed"] == quick + large);
    let peak = host.peak_bytes();
    assert!(peak < PEAK_BYTES_MAX, "{peak} bytes");
    assert_eq!(redis.length(DEAD), 0);
}
