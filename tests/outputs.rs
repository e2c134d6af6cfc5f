//! Named outputs: one message writes to several streams, in one step, exactly once.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::host::Launch;
use crate::support::records::{DEAD, INBOX, OUTPUT};
use crate::support::{Host, Publisher, Redis, message, puppet, wait_for, wait_until};

const FRAUD: &str = "messages:fraud";
const AUDIT: &str = "messages:audit";
const OUTPUTS: &str =
    "[outputs.fraud]\nkey = \"messages:fraud\"\nlength_max = 1000\n[outputs.audit]\nkey = \"messages:audit\"\n";

/// A file with this text in the folder of the server.
fn file(redis: &Redis, text: &str) -> PathBuf {
    let path = redis.folder().join("host.toml");
    fs::write(&path, text).expect("write the file");
    path
}

fn configured(redis: &Redis) -> Launch {
    Host::on(redis).arg("--config", file(redis, OUTPUTS))
}

/// An order for a result in the main output, one for `fraud` and two for `audit`.
fn for_all(ms: u32) -> Value {
    let to = |name: &str, n: u32| json!({"to": name, "body": json!({"n": n}).to_string()});
    json!({"do": "emit-all", "ms": ms, "results": [to("audit", 1), r#"{"n":0}"#, to("fraud", 2), to("audit", 3)]})
}

/// Lengths of the three streams at one moment.
fn lengths(redis: &Redis) -> [usize; 3] {
    let mut pipeline = redis::pipe();
    pipeline.atomic();
    for stream in [OUTPUT, FRAUD, AUDIT] {
        pipeline.cmd("XLEN").arg(stream);
    }
    pipeline.query(&mut redis.connect()).expect("lengths")
}

/// Requires so many results of each of these messages, and of no other message.
fn expect_of_each(redis: &Redis, stream: &str, ids: &[String], count: usize) {
    let mut counts: HashMap<&str, usize> = ids.iter().map(|id| (id.as_str(), 0)).collect();
    for entry in redis.stream(stream) {
        *counts.get_mut(entry.text("message_id")).expect("a message of this test") += 1;
    }
    let wrong: Vec<_> = counts.iter().filter(|(_, found)| **found != count).take(5).collect();
    assert!(wrong.is_empty(), "{stream}: not {count} but {wrong:?}");
}

#[test]
fn one_message_writes_to_three_streams_in_one_step() {
    let redis = Redis::start();
    let launch = Host::on(&redis).arg("--config", file(&redis, &OUTPUTS.replace("1000", "0")));
    let _host = launch.ready(&redis, 4);
    let ids: Vec<String> = (0..2_000).map(|n| format!("m-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, for_all(0))));
    wait_until("all results", || {
        let [output, fraud, audit] = lengths(&redis);
        assert!(output == fraud && audit == 2 * output, "a delivery is there in part: {output}, {fraud}, {audit}");
        output == ids.len()
    });
    redis.wait_for_an_empty_inbox();
    for (stream, count) in [(OUTPUT, 1), (FRAUD, 1), (AUDIT, 2)] {
        expect_of_each(&redis, stream, &ids, count);
    }
    let of_one = redis.stream(AUDIT).into_iter().filter(|entry| entry.text("message_id") == "m-7");
    let of_one: Vec<_> = of_one.collect();
    assert_eq!(of_one.iter().map(|entry| entry.text("n")).collect::<Vec<_>>(), ["1", "3"], "in their order");
    assert_eq!(of_one[0].names(), ["message_id", "consumer_id", "n"]);
}

#[test]
fn a_host_killed_again_and_again_writes_to_three_streams_exactly_once() {
    let redis = Redis::start();
    let launch = || Host::on(&redis).arg("--config", file(&redis, &OUTPUTS.replace("1000", "0")));
    let mut host = launch().ready(&redis, 4);
    let ids: Vec<String> = (0..4_000).map(|n| format!("m-{n}")).collect();
    // Some go to the main output only, by the other way.
    let order = |n: usize| if n.is_multiple_of(3) { json!({"do": "wait", "ms": 2}) } else { for_all(2) };
    let payloads = ids.iter().enumerate().map(|(n, id)| message(id, order(n)));
    assert_eq!(Publisher::new(&redis).publish_all(payloads), 1, "the host is subscribed");
    redis.wait_until_received(&ids);
    for _ in 0..3 {
        let processed = redis.length(OUTPUT);
        wait_until("some more results", || redis.length(OUTPUT) > processed + 200);
        assert!(redis.length(INBOX) > 0, "the host dies while it works");
        host.kill();
        host = launch().consumers(4).start();
    }
    redis.wait_for_settled(ids.len());
    let named: Vec<String> =
        ids.iter().enumerate().filter(|(n, _)| !n.is_multiple_of(3)).map(|(_, id)| id.clone()).collect();
    for (stream, ids, count) in [(OUTPUT, &ids, 1), (FRAUD, &named, 1), (AUDIT, &named, 2)] {
        expect_of_each(&redis, stream, ids, count);
    }
    assert!(redis.dead_letters().is_empty());
}

#[test]
fn a_named_stream_of_another_type_stops_its_messages_whole_until_it_is_mended() {
    let redis = Redis::start();
    let host = configured(&redis).ready(&redis, 2);
    redis.command::<()>(&format!("SET {FRAUD} text"));
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("held", for_all(0)));
    wait_for("an error that names the key", crate::support::BOUND, || {
        let log = host.log();
        if log.contains("messages:fraud is a string, not a stream") { Ok(()) } else { Err(log) }
    });
    publisher.publish(message("passes", json!({"do": "echo"})));
    redis.result_of("passes");
    assert_eq!((redis.length(OUTPUT), redis.length(AUDIT), redis.length(INBOX)), (1, 0, 1), "nothing in part");
    redis.command::<()>(&format!("DEL {FRAUD}"));
    redis.result_of("held");
    assert_eq!(lengths(&redis), [2, 1, 2]);
    redis.wait_for_an_empty_inbox();
}

#[test]
fn a_host_does_not_start_with_a_named_stream_of_another_type() {
    let redis = Redis::start();
    redis.command::<()>(&format!("SET {AUDIT} text"));
    let ended = configured(&redis).run();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("messages:audit is a string but must be a stream"), "{}", ended.stderr);
}

#[test]
fn an_unknown_name_is_a_bad_result_that_lists_the_names() {
    let redis = Redis::start();
    let _host = configured(&redis).ready(&redis, 1);
    let results = json!([r#"{"n":1}"#, {"to": "audit", "body": "{}"}, {"to": "frau", "body": "{}"}]);
    Publisher::new(&redis).publish(message("m", json!({"do": "emit-all", "results": results})));
    let letter = redis.dead_letter_of("m");
    assert_eq!((letter.text("reason"), letter.text("attempts")), ("bad-result", "1"));
    for part in ["\"frau\"", "audit, fraud", "[outputs.NAME]"] {
        assert!(letter.text("error").contains(part), "{part} in {}", letter.text("error"));
    }
    assert_eq!(lengths(&redis), [0, 0, 0], "nothing of the message is written");
    assert_eq!(redis.length(DEAD), 1);
}

#[test]
fn each_stream_is_trimmed_by_its_own_bound() {
    let redis = Redis::start();
    let _host = configured(&redis).ready(&redis, 2);
    let ids = (0..3_000).map(|n| format!("m-{n}"));
    Publisher::new(&redis).publish_all(ids.map(|id| message(&id, for_all(0))));
    wait_until("all results", || redis.length(OUTPUT) == 3_000);
    let [_, fraud, audit] = lengths(&redis);
    assert!((1_000..1_200).contains(&fraud), "{fraud}");
    assert_eq!(audit, 6_000);
}

#[test]
fn the_configuration_of_outputs_is_checked_printed_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("host.toml");
    let config = |text: &str| {
        fs::write(&path, text).expect("write the file");
        Launch::subcommand("config").arg("--config", &path).run()
    };
    let printed = config(OUTPUTS);
    assert_eq!(printed.code, Some(0), "{}", printed.stderr);
    assert!(
        printed.stdout.contains("[outputs.fraud]\nkey = \"messages:fraud\"\nlength_max = 1000\n"),
        "{}",
        printed.stdout
    );
    assert_eq!(config(&printed.stdout).stdout, printed.stdout);
    let many: String = (0..65).map(|n| format!("[outputs.o-{n}]\nkey = \"s:{n}\"\n")).collect();
    for (text, parts) in [
        ("[outputs.a]\n", ["host.toml:1:10", "outputs.a has no key"]),
        ("[outputs.a]\nkye = 's'\n", ["host.toml:2:1", "did you mean `outputs.a.key`?"]),
        ("[outputs.a]\nkey = ''\n", ["host.toml:2:7", "it is empty"]),
        ("[outputs.a]\nkey = 's'\nlength_max = -1\n", ["host.toml:3:14", "outputs.a.length_max"]),
        ("[outputs.A]\nkey = 's'\n", ["host.toml:1:10", "lower-case letters"]),
        (
            "[outputs.a]\nkey = 's'\n[outputs.b]\nkey = 's'\n",
            ["outputs.b.key is `s`", "two keys must not have the same name"],
        ),
        (
            "[outputs.a]\nkey = 'messages:processed'\n",
            ["keys.output is `messages:processed`", "must not have the same name"],
        ),
        ("[outputs.a]\nkey = '{messages:processed}:dead'\n", ["keys.dead", "must not have the same name"]),
        ("[outputs.a]\nkey = '{messages:processed}:claim:x'\n", ["keys.claim_prefix", "with this prefix"]),
        (&many, ["host.toml:129:10", "there may be 64"]),
    ] {
        let ended = config(text);
        assert_eq!(ended.code, Some(2), "{text}: {}", ended.stdout);
        for part in parts {
            assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
        }
    }
}

#[test]
fn cases_expect_results_by_output_and_know_the_configured_names() {
    let folder = tempfile::tempdir().unwrap();
    let (config, cases) = (folder.path().join("host.toml"), folder.path().join("cases.jsonl"));
    fs::write(&config, OUTPUTS).unwrap();
    let order =
        message("1", json!({"do": "emit-all", "results": [r#"{"n":1}"#, {"to": "fraud", "body": r#"{"n":2}"#}]}));
    let test = |case: &str, configured: bool, bless: bool| {
        fs::write(&cases, case).unwrap();
        let plugin = puppet();
        let mut launch = Launch::subcommand("test").words(&[plugin.to_str().unwrap(), cases.to_str().unwrap()]);
        if configured {
            launch = launch.arg("--config", &config);
        }
        if bless { launch.switch("--bless").run() } else { launch.run() }
    };
    let right = format!(r#"{{"message": {order}, "outputs": {{"main": {{"n": 1}}, "fraud": [{{"n": 2}}]}}}}"#);
    let ended = test(&right, true, false);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let ended = test(&right, false, false);
    assert_ne!(ended.code, Some(0));
    assert!(ended.stdout.contains("no named output is configured"), "{}{}", ended.stdout, ended.stderr);
    let wrong = format!(r#"{{"message": {order}, "outputs": {{"main": {{"n": 1}}, "fraud": {{"n": 3}}}}}}"#);
    let ended = test(&wrong, true, false);
    assert!(ended.code != Some(0) && ended.stdout.contains("outputs.fraud.n"), "{}{}", ended.stdout, ended.stderr);
    test(&wrong, true, true);
    let blessed = fs::read_to_string(&cases).unwrap();
    assert!(blessed.ends_with(r#""outputs": {"fraud": {"n": 2}, "main": {"n": 1}}}"#), "{blessed}");
}

/// Id of a host that has one consumer.
fn id(redis: &Redis, others: &[&str]) -> String {
    let ids = redis.consumer_ids();
    let ids = ids.iter().filter_map(|consumer| consumer.strip_suffix("/1")).find(|id| !others.contains(id));
    ids.expect("a host").to_owned()
}

#[test]
fn hosts_with_different_named_outputs_say_so_once_and_lose_nothing() {
    let redis = Redis::start();
    let beating = |launch: Launch| launch.arg("--heartbeat-interval", "50ms").arg("--report-interval", "200ms");
    let with = beating(configured(&redis)).ready(&redis, 1);
    let with_id = id(&redis, &[]);
    let other = redis.folder().join("other.toml");
    fs::write(&other, OUTPUTS.replace("messages:fraud", "messages:suspects").replace("audit", "checks")).unwrap();
    let without = beating(Host::on(&redis).arg("--config", &other)).ready(&redis, 1);
    let without_id = id(&redis, &[with_id.as_str()]);

    let audit = "audit (messages:audit) is only";
    for (host, own, theirs, words) in [
        (
            &with,
            &with_id,
            &without_id,
            [format!("{audit} here"), "messages:fraud here and messages:suspects there".into()],
        ),
        (
            &without,
            &without_id,
            &with_id,
            [format!("{audit} there"), "messages:suspects here and messages:fraud there".into()],
        ),
    ] {
        let line = format!("this host, {own}, and the host {theirs} of the same group have different named outputs");
        host.wait_for_log(&line);
        for words in words {
            host.wait_for_log(&words);
        }
        let reports = host.written().lines().count();
        wait_until("some more heartbeats", || host.written().lines().count() >= reports + 3);
        assert_eq!(host.log().matches("different named outputs").count(), 1, "{}", host.log());
    }

    let ids: Vec<String> = (0..200).map(|n| format!("m-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, for_all(1))));
    redis.wait_for_an_empty_inbox();
    wait_until("a result or a dead letter of each message", || redis.length(OUTPUT) + redis.length(DEAD) == ids.len());
    assert_eq!(redis.length(FRAUD), redis.length(OUTPUT), "a result is written with all the others of its message");
    assert_eq!(redis.length(AUDIT), 2 * redis.length(OUTPUT));
    let letters = redis.dead_letters();
    assert!(letters.iter().all(|letter| letter.text("payload").contains("emit-all")), "the messages are kept");

    // Once the hosts agree again, there is nothing to say, and the dead letters can be replayed.
    without.stop();
    let address = redis.url();
    let ended = Launch::subcommand("dead").words(&["replay", "--all", "--redis", &address]).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    wait_until("all results", || redis.length(OUTPUT) == ids.len());
    expect_of_each(&redis, OUTPUT, &ids, 1);
    assert_eq!(with.log().matches("different named outputs").count(), 1);
}

#[test]
fn hosts_with_the_same_named_outputs_have_nothing_to_say() {
    let redis = Redis::start();
    // The bound of the length and the order are no difference.
    let other = redis.folder().join("other.toml");
    let (fraud, audit) = OUTPUTS.split_once("[outputs.audit]").expect("two sections");
    fs::write(&other, format!("[outputs.audit]{audit}{}", fraud.replace("1000", "7"))).unwrap();
    let beating = |launch: Launch| launch.arg("--heartbeat-interval", "50ms").arg("--report-interval", "200ms");
    let hosts =
        [configured(&redis), Host::on(&redis).arg("--config", &other)].map(|host| beating(host).ready(&redis, 1));
    for host in &hosts {
        let reports = host.written().lines().count();
        wait_until("some heartbeats", || host.written().lines().count() >= reports + 3);
        assert!(!host.log().contains("named outputs"), "{}", host.log());
    }
}
