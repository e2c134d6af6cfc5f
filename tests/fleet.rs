//! What one host of a group learns about a version of the plugin, all know: verdicts, and the canary that goes first.

mod canary;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use redis::cmd;
use serde_json::{Value, json};

use crate::support::flow::{REFUSED, ROLLED_BACK};
use crate::support::host::Launch;
use crate::support::http::{Answer, Request, address};
use crate::support::{BOUND, Host, Publisher, Redis, Release, Signal, message, wait_for, wait_until};

/// The hash of what hosts tell each other of versions.
const VERSIONS: &str = "{messages:processed}:versions";

const ROLLED_BACK_ELSEWHERE: &str = "another host rolled back the version in use";
const CANARY: &str = "this host is the canary of the group";
const WAITS: &str = "waits for the canary";

/// A host with a copy of the plugin's file of its own.
struct Member {
    host: Host,
    file: PathBuf,
    id: String,
}

impl Member {
    fn start(redis: &Redis, name: &str, version: &Release) -> Member {
        Member::with(redis, name, version, |launch| launch)
    }

    fn canary(redis: &Redis, name: &str, version: &Release) -> Member {
        Member::with(redis, name, version, |launch| launch.switch("--canary"))
    }

    /// A host whose version stays on probation, unless the options say otherwise.
    fn with(redis: &Redis, name: &str, version: &Release, options: impl FnOnce(Launch) -> Launch) -> Member {
        let file = redis.folder().join(format!("{name}.wasm"));
        version.write_to(&file);
        let before = redis.consumer_ids();
        let launch =
            Host::on(redis).arg("--plugin", &file).switch("--output-plugin-digest").arg("--http", "127.0.0.1:0");
        let launch =
            launch.arg("--probation-time", "10m").arg("--watch-quiet", "50ms").arg("--takeover-interval", "100ms");
        let launch = launch.arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "1s");
        let host = options(launch.arg("--intake-lease", "500ms")).ready(redis, 2);
        let new = redis.consumer_ids().into_iter().find(|id| !before.contains(id)).expect("a new consumer");
        let id = new.rsplit_once('/').expect("an id has a slash").0.to_owned();
        Member { host, file, id }
    }

    fn deploy(&self, version: &Release) {
        let new = self.file.with_extension("new");
        version.write_to(&new);
        fs::rename(new, &self.file).expect("rename the new version");
    }

    fn address(&self) -> SocketAddr {
        address(&self.host)
    }

    fn post(&self, command: &str, body: &Value) -> Answer {
        Request::post(&format!("/api/v1/{command}"), body).send(self.address())
    }

    /// Gives a command that must be carried out.
    fn order(&self, command: &str, body: &Value) {
        let answer = self.post(command, body);
        assert_eq!(answer.status, 200, "{command}: {}", answer.text());
    }

    fn versions(&self) -> Value {
        Request::get("/api/v1/versions").send(self.address()).json()
    }

    fn digest(&self) -> String {
        self.versions()["current"]["digest"].as_str().expect("a digest").to_owned()
    }

    fn wait_for_version(&self, version: &Release) {
        wait_for(&format!("version {} in use", version.name), BOUND, || {
            if self.digest() == version.digest { Ok(()) } else { Err(self.host.log()) }
        });
    }

    /// How many lines of the log have this text.
    fn logged(&self, text: &str) -> usize {
        self.host.log().lines().filter(|line| line.contains(text)).count()
    }

    fn wait_for_logged(&self, text: &str, count: usize) {
        wait_for(&format!("{count} × {text:?} in the log"), BOUND, || {
            if self.logged(text) >= count { Ok(()) } else { Err(self.host.log()) }
        });
    }
}

/// Publishes messages that a bad version fails, until the host has rolled it back.
fn provoke(redis: &Redis, member: &Member) {
    let mut publisher = Publisher::new(redis);
    let mut count = 0;
    wait_until("a rollback", || {
        publisher.publish(message(&format!("provoke-{}-{count}", member.id), json!({"provoke": true})));
        count += 1;
        member.logged(ROLLED_BACK) > 0
    });
}

/// A group in which the first host has rolled a version back, and the version.
fn with_verdict(redis: &Redis) -> (Release, Release, Member) {
    let (a, bad) = (Release::new("A"), Release::failing("bad", "trap", 0));
    let first = Member::start(redis, "first", &a);
    first.deploy(&bad);
    first.wait_for_version(&bad);
    provoke(redis, &first);
    wait_for_record(redis, "rolled-back");
    (a, bad, first)
}

/// The records of versions.
fn records(redis: &Redis) -> Vec<(String, Value)> {
    let fields: HashMap<String, String> = redis.run(cmd("HGETALL").arg(VERSIONS));
    let parse = |text: String| serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    fields.into_iter().map(|(field, text)| (field, parse(text))).collect()
}

/// Waits until there is one record, with this state.
fn wait_for_record(redis: &Redis, state: &str) -> Value {
    wait_for(&format!("a record {state}"), BOUND, || match records(redis).as_slice() {
        [(_, record)] if record["state"] == state => Ok(record.clone()),
        others => Err(format!("{others:?}")),
    })
}

/// Requires a refusal that says who rolled the version back, why, and what to do.
fn expect_words(text: &str, by: &Member) {
    for words in [
        "rolled this version back at 20",
        "messages that the previous version processes",
        "{\"force\": true}",
        "/api/v1/reload",
        &by.id,
    ] {
        assert!(text.contains(words), "{words:?} in {text}");
    }
}

#[test]
fn a_version_that_one_host_rolled_back_is_refused_by_the_others_unless_forced() {
    let redis = Redis::start();
    let (a, bad, first) = with_verdict(&redis);
    let second = Member::start(&redis, "second", &a);
    second.deploy(&bad);
    second.wait_for_logged(REFUSED, 1);
    let line = second.host.log().lines().find(|line| line.contains(REFUSED)).unwrap().to_owned();
    expect_words(&line.replace("\\\"", "\""), &first);
    second.host.signal(Signal::Hangup);
    second.wait_for_logged(REFUSED, 2);
    let refused = second.post("reload", &json!({}));
    assert_eq!(refused.status, 409, "{}", refused.text());
    expect_words(refused.json()["error"].as_str().unwrap(), &first);
    let versions = second.versions();
    assert_eq!(
        (&versions["history"][0]["event"], &versions["history"][0]["digest"]),
        (&json!("refused"), &json!(bad.digest))
    );
    expect_words(versions["current"]["refused"]["reason"].as_str().unwrap(), &first);
    assert_eq!(second.digest(), a.digest);

    // Force is an answer to the verdict, for all hosts.
    second.order("reload", &json!({"force": true}));
    assert_eq!((second.digest(), &second.versions()["history"][0]["event"]), (bad.digest.clone(), &json!("forced")));
    assert_eq!(records(&redis), []);
    let third = Member::start(&redis, "third", &a);
    third.deploy(&bad);
    third.wait_for_version(&bad);
    assert_eq!(third.logged(REFUSED), 0, "{}", third.host.log());
    // The host that rolled it back does not change its mind by itself.
    assert_eq!(first.post("reload", &json!({})).status, 409);
}

#[test]
fn a_worker_refuses_a_version_that_a_host_rolled_back() {
    let redis = Redis::start();
    let (a, bad, first) = with_verdict(&redis);
    let file = redis.folder().join("worker.wasm");
    a.write_to(&file);
    let worker = Launch::subcommand("worker")
        .arg("--group", format!("http://{}", first.address()))
        .arg("--plugin", &file)
        .arg("--redis", redis.url())
        .arg("--http", "127.0.0.1:0")
        .arg("--watch-quiet", "50ms")
        .start();
    let id = address(&worker).to_string();
    wait_until("the worker on the list", || redis.consumer_ids().contains(&id));
    bad.write_to(&file.with_extension("new"));
    fs::rename(file.with_extension("new"), &file).expect("rename the new version");
    worker.wait_for_log(REFUSED);
    let line = worker.log().lines().find(|line| line.contains(REFUSED)).unwrap().to_owned();
    expect_words(&line.replace("\\\"", "\""), &first);
    worker.stop();
}

#[test]
fn a_host_that_uses_the_version_says_once_that_another_one_rolled_it_back_and_trust_ends_that() {
    let redis = Redis::start();
    let (a, bad) = (Release::new("A"), Release::failing("bad", "trap", 0));
    let first = Member::start(&redis, "first", &a);
    let second = Member::with(&redis, "second", &a, |launch| launch.arg("--rollback-failures", "1000000"));
    for member in [&first, &second] {
        member.deploy(&bad);
        member.wait_for_version(&bad);
    }
    provoke(&redis, &first);
    second.wait_for_logged(ROLLED_BACK_ELSEWHERE, 1);
    let verdict = second.versions()["current"]["verdict"].clone();
    assert_eq!((&verdict["host"], &verdict["digest"]), (&json!(first.id), &json!(bad.digest)));
    wait_for("a warning in the status", BOUND, || {
        let shown = Launch::subcommand("status").arg("--redis", redis.url()).run().stdout;
        let words = format!("the host {} rolled this version back at", first.id);
        if shown.contains(&words) && shown.contains("rolled back elsewhere") { Ok(()) } else { Err(shown) }
    });
    assert_eq!((second.digest(), second.logged(ROLLED_BACK_ELSEWHERE)), (bad.digest.clone(), 1));

    second.order("trust", &json!({}));
    wait_for_record(&redis, "trusted");
    wait_until("no verdict any more", || second.versions()["current"]["verdict"].is_null());
    let third = Member::start(&redis, "third", &a);
    third.deploy(&bad);
    third.wait_for_version(&bad);
}

#[test]
fn a_host_starts_with_a_version_that_another_one_rolled_back_and_says_so() {
    let redis = Redis::start();
    let (_, bad, first) = with_verdict(&redis);
    let second = Member::start(&redis, "second", &bad);
    second.wait_for_logged(ROLLED_BACK_ELSEWHERE, 1);
    let log = second.host.log();
    assert!(log.contains("no version before it") && log.contains(&first.id), "{log}");
    first.host.stop();
    Publisher::new(&redis).publish(message("m", json!({})));
    assert_eq!(redis.result_of("m").text("plugin_digest"), bad.digest);
    // No probation, but a verdict, which somebody may end.
    second.order("trust", &json!({}));
    wait_for_record(&redis, "trusted");
    wait_until("no verdict any more", || second.versions()["current"]["verdict"].is_null());
    assert_eq!(second.post("trust", &json!({})).status, 409);
}

#[test]
fn a_verdict_is_about_bytes_configuration_and_limits_and_is_forgotten_after_its_time() {
    let redis = Redis::start();
    let (a, bad, _first) = with_verdict(&redis);
    let other = Member::with(&redis, "other", &a, |launch| launch.arg("--plugin-config", "mood=calm"));
    other.deploy(&bad);
    other.wait_for_version(&bad);

    let second = Member::start(&redis, "second", &a);
    second.deploy(&bad);
    second.wait_for_logged(REFUSED, 1);
    let (fingerprint, mut record) = records(&redis).remove(0);
    let days = (record["expires_ms"].as_f64().unwrap() - record["at_ms"].as_f64().unwrap()) / 86_400_000.0;
    assert!((days - 7.0).abs() < 0.001, "{record}");
    let left: i64 = redis.run(cmd("PTTL").arg(VERSIONS));
    assert!(left > 6 * 86_400_000, "the key expires with its last record: {left}");
    record["expires_ms"] = json!(1);
    redis.run::<()>(cmd("HSET").arg(VERSIONS).arg(fingerprint).arg(record.to_string()));
    second.order("reload", &json!({}));
    assert_eq!(second.digest(), bad.digest);
}

#[test]
fn a_rollback_by_command_holds_for_the_others_too_and_its_reason_says_so() {
    let redis = Redis::start();
    let (a, b) = (Release::new("A"), Release::new("B"));
    let (first, second) = (Member::start(&redis, "first", &a), Member::start(&redis, "second", &a));
    first.deploy(&b);
    first.wait_for_version(&b);
    first.order("rollback", &json!({}));
    let record = wait_for_record(&redis, "rolled-back");
    assert_eq!((&record["host"], &record["digest"]), (&json!(first.id), &json!(b.digest)));
    second.deploy(&b);
    second.wait_for_logged("a command asked for it", 1);
    assert_eq!(second.digest(), a.digest);
    // SIGHUP is the word of an operator to the host that rolled back, and so it ends the verdict of this host.
    first.host.signal(Signal::Hangup);
    first.wait_for_version(&b);
    second.order("reload", &json!({}));
}

#[test]
fn records_have_a_bound_and_what_cannot_be_read_counts_as_missing_and_is_named_once() {
    let redis = Redis::start();
    let (a, b) = (Release::new("A"), Release::new("B"));
    let first = Member::start(&redis, "first", &a);
    first.deploy(&b);
    first.wait_for_version(&b);
    first.order("rollback", &json!({}));
    let (fingerprint, _) = records(&redis).remove(0);
    for (number, text) in
        ["[]", "no JSON", "{\"state\":\"rolled-back\"}", "{\"state\":\"later\"}"].into_iter().enumerate()
    {
        redis.run::<()>(cmd("HSET").arg(VERSIONS).arg(&fingerprint).arg(text));
        let member = Member::start(&redis, &format!("member-{number}"), &a);
        member.deploy(&b);
        member.wait_for_version(&b);
        member.wait_for_logged("cannot be read, and counts as missing", 1);
        assert!(member.host.log().contains(&fingerprint), "{}", member.host.log());
    }
    for number in 0..200 {
        redis.run::<()>(cmd("HSET").arg(VERSIONS).arg(format!("old-{number}")).arg("{}"));
    }
    first.order("reload", &json!({"force": true}));
    first.order("rollback", &json!({}));
    wait_until("a bound", || redis.run::<usize>(cmd("HLEN").arg(VERSIONS)) == 100);
    assert!(redis.run::<bool>(cmd("HEXISTS").arg(VERSIONS).arg(&fingerprint)));
}

#[test]
fn without_an_answer_of_redis_a_version_is_used_and_a_canary_waits() {
    let redis = Redis::start();
    redis.run::<()>(cmd("SET").arg(VERSIONS).arg("of another type"));
    let (a, b) = (Release::new("A"), Release::new("B"));
    let (plain, canary) = (Member::start(&redis, "plain", &a), Member::canary(&redis, "canary", &a));
    plain.deploy(&b);
    plain.wait_for_version(&b);
    let named = "{messages:processed}:versions is a string, not a hash";
    plain.wait_for_logged("Redis cannot be asked whether another host has rolled this version back", 1);
    canary.deploy(&b);
    canary.wait_for_logged("Redis cannot be asked which host is the canary", 1);
    assert_eq!(canary.versions()["current"]["waiting"], json!({"digest": b.digest, "canary": null}));
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.result_of("m");
    let errors = |member: &Member| {
        member.host.log().lines().filter(|line| line.contains("ERROR") && line.contains(named)).count()
    };
    assert_eq!((errors(&plain), errors(&canary), canary.digest()), (1, 1, a.digest));
    redis.run::<()>(cmd("DEL").arg(VERSIONS));
    canary.wait_for_version(&b);
}

#[test]
fn a_stalled_redis_delays_the_decision_and_the_host_goes_on() {
    let redis = Redis::start();
    let (a, b) = (Release::new("A"), Release::new("B"));
    let canary = Member::canary(&redis, "canary", &a);
    redis.signal(Signal::Stop);
    canary.deploy(&b);
    canary.wait_for_logged("Redis cannot be asked which host is the canary", 1);
    redis.signal(Signal::Continue);
    canary.wait_for_version(&b);
    canary.wait_for_logged(CANARY, 1);
}
