//! More consumers do more work at the same time.

use std::collections::HashSet;

use serde_json::json;

use crate::support::records::OUTPUT;
use crate::support::{BOUND, Host, Publisher, Redis, message, wait_for};

#[test]
fn throughput_of_a_slow_plugin_rises_in_proportion_to_consumers() {
    // Pub/Sub knows no databases: one burst reaches three groups that share nothing else, and they work
    // on it during the same seconds. So a slow machine slows all of them, and counts can be compared.
    let redis = Redis::start();
    let group = |database: u32, consumers: usize| {
        let url = format!("{}/{database}", redis.url());
        Host::on(&redis).arg("--redis", url).consumers(consumers).start()
    };
    let _hosts = [group(1, 1), group(2, 10), group(3, 100)];
    redis.wait_for_subscribers(3);
    let payloads = (0..60_000).map(|n| message(&format!("s-{n}"), json!({"do": "wait", "ms": 10})));
    Publisher::new(&redis).publish_all(payloads);

    let mut connection = redis.connect();
    let counts: Vec<usize> = wait_for("400 messages processed by a single consumer", BOUND, || {
        let mut pipeline = redis::pipe();
        for database in 1..=3 {
            pipeline.cmd("SELECT").arg(database).ignore().cmd("XLEN").arg(OUTPUT);
        }
        let counts: Vec<usize> = pipeline.query(&mut connection).unwrap();
        if counts[0] >= 400 { Ok(counts) } else { Err(format!("{counts:?}")) }
    });
    let (one, ten, hundred) = (counts[0], counts[1], counts[2]);
    assert!((one * 7..one * 13).contains(&ten), "10 consumers did {ten} while 1 did {one}");
    assert!((one * 60..one * 130).contains(&hundred), "100 consumers did {hundred} while 1 did {one}");
}

#[test]
fn idle_consumers_share_a_small_burst() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 10);
    let ids: Vec<String> = (0..30).map(|n| format!("b-{n}")).collect();
    let payloads = ids.iter().map(|id| message(id, json!({"do": "wait", "ms": 200})));
    Publisher::new(&redis).publish_all(payloads);
    redis.wait_for_settled(ids.len());
    let output = redis.output();
    let workers: HashSet<&str> = output.iter().map(|entry| entry.text("consumer_id")).collect();
    assert!(workers.len() >= 8, "of 10 idle consumers only {} had a share", workers.len());
}

#[test]
fn several_hosts_share_the_work() {
    let redis = Redis::start();
    let _hosts = [Host::ready(&redis, 4), Host::ready(&redis, 4)];
    let ids = redis.consumer_ids();
    let payloads = (0..400).map(|n| message(&format!("s-{n}"), json!({"do": "wait", "ms": 20})));
    Publisher::new(&redis).publish_all(payloads);
    redis.wait_for_settled(400);
    let output = redis.output();
    let workers: HashSet<&str> = output.iter().map(|entry| entry.text("consumer_id")).collect();
    let shares = |host: &[String]| host.iter().filter(|id| workers.contains(id.as_str())).count();
    assert!(shares(&ids[..4]) > 0 && shares(&ids[4..]) > 0, "both hosts work: {workers:?} of {ids:?}");
}
