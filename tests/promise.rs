//! The promise: whichever process dies at whichever moment, every message id gives exactly one result.

use redis::{Value, cmd};
use serde_json::json;

use crate::support::records::{INBOX, OUTPUT, RETRY};
use crate::support::{Host, Publisher, Redis, Signal, Traffic, enrich, expect_each_once, message, wait_until};

/// Waits until the message is in the inbox, and with it everything published before.
fn wait_until_claimed(redis: &Redis, id: &str) {
    let claim = format!("{{messages:processed}}:claim:{id}");
    wait_until(&format!("a claim of {id}"), || redis.run(cmd("EXISTS").arg(&claim)));
}

#[test]
fn one_host_killed_again_and_again_gives_every_message_exactly_once() {
    let redis = Redis::start();
    let mut host = Host::ready(&redis, 4);
    let ids: Vec<String> = (0..4_000).map(|n| format!("m-{n}")).collect();
    let payloads = ids.iter().map(|id| message(id, json!({"do": "wait", "ms": 2})));
    assert_eq!(Publisher::new(&redis).publish_all(payloads), 1, "the host is subscribed");
    redis.wait_until_received(&ids);
    for _ in 0..3 {
        let processed = redis.length(OUTPUT);
        wait_until("some more results", || redis.length(OUTPUT) > processed + 200);
        assert!(redis.length(INBOX) > 0, "the host dies while it works");
        host.kill();
        host = Host::on(&redis).arg("--consumers", "4").start();
    }
    expect_each_once(&redis, ids);
}

#[test]
fn three_hosts_with_a_random_one_killed_again_and_again_give_every_message_exactly_once() {
    let redis = Redis::start();
    let mut hosts: Vec<Host> = (0..3).map(|_| Host::ready(&redis, 3)).collect();
    let traffic = Traffic::start(&redis, 3_000, json!({}));
    for _ in 0..4 {
        traffic.wait_for_more(1_500);
        let victim = hosts.swap_remove(rand::random_range(0..hosts.len()));
        victim.kill();
        hosts.push(Host::on(&redis).consumers(3).start());
        redis.wait_for_subscribers(3);
        // Until the newcomer has heard something that was then taken up, only the old hosts' buffers
        // reach back to the death; killing those as well would be killing all of them at once.
        traffic.wait_for_more(10);
        wait_until_claimed(&redis, &format!("t-{}", traffic.published() - 1));
    }
    expect_each_once(&redis, traffic.finish());
}

#[test]
fn nothing_is_lost_when_the_active_one_of_two_hosts_dies_at_20_000_messages_a_second() {
    let redis = Redis::start();
    let active = Host::on(&redis).arg("--plugin", enrich()).ready(&redis, 5);
    let lease = redis.wait_for_a_lease();
    let standby = Host::on(&redis).arg("--plugin", enrich()).ready(&redis, 5);
    let traffic = Traffic::start(&redis, 20_000, json!({"random_number": 12_345}));
    traffic.wait_for_more(40_000);
    assert_eq!(redis.lease().as_ref(), Some(&lease), "the first host is still the active one");
    active.kill();
    wait_until("another active intake", || redis.lease().is_some_and(|now| now != lease));
    standby.wait_for_log("the intake is active");
    traffic.wait_for_more(20_000);
    expect_each_once(&redis, traffic.finish());
}

#[test]
fn nothing_is_lost_when_the_active_one_of_two_hosts_dies_and_is_started_again_at_once() {
    let redis = Redis::start();
    let mut active = Host::ready(&redis, 2);
    let mut lease = redis.wait_for_a_lease();
    let mut standby = Host::ready(&redis, 2);
    let traffic = Traffic::start(&redis, 2_000, json!({}));
    for _ in 0..3 {
        traffic.wait_for_more(1_000);
        active.kill();
        // What the newcomer hears begins after the death. Only the old standby can close the gap, so it takes the lease.
        let newcomer = Host::on(&redis).consumers(2).start();
        wait_until("another active intake", || redis.lease().is_some_and(|now| now != lease));
        lease = redis.wait_for_a_lease();
        redis.wait_for_subscribers(2);
        (active, standby) = (standby, newcomer);
    }
    expect_each_once(&redis, traffic.finish());
    drop((active, standby));
}

#[test]
fn deliveries_of_a_dead_host_are_taken_over() {
    let redis = Redis::start();
    let doomed = Host::ready(&redis, 2);
    let work = json!({"do": "wait", "ms": 800});
    let ids: Vec<String> = (0..6).map(|n| format!("w-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, work.clone())));
    wait_until("work in flight", || redis.pending().values().sum::<usize>() > 0);
    doomed.kill();
    let in_work = redis.pending();
    assert!(!in_work.is_empty(), "the dead host left deliveries behind");
    let _heir = Host::on(&redis).consumers(2).start();
    expect_each_once(&redis, ids);
    assert!(redis.pending().is_empty(), "nothing stays behind with the dead host");
}

/// A host that was paused with these messages in hand, each in a delivery of its own, and the milliseconds that they
/// take.
fn paused_with_work(redis: &Redis, messages: &[(&str, u32)]) -> Host {
    let host = Host::on(redis).arg("--max-plugin-time", "60s").ready(redis, messages.len());
    for (number, (id, ms)) in messages.iter().enumerate() {
        Publisher::new(redis).publish(message(id, json!({"do": "wait", "ms": ms})));
        wait_until("work in flight", || redis.pending().values().sum::<usize>() == number + 1);
    }
    host.signal(Signal::Stop);
    assert_eq!(redis.length(OUTPUT), 0, "it was paused while it worked");
    host
}

/// No host can delete an expired permit, so the expiry must have the same effect as a deletion.
#[test]
fn redis_discards_a_transaction_when_a_key_that_it_watches_has_expired() {
    let server = Redis::start();
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    cmd("SET").arg("key").arg("x").arg("PX").arg(1_000).exec(&mut connection).unwrap();
    cmd("WATCH").arg("key").exec(&mut connection).unwrap();
    wait_until("its expiry", || !server.run::<bool>(cmd("EXISTS").arg("key")));
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("SET").arg("other").arg("x");
    let executed: Option<(Value,)> = transaction.query(&mut connection).unwrap();
    assert!(executed.is_none(), "{executed:?}");
}

/// Waits until a host has found this number of deliveries settled by another host.
fn wait_until_outrun(host: &Host, times: usize) {
    wait_until("deliveries that others had settled", || host.log().matches("nothing was written").count() == times);
}

#[test]
fn a_host_that_wakes_writes_nothing_of_what_others_did_meanwhile() {
    let redis = Redis::start();
    // One of them is done while it sleeps, the other one long after it has noticed.
    let paused = paused_with_work(&redis, &[("short", 1_000), ("long", 13_000)]);
    let _heir = Host::on(&redis).arg("--plugin", enrich()).consumers(1).start();
    let ids = ["short", "long"].map(str::to_owned);
    expect_each_once(&redis, ids.clone());
    paused.signal(Signal::Continue);
    wait_until_outrun(&paused, 2);
    expect_each_once(&redis, ids);
}

#[test]
fn a_host_writes_nothing_of_what_it_took_over_once_the_other_one_has_woken_and_done_it() {
    let redis = Redis::start();
    let paused = paused_with_work(&redis, &[("long", 12_000)]);
    let owner = redis.pending().into_keys().next().expect("the paused host has a delivery");
    let heir = Host::on(&redis).arg("--max-plugin-time", "60s").consumers(1).start();
    wait_until("a take-over", || redis.pending().into_keys().any(|name| name != owner));
    paused.signal(Signal::Continue);
    let done = redis.result_of("long");
    assert!(done.text("consumer_id").starts_with(&owner), "the one that was paused is first: {done:?}");
    wait_until_outrun(&heir, 1);
    expect_each_once(&redis, ["long".to_owned()]);
}

#[test]
fn a_full_redis_lets_everything_go_on_but_what_is_new() {
    let redis = Redis::start();
    let host = || Host::on(&redis).arg("--dedup-window", "6s").arg("--max-plugin-time", "60s").ready(&redis, 1);
    let _hosts = [host(), host()];
    let lease = redis.wait_for_a_lease();
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("again", json!({"do": "succeed-at", "attempt": 2, "delay_ms": 1_000})));
    wait_until("a waiting retry", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 1);
    // One in work and one behind it in each host: what comes next waits for longer than its claim is trusted.
    let mut ids: Vec<String> = (0..4).map(|n| format!("long-{n}")).collect();
    for (number, id) in ids.iter().enumerate() {
        publisher.publish(message(id, json!({"do": "wait", "ms": 2_000})));
        wait_until("work in hand", || redis.pending().values().sum::<usize>() == number + 1);
    }
    publisher.publish(message("old", json!({})));
    ids.extend(["again", "old"].map(str::to_owned));
    redis.wait_until_known(&ids);

    redis.command::<()>("CONFIG SET maxmemory 1mb");
    publisher.publish(message("new", json!({})));
    expect_each_once(&redis, ids.clone());
    assert_eq!(redis.lease(), Some(lease), "the lease has not changed hands");
    redis.command::<()>("CONFIG SET maxmemory 0");
    ids.push("new".to_owned());
    expect_each_once(&redis, ids);
}

#[test]
fn a_paused_host_cannot_write_twice() {
    let redis = Redis::start();
    let paused = Host::ready(&redis, 2);
    let before = redis.consumer_ids();
    let ids: Vec<String> = (0..40).map(|n| format!("p-{n}")).collect();
    let payloads = ids.iter().map(|id| message(id, json!({"do": "wait", "ms": 100})));
    Publisher::new(&redis).publish_all(payloads);
    wait_until("work in flight", || redis.pending().values().sum::<usize>() > 0);
    paused.signal(Signal::Stop);
    let held = redis.pending();
    assert!(held.values().sum::<usize>() > 0, "the host is paused while it works: {held:?}");

    // The other one takes it for dead and does its work.
    let _other = Host::on(&redis).consumers(2).start();
    expect_each_once(&redis, ids.clone());

    paused.signal(Signal::Continue);
    wait_until("the paused host under new ids", || {
        let now = redis.consumer_ids();
        now.len() == 4 && before.iter().all(|id| !now.contains(id))
    });
    // It works again, so that whatever it wanted to write late has been tried by now.
    let more: Vec<String> = (0..40).map(|n| format!("q-{n}")).collect();
    let payloads = more.iter().map(|id| message(id, json!({"do": "wait", "ms": 100})));
    Publisher::new(&redis).publish_all(payloads);
    expect_each_once(&redis, ids.into_iter().chain(more));
}
