//! Redis behind Sentinels: hosts and commands find the primary, and follow when it is another server.

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;

use serde_json::json;

use crate::access::tls_redis;
use crate::support::host::Launch;
use crate::support::sentinels::{Ledger, NAME, Sentinel, Watched};
use crate::support::{BOUND, Host, Publisher, Redis, Signal, message, puppet, wait_for, wait_until};

fn on(watched: &Watched) -> Launch {
    Host::on(watched.primary()).arg("--redis", watched.url())
}

fn two_hosts(watched: &Watched) -> [Host; 2] {
    let hosts = std::array::from_fn(|_| on(watched).consumers(4).start());
    watched.primary().wait_for_consumers(8);
    watched.primary().wait_for_subscribers(2);
    hosts
}

/// Requires that each of these messages has one result, and that no message has two.
fn expect_heard_once(primary: &Redis, ids: &[String]) {
    wait_for("a result of every message that a host has heard", 2 * BOUND, || {
        let mut results: HashMap<String, usize> = HashMap::new();
        for entry in primary.output() {
            *results.entry(entry.text("message_id").to_owned()).or_default() += 1;
        }
        let twice: Vec<_> = results.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "{} messages have several results, such as {:?}", twice.len(), twice[0]);
        let lost: Vec<_> = ids.iter().filter(|id| !results.contains_key(*id)).collect();
        let count = ids.len();
        if lost.is_empty() {
            Ok(())
        } else {
            Err(format!("{} of {count} have none: {:?}", lost.len(), &lost[..lost.len().min(5)]))
        }
    });
    primary.wait_for_an_empty_inbox();
    assert_eq!(primary.dead_letters().len(), 0);
}

#[test]
fn a_host_and_all_commands_find_the_primary() {
    let watched = Watched::start();
    let primary = &watched.servers[0];
    // A Sentinel that accepts connections and says nothing, and one that is away.
    watched.sentinels[0].signal(Signal::Stop);
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = watched.url().replacen("//", &format!("//{away},"), 1);
    let host = Host::on(primary).arg("--redis", &url).ready(primary, 2);
    Publisher::new(primary).publish(message("m", json!({})));
    primary.result_of("m");
    Publisher::new(primary).publish(message("bad", json!({"do": "fail"})));
    primary.dead_letter_of("bad");
    let command = |name: &str, words: &[&str]| {
        let ended = Launch::subcommand(name).words(words).arg("--redis", &url).run();
        assert_eq!(ended.code, Some(0), "{name}: {}{}", ended.stdout, ended.stderr);
        ended.stdout
    };
    assert!(command("publish", &["--count", "3"]).contains("by 1 subscriber"));
    assert!(command("status", &[]).contains(NAME));
    assert!(command("dead", &["list"]).contains("bad"));
    assert!(command("tail", &["--since", "1h", "--count", "1", "--id", "m"]).contains('m'));
    host.stop();
}

#[test]
fn when_the_primary_is_killed_under_load_what_a_host_has_heard_has_one_result() {
    let mut watched = Watched::start();
    watched.wait_until_complete();
    let hosts = two_hosts(&watched);
    let ledger = Ledger::start(&watched);
    ledger.wait_for_more(5_000);
    let before = watched.servers[0].port();
    watched.servers[0].kill();
    watched.wait_until_replaced(before);
    watched.primary().wait_for_subscribers(2);
    ledger.wait_for_more(2_000);
    let ids = ledger.finish();
    expect_heard_once(watched.primary(), &ids);
    drop(hosts);
}

/// The old primary stays a primary for many seconds, until a Sentinel makes a replica of it. Publishers go on there meanwhile, and
/// what hosts write there is lost.
#[test]
fn after_a_failover_by_command_under_load_what_a_host_has_heard_has_one_result() {
    let watched = Watched::start();
    watched.wait_until_complete();
    let hosts = two_hosts(&watched);
    let ledger = Ledger::start(&watched);
    ledger.wait_for_more(5_000);
    let before = &watched.servers[0];
    watched.fail_over();
    watched.wait_until_replaced(before.port());
    // Long before the old primary becomes a replica.
    watched.primary().wait_for_subscribers(2);
    watched.primary().wait_for_consumers(8);
    let role = |server: &Redis| server.command::<redis::Value>("ROLE");
    wait_until("a replica in place of the old primary", || format!("{:?}", role(before)).contains("slave"));
    ledger.wait_for_more(2_000);
    let ids = ledger.finish();
    expect_heard_once(watched.primary(), &ids);
    for host in hosts {
        host.stop();
    }
}

#[test]
fn sentinels_that_lead_nowhere_are_errors_that_say_what_to_do() {
    let watched = Watched::start();
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let [sentinel, server] = [watched.sentinels[0].address(), format!("127.0.0.1:{}", watched.servers[0].port())];
    let refusal = |url: &str| {
        let ended = Launch::bare().arg("--plugin", puppet()).arg("--redis", url).run();
        assert_eq!(ended.code, Some(3), "{url}: {}", ended.stderr);
        ended.stderr
    };
    let unknown = refusal(&format!("redis+sentinel://{sentinel}/another"));
    assert!(unknown.contains("know no primary `another`") && unknown.contains("SENTINEL MASTERS"), "{unknown}");
    let silent = refusal(&format!("redis+sentinel://{}/{NAME}", deaf.local_addr().unwrap()));
    assert!(silent.contains("no Sentinel has named the primary") && silent.contains("no answer within"), "{silent}");
    let away = refusal("redis+sentinel://127.0.0.1:1,127.0.0.1:2/m");
    assert!(away.contains("127.0.0.1:1: ") && away.contains("127.0.0.1:2: "), "{away}");
    let wrong = refusal(&format!("redis+sentinel://{server}/{NAME}"));
    assert!(wrong.contains("is no Sentinel but a Redis server"), "{wrong}");
    let plain = refusal(&format!("redis://{sentinel}"));
    assert!(plain.contains(&format!("redis+sentinel://{sentinel}/NAME")), "{plain}");
    // The primary is gone, and nobody has replaced it yet.
    for sentinel in &watched.sentinels[1..] {
        sentinel.signal(Signal::Stop);
    }
    watched.servers[0].signal(Signal::Kill);
    let gone = refusal(&format!("redis+sentinel://{sentinel}/{NAME}"));
    assert!(gone.contains("have no working primary") && gone.contains(&server), "{gone}");
}

#[test]
fn sentinels_and_primary_have_logins_of_their_own() {
    let [own, other] = ["s3ntinel-secret", "s3rver-secret"];
    let watched = Watched::start_with(
        &["--user", "guest", "on", &format!(">{other}"), "~*", "&*", "+@all"],
        &format!("requirepass {own}\nsentinel sentinel-pass {own}\n"),
    );
    let server = &watched.servers[0];
    let url = watched.url().replacen("//", &format!("//guest:{other}@"), 1);
    let launch = || Host::on(server).arg("--redis", &url).arg("--log-level", "trace");
    let file = server.folder().join("password");
    fs::write(&file, format!("{own}\n")).unwrap();
    let by_file = || launch().arg("--redis-sentinel-password-file", &file);
    for with_password in [launch().env("HOST_REDIS_SENTINEL_PASSWORD", own), by_file()] {
        let host = with_password.start();
        host.wait_for_log("ready");
        assert!(!host.log().contains("secret"), "{}", host.log());
        host.stop();
    }
    let refused = |launch: Launch, part: &str| {
        let ended = launch.run();
        assert!(ended.code == Some(3) && ended.stderr.contains(part), "{}", ended.stderr);
        assert!(!ended.stderr.contains("secret"), "{}", ended.stderr);
    };
    refused(launch(), "HOST_REDIS_SENTINEL_PASSWORD");
    refused(launch().env("HOST_REDIS_SENTINEL_PASSWORD", "wrong-secret"), "refused the login");
    refused(by_file().arg("--redis", watched.url().replacen("//", "//guest:wrong-secret@", 1)), "refused the login");
    fs::write(&file, "").unwrap();
    refused(by_file(), "is empty");
}

#[test]
fn tls_reaches_sentinels_and_primary() {
    let redis = tls_redis("127.0.0.1", "no");
    let folder = redis.folder();
    let [authority, certificate, key] = ["ca.pem", "server.pem", "server.key"].map(|name| folder.join(name));
    let home = tempfile::tempdir().unwrap();
    let configuration = format!(
        "tls-ca-cert-file {}\ntls-cert-file {}\ntls-key-file {}\ntls-auth-clients no\ntls-replication yes\n\
         sentinel monitor {NAME} 127.0.0.1 {} 1\n",
        authority.display(),
        certificate.display(),
        key.display(),
        redis.port()
    );
    let sentinel = Sentinel::start(&home, 0, &configuration);
    let launch = || Host::on(&redis).arg("--redis", format!("rediss+sentinel://{}/{NAME}", sentinel.address()));
    let host = launch().arg("--redis-ca-file", &authority).ready(&redis, 1);
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.result_of("m");
    host.stop();
    let untrusted = launch().run();
    assert!(untrusted.code == Some(3) && untrusted.stderr.contains("certificate"), "{}", untrusted.stderr);
}

#[test]
fn a_read_replica_is_refused_with_the_address_of_the_primary() {
    let primary = Redis::start();
    let port = primary.port().to_string();
    let replica = Redis::start_with(&["--save", "", "--replicaof", "127.0.0.1", &port]);
    let expect = |launch: Launch| {
        let ended = launch.arg("--redis", replica.url()).run();
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("read replica of 127.0.0.1:{port}")), "{}", ended.stderr);
    };
    expect(Host::on(&replica));
    expect(Launch::subcommand("publish"));
    expect(Launch::subcommand("dead").words(&["list"]));
}
