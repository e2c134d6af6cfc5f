//! The version of a host, and its state, in the report and in Redis.

use std::collections::HashMap;
use std::time::SystemTime;

use redis::cmd;
use serde_json::{Value, json};

use crate::support::flow::{self, CONSUMERS, PER_SECOND, PROVED, REFUSED, ROLLED_BACK};
use crate::support::host::Launch;
use crate::support::records::HOSTS;
use crate::support::{BOUND, Flow, Host, Redis, Release, Signal, wait_for, wait_until};

/// Heartbeats that expire soon.
const HEARTBEAT: [(&str, &str); 2] = [("--heartbeat-interval", "200ms"), ("--heartbeat-ttl", "3s")];

/// The status of each host, by host id.
fn hosts(redis: &Redis) -> HashMap<String, Value> {
    let fields: HashMap<String, String> = redis.run(cmd("HGETALL").arg(HOSTS));
    let parse = |text: String| serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    fields.into_iter().map(|(host, text)| (host, parse(text))).collect()
}

/// Waits until the only host has this status.
fn wait_for_state(redis: &Redis, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("a host that says: {what}"), BOUND, || {
        let hosts = hosts(redis);
        assert!(hosts.len() < 2, "{hosts:?}");
        hosts.into_values().find(&is_it).ok_or_else(|| format!("{:?}", self::hosts(redis)))
    })
}

/// The id of the host with these consumers.
fn host_id(consumers: &[String]) -> String {
    consumers[0].rsplit_once('/').unwrap().0.to_owned()
}

/// Requires that report and Redis say this of the only host, and gives what is said in Redis.
fn expect_told(flow: &Flow, release: &Release, generation: u64, state: &str, counts: [u64; 3]) -> Value {
    let [swaps, refusals, rollbacks] = counts;
    let is_told = |value: &Value, digest_name: &str, state_name: &str| {
        let version = value["generation"] == generation && value[digest_name] == release.digest;
        let counted = value["swaps"] == swaps && value["refusals"] == refusals && value["rollbacks"] == rollbacks;
        version && value[state_name] == state && counted
    };
    let what = format!("generation {generation} of {}, {state}, {counts:?}", release.name);
    flow.host.wait_for_report(&what, |report| is_told(report, "plugin_digest", "plugin_state"));
    wait_for_state(&flow.redis, &what, |host| is_told(host, "digest", "state"))
}

fn time(value: &Value) -> SystemTime {
    humantime::parse_rfc3339(value.as_str().expect("a time")).expect("RFC 3339")
}

#[test]
fn report_and_redis_tell_every_step() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let (wrong, bad) = (Release::of("wrong", "no WebAssembly"), Release::failing("bad", "trap", 1));
    let start = SystemTime::now();
    let mut flow = Flow::with(&a, |launch| launch.arg("--probation-time", "0s"));
    let host = expect_told(&flow, &a, 1, "steady", [0, 0, 0]);
    assert_eq!((&host["consumers"], &host["refused"]), (&json!(CONSUMERS), &Value::Null), "{host}");
    assert!((start..SystemTime::now()).contains(&time(&host["since"])), "{host}");

    // Without messages the probation does not end.
    flow.pause();
    flow.deploy(&b);
    let on_probation = expect_told(&flow, &b, 2, "probation", [1, 0, 0]);
    assert!(time(&on_probation["since"]) > time(&host["since"]), "{on_probation}");
    flow.resume();
    flow.wait_for_logged(PROVED, 1);
    let proved = expect_told(&flow, &b, 2, "steady", [1, 0, 0]);
    assert_eq!(proved["since"], on_probation["since"]);

    wrong.write_to(&flow.plugin());
    flow.wait_for_logged(REFUSED, 1);
    let refused = &expect_told(&flow, &b, 2, "steady", [1, 1, 0])["refused"];
    assert_eq!(refused["digest"], wrong.digest, "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains("not WebAssembly"), "{refused}");
    assert!(time(&refused["time"]) > time(&proved["since"]), "{refused}");

    flow.deploy(&bad);
    flow.wait_for_logged(ROLLED_BACK, 1);
    expect_told(&flow, &b, 4, "rolled-back", [3, 1, 1]);
    flow.finish();
}

#[test]
fn the_text_report_tells_of_the_plugin_after_a_change_only() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::with(&a, |launch| launch.arg("--log-format", "text"));
    wait_until("a report", || flow.host.written().lines().count() > 2);
    flow.change_to(&b);
    let telling = |flow: &Flow| -> Vec<String> {
        let written = flow.host.written();
        written.lines().filter(|line| line.contains("plugin")).map(str::to_owned).collect()
    };
    wait_until("a report of the change", || !telling(&flow).is_empty());
    let reports = flow.host.written().lines().count();
    wait_until("further reports", || flow.host.written().lines().count() > reports + 2);
    let [line] = &telling(&flow)[..] else { panic!("{}", flow.host.written()) };
    for word in ["plugin 2", &b.digest[..12], "on probation", "refused 0", "rolled back 0"] {
        assert!(line.contains(word), "no {word:?} in {line}");
    }
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn hosts_go_their_own_ways_and_the_dead_are_forgotten() {
    let (a, b, c) = (Release::new("A"), Release::new("B"), Release::new("C"));
    let frail = |launch: Launch| HEARTBEAT.iter().fold(launch, |launch, (name, value)| launch.arg(name, value));
    let mut flow = Flow::with(&a, frail);
    let first = host_id(&flow.redis.consumer_ids());
    let other_plugin = flow.redis.folder().join("other.wasm");
    b.write_to(&other_plugin);
    flow.expect(&b);
    let start_other = |flow: &Flow| -> (Host, String) {
        let others = flow.redis.consumer_ids();
        let other = frail(flow::launch(&flow.redis)).arg("--plugin", &other_plugin).ready(&flow.redis, 2);
        let mut ids = flow.redis.consumer_ids();
        ids.retain(|id| !others.contains(id));
        (other, host_id(&ids))
    };
    let digests = |flow: &Flow| -> HashMap<String, String> {
        let digest = |value: Value| value["digest"].as_str().unwrap().to_owned();
        hosts(&flow.redis).into_iter().map(|(host, value)| (host, digest(value))).collect()
    };
    let wait_for_digests = |flow: &Flow, expected: &[(&String, &Release)]| {
        let expected: HashMap<String, String> =
            expected.iter().map(|(host, release)| ((*host).clone(), release.digest.clone())).collect();
        wait_for("the versions of all hosts", BOUND, || {
            let now = digests(flow);
            if now == expected { Ok(()) } else { Err(format!("{now:?} instead of {expected:?}")) }
        });
    };
    let (other, second) = start_other(&flow);
    wait_for_digests(&flow, &[(&first, &a), (&second, &b)]);
    flow.deploy(&c);
    wait_for_digests(&flow, &[(&first, &c), (&second, &b)]);
    flow.wait_for_more(PER_SECOND / 2);
    // A host that stops removes its field; the other hosts remove the field of a killed host.
    other.stop();
    wait_for_digests(&flow, &[(&first, &c)]);
    let (other, third) = start_other(&flow);
    wait_for_digests(&flow, &[(&first, &c), (&third, &b)]);
    flow.pause();
    other.kill();
    wait_for_digests(&flow, &[(&first, &c)]);
    flow.host.signal(Signal::Kill);
    wait_for("the end of the hash", BOUND, || {
        if digests(&flow).is_empty() { Ok(()) } else { Err(format!("{:?}", digests(&flow))) }
    });
}
