//! A replica that lags is promoted, and the primary is gone: hosts append again what the replica's history lacks.

use redis::cmd;
use serde_json::json;

use crate::support::proxy::Proxy;
use crate::support::records::{DEAD, GROUP, INBOX};
use crate::support::{Host, Publisher, Redis, Traffic, expect_each_once, message, wait_until};

fn replica_of(primary: &Proxy) -> Redis {
    let port = primary.port().to_string();
    let replica = Redis::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]);
    wait_until("the replica follows", || {
        replica.command::<String>("INFO replication").contains("master_link_status:up")
    });
    replica
}

#[test]
fn after_a_failover_to_a_replica_two_seconds_behind_every_message_has_one_result() {
    let mut primary = Redis::start();
    let (way_of_hosts, way_of_replica) = (Proxy::start(&primary), Proxy::start(&primary));
    let replica = replica_of(&way_of_replica);
    let hosts: [Host; 2] =
        std::array::from_fn(|_| Host::on(&primary).arg("--redis", way_of_hosts.url()).consumers(4).start());
    primary.wait_for_consumers(8);
    primary.wait_for_subscribers(2);

    let traffic = Traffic::start(&primary, 5_000, json!({}));
    traffic.wait_for_more(5_000);
    way_of_replica.hold();
    traffic.wait_for_more(10_000);
    let ids = traffic.finish();
    primary.wait_for_settled(ids.len());
    let behind = ids.len() - replica.length("messages:processed");
    assert!(behind > 9_000, "the replica lacks {behind} results, so it does not lag");

    way_of_hosts.lead_to(&replica);
    primary.kill();
    replica.command::<()>("REPLICAOF NO ONE");
    expect_each_once(&replica, ids.clone());

    replica.wait_for_subscribers(2);
    let traffic = Traffic::start_at(ids.len(), &replica, 5_000, json!({}));
    traffic.wait_for_more(1_000);
    expect_each_once(&replica, ids.into_iter().chain(traffic.finish()));
    drop(hosts);
}

/// Ids of entries follow the clocks of servers. So another history may have given the same id to another delivery.
#[test]
fn after_a_failover_a_host_settles_no_other_delivery_with_the_same_id() {
    let (mut primary, other) = (Redis::start(), Redis::start());
    let way = Proxy::start(&primary);
    let limits = Host::on(&primary).arg("--redis", way.url()).arg("--max-plugin-time", "3s").arg("--max-attempts", "1");
    let _host = limits.ready(&primary, 1);
    Publisher::new(&primary).publish(message("slow", json!({"do": "loop"})));
    primary.wait_until_in_work("slow");
    let entry = primary.inbox().remove(0).id().to_owned();
    other.run::<()>(cmd("XGROUP").arg("CREATE").arg(INBOX).arg(GROUP).arg("0").arg("MKSTREAM"));
    let bystander = message("bystander", json!({}));
    other.run::<String>(cmd("XADD").arg(INBOX).arg(&entry).arg("bystander").arg(bystander));
    let somebody = ["GROUP", GROUP, "somebody", "STREAMS", INBOX, ">"];
    other.run::<redis::Value>(cmd("XREADGROUP").arg(&somebody));

    way.lead_to(&other);
    primary.kill();
    assert_eq!(other.dead_letter_of("slow").text("reason"), "plugin-timed-out");
    other.result_of("bystander");
    other.wait_for_an_empty_inbox();
    assert_eq!((other.length(DEAD), other.output().len()), (1, 1));
}
