//! A host dies, pauses, or loses its deliveries around a split: while the split is on its way to Redis, when Redis has it and the host
//! never hears of that, and when both know. Every message has one outcome in each case.

use serde_json::json;

use crate::support::host::Launch;
use crate::support::proxy::Proxy;
use crate::support::records::{INBOX, OUTPUT};
use crate::support::{Host, Publisher, Redis, Signal, expect_each_once, message, puppet, wait_until};

const SPLIT: &str = "split a delivery";
const TOOK_OVER: &str = "took over deliveries of a dead host";
const OUTRUN: &str = "nothing was written";

/// Where the split is when the fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// On its way to Redis.
    Sent,
    /// In Redis, and the reply is lost.
    Unanswered,
    /// Done, and messages of it are in work again.
    Answered,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Killed,
    /// For longer than the host counts as alive.
    Paused,
    /// No heartbeat arrives, while the host works on.
    CutOff,
}

/// A host that is in the midst of a split, behind a network that the test has in its hands.
struct Scene {
    redis: Redis,
    proxy: Proxy,
    host: Host,
    /// Ids of the consumers of the host.
    consumers: Vec<String>,
    ids: Vec<String>,
}

/// On one processor, all consumers of a host settle over the same connection.
fn launch(url: String) -> Launch {
    let launch = Launch::on_one_processor(env!("CARGO_BIN_EXE_host")).arg("--redis", url).arg("--plugin", puppet());
    let launch = launch.arg("--log-level", "debug").arg("--max-log-rate", "1000000").consumers(2);
    let launch = launch.arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "1s");
    launch.arg("--takeover-interval", "50ms").arg("--max-plugin-time", "30s")
}

impl Scene {
    /// The first of the messages takes so long that its delivery is split when that message is done, and has the others behind
    /// it in its delivery.
    fn with_split(point: Point) -> Scene {
        let redis = Redis::start();
        let proxy = Proxy::start(&redis);
        let host = launch(proxy.url()).ready(&redis, 2);
        let consumers = redis.consumer_ids();
        // Not until the first delivery that is settled by script is there a connection for that.
        Publisher::new(&redis).publish(message("again", json!({"do": "succeed-at", "attempt": 2, "delay_ms": 1})));
        redis.result_of("again");
        let quick: Vec<String> = (0..10_000).map(|n| format!("quick-{n}")).collect();
        Publisher::new(&redis).publish_all(quick.iter().map(|id| message(id, json!({}))));
        redis.wait_for_settled(quick.len() + 1);

        let slow: Vec<String> = (0..64).map(|n| format!("slow-{n}")).collect();
        let wait = |id: &String| json!({"do": "wait", "ms": if id == "slow-0" { 3_000 } else { 50 }});
        Publisher::new(&redis).publish_all(slow.iter().map(|id| message(id, wait(id))));
        redis.wait_until_received(&slow);
        // The other consumer has nothing to do any more.
        redis.wait_until_in_work("slow-0");
        wait_until("a single delivery", || redis.length(INBOX) == 1);
        let ids = [vec!["again".to_owned()], quick, slow].concat();
        let scene = Scene { redis, proxy, host, consumers, ids };
        match point {
            Point::Sent => {
                scene.proxy.hold();
                wait_until("the split on its way", || scene.proxy.holds("\"slow-1\""));
            }
            Point::Unanswered => {
                scene.proxy.hold_replies();
                wait_until("the split in Redis", || !scene.redis.results_of("slow-0").is_empty());
            }
            Point::Answered => {
                scene.host.wait_for_log(SPLIT);
                wait_until("messages of it in work", || scene.redis.pending().values().sum::<usize>() > 0);
            }
        }
        assert_eq!(scene.redis.results_of("slow-0").len(), usize::from(point != Point::Sent));
        scene
    }

    fn has_settled(&self, id: &str) -> bool {
        let results = self.redis.results_of(id);
        results.iter().any(|result| self.consumers.iter().any(|consumer| consumer == result.text("consumer_id")))
    }

    /// Requires one outcome of each message, also when Redis has read all that was on its way.
    fn expect_one_outcome(&self) {
        expect_each_once(&self.redis, self.ids.clone());
        Publisher::new(&self.redis).publish(message("after", json!({})));
        expect_each_once(&self.redis, self.ids.iter().cloned().chain(["after".to_owned()]));
        assert_eq!(self.redis.length(INBOX), 0);
    }
}

/// The fault happens at this point of the split, and another host comes. Late bytes of the split arrive in the midst of what the other
/// host does, or when that host has done everything.
fn split(point: Point, fault: Fault, is_late: bool) {
    let mut scene = Scene::with_split(point);
    match fault {
        Fault::Killed => scene.host.signal(Signal::Kill),
        Fault::Paused => scene.host.signal(Signal::Stop),
        Fault::CutOff if point == Point::Answered => scene.proxy.hold(),
        Fault::CutOff => {}
    }
    let heir = launch(scene.redis.url()).start();
    if point != Point::Unanswered {
        heir.wait_for_log(TOOK_OVER);
    }
    if is_late || point != Point::Sent {
        scene.redis.wait_for_settled(scene.ids.len());
    } else {
        assert!(scene.redis.results_of("slow-0").is_empty(), "the other host has slow-0 in work");
    }
    match point {
        Point::Unanswered => scene.proxy.lose(),
        Point::Sent | Point::Answered => scene.proxy.release(),
    }
    if fault == Fault::Paused {
        scene.host.signal(Signal::Continue);
    }
    scene.expect_one_outcome();
    // Whoever was first has settled the delivery, and the other one has written nothing.
    assert_eq!(scene.has_settled("slow-0"), point != Point::Sent || !is_late, "{point:?} {fault:?}");
    if point == Point::Sent && !is_late {
        heir.wait_for_log(OUTRUN);
    }
    if fault == Fault::Killed {
        wait_until("the end of the host", || scene.host.status().is_some());
    } else if point == Point::Unanswered || point == Point::Sent && is_late {
        scene.host.wait_for_log(OUTRUN);
    }
    assert!(scene.redis.length(OUTPUT) == scene.ids.len() + 1 && scene.redis.dead_letters().is_empty());
}

#[test]
fn a_split_that_arrives_after_the_death_of_its_host_counts_once() {
    split(Point::Sent, Fault::Killed, false);
}

#[test]
fn a_split_that_arrives_when_another_host_has_done_the_work_of_a_dead_one_changes_nothing() {
    split(Point::Sent, Fault::Killed, true);
}

#[test]
fn a_split_of_a_paused_host_that_arrives_in_the_midst_of_a_takeover_counts_once() {
    split(Point::Sent, Fault::Paused, false);
}

#[test]
fn a_split_of_a_paused_host_that_arrives_when_another_host_has_done_the_work_changes_nothing() {
    split(Point::Sent, Fault::Paused, true);
}

#[test]
fn a_split_that_was_under_way_when_its_delivery_was_taken_over_counts_once() {
    split(Point::Sent, Fault::CutOff, false);
}

#[test]
fn a_split_that_was_under_way_when_its_delivery_was_taken_over_and_settled_changes_nothing() {
    split(Point::Sent, Fault::CutOff, true);
}

#[test]
fn a_host_that_dies_before_it_hears_of_its_split_loses_and_doubles_nothing() {
    split(Point::Unanswered, Fault::Killed, true);
}

#[test]
fn a_host_that_pauses_before_it_hears_of_its_split_loses_and_doubles_nothing() {
    split(Point::Unanswered, Fault::Paused, true);
}

#[test]
fn a_split_whose_answer_is_lost_is_not_made_twice() {
    split(Point::Unanswered, Fault::CutOff, true);
}

#[test]
fn what_a_host_has_split_and_taken_up_again_is_taken_over_when_it_dies() {
    split(Point::Answered, Fault::Killed, true);
}

#[test]
fn what_a_host_has_split_and_taken_up_again_is_taken_over_when_it_pauses() {
    split(Point::Answered, Fault::Paused, true);
}

#[test]
fn what_a_host_has_split_and_taken_up_again_is_taken_over_when_it_is_cut_off() {
    split(Point::Answered, Fault::CutOff, true);
}
