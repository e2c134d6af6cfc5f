//! The canary uses a new version first, and the other hosts of its group wait for the end of its probation.

use std::collections::HashMap;

use serde_json::json;

use super::{CANARY, Member, WAITS, expect_words, provoke, wait_for_record};
use crate::support::flow::{IN_USE, REFUSED};
use crate::support::host::Launch;
use crate::support::{BOUND, Host, Publisher, Redis, Release, message, wait_for, wait_until};

#[test]
fn the_canary_goes_first_and_the_others_follow_when_its_probation_has_ended() {
    let redis = Redis::start();
    let (a, b) = (Release::new("A"), Release::new("B"));
    let short = |launch: Launch| {
        launch
            .switch("--canary")
            .arg("--probation-time", "0s")
            .arg("--probation-messages", "1000")
            .arg("--max-delivery-messages", "8")
    };
    let (first, second) = (Member::with(&redis, "first", &a, short), Member::with(&redis, "second", &a, short));
    // Alone with the file, a host goes on at once.
    first.deploy(&b);
    first.wait_for_version(&b);
    first.wait_for_logged(CANARY, 1);
    assert_eq!(wait_for_record(&redis, "canary")["host"], json!(first.id));
    second.deploy(&b);
    second.wait_for_logged(WAITS, 1);
    let versions = second.versions();
    assert_eq!(versions["current"]["waiting"], json!({"digest": b.digest, "canary": first.id}));
    assert_eq!(
        (&versions["history"][0]["event"], &versions["history"][0]["digest"]),
        (&json!("waiting"), &json!(b.digest))
    );
    wait_for("a warning in the status", BOUND, || {
        let shown = Launch::subcommand("status").arg("--redis", redis.url()).run().stdout;
        if shown.contains(&format!("waits for the canary {}", first.id)) { Ok(()) } else { Err(shown) }
    });
    let asked = second.post("reload", &json!({}));
    assert_eq!(asked.status, 202, "{}", asked.text());
    assert!(asked.json()["done"].as_str().unwrap().contains(&first.id), "{}", asked.text());

    let mut publisher = Publisher::new(&redis);
    let ids: Vec<String> = (0..600).map(|number| format!("early-{number}")).collect();
    publisher.publish_all(ids.iter().map(|id| message(id, json!({"ms": 1}))));
    redis.wait_for_settled(ids.len());
    let mut by_host: HashMap<(bool, String), usize> = HashMap::new();
    for entry in redis.output() {
        let is_canary = entry.text("consumer_id").starts_with(&first.id);
        *by_host.entry((is_canary, entry.text("version").to_owned())).or_default() += 1;
    }
    let mut turns: Vec<&(bool, String)> = by_host.keys().collect();
    turns.sort();
    assert_eq!(turns, [&(false, "A".to_owned()), &(true, "B".to_owned())], "{by_host:?}");
    assert_eq!(second.digest(), a.digest);

    let mut late = 0;
    wait_until("the end of the probation", || {
        publisher.publish_all((late..late + 200).map(|number| message(&format!("late-{number}"), json!({}))));
        late += 200;
        first.logged("has passed its probation") > 0
    });
    second.wait_for_version(&b);
    wait_for_record(&redis, "trusted");
    assert!(second.versions()["current"]["waiting"].is_null());
    redis.wait_for_settled(ids.len() + late);
    assert!(redis.dead_letters().is_empty());
}

#[test]
fn a_canary_that_is_killed_in_its_probation_is_replaced() {
    let redis = Redis::start();
    let (a, b) = (Release::new("A"), Release::new("B"));
    let [first, second, third] = ["first", "second", "third"].map(|name| Member::canary(&redis, name, &a));
    first.deploy(&b);
    first.wait_for_version(&b);
    for member in [&second, &third] {
        member.deploy(&b);
        member.wait_for_logged(&format!("{WAITS} {}", first.id), 1);
    }
    first.host.kill();
    let (heir, other) = wait_for("another canary", BOUND, || match (second.logged(CANARY), third.logged(CANARY)) {
        (1, 0) => Ok((&second, &third)),
        (0, 1) => Ok((&third, &second)),
        counts => Err(format!("{counts:?}")),
    });
    heir.wait_for_version(&b);
    other.wait_for_logged(&format!("{WAITS} {}", heir.id), 1);
    assert_eq!(other.digest(), a.digest);
    heir.order("trust", &json!({}));
    other.wait_for_version(&b);
    other.wait_for_logged(IN_USE, 1);
    assert_eq!((other.logged(CANARY), other.logged(IN_USE)), (0, 1));
}

#[test]
fn a_canary_that_rolls_back_makes_all_refuse() {
    let redis = Redis::start();
    let (a, bad) = (Release::new("A"), Release::failing("bad", "trap", 0));
    let [first, second, third] = ["first", "second", "third"].map(|name| Member::canary(&redis, name, &a));
    first.deploy(&bad);
    first.wait_for_version(&bad);
    second.deploy(&bad);
    second.wait_for_logged(WAITS, 1);
    provoke(&redis, &first);
    second.wait_for_logged(REFUSED, 1);
    third.deploy(&bad);
    third.wait_for_logged(REFUSED, 1);
    for member in [&second, &third] {
        expect_words(member.versions()["current"]["refused"]["reason"].as_str().unwrap(), &first);
        assert_eq!((member.digest(), member.logged(IN_USE)), (a.digest.clone(), 0));
        assert!(member.versions()["current"]["waiting"].is_null());
    }
    wait_for_record(&redis, "rolled-back");
    assert!(redis.dead_letters().is_empty(), "the version before has processed them");
    // Whoever forces the version becomes the canary of the next attempt.
    third.order("reload", &json!({"force": true}));
    assert_eq!(wait_for_record(&redis, "canary")["host"], json!(third.id));
}

#[test]
fn a_version_that_leaves_the_file_does_not_come_into_use_later() {
    let redis = Redis::start();
    let (a, b, c) = (Release::new("A"), Release::new("B"), Release::new("C"));
    let (first, second) = (Member::canary(&redis, "first", &a), Member::canary(&redis, "second", &a));
    first.deploy(&b);
    first.wait_for_version(&b);
    second.deploy(&b);
    second.wait_for_logged(WAITS, 1);
    second.deploy(&a);
    wait_until("nothing that waits", || second.versions()["current"]["waiting"].is_null());
    first.order("trust", &json!({}));
    second.deploy(&c);
    second.wait_for_version(&c);
    second.wait_for_logged(IN_USE, 1);
    assert_eq!((second.logged(IN_USE), second.logged(CANARY)), (1, 1));
}

#[test]
fn a_host_that_starts_with_the_version_of_the_canary_uses_it_and_a_host_without_the_setting_waits_for_nobody() {
    let redis = Redis::start();
    let (a, b) = (Release::new("A"), Release::new("B"));
    let (first, plain) = (Member::canary(&redis, "first", &a), Member::start(&redis, "plain", &a));
    first.deploy(&b);
    first.wait_for_version(&b);
    let second = Member::canary(&redis, "second", &b);
    assert_eq!(second.digest(), b.digest);
    plain.deploy(&b);
    plain.wait_for_version(&b);
    assert_eq!(wait_for_record(&redis, "canary")["host"], json!(first.id));
    assert_eq!((second.logged(CANARY), plain.logged(CANARY)), (0, 0));
}

#[test]
fn a_canary_without_probation_is_refused_at_the_start() {
    let redis = Redis::start();
    let ended = Host::on(&redis).switch("--canary").arg("--rollback", "off").run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("a canary needs its probation"), "{}", ended.stderr);
}
