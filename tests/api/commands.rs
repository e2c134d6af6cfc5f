//! Commands over HTTP: what they do, what they refuse, and that the log says who asked.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{deploy, expect_error, get, listening, read, with_dead_letters, with_version};
use crate::support::http::{Answer, Request, address};
use crate::support::records::{DEAD, INBOX, OUTPUT};
use crate::support::{Host, Publisher, Redis, Release, expect_each_once, message, wait_until};

const COMMANDS: [&str; 8] =
    ["pause", "resume", "consumers", "reload", "rollback", "trust", "dead-letters/replay", "dead-letters/purge"];

fn post(address: SocketAddr, command: &str, body: &Value) -> Answer {
    Request::post(&format!("/api/v1/{command}"), body).send(address)
}

/// Gives a command that must be carried out, requires that the host logs it, and returns the answer.
fn done(host: &Host, command: &str, body: &Value) -> Value {
    let answer = post(address(host), command, body);
    assert_eq!(answer.status, 200, "{command}: {}", answer.text());
    expect_logged(host, command);
    answer.json()
}

/// Requires that the log has a line about this command with the address of whoever asked.
fn expect_logged(host: &Host, command: &str) {
    let is_it = |line: &&str| {
        let has_peer = line.contains("peer=127.0.0.1:");
        has_peer && line.contains(&format!("command=\"{command}\"")) && line.contains("a command came over HTTP")
    };
    wait_until(&format!("a line about {command}"), || {
        host.log().lines().any(|line| is_it(&line) && line.contains("INFO"))
    });
}

fn sentence(answer: &Value) -> &str {
    answer["done"].as_str().unwrap_or_else(|| panic!("no sentence: {answer}"))
}

#[test]
fn only_json_of_the_right_form_is_a_command() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 1);
    let address = address(&host);
    for command in COMMANDS {
        let path = format!("/api/v1/{command}");
        let request = || Request::get(&path).method("POST").body(b"{}");
        expect_error(&request().send(address), 415, "application/json");
        // What a form or a script of another site can send without asking.
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp"]
        {
            expect_error(&request().header("Content-Type", kind).send(address), 415, "application/json");
        }
        let json =
            |body: &[u8]| request().header("Content-Type", "application/json; charset=utf-8").body(body).send(address);
        for body in [&b""[..], b"{", b"null", b"7", b"{}{}", b"{\xff", b"[]", b"[1]"] {
            expect_error(&json(body), 400, "the body");
        }
        expect_error(&json(b"{\"colour\": 1}"), 400, "colour");
        expect_error(&json(format!("{{\"x\": \"{}\"}}", "y".repeat(200_000)).as_bytes()), 413, "body");
        let read = Request::get(&path).send(address);
        assert!([400, 405].contains(&read.status), "{command}: {}", read.text());
    }
    for (command, body, words) in [
        ("consumers", json!({}), "consumers"),
        ("consumers", json!({"consumers": "two"}), "consumers: "),
        ("consumers", json!({"consumers": 0}), "from 1 to 10000"),
        ("consumers", json!({"consumers": 10_001}), "from 1 to 10000"),
        ("consumers", json!({"consumers": -1}), "consumers: "),
        ("reload", json!({"force": 1}), "force: "),
        ("dead-letters/replay", json!({}), "either entry_ids or filter"),
        ("dead-letters/replay", json!({"entry_ids": []}), "entry_ids"),
        ("dead-letters/replay", json!({"entry_ids": ["1"]}), "entry_ids[0]: "),
        ("dead-letters/replay", json!({"entry_ids": ["1-1"], "filter": {"all": true}}), "either"),
        ("dead-letters/replay", json!({"filter": {}}), "all"),
        ("dead-letters/purge", json!({"filter": [null, null, null, true]}), "filter: invalid type: sequence"),
        ("dead-letters/replay", json!({"filter": {"all": true}, "rate": 0}), "rate"),
        ("dead-letters/purge", json!({"filter": {"reason": "none"}}), "plugin-failed"),
        ("dead-letters/purge", json!({"filter": {"all": true, "id": "x"}}), "all"),
        ("dead-letters/purge", json!({"filter": {"all": true}, "rate": 5}), "rate"),
    ] {
        expect_error(&post(address, command, &body), 400, words);
    }
    assert!(!host.log().contains("a command came"), "nothing was carried out: {}", host.log());
}

#[test]
fn a_paused_host_leaves_messages_in_the_inbox_and_stays_in_the_group() {
    let redis = Redis::start();
    let launch = listening(&redis).arg("--log-format", "json").arg("--report-interval", "100ms");
    let host = launch.arg("--takeover-interval", "200ms").ready(&redis, 2);
    let address = address(&host);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("before", json!({})));
    redis.result_of("before");
    assert!(sentence(&post(address, "pause", &json!({})).json()).contains("no more messages"));
    assert!(sentence(&post(address, "pause", &json!({})).json()).contains("already"));
    let ids: Vec<String> = (0..20).map(|n| format!("m-{n}")).collect();
    for id in &ids {
        publisher.publish(message(id, json!({})));
        redis.wait_until_known(std::slice::from_ref(id));
    }
    wait_until("messages that wait for long", || {
        let inbox = read(address, "inbox");
        let ages = inbox["entries"].as_array().unwrap().iter().map(|entry| entry["age_ms"].as_u64().unwrap());
        ages.min().is_some_and(|age| age > 1_000)
    });
    assert_eq!(redis.length(OUTPUT), 1);
    assert_eq!(redis.consumer_ids().len(), 2);
    assert_eq!(read(address, "status")["paused"], true);
    let ready = Request::get("/ready").send(address);
    assert_eq!((ready.status, ready.json()), (200, json!({"ready": true, "missing": [], "paused": true})));
    host.wait_for_report("a pause", |report| report["paused"] == true);
    wait_until("the group to know", || {
        let group = read(address, "group");
        group["hosts"][0]["paused"] == true && group["warnings"][0]["code"] == "paused"
    });

    // Another host takes over what waits, and everything that comes.
    let other = Host::on(&redis).arg("--takeover-interval", "200ms").ready(&redis, 1);
    redis.wait_for_an_empty_inbox();
    publisher.publish(message("meanwhile", json!({})));
    let meanwhile = redis.result_of("meanwhile");
    let own =
        read(address, "group")["hosts"].as_array().unwrap().iter().find(|host| host["paused"] == true).unwrap()["id"]
            .clone();
    assert!(!meanwhile.text("consumer_id").starts_with(own.as_str().unwrap()), "{meanwhile:?}");
    other.stop();
    publisher.publish(message("waiting", json!({})));
    assert!(sentence(&post(address, "resume", &json!({})).json()).contains("again"));
    assert!(sentence(&post(address, "resume", &json!({})).json()).contains("not paused"));
    host.wait_for_report("the end of the pause", |report| report["paused"] == false);
    let all = ids.into_iter().chain(["before", "meanwhile", "waiting"].map(str::to_owned));
    expect_each_once(&redis, all);
}

#[test]
fn a_paused_host_changes_its_number_of_consumers_and_stops_in_order() {
    let redis = Redis::start();
    let host = listening(&redis).ready(&redis, 3);
    done(&host, "pause", &json!({}));
    done(&host, "consumers", &json!({"consumers": 1}));
    redis.wait_for_consumers(1);
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.wait_until_received(&["m".to_owned()]);
    host.stop();
    assert_eq!((redis.length(INBOX), redis.length(OUTPUT)), (1, 0), "the message waits");
    let next = listening(&redis).ready(&redis, 1);
    redis.result_of("m");
    done(&next, "resume", &json!({}));
}

#[test]
fn the_number_of_consumers_holds_until_the_configuration_has_another_one() {
    let redis = Redis::start();
    let file = redis.folder().join("host.toml");
    fs::write(&file, "consumers = 2\n").unwrap();
    let host = listening(&redis).arg("--config", &file).ready_as_configured(&redis, 2);
    assert!(sentence(&done(&host, "consumers", &json!({"consumers": 4}))).contains("4 consumers"));
    redis.wait_for_consumers(4);
    // More than the version in use has room for: it is loaded again.
    done(&host, "consumers", &json!({"consumers": 80}));
    redis.wait_for_consumers(80);
    done(&host, "reload", &json!({}));
    assert_eq!(redis.consumer_ids().len(), 80);
    fs::write(&file, "consumers = 3\n").unwrap();
    redis.wait_for_consumers(3);
}

#[test]
fn versions_are_loaded_rolled_back_and_trusted_by_command() {
    let redis = Redis::start();
    let (a, b) = (Release::new("A"), Release::new("B"));
    let (launch, file) = with_version(&redis, &a);
    let host = launch.arg("--watch", "off").arg("--probation-time", "10m").ready(&redis, 1);
    let address = address(&host);
    let in_use = || read(address, "versions")["current"]["digest"].as_str().unwrap().to_owned();
    expect_error(&post(address, "rollback", &json!({})), 409, "not on probation");
    expect_error(&post(address, "trust", &json!({})), 409, "not on probation");
    assert!(sentence(&done(&host, "reload", &json!({}))).contains("nothing has changed"));
    deploy(&file, &Release::of("no plugin", *b"no component"));
    let refused = post(address, "reload", &json!({}));
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(read(address, "versions")["history"][0]["reason"], refused.json()["error"]);
    deploy(&file, &b);
    assert!(sentence(&done(&host, "reload", &json!({}))).contains(&b.digest));
    assert_eq!((in_use(), &read(address, "versions")["current"]["state"]), (b.digest.clone(), &json!("probation")));
    assert!(sentence(&done(&host, "rollback", &json!({}))).contains(&a.digest));
    assert_eq!((in_use(), &read(address, "versions")["current"]["state"]), (a.digest.clone(), &json!("rolled-back")));
    expect_error(&post(address, "rollback", &json!({})), 409, "not on probation");
    expect_error(&post(address, "reload", &json!({})), 409, "rolled back before");
    assert_eq!(in_use(), a.digest);
    assert!(sentence(&done(&host, "reload", &json!({"force": true}))).contains(&b.digest));
    assert!(sentence(&done(&host, "trust", &json!({}))).contains(&b.digest));
    assert_eq!(read(address, "versions")["current"]["state"], "steady");
    expect_error(&post(address, "trust", &json!({})), 409, "not on probation");
    expect_error(&post(address, "rollback", &json!({})), 409, "not on probation");
    let history = read(address, "versions")["history"].clone();
    let events: Vec<&Value> = history.as_array().unwrap().iter().map(|entry| &entry["event"]).collect();
    assert_eq!(events, ["trusted", "forced", "refused", "rolled-back", "swapped", "refused", "started"]);
    assert_eq!((&history[3]["digest"], &history[3]["before"]), (&json!(a.digest), &json!(b.digest)));
}

#[test]
fn a_configuration_that_is_not_valid_is_refused_with_its_problems() {
    let redis = Redis::start();
    let file = redis.folder().join("host.toml");
    fs::write(&file, "consumers = 1\n").unwrap();
    let host = listening(&redis).arg("--config", &file).arg("--watch", "off").ready_as_configured(&redis, 1);
    fs::write(&file, "consumers = \"many\"\n").unwrap();
    expect_error(&post(address(&host), "reload", &json!({})), 409, "consumers");
    expect_logged(&host, "reload");
}

#[test]
fn dead_letters_are_replayed_and_purged_by_command() {
    let redis = Redis::start();
    let host = with_dead_letters(&redis);
    let address = address(&host);
    let entry = |id: &str| redis.dead_letter_of(id).id().to_owned();
    // Each replayed message fails again, and becomes another dead letter.
    let (first, second) = (entry("l-0"), entry("l-1"));
    let replayed = done(&host, "dead-letters/replay", &json!({"entry_ids": [first, second, "5-5"], "rate": 1_000}));
    assert_eq!(replayed, json!({"replayed": 2, "gone": 1, "kept": 0, "more": false}));
    wait_until("both again", || redis.length(DEAD) == 7 && entry("l-0") != first && entry("l-1") != second);
    let replayed =
        done(&host, "dead-letters/replay", &json!({"filter": {"reason": "plugin-failed", "text": "reason 3"}}));
    assert_eq!(replayed["replayed"], 1);
    wait_until("it again", || redis.length(DEAD) == 7);
    let kept = done(&host, "dead-letters/replay", &json!({"filter": {"reason": "not-utf8"}}));
    assert_eq!((&kept["replayed"], &kept["kept"]), (&json!(0), &json!(1)));

    let purged = done(&host, "dead-letters/purge", &json!({"entry_ids": [entry("l-2")]}));
    assert_eq!(purged, json!({"purged": 1, "more": false}));
    assert_eq!(done(&host, "dead-letters/purge", &json!({"filter": {"id": "rejected"}}))["purged"], 1);
    assert_eq!(done(&host, "dead-letters/purge", &json!({"filter": {"id": "nobody"}}))["purged"], 0);
    assert_eq!(redis.length(DEAD), 5);
    assert_eq!(done(&host, "dead-letters/purge", &json!({"filter": {"all": true}}))["purged"], 5);
    assert_eq!((redis.length(DEAD), get(address, "dead-letters").json()["dead_letters"].clone()), (0, json!([])));
}
