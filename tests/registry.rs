//! `consumer:ids` contains exactly the consumers that are alive.

use std::collections::HashSet;
use std::time::Duration;

use redis::cmd;
use serde_json::json;

use crate::support::records::{HEARTBEAT, IDS};
use crate::support::{Host, Publisher, Redis, Signal, message, wait_for, wait_until};

/// Time within which the list must be correct.
const TRUE_AFTER: Duration = Duration::from_secs(10);

fn wait_for_truth(redis: &Redis, expected: &[String]) {
    wait_for("the true list", TRUE_AFTER, || {
        let (mut ids, mut expected) = (redis.consumer_ids(), expected.to_vec());
        ids.sort();
        expected.sort();
        if ids == expected { Ok(()) } else { Err(format!("{ids:?} instead of {expected:?}")) }
    });
}

#[test]
fn the_list_holds_every_consumer_of_every_host_once() {
    let redis = Redis::start();
    let _hosts = [Host::ready(&redis, 1), Host::ready(&redis, 10), Host::ready(&redis, 3)];
    let ids = redis.consumer_ids();
    assert_eq!(ids.len(), 14);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 14, "{ids:?}");
    // Results come from exactly these consumers.
    Publisher::new(&redis).publish_all((0..500).map(|n| message(&format!("m-{n}"), json!({"do": "wait", "ms": 5}))));
    redis.wait_for_settled(500);
    let known: HashSet<String> = ids.into_iter().collect();
    assert!(redis.output().iter().all(|entry| known.contains(entry.text("consumer_id"))));
}

#[test]
fn a_killed_host_is_off_the_list_within_ten_seconds() {
    let redis = Redis::start();
    let _alive = Host::ready(&redis, 3);
    let expected = redis.consumer_ids();
    let victim = Host::ready(&redis, 5);
    redis.wait_for_consumers(8);
    victim.kill();
    wait_for_truth(&redis, &expected);
}

#[test]
fn ids_that_somebody_exchanges_are_put_right_by_the_next_heartbeat() {
    let redis = Redis::start();
    let _hosts = [Host::ready(&redis, 3), Host::ready(&redis, 2)];
    let expected = redis.consumer_ids();
    for foreign in ["somebody", expected[4].as_str()] {
        redis.run::<()>(cmd("LSET").arg(IDS).arg(1).arg(foreign));
        assert_ne!(redis.consumer_ids(), expected, "as long as before");
        wait_for_truth(&redis, &expected);
    }
}

#[test]
fn the_list_vanishes_with_the_last_host() {
    let redis = Redis::start();
    let hosts = [Host::ready(&redis, 2), Host::ready(&redis, 2)];
    for host in hosts {
        host.stop();
    }
    let keys = redis.run::<usize>(cmd("EXISTS").arg(IDS).arg(HEARTBEAT));
    assert_eq!(keys, 0, "neither list nor heartbeats");
}

#[test]
fn the_list_vanishes_even_when_the_last_host_is_killed() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 3);
    host.kill();
    wait_for("the end of list and heartbeats", TRUE_AFTER, || {
        let keys = redis.run::<usize>(cmd("EXISTS").arg(IDS).arg(HEARTBEAT));
        if keys == 0 { Ok(()) } else { Err(format!("{:?}", redis.consumer_ids())) }
    });
}

#[test]
fn a_stopped_host_is_off_the_list_when_it_has_ended() {
    let redis = Redis::start();
    let _alive = Host::ready(&redis, 2);
    let expected = redis.consumer_ids();
    Host::ready(&redis, 4).stop();
    assert_eq!(redis.consumer_ids(), expected);
}

#[test]
fn a_heartbeat_reads_the_whole_list_only_when_something_has_changed() {
    let redis = Redis::start();
    let launch = || Host::on(&redis).arg("--heartbeat-interval", "50ms").arg("--heartbeat-ttl", "1s");
    let _hosts = [launch().ready(&redis, 100), launch().ready(&redis, 100)];
    redis.wait_for_consumers(200);
    let calls = |command: &str| {
        let statistics: String = redis.run(cmd("INFO").arg("commandstats"));
        let prefix = format!("cmdstat_{command}:calls=");
        let line = statistics.lines().find_map(|line| line.strip_prefix(&*prefix).map(str::to_owned));
        line.map_or(0, |line| line.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    // What only a look at the whole list needs.
    let heartbeats = |count| {
        redis.run::<()>(cmd("CONFIG").arg("RESETSTAT"));
        wait_until("some heartbeats", || calls("zadd") >= count);
        calls("hkeys")
    };
    assert_eq!(heartbeats(20), 0);
    redis.run::<usize>(cmd("LREM").arg(IDS).arg(0).arg(&redis.consumer_ids()[7]));
    assert!((1..=2).contains(&heartbeats(20)), "one heartbeat puts everything right");
    assert_eq!(redis.consumer_ids().len(), 200);
}

#[test]
fn a_slow_plugin_does_not_make_a_host_look_dead() {
    let redis = Redis::start();
    let patient = |redis: &Redis| Host::on(redis).arg("--max-plugin-time", "30s");
    let _hosts = [patient(&redis).ready(&redis, 1), patient(&redis).ready(&redis, 1)];
    let expected = redis.consumer_ids();
    // Longer than a heartbeat is valid: 7 s.
    Publisher::new(&redis).publish(message("slow", json!({"do": "burn", "ms": 9_000})));
    redis.result_of("slow");
    assert_eq!(redis.consumer_ids(), expected, "nobody was taken for dead");
}

#[test]
fn what_a_dead_host_left_in_the_list_is_dropped_at_start() {
    let redis = Redis::start();
    redis.run::<usize>(cmd("RPUSH").arg(IDS).arg("stale-1").arg("").arg("stale-2").arg("stale-1"));
    // Dead since 1970, and with a heartbeat of its own.
    redis.run::<usize>(cmd("ZADD").arg(HEARTBEAT).arg(1).arg("dead-host"));
    redis.run::<usize>(cmd("RPUSH").arg(IDS).arg("dead-host-0"));
    let host = Host::on(&redis).consumers(2).start();
    wait_until("a list of the living", || {
        let ids = redis.consumer_ids();
        ids.len() == 2 && !ids.iter().any(|id| id.is_empty() || id.starts_with("stale") || id.starts_with("dead"))
    });
    host.stop();
}

#[test]
fn a_list_lost_on_the_way_is_restored() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 3);
    let expected = redis.consumer_ids();
    redis.run::<usize>(cmd("DEL").arg(IDS));
    wait_for_truth(&redis, &expected);
    redis.run::<usize>(cmd("LREM").arg(IDS).arg(0).arg(&expected[1]));
    wait_for_truth(&redis, &expected);
}

/// Pauses the only host until another one, which is returned, has taken it for dead.
fn take_for_dead(redis: &Redis, paused: &Host) -> Host {
    let witness = Host::ready(redis, 1);
    paused.signal(Signal::Stop);
    wait_for("the end of the paused host's ids", TRUE_AFTER, || {
        let ids = redis.consumer_ids();
        if ids.len() == 1 { Ok(()) } else { Err(format!("{ids:?}")) }
    });
    witness
}

#[test]
fn a_host_taken_for_dead_comes_back_under_new_ids() {
    let redis = Redis::start();
    let paused = Host::ready(&redis, 2);
    let old = redis.consumer_ids();
    let _witness = take_for_dead(&redis, &paused);
    paused.signal(Signal::Continue);
    let ids = redis.wait_for_consumers(3);
    assert!(old.iter().all(|id| !ids.contains(id)), "{old:?} came back in {ids:?}");
    // The new ids write results.
    Publisher::new(&redis).publish_all((0..200).map(|n| message(&format!("m-{n}"), json!({"do": "wait", "ms": 5}))));
    redis.wait_for_settled(200);
    let output = redis.output();
    let workers: HashSet<&str> = output.iter().map(|entry| entry.text("consumer_id")).collect();
    assert!(workers.iter().all(|id| ids.iter().any(|known| known == id)), "{workers:?} of {ids:?}");
    assert!(workers.len() > 1, "the host that came back works: {workers:?}");
}

#[test]
fn a_hundred_consumers_are_registered_and_leave() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 100);
    assert_eq!(redis.consumer_ids().into_iter().collect::<HashSet<_>>().len(), 100);
    host.stop();
    assert!(redis.consumer_ids().is_empty());
}

#[test]
fn nothing_is_written_under_the_ids_of_a_host_that_was_taken_for_dead() {
    let redis = Redis::start();
    let paused = Host::ready(&redis, 4);
    let old = redis.consumer_ids();
    let _witness = take_for_dead(&redis, &paused);
    // Messages are published at the very moment when the host returns.
    Publisher::new(&redis).publish_all((0..600).map(|n| message(&format!("m-{n}"), json!({"do": "wait", "ms": 10}))));
    paused.signal(Signal::Continue);
    redis.wait_for_settled(600);
    let output = redis.output();
    let late = output.iter().find(|entry| old.iter().any(|id| id == entry.text("consumer_id")));
    assert!(late.is_none(), "written by a consumer that had been taken off the list: {late:?}");
}
