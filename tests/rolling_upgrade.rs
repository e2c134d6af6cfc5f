//! Two builds of the host with different formats in one group: a host never writes a format that another one would
//! misread.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use redis::cmd;
use serde_json::json;

use crate::support::host::Launch;
use crate::support::records::{GROUP, INBOX, RETRY};
use crate::support::{Host, Publisher, Redis, Signal, Traffic, message, puppet, repository, wait_until};

/// The host as it will be when the format of entries has changed, built beside the one of all other tests.
fn next_build() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let target = PathBuf::from(concat!(env!("CARGO_TARGET_TMPDIR"), "/.."));
            let output = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
                .args(["build", "--release", "--package", "host", "--bin", "host-next", "--features", "next-format"])
                .arg("--target-dir")
                .arg(&target)
                .current_dir(repository())
                .stdin(Stdio::null())
                .output()
                .expect("run cargo");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            target.join("release/host-next")
        })
        .clone()
}

fn frail(launch: Launch, redis: &Redis) -> Launch {
    let launch = launch.arg("--redis", redis.url()).arg("--plugin", puppet()).arg("--retry-delay", "10ms");
    launch.arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "1s").arg("--takeover-interval", "50ms")
}

fn present(redis: &Redis) -> Launch {
    frail(Launch::bare(), redis)
}

fn next(redis: &Redis) -> Launch {
    frail(Launch::program(&next_build()), redis)
}

/// The format that the group writes.
fn format(redis: &Redis) -> String {
    redis.run(cmd("HGET").arg("{messages:processed}:group").arg("format"))
}

/// Each message has one result or one dead letter.
fn expect_each_outcome_once(redis: &Redis, ids: &[String]) {
    redis.wait_for_settled(ids.len());
    let entries = redis.output().into_iter().chain(redis.dead_letters());
    let mut outcomes: Vec<String> = entries.map(|entry| entry.text("message_id").to_owned()).collect();
    outcomes.sort_unstable();
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    assert_eq!(outcomes, ids);
}

#[test]
fn a_group_is_upgraded_host_by_host_under_traffic_and_an_old_host_is_refused_afterwards() {
    let redis = Redis::start();
    let old = [present(&redis).ready(&redis, 2), present(&redis).ready(&redis, 2)];
    redis.wait_for_a_lease();
    let traffic = Traffic::start(&redis, 500, json!({"do": "flaky"}));
    traffic.wait_for_more(200);
    let mut new = Vec::new();
    for host in old {
        new.push(next(&redis).ready(&redis, 2));
        traffic.wait_for_more(200);
        assert_eq!(format(&redis), "1", "the old host could not read more");
        host.stop();
        traffic.wait_for_more(200);
    }
    wait_until("the new hosts write the new format", || format(&redis) == "2");
    traffic.wait_for_more(300);
    let refused = present(&redis).consumers(2).start().ended();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("write format 2") && refused.stderr.contains("reads up to format 1"),
        "{}",
        refused.stderr
    );
    let ids = traffic.finish();
    expect_each_outcome_once(&redis, &ids);
}

#[test]
fn a_host_leaves_a_newer_format_alone_and_a_newer_host_finishes_it() {
    let redis = Redis::start();
    let mut publisher = Publisher::new(&redis);
    let host = next(&redis).arg("--max-delivery-messages", "1").ready(&redis, 1);
    redis.wait_for_a_lease();
    wait_until("it writes the new format", || format(&redis) == "2");
    publisher.publish(message("busy", json!({"do": "sleep"})));
    publisher.publish(message("waiting", json!({})));
    publisher.publish(message("behind", json!({})));
    wait_until("three messages in the inbox", || redis.length(INBOX) == 3);
    host.kill();
    // A waiting retry and a dead letter of that format, as it would have left them.
    redis.run::<()>(cmd("ZADD").arg(RETRY).arg(1).arg("v2 2 1-a 0 7\nretried{\"message_id\":\"retried\"}"));
    wait_until("nobody is left in the group", || !redis.run::<bool>(cmd("EXISTS").arg("{messages:processed}:group")));

    let old = present(&redis).ready(&redis, 2);
    old.wait_for_log("left deliveries to newer hosts");
    old.wait_for_log("wait for a newer version");
    publisher.publish(message("own", json!({})));
    redis.result_of("own");
    assert_eq!(redis.length(INBOX), 3, "the newer entries are still there");
    let count: usize = redis.run(cmd("ZCARD").arg(RETRY));
    assert_eq!((redis.output().len(), count), (1, 1));

    // The host reads both formats and continues with the remaining entries. An endless call ends at its time limit.
    let new = next(&redis).arg("--max-plugin-time", "50ms").arg("--max-attempts", "1").ready(&redis, 2);
    expect_each_outcome_once(&redis, &["own", "waiting", "behind", "retried", "busy"].map(str::to_owned));
    redis.dead_letter_of("busy");
    wait_until("an empty inbox", || redis.length(INBOX) == 0);
    let (pending, ..): (usize, redis::Value, redis::Value, redis::Value) =
        redis.run(cmd("XPENDING").arg(INBOX).arg(GROUP));
    assert_eq!(pending, 0);
    new.stop();
    old.stop();
}

/// A host does not start in a group with hosts that do not report their formats.
#[test]
fn a_host_that_says_no_format_keeps_others_from_joining() {
    let redis = Redis::start();
    let old = Host::ready(&redis, 1);
    redis.wait_for_a_lease();
    let id = redis.consumer_ids()[0].rsplit_once('/').expect("an id has a slash").0.to_owned();
    old.signal(Signal::Stop);
    redis.run::<usize>(cmd("HSET").arg("{consumer:ids}:hosts").arg(&id).arg(r#"{"generation":1}"#));
    let refused = Host::on(&redis).consumers(1).start().ended();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains(&id) && refused.stderr.contains("stop these hosts"), "{}", refused.stderr);
    old.signal(Signal::Continue);
}
