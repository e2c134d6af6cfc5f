//! A replica that lags is promoted, and the primary is gone: hosts append again what the replica's history lacks.

use serde_json::json;

use crate::support::proxy::Proxy;
use crate::support::{Host, Redis, Traffic, expect_each_once, wait_until};

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
