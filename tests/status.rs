//! `host status`: the state of a group from outside, compared with what is in Redis.

use std::collections::BTreeSet;
use std::fs;

use redis::cmd;
use serde_json::{Value, json};

use crate::access::{denied, documented_rule, with_user};
use crate::support::consumer::{Consumer, post};
use crate::support::host::{Ended, Launch};
use crate::support::http::address;
use crate::support::records::{CHANNEL, DEAD, HEARTBEAT, HOSTS, IDS, INBOX, OUTPUT, RETRY};
use crate::support::{BOUND, Host, Publisher, Redis, message, repository, wait_for, wait_until};

/// Healthy, and not working.
const HEALTHY: Option<i32> = Some(0);
const NOT_WORKING: Option<i32> = Some(6);

/// A heartbeat that expires in the year 2100, in ms since 1970.
const FAR: &str = "4102444800000";

fn status_with(redis: &Redis, words: &[&str]) -> Ended {
    Launch::subcommand("status").words(words).arg("--redis", redis.url()).run()
}

/// The exit code and the JSON.
fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr))
}

fn status(redis: &Redis) -> (Option<i32>, Value) {
    let ended = status_with(redis, &["--json"]);
    (ended.code, json_of(&ended))
}

/// Waits for a status that fulfils the condition.
fn wait_for_status(redis: &Redis, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, BOUND, || {
        let (_, status) = status(redis);
        if is_it(&status) { Ok(status) } else { Err(status.to_string()) }
    })
}

/// A host whose figures are announced often.
fn host(redis: &Redis) -> Launch {
    Host::on(redis).arg("--heartbeat-interval", "50ms").arg("--max-attempts", "1")
}

fn sum(items: &Value, field: &str) -> u64 {
    items.as_array().unwrap().iter().map(|item| item[field].as_u64().unwrap()).sum()
}

fn texts(items: &Value, field: &str) -> Vec<String> {
    items.as_array().unwrap().iter().map(|item| item[field].as_str().unwrap().to_owned()).collect()
}

#[test]
fn two_hosts_are_shown_with_the_values_in_redis() {
    let redis = Redis::start();
    let _hosts = [host(&redis).ready(&redis, 2), host(&redis).arg("--max-attempts", "2").ready(&redis, 3)];
    let mut publisher = Publisher::new(&redis);
    publisher.publish_all((0..100).map(|n| message(&format!("m-{n}"), json!({}))));
    publisher.publish_all((0..2).map(|n| message(&format!("r-{n}"), json!({"do": "reject"}))));
    publisher.publish(message("f", json!({"do": "raw", "result": "[]"})));
    publisher.publish("no message");
    redis.wait_for_settled(104);
    let settled = |status: &Value| sum(&status["hosts"], "processed") == 103;
    let status = wait_for_status(&redis, "everything in the figures of the hosts", settled);

    assert_eq!(status["healthy"], true, "{status}");
    assert_eq!((&status["problems"], &status["warnings"]), (&json!([]), &json!([])));
    let mut alive: Vec<String> = redis.run(cmd("ZRANGE").arg(HEARTBEAT).arg(0).arg(-1));
    alive.sort();
    assert_eq!(texts(&status["hosts"], "id"), alive);
    let listed: BTreeSet<String> = redis.consumer_ids().into_iter().collect();
    assert_eq!(texts(&status["consumers"], "id").into_iter().collect::<BTreeSet<_>>(), listed);
    assert_eq!(status["totals"]["consumers"], 5);
    assert_eq!(sum(&status["consumers"], "processed"), 103, "each message is one consumer's");
    for host in status["hosts"].as_array().unwrap() {
        assert_eq!(host["version"], env!("CARGO_PKG_VERSION"));
        assert!(host["id"].as_str().unwrap().starts_with(host["host_name"].as_str().unwrap()), "{host}");
        assert!(host["heartbeat_age_ms"].as_u64().unwrap() < 7_000, "{host}");
        assert_eq!(host["plugin"]["state"], "steady");
        assert_eq!(host["plugin"]["digest"].as_str().unwrap().len(), 64);
        let own = texts(&status["consumers"], "host").iter().filter(|id| host["id"] == **id).count();
        assert_eq!(host["consumers"], own);
        let is_active = redis.lease().as_deref() == host["id"].as_str();
        assert_eq!(host["intake"], if is_active { "active" } else { "standby" });
    }
    assert_eq!(status["group"]["active_intake"].as_str(), redis.lease().as_deref());
    assert_eq!((&status["group"]["output"], &status["group"]["channel"]), (&json!(OUTPUT), &json!(CHANNEL)));
    assert_eq!(status["inbox"], json!({"length": 0, "in_progress": 0, "waiting": 0, "oldest_age_ms": null}));
    let reasons = json!({"plugin-rejected": 2, "bad-result": 1, "not-json": 1});
    assert_eq!(status["dead_letters"], json!({"length": 4, "without_id": 1, "counted": 4, "reasons": reasons}));
    assert_eq!(status["outputs"], json!([{"name": "main", "key": OUTPUT, "length": 100, "added": 100}]));
    assert_eq!((&status["totals"]["shed"], &status["totals"]["gaps"]), (&json!(0), &json!(0)));

    // Results that a reader has trimmed were written nevertheless.
    redis.run::<usize>(cmd("XTRIM").arg(OUTPUT).arg("MAXLEN").arg(10));
    let (_, status) = self::status(&redis);
    assert_eq!(status["outputs"], json!([{"name": "main", "key": OUTPUT, "length": 10, "added": 100}]));
}

#[test]
fn remote_consumers_are_shown_with_the_host_at_which_they_are_registered() {
    let redis = Redis::start();
    let _other = host(&redis).ready(&redis, 1);
    let at = host(&redis).arg("--http", "127.0.0.1:0").ready(&redis, 2);
    let own = redis.consumer_ids();
    let remotes = [(); 2].map(|()| Consumer::start(|_| Some(200)));
    for remote in &remotes {
        assert_eq!(post(address(&at), "/register", &json!({ "consumer_id": remote.id() }).to_string()).0, 200);
    }
    let (_, status) = status(&redis);
    assert_eq!((&status["totals"]["consumers"], &status["totals"]["remote_consumers"]), (&json!(5), &json!(2)));
    let consumers = status["consumers"].as_array().unwrap();
    let (remote, local): (Vec<&Value>, Vec<&Value>) = consumers.iter().partition(|one| one["remote"] == true);
    assert!(local.iter().all(|one| own.iter().any(|id| one["id"] == **id)), "{status}");
    let mut ids = remotes.each_ref().map(Consumer::id);
    ids.sort();
    assert_eq!(remote.iter().map(|one| one["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    let registered = remote[0]["host"].clone();
    for host in status["hosts"].as_array().unwrap() {
        let (own, elsewhere) = if host["id"] == registered { (2, 2) } else { (1, 0) };
        assert_eq!((&host["consumers"], &host["remote_consumers"]), (&json!(own), &json!(elsewhere)), "{host}");
    }
    assert!(remote.iter().all(|one| one["host"] == registered && one["processed"].is_null()), "{status}");
    let page = status_with(&redis, &[]).stdout;
    assert!(page.contains("with 5 consumers, 2 of them remote"), "{page}");
    assert!(ids.iter().all(|id| page.contains(&format!("{id} (remote, at "))), "{page}");
}

#[test]
fn what_waits_and_what_is_in_work_is_counted_with_its_age() {
    let redis = Redis::start();
    let _host = host(&redis).arg("--max-attempts", "5").arg("--max-plugin-time", "60s").ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("later", json!({"do": "retry", "delay_ms": 600_000})));
    wait_until("a waiting retry", || redis.run::<usize>(cmd("ZCARD").arg(RETRY)) == 1);
    for n in 0..5 {
        publisher.publish(message(&format!("m-{n}"), json!({"do": "wait", "ms": 60_000})));
        wait_until("another delivery", || redis.length(INBOX) == n + 1);
    }
    wait_until("deliveries in work", || redis.pending().values().sum::<usize>() == 2);
    let (code, status) = status(&redis);
    assert_eq!(code, HEALTHY, "{status}");
    let inbox = &status["inbox"];
    assert_eq!((&inbox["length"], &inbox["in_progress"], &inbox["waiting"]), (&json!(5), &json!(2), &json!(3)));
    let (seconds, micros): (u64, u64) = redis.run(&cmd("TIME"));
    let oldest: u64 = redis.inbox()[0].id().split('-').next().unwrap().parse().unwrap();
    let age = inbox["oldest_age_ms"].as_u64().unwrap();
    assert!(age <= seconds * 1_000 + micros / 1_000 - oldest, "{age}");

    assert_eq!(status["retries"]["waiting"], 1);
    let due: Vec<(String, u128)> = redis.run(cmd("ZRANGE").arg(RETRY).arg(0).arg(0).arg("WITHSCORES"));
    let left = status["retries"]["next_due_in_ms"].as_u64().unwrap();
    assert!((1..=600_000).contains(&left), "{left}");
    let at = humantime::parse_rfc3339(status["retries"]["next_due"].as_str().unwrap()).unwrap();
    let at_ms = at.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_millis();
    assert_eq!(at_ms, due[0].1);

    let text = status_with(&redis, &[]).stdout;
    for part in ["5 deliveries: 2 in progress, 3 waiting; the oldest is", "1 waiting; the next in 9m"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn rates_rise_with_the_traffic_and_fall_back() {
    let redis = Redis::start();
    let _host = host(&redis).ready(&redis, 2);
    let traffic = crate::support::Traffic::start_at(0, &redis, 2_000, json!({}));
    let is_fast = |status: &Value| {
        let rate = |rate: &Value| rate["messages_per_second"].as_f64().unwrap();
        rate(&status["totals"]) > 500.0
            && rate(&status["hosts"][0]) > 500.0
            && status["consumers"].as_array().unwrap().iter().all(|consumer| rate(consumer) > 0.0)
    };
    wait_for_status(&redis, "rates under traffic", is_fast);
    traffic.finish();
    wait_for_status(&redis, "rates of nothing", |status| {
        let is_zero = |rate: &Value| rate["messages_per_second"] == 0.0;
        is_zero(&status["totals"]) && is_zero(&status["hosts"][0]) && is_zero(&status["consumers"][1])
    });
}

#[test]
fn a_killed_host_vanishes_and_without_any_the_group_does_not_work() {
    let redis = Redis::start();
    let short = |redis: &Redis| host(redis).arg("--heartbeat-ttl", "500ms").arg("--intake-lease", "500ms");
    let (doomed, survivor) = (short(&redis).ready(&redis, 2), short(&redis).ready(&redis, 3));
    wait_for_status(&redis, "both hosts", |status| status["totals"]["hosts"] == 2);
    doomed.kill();
    let status =
        wait_for_status(&redis, "one host", |status| status["totals"]["hosts"] == 1 && status["healthy"] == true);
    assert_eq!((status["hosts"].as_array().unwrap().len(), status["consumers"].as_array().unwrap().len()), (1, 3));
    survivor.kill();
    wait_for_status(&redis, "no host", |status| status["totals"]["hosts"] == 0);
    let ended = status_with(&redis, &[]);
    assert_eq!(ended.code, NOT_WORKING, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("NOT WORKING") && ended.stderr.contains("no host of the group"), "{}", ended.stderr);
}

#[test]
fn an_empty_redis_has_no_hosts_and_zeros() {
    let redis = Redis::start();
    let (code, status) = status(&redis);
    assert_eq!(code, NOT_WORKING);
    assert_eq!(status["problems"][0]["code"], "no-hosts", "{status}");
    assert_eq!((&status["healthy"], &status["hosts"], &status["consumers"]), (&json!(false), &json!([]), &json!([])));
    assert_eq!(status["group"]["channel"], Value::Null);
    assert_eq!((&status["inbox"]["length"], &status["dead_letters"]["length"]), (&json!(0), &json!(0)));
    assert_eq!(redis.command::<usize>("DBSIZE"), 0, "looking leaves nothing behind");
}

#[test]
fn a_group_without_an_active_intake_does_not_work() {
    let redis = Redis::start();
    let host = host(&redis).ready(&redis, 1);
    wait_for_status(&redis, "a healthy group", |status| status["healthy"] == true);
    // A paused host is alive until its heartbeat expires, and its lease ends before that.
    host.signal(crate::support::Signal::Stop);
    wait_until("the end of the lease", || redis.lease().is_none());
    let (code, status) = status(&redis);
    assert_eq!((code, &status["problems"][0]["code"]), (NOT_WORKING, &json!("no-active-intake")), "{status}");
}

#[test]
fn a_full_redis_does_not_work_and_hosts_that_differ_are_a_warning() {
    let redis = Redis::start();
    let _host = host(&redis).ready(&redis, 1);
    let real = alive(&redis).remove(0);
    let announced = wait_for("an active intake that is announced", BOUND, || {
        let status: String = redis.run(cmd("HGET").arg(HOSTS).arg(&real));
        if status.contains(r#""intake":"active""#) { Ok(status) } else { Err(status) }
    });
    let version = format!(r#""version":"{}""#, env!("CARGO_PKG_VERSION"));
    let other = announced.replace(&version, r#""version":"99.0.0""#);
    redis.run::<()>(cmd("ZADD").arg(HEARTBEAT).arg(FAR).arg("other-1-a"));
    redis.run::<()>(cmd("HSET").arg(HOSTS).arg("other-1-a").arg(other.replace("\"digest\":\"", "\"digest\":\"0000")));
    let codes = |status: &Value| texts(&status["warnings"], "code");
    let status = wait_for_status(&redis, "warnings", |status| codes(status).len() == 2);
    assert_eq!(codes(&status), ["versions-differ", "plugins-differ"]);
    assert!(status["warnings"][0]["text"].as_str().unwrap().contains("99.0.0"), "{status}");

    redis.run::<()>(cmd("CONFIG").arg("SET").arg("maxmemory").arg("1kb"));
    let (code, status) = self::status(&redis);
    assert_eq!((code, &status["problems"][0]["code"]), (NOT_WORKING, &json!("redis-full")), "{status}");
}

fn alive(redis: &Redis) -> Vec<String> {
    redis.run(cmd("ZRANGE").arg(HEARTBEAT).arg(0).arg(-1))
}

#[test]
fn what_an_older_host_does_not_announce_is_unknown() {
    let redis = Redis::start();
    redis.run::<()>(cmd("ZADD").arg(HEARTBEAT).arg(FAR).arg("old-host-7-0a"));
    redis.run::<()>(cmd("RPUSH").arg(IDS).arg("old-host-7-0a/1").arg("old-host-7-0a/2"));
    let status = json!({"generation": 4, "digest": "ab".repeat(32), "state": "steady", "since": "2026-01-01T00:00:00Z",
        "consumers": 2, "swaps": 0, "refusals": 0, "rollbacks": 0, "refused": null, "format": 1});
    redis.run::<()>(cmd("HSET").arg(HOSTS).arg("old-host-7-0a").arg(status.to_string()));
    redis.run::<()>(cmd("SET").arg("{messages:processed}:intake").arg("old-host-7-0a"));
    let (code, found) = self::status(&redis);
    assert_eq!(code, HEALTHY, "{found}");
    let host = &found["hosts"][0];
    for unknown in ["version", "started", "heartbeat_age_ms", "messages_per_second", "processed", "position_lag"] {
        assert_eq!(host[unknown], Value::Null, "{unknown}");
    }
    assert_eq!(
        (&host["host_name"], &host["consumers"], &host["intake"]),
        (&json!("old-host"), &json!(2), &json!("active"))
    );
    assert_eq!(host["plugin"]["generation"], 4);
    assert_eq!((&found["totals"]["messages_per_second"], &found["totals"]["shed"]), (&Value::Null, &Value::Null));
    let text = status_with(&redis, &[]).stdout;
    let line = text.lines().find(|line| line.starts_with("old-host-7-0a ")).expect("a line of the host");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[1..8], ["-", "-", "active", "2", "-", "-", "-"], "{text}");
}

#[test]
fn a_redis_that_does_not_answer_and_a_wrong_url_are_told_apart() {
    let port = crate::support::redis::free_port();
    let run = |url: &str| Launch::subcommand("status").arg("--redis", url).run();
    let nobody = run(&format!("redis://127.0.0.1:{port}"));
    assert_eq!(nobody.code, Some(3), "{}", nobody.stderr);
    assert!(
        nobody.stderr.contains(&port.to_string()) && nobody.stderr.contains("--redis is right"),
        "{}",
        nobody.stderr
    );
    assert_eq!(nobody.stdout, "");
    let wrong = run("http://127.0.0.1");
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("redis://HOST:PORT"), "{}", wrong.stderr);

    let redis = Redis::start();
    redis.run::<()>(cmd("SET").arg(DEAD).arg("no stream"));
    let spoiled = status_with(&redis, &["--json"]);
    assert_eq!(spoiled.code, Some(3), "{}", spoiled.stderr);
    assert!(spoiled.stderr.contains(DEAD), "{}", spoiled.stderr);
}

/// Paths of all values, with `[]` for the items of a list.
fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(fields) if !path.ends_with(".reasons") => {
            fields.iter().for_each(|(name, value)| paths(value, &below(name), found))
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{path}[]"), found)),
        _ => drop(found.insert(path.to_owned())),
    }
}

#[test]
fn the_handbook_names_every_field_of_the_json() {
    let redis = Redis::start();
    let _host = host(&redis).ready(&redis, 1);
    Publisher::new(&redis).publish("no message");
    wait_until("a dead letter", || redis.length(DEAD) == 1);
    let status = wait_for_status(&redis, "a complete status", |status| {
        status["hosts"][0]["plugin"].is_object() && status["dead_letters"]["length"] == 1
    });
    let mut found = BTreeSet::new();
    paths(&status, "", &mut found);
    let (_, empty) = self::status(&Redis::start());
    paths(&empty, "", &mut found);
    // A list without items has no fields of its own.
    found.retain(|path| path != "problems" && path != "warnings");
    let chapter = fs::read_to_string(repository().join("host/docs/operating.md")).expect("read the chapter");
    let rows = chapter.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|row| row.split_once(" |"));
    let mut documented = BTreeSet::new();
    for (fields, _) in rows {
        // `a.b`, `c` stands for a.b and a.c.
        let mut room = String::new();
        for name in fields.split('`').map(|name| name.trim_matches([',', ' '])).filter(|name| !name.is_empty()) {
            match name.rsplit_once('.') {
                Some((before, _)) => room = format!("{before}."),
                None if room.is_empty() => {}
                None => drop(documented.insert(format!("{room}{name}"))),
            }
            documented.insert(name.to_owned());
        }
    }
    let missing: Vec<&String> = found.iter().filter(|path| !documented.contains(*path)).collect();
    assert!(missing.is_empty(), "host/docs/operating.md does not name {missing:?}");
}

#[test]
fn named_outputs_are_shown_when_the_configuration_names_them() {
    let redis = Redis::start();
    let file = redis.folder().join("host.toml");
    fs::write(&file, "[outputs.fraud]\nkey = \"messages:fraud\"\n").unwrap();
    let _host = host(&redis).arg("--config", &file).ready(&redis, 1);
    let results = json!([{"to": "fraud", "body": "{}"}, {"to": "fraud", "body": "{}"}, "{}"]);
    Publisher::new(&redis).publish(message("m", json!({"do": "emit-all", "results": results})));
    redis.result_of("m");
    let ended =
        Launch::bare().words(&["--config", file.to_str().unwrap(), "--redis", &redis.url(), "status", "--json"]).run();
    let fraud = json!({"name": "fraud", "key": "messages:fraud", "length": 2, "added": 2});
    assert_eq!(json_of(&ended)["outputs"][1], fraud, "{}", ended.stderr);
}

#[test]
fn named_outputs_are_shown_when_a_host_alive_announces_them() {
    let redis = Redis::start();
    redis.run::<()>(cmd("ZADD").arg(HEARTBEAT).arg(FAR).arg("alive-1-a"));
    for (host, outputs) in [("alive-1-a", r#"{"audit":"messages:audit"}"#), ("dead-1-a", r#"{"old":"messages:old"}"#)] {
        redis.run::<()>(cmd("HSET").arg("{messages:processed}:group").arg(format!("outputs {host}")).arg(outputs));
    }
    redis.run::<String>(cmd("XADD").arg("messages:audit").arg("*").arg("a").arg("1"));
    let (_, status) = status(&redis);
    let audit = json!({"name": "audit", "key": "messages:audit", "length": 1, "added": 1});
    assert_eq!(status["outputs"].as_array().unwrap()[1..], [audit], "{status}");
}

#[test]
fn dead_letters_are_counted_again_when_some_are_purged() {
    let redis = Redis::start();
    let mut pipeline = redis::pipe();
    for n in 0..250 {
        let reason = if n % 5 == 0 { "bad-id" } else { "not-json" };
        pipeline.cmd("XADD").arg(DEAD).arg(format!("{}-1", n + 1)).arg("payload").arg("x").arg("reason").arg(reason);
    }
    pipeline.query::<()>(&mut redis.connect()).unwrap();
    let counts = |redis: &Redis| status(redis).1["dead_letters"].clone();
    let reasons = json!({"bad-id": 50, "not-json": 200});
    assert_eq!(counts(&redis), json!({"length": 250, "without_id": 0, "counted": 250, "reasons": reasons}));
    redis.run::<usize>(cmd("XDEL").arg(DEAD).arg("1-1").arg("2-1"));
    let reasons = json!({"bad-id": 49, "not-json": 199});
    assert_eq!(counts(&redis), json!({"length": 248, "without_id": 0, "counted": 248, "reasons": reasons}));
}

#[test]
fn the_documented_rights_are_enough() {
    let redis = Redis::start();
    let rule = [documented_rule(), vec!["+xinfo|stream".to_owned()]].concat();
    let _host = with_user(&redis, &rule).ready(&redis, 1);
    let url = format!("redis://host:secret@127.0.0.1:{}", redis.port());
    wait_for("a healthy status", BOUND, || {
        let ended = Launch::subcommand("status").arg("--redis", &url).run();
        assert!(!ended.stdout.contains("secret"), "{}", ended.stdout);
        if ended.code == HEALTHY { Ok(()) } else { Err(ended.stderr) }
    });
    assert_eq!(denied(&redis), Vec::<String>::new());
}

#[test]
fn the_page_is_aligned_and_without_colours_when_it_is_no_terminal() {
    let redis = Redis::start();
    let _hosts = [host(&redis).ready(&redis, 2), host(&redis).ready(&redis, 30)];
    let text = wait_for("a healthy group", BOUND, || {
        let ended = status_with(&redis, &[]);
        if ended.code == HEALTHY { Ok(ended.stdout) } else { Err(ended.stderr) }
    });
    assert!(!text.contains('\u{1b}'), "{text:?}");
    let lines: Vec<&str> = text.lines().collect();
    let head = lines.iter().position(|line| line.starts_with("HOST ")).expect("a table of hosts");
    // A number ends where the name of its column ends.
    let end = lines[head].find("CONSUMERS").unwrap() + "CONSUMERS".len();
    let counts: BTreeSet<&str> =
        lines[head + 1..head + 3].iter().map(|line| line[..end].rsplit(' ').next().unwrap()).collect();
    assert_eq!(counts, BTreeSet::from(["2", "30"]), "{text}");
    assert!(text.contains("2, with 32 consumers") && text.contains("and 12 more; --json names all"), "{text}");
}
