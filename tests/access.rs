//! Ways into Redis: sockets, databases, users with few rights, TLS, a private server.

use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use redis::cmd;
use serde_json::json;
use tempfile::TempDir;

use crate::support::guests::bank;
use crate::support::host::Launch;
use crate::support::records::{CHANNEL, IDS, OUTPUT};
use crate::support::{BOUND, Host, Publisher, Redis, message, puppet, repository, wait_for, wait_until};

/// Requires that a host processes a message and stops cleanly.
fn expect_work(redis: &Redis, launch: Launch) {
    let host = launch.ready(redis, 2);
    let mut publisher = Publisher::new(redis);
    publisher.publish(message("good", json!({})));
    publisher.publish(message("bad", json!({"do": "fail"})));
    publisher.publish(message("good", json!({})));
    redis.result_of("good");
    redis.dead_letter_of("bad");
    host.stop();
    assert!(redis.consumer_ids().is_empty());
}

#[test]
fn a_unix_socket_works() {
    let redis = Redis::start();
    let url = format!("unix://{}", redis.socket().display());
    expect_work(&redis, Host::on(&redis).arg("--redis", url));
}

#[test]
fn a_password_with_reserved_characters_works_percent_encoded() {
    let redis = Redis::start();
    redis.run::<()>(cmd("ACL").arg("SETUSER").arg("us:er").arg(&["on", ">p@ss:/?#w", "~*", "&*", "+@all"]));
    let url = format!("redis://us%3Aer:p%40ss%3A%2F%3F%23w@127.0.0.1:{}/0", redis.port());
    expect_work(&redis, Host::on(&redis).arg("--redis", url));
}

/// What `ACL SETUSER` needs for a host, as the handbook documents it: everything after the user's name but the
/// password.
pub fn documented_rule() -> Vec<String> {
    let chapter = fs::read_to_string(repository().join("host/docs/operating.md")).expect("read the chapter");
    let joined = chapter.replace("\\\n", " ");
    let line = joined.lines().find(|line| line.contains("ACL SETUSER")).expect("the chapter documents the ACL rule");
    let words = line.split_whitespace().map(|word| word.trim_matches(['\'', '"']));
    let rule = words.skip_while(|word| *word != "SETUSER").skip(2);
    rule.filter(|word| !word.starts_with('>')).map(str::to_owned).collect()
}

pub fn with_user(redis: &Redis, rule: &[String]) -> Launch {
    redis.run::<()>(cmd("ACL").arg("SETUSER").arg("host").arg("reset").arg(">secret").arg(rule));
    Host::on(redis).arg("--redis", format!("redis://host:secret@127.0.0.1:{}", redis.port()))
}

/// What was refused to users. The limit of slow subscribers does not count, which a host asks for and does not need.
pub fn denied(redis: &Redis) -> Vec<String> {
    let refusals: Vec<HashMap<String, redis::Value>> = redis.run(cmd("ACL").arg("LOG"));
    let object = |refusal: &HashMap<String, redis::Value>| redis::from_redis_value_ref(&refusal["object"]).unwrap();
    refusals.iter().map(object).filter(|object| object != "config|get").collect()
}

#[test]
fn the_documented_rights_are_enough() {
    let redis = Redis::start();
    expect_work(&redis, with_user(&redis, &documented_rule()));
    // Includes a takeover of a dead host's deliveries.
    let doomed = with_user(&redis, &documented_rule()).ready(&redis, 1);
    let ids: Vec<String> = (0..20).map(|n| format!("m-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({"do": "wait", "ms": 100}))));
    redis.wait_until_received(&ids);
    doomed.kill();
    let _heir = with_user(&redis, &documented_rule()).consumers(2).start();
    wait_until("all results", || redis.length(OUTPUT) == 1 + ids.len());
    assert_eq!(denied(&redis), Vec::<String>::new());
}

#[test]
fn a_named_output_needs_the_right_to_its_key() {
    let redis = Redis::start();
    let file = redis.folder().join("host.toml");
    fs::write(&file, "[outputs.fraud]\nkey = \"messages:fraud\"\n").unwrap();
    let ended = with_user(&redis, &documented_rule()).arg("--config", &file).run();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("the key messages:fraud"), "{}", ended.stderr);
    let mut rule = documented_rule();
    rule.push("~messages:fraud".to_owned());
    let _host = with_user(&redis, &rule).arg("--config", &file).ready(&redis, 1);
    let results = json!([{"to": "fraud", "body": "{}"}, "{}"]);
    Publisher::new(&redis).publish(message("m", json!({"do": "emit-all", "results": results})));
    redis.result_of("m");
    assert_eq!(redis.length("messages:fraud"), 1);
}

#[test]
fn a_granted_bucket_needs_the_rights_for_state() {
    let redis = Redis::start();
    let launch = |rule: &[String]| with_user(&redis, rule).arg("--plugin", bank()).arg("--allow-keyvalue", "accounts");
    let ended = launch(&documented_rule()).run();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    for right in ["MGET", "INCRBY", "SCAN"] {
        assert!(ended.stderr.contains(right), "{}", ended.stderr);
    }
    let mut rule = documented_rule();
    rule.extend(["+mget", "+incrby", "+scan"].map(str::to_owned));
    redis.run::<()>(cmd("ACL").arg("LOG").arg("RESET"));
    let _host = launch(&rule).ready(&redis, 1);
    let calls = json!([["get", "a"], ["set", "b", "1"], ["add", "a", 1], ["list"], ["delete", "b"]]);
    Publisher::new(&redis).publish(message("m", json!({"calls": calls})));
    redis.result_of("m");
    assert_eq!(denied(&redis), Vec::<String>::new());
}

#[test]
fn each_missing_right_is_named_at_start() {
    let redis = Redis::start();
    let rule = documented_rule();
    let rights: Vec<&String> = rule.iter().filter(|word| word.starts_with(['+', '~', '&'])).collect();
    assert!(rights.len() > 10, "{rights:?}");
    for right in rights {
        let without: Vec<String> = rule.iter().filter(|word| *word != right).cloned().collect();
        let ended = with_user(&redis, &without).run();
        assert_eq!(ended.code, Some(3), "without {right}: {}", ended.stderr);
        // For a pattern, take a key that the pattern allows.
        let named = right[1..].trim_end_matches('*').replace('|', " ").to_uppercase();
        assert!(ended.stderr.to_uppercase().contains(&named), "no {named} in: {}", ended.stderr);
    }
}

/// Makes an authority and certificates for a server and a client, all in files in this folder.
/// Certificates that are valid until the first day of this year.
fn make_certificates(folder: &Path, server_name: &str, year: i32) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority of a test");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for (file, name) in [("server", server_name), ("client", "client")] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

pub fn tls_redis(server_name: &str, client_certificates: &str) -> Redis {
    tls_redis_until(2099, server_name, client_certificates)
}

fn tls_redis_until(year: i32, server_name: &str, client_certificates: &str) -> Redis {
    let folder = tempfile::Builder::new().prefix("host-test-").tempdir().unwrap();
    make_certificates(folder.path(), server_name, year);
    tls_redis_in(folder, client_certificates)
}

fn tls_redis_in(folder: TempDir, client_certificates: &str) -> Redis {
    let arguments = [
        ["--save", ""],
        ["--tls-port", "{port}"],
        ["--port", "0"],
        ["--tls-ca-cert-file", "{folder}/ca.pem"],
        ["--tls-cert-file", "{folder}/server.pem"],
        ["--tls-key-file", "{folder}/server.key"],
        ["--tls-auth-clients", client_certificates],
    ];
    Redis::start_in(folder, arguments.as_flattened())
}

fn over_tls(redis: &Redis) -> Launch {
    Host::on(redis).arg("--redis", format!("rediss://127.0.0.1:{}", redis.port()))
}

#[test]
fn tls_with_an_authority_of_ones_own_works() {
    let redis = tls_redis("127.0.0.1", "no");
    expect_work(&redis, over_tls(&redis).arg("--redis-ca-file", redis.folder().join("ca.pem")));
}

#[test]
fn a_certificate_that_cannot_be_trusted_is_refused() {
    let redis = tls_redis("127.0.0.1", "no");
    let ended = over_tls(&redis).run();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("certificate"), "{}", ended.stderr);

    let of_another_name = tls_redis("elsewhere.example", "no");
    let expired = tls_redis_until(2020, "127.0.0.1", "no");
    for (redis, word) in [(of_another_name, "not valid for name"), (expired, "expired")] {
        let ended = over_tls(&redis).arg("--redis-ca-file", redis.folder().join("ca.pem")).run();
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(ended.stderr.contains("certificate") && ended.stderr.contains(word), "{}", ended.stderr);
    }
    // The right name, signed by another authority.
    let other = tls_redis("127.0.0.1", "no");
    let ended = over_tls(&redis).arg("--redis-ca-file", other.folder().join("ca.pem")).run();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("certificate"), "{}", ended.stderr);
}

#[test]
fn a_client_certificate_is_shown_where_redis_asks_for_one() {
    let redis = tls_redis("127.0.0.1", "yes");
    let file = |name: &str| redis.folder().join(name);
    let without = || over_tls(&redis).arg("--redis-ca-file", file("ca.pem"));
    assert_eq!(without().run().code, Some(3));
    expect_work(
        &redis,
        without().arg("--redis-cert-file", file("client.pem")).arg("--redis-key-file", file("client.key")),
    );
}

/// URL of the private Redis, from the log.
fn embedded_url(host: &Host) -> String {
    wait_for("the address of the private Redis", BOUND, || {
        let log = host.log();
        let rest = log.split("unix://").nth(1).ok_or_else(|| log.clone())?;
        let path = rest.split_once("redis.sock").ok_or_else(|| log.clone())?.0;
        Ok(format!("unix://{path}redis.sock"))
    })
}

#[test]
fn an_embedded_redis_serves_the_host_and_ends_with_it() {
    let launch = || Launch::bare().arg("--redis", "embedded").arg("--plugin", puppet()).consumers(2);
    for ends_cleanly in [true, false] {
        let host = launch().start();
        let url = embedded_url(&host);
        let mut connection = redis::Client::open(url.as_str()).unwrap().get_connection().unwrap();
        wait_until("registered consumers", || cmd("LLEN").arg(IDS).query::<usize>(&mut connection).unwrap() == 2);
        wait_until("a subscription", || {
            cmd("PUBLISH").arg(CHANNEL).arg(message("m", json!({}))).query::<usize>(&mut connection).unwrap() == 1
        });
        wait_until("a result", || cmd("XLEN").arg(OUTPUT).query::<usize>(&mut connection).unwrap() == 1);
        if ends_cleanly {
            host.stop();
        } else {
            host.kill();
        }
        wait_until("the end of the private Redis", || UnixStream::connect(url.trim_start_matches("unix://")).is_err());
    }
}

#[test]
fn an_embedded_redis_that_cannot_be_started_is_an_error() {
    let launch = Launch::bare().arg("--redis", "embedded").arg("--plugin", puppet());
    let ended = launch.env("PATH", "/nowhere").run();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("redis-server"), "{}", ended.stderr);
}
