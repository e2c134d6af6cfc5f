//! Values in Redis that no host has written: no consumer and no host ends by them.

use redis::cmd;
use serde_json::json;

use crate::support::records::{DEAD, HEARTBEAT, HOSTS, INBOX, MARKS, OUTPUT, RETRY};
use crate::support::{Host, Publisher, Redis, message, wait_until};

/// Milliseconds at the begin of the year 10000.
const AFTER_9999: &str = "253402300800000";

const MAX: &str = "18446744073709551615";

fn add(redis: &Redis, id: &str, pairs: &[(&str, &str)]) {
    let mut command = cmd("XADD");
    command.arg(INBOX).arg(id);
    for (name, value) in pairs {
        command.arg(name).arg(value);
    }
    redis.run::<String>(&command);
}

/// Requires that a host with three consumers processes a message, and that nothing has panicked.
fn expect_alive(redis: &Redis, host: Host, ids: &[String]) {
    Publisher::new(redis).publish_all((0..50).map(|n| message(&format!("good-{n}"), json!({"do": "wait", "ms": 1}))));
    for n in 0..50 {
        redis.result_of(&format!("good-{n}"));
    }
    redis.wait_for_an_empty_inbox();
    assert_eq!(redis.consumer_ids(), ids);
    assert!(!host.log().contains("panicked"), "{}", host.log());
    host.stop();
}

#[test]
fn no_forged_entry_ends_a_consumer() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--max-attempts", "1").ready(&redis, 3);
    let ids = redis.consumer_ids();
    let reject = r#"{"do":"reject"}"#;
    let retry = r#"{"do":"retry","delay_ms":4294967295}"#;
    let mut forged = 0;
    for time in [AFTER_9999, MAX, "99999999999999999999999", "-1", "x"] {
        for window in ["0", "60000", MAX, AFTER_9999] {
            let opening = format!("v1 {time}-a {window}");
            for body in [reject, retry, "no JSON"] {
                add(&redis, "*", &[("", &opening), (&format!("forged-{forged}"), body)]);
                forged += 1;
            }
        }
        for attempt in ["0", "1", "4294967295"] {
            for deaths in ["0", "4", "4294967295"] {
                let history = format!("{attempt} {time}-a {deaths}");
                add(&redis, "*", &[("", "v1 - 0"), ("", &history), (&format!("forged-{forged}"), reject)]);
                forged += 1;
            }
        }
        // Format 0, and notes without a message.
        add(&redis, "*", &[("", &format!("{time}-a")), (&format!("forged-{forged}"), reject)]);
        forged += 1;
        add(&redis, "*", &[("", &format!("v1 {time}-a {time}")), ("", "1 2 3"), ("", "")]);
    }
    wait_until("the forged messages' dead letters", || redis.length(DEAD) + redis.length(OUTPUT) >= forged);
    assert_eq!(redis.length(DEAD), forged);
    // From here on, all ids of entries are of the year 10000.
    add(&redis, &format!("{AFTER_9999}-1"), &[("forged-id", reject)]);
    redis.dead_letter_of("forged-id");
    expect_alive(&redis, host, &ids);
}

#[test]
fn no_forged_retry_mark_or_heartbeat_ends_a_host() {
    let redis = Redis::start();
    let launch = Host::on(&redis).arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "1s");
    let host = launch.ready(&redis, 3);
    let ids = redis.consumer_ids();
    for (n, member) in
        ["", "v1", "v1 1 5-a 0 99999999999999999999\nx", "v1 4294967296 5-a 0 1\nx{}", "v1 1 5-a 0 -1\nx{}", "v9 1"]
            .into_iter()
            .enumerate()
    {
        for score in ["-inf", "0", "1e300"] {
            redis.run::<usize>(cmd("ZADD").arg(RETRY).arg(score).arg(format!("{member}{}", " ".repeat(n))));
        }
    }
    let (most, least) = (i64::MAX, i64::MIN);
    let covered = format!("{MAX}.{MAX}.{most}.{least}~{MAX}.{MAX}.{most}.{most}");
    for mark in [
        format!("{MAX} {MAX} {MAX} {MAX} forged-host {covered}"),
        format!("1 1 1 {MAX} - 1.1.{least}.{least}~1.1.{most}.{most}"),
        format!("0 0 0 0 - 0.0.0.{least}~{MAX}.0.0.{most}"),
        "1 1 1 1".to_owned(),
    ] {
        redis.run::<usize>(cmd("PUBLISH").arg(format!("{MARKS}/0")).arg(&mark));
    }
    redis.run::<usize>(
        cmd("HSET").arg(HOSTS).arg("forged-host").arg(r#"{"consumers":-1,"figures":{"processed":1e400}}"#),
    );
    redis.run::<usize>(cmd("ZADD").arg(HEARTBEAT).arg("inf").arg("forged-host"));
    // It is renewed although another one lasts for ever.
    let expiry = |redis: &Redis| redis.run::<f64>(cmd("ZSCORE").arg(HEARTBEAT).arg(ids[0].split('/').next().unwrap()));
    let before = expiry(&redis);
    wait_until("another heartbeat", || expiry(&redis) > before);
    redis.run::<usize>(cmd("ZREM").arg(HEARTBEAT).arg("forged-host"));
    expect_alive(&redis, host, &ids);
}
