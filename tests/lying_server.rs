//! A server whose replies never end, or are no replies: the host hangs up before they take its memory, and goes on as soon as the
//! server is honest.

use serde_json::json;

use crate::support::liar::{Liar, Lie};
use crate::support::{Host, Publisher, Redis, message, wait_for, wait_until};

/// Maximum growth of the host's memory; a lie has 192 MiB.
const GROWTH_MAX: u64 = 48 << 20;

const LIES: [Lie; 6] = [
    Lie { name: "a line without an end", head: "+", more: "x" },
    Lie { name: "a length without an end", head: "*", more: "1" },
    Lie { name: "a string of an exabyte", head: "$1000000000000000000\r\n", more: "x" },
    Lie { name: "an array of a billion values", head: "*1000000000\r\n", more: ":1\r\n" },
    Lie { name: "arrays in arrays without an end", head: "", more: "*1\r\n" },
    Lie { name: "another protocol", head: "HTTP/1.1 400 Bad Request\r\n\r\n", more: "<html>" },
];

/// Tells every lie instead of the replies to requests with this word.
fn tell_lies_about(word: &'static str) {
    let redis = Redis::start();
    let liar = Liar::start(&redis);
    let host = Host::on(&redis).arg("--redis", liar.url()).ready(&redis, 2);
    let before_bytes = host.resident_bytes();
    for (number, lie) in LIES.into_iter().enumerate() {
        liar.tell(word, lie);
        wait_until(lie.name, || liar.seen_through() + liar.fooled() >= 2);
        assert_eq!(liar.fooled(), 0, "{}", lie.name);
        liar.be_honest();
        let id = format!("m-{number}");
        // What is published while nobody is subscribed is nobody's.
        wait_for("an honest subscription", crate::support::BOUND, || {
            Publisher::new(&redis).publish(message(&id, json!({})));
            if redis.results_of(&id).is_empty() { Err(host.log()) } else { Ok(()) }
        });
        let bytes = host.resident_bytes();
        assert!(bytes < before_bytes + GROWTH_MAX, "{}: {bytes} bytes, {before_bytes} before", lie.name);
    }
    host.stop();
}

#[test]
fn no_lie_about_deliveries_takes_memory() {
    tell_lies_about("XREADGROUP");
}

#[test]
fn no_lie_about_the_subscription_takes_memory() {
    tell_lies_about("SUBSCRIBE");
}

#[test]
fn no_lie_about_settling_and_appending_takes_memory() {
    tell_lies_about("WATCH");
}
