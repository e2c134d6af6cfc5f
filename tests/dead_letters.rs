//! `host dead`, as an operator uses it.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use redis::cmd;
use serde_json::{Value, json};

use crate::support::host::{Ended, Launch};
use crate::support::records::{DEAD, INBOX, OUTPUT};
use crate::support::{Host, Publisher, Redis, expect_each_once, message, wait_until};

/// Runs `host dead` with these words.
fn dead(redis: &Redis, words: &[&str]) -> Ended {
    let launch = Launch::subcommand("dead").words(words);
    launch.arg("--redis", redis.url()).run()
}

/// Runs `host dead`, which must succeed, and returns its standard output.
fn done(redis: &Redis, words: &[&str]) -> String {
    let ended = dead(redis, words);
    assert_eq!(ended.code, Some(0), "{words:?}: {}{}", ended.stdout, ended.stderr);
    ended.stdout
}

fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn one_attempt(redis: &Redis) -> Launch {
    Host::on(redis).arg("--max-attempts", "1")
}

/// A message that fails until it is replayed, when the rejecting host is gone: it succeeds at the second attempt of a
/// host that makes several.
fn healing(id: &str) -> String {
    message(id, json!({"do": "succeed-at", "attempt": 2, "delay_ms": 0}))
}

/// Dead letters of all kinds, of a host that has ended.
fn with_dead_letters() -> Redis {
    let redis = Redis::start();
    let host = one_attempt(&redis).ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    for (id, order) in [
        ("failed", json!({"do": "fail", "reason": "no such\ncustomer"})),
        ("rejected", json!({"do": "reject", "reason": "too old"})),
        ("later", json!({"do": "succeed-at", "attempt": 2})),
    ] {
        publisher.publish(message(id, order));
        redis.dead_letter_of(id);
    }
    publisher.publish(b"\xff no message");
    wait_until("the dead letter of what is no message", || redis.length(DEAD) == 4);
    host.stop();
    redis
}

#[test]
fn dead_letters_are_listed_newest_first_as_a_table_and_as_json() {
    let redis = with_dead_letters();
    let table = done(&redis, &["list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "a head and a line each:\n{table}");
    for (line, parts) in lines.iter().zip([
        ["ENTRY", "REASON", "MESSAGE"],
        ["not-utf8", " 0 ", "-"],
        ["plugin-retried", " 1 ", "later"],
        ["plugin-rejected", "rejected", "too old"],
        ["plugin-failed", "failed", "no such\\ncustomer"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} in {line}");
    }
    let all = objects(&done(&redis, &["list", "--json"]));
    let reasons: Vec<&str> = all.iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["not-utf8", "plugin-retried", "plugin-rejected", "plugin-failed"]);
    assert_eq!(all[0]["payload_is_text"], false);
    assert_eq!(all[1]["attempts"], 1);
    assert_eq!(all[1]["payload"], message("later", json!({"do": "succeed-at", "attempt": 2})));
    assert!(all[0].get("message_id").is_none());

    let limited = dead(&redis, &["list", "--limit", "2"]);
    assert_eq!(limited.stdout.lines().count(), 3);
    assert!(limited.stderr.contains("--limit"), "{}", limited.stderr);
}

#[test]
fn dead_letters_are_chosen_by_id_by_reason_and_by_time() {
    let redis = with_dead_letters();
    let ids = |words: &[&str]| -> Vec<String> {
        let words = [&["list", "--json"], words].concat();
        let letters = objects(&done(&redis, &words));
        letters.iter().map(|letter| letter["message_id"].as_str().unwrap_or("-").to_owned()).collect()
    };
    assert_eq!(ids(&["--id", "rejected"]), ["rejected"]);
    assert_eq!(ids(&["--id", "failed", "--id", "later"]), ["later", "failed"]);
    assert_eq!(ids(&["--reason", "plugin-failed", "--reason", "not-utf8"]), ["-", "failed"]);
    assert_eq!(ids(&["--id", "failed", "--reason", "not-utf8"]), [""; 0]);
    assert_eq!(ids(&["--since", "1h"]).len(), 4);
    assert_eq!(ids(&["--since", "2100-01-01T00:00:00Z"]).len(), 0);
    let letters = redis.dead_letters();
    let third = letters[2].text("time").to_owned();
    let since = ids(&["--since", &third]);
    assert!(since.len() >= 2 && !since.contains(&"failed".to_owned()) || third == letters[0].text("time"), "{since:?}");
    let entry = letters[1].id().to_owned();
    assert_eq!(ids(&["--id", &entry]), ["rejected"]);
    let nonsense = dead(&redis, &["list", "--since", "yesterday"]);
    assert_eq!(nonsense.code, Some(2));
    assert!(nonsense.stderr.contains("2026-01-31T12:00:00Z"), "{}", nonsense.stderr);
}

#[test]
fn an_unknown_reason_is_answered_with_those_that_exist() {
    let redis = Redis::start();
    for command in ["list", "replay", "purge"] {
        let ended = dead(&redis, &[command, "--reason", "nope"]);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        for reason in ["nope", "too-big", "plugin-failed", "host-killer"] {
            assert!(ended.stderr.contains(reason), "{reason} in {}", ended.stderr);
        }
    }
}

#[test]
fn the_list_keeps_the_last_words_of_a_long_error() {
    let redis = Redis::start();
    let _host = one_attempt(&redis).ready(&redis, 1);
    let reason = format!("the first words {} the last words", "x".repeat(400));
    Publisher::new(&redis).publish(message("m", json!({"do": "reject", "reason": reason})));
    redis.dead_letter_of("m");
    let table = done(&redis, &["list"]);
    for part in ["the plugin rejected the message", "…xxx", "xx the last words\n"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert!(!table.contains(&reason));
}

#[test]
fn a_reader_that_has_left_ends_a_command_quietly_and_a_full_disk_with_a_sentence() {
    let redis = with_dead_letters();
    for (words, code_when_full) in [
        (["list"].as_slice(), Some(1)),
        (&["list", "--json"], Some(1)),
        (&["show", "failed"], Some(1)),
        (&["replay", "--id", "failed"], Some(1)),
        (&["replay", "--id", "rejected"], Some(1)),
        (&["purge", "--id", "later", "--yes"], Some(1)),
    ] {
        let run = |stdout: Stdio, stderr: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_host"));
            command
                .arg("dead")
                .args(words)
                .args(["--redis", &redis.url()])
                .stdout(stdout)
                .stderr(stderr)
                .output()
                .unwrap()
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let left = run(writer.into(), Stdio::piped());
        assert_eq!(left.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&left.stderr));
        let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let ended = run(full(), Stdio::piped());
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), code_when_full, "{words:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{words:?}: {stderr}");
        assert_eq!(run(full(), full()).status.code(), code_when_full, "{words:?}");
    }
}

#[test]
fn a_dead_letter_is_shown_whole_by_its_message_or_its_entry() {
    let redis = with_dead_letters();
    let payload = message("failed", json!({"do": "fail", "reason": "no such\ncustomer"}));
    let entry = redis.dead_letter_of("failed").id().to_owned();
    for id in ["failed", &entry] {
        let text = done(&redis, &["show", id]);
        assert!(text.ends_with(&format!("payload:\n{payload}\n")), "{text}");
        for field in ["message_id: failed", "reason: plugin-failed", "attempts: 1", "token: ", "plugin_digest: "] {
            assert!(text.contains(field), "{field} in {text}");
        }
        let objects = objects(&done(&redis, &["show", id, "--json"]));
        assert_eq!(objects.len(), 1);
        assert_eq!((&objects[0]["entry"], &objects[0]["payload"]), (&json!(entry), &json!(payload)));
    }
    let missing = dead(&redis, &["show", "nobody"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("nobody") && missing.stderr.contains("host dead list"), "{}", missing.stderr);
}

#[test]
fn on_a_terminal_a_payload_cannot_act_on_the_terminal() {
    let redis = Redis::start();
    let host = one_attempt(&redis).ready(&redis, 1);
    // Clears the screen, sets the title with a control character of the second kind, and turns the direction of text round.
    let payload = "{\"message_id\":7,\n\"note\":\"\u{1b}[2J\u{9d}0;owned\u{7}\u{202e}\u{2028}\"}";
    Publisher::new(&redis).publish(payload);
    wait_until("a dead letter", || redis.length(DEAD) == 1);
    host.stop();
    let entry = redis.dead_letters()[0].id().to_owned();
    let shown = |words: &[&str]| {
        let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let output = Command::new("python3")
            .args(["-c", terminal, env!("CARGO_BIN_EXE_host"), "dead", "show", &entry, "--redis", &redis.url()])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .expect("run python3");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n")
    };
    let text = shown(&[]);
    assert!(text.contains("\n\"note\":\"\\u{1b}[2J\\u{9d}0;owned\\u{7}\\u{202e}\\u{2028}\"}"), "{text:?}");
    let json = shown(&["--json"]);
    assert!(json.contains("\\u009d0;owned\\u0007\\u202e\\u2028"), "{json:?}");
    // Whoever wants the bytes gets the bytes.
    assert!(shown(&["--raw"]).contains(payload));
    assert!(done(&redis, &["show", &entry]).ends_with(&format!("payload:\n{payload}\n")));
}

#[test]
fn a_replayed_dead_letter_is_tried_from_its_first_attempt() {
    let redis = with_dead_letters();
    let _host = Host::on(&redis).ready(&redis, 2);
    assert_eq!(done(&redis, &["replay", "--id", "later"]), "replayed 1 dead letters\n");
    redis.result_of("later");
    assert_eq!(redis.length(DEAD), 3);
    // Rejected again: it becomes a dead letter again, and the old one is gone.
    let before = redis.dead_letter_of("rejected");
    done(&redis, &["replay", "--reason", "plugin-rejected"]);
    wait_until("another dead letter", || {
        redis
            .dead_letters()
            .iter()
            .any(|letter| letter.bytes("message_id") == Some(b"rejected") && letter.id() != before.id())
    });
    let again = redis.dead_letter_of("rejected");
    assert_eq!((again.text("token"), again.text("attempts")), (before.text("token"), "1"));
}

#[test]
fn what_never_was_a_message_cannot_be_replayed_and_is_counted() {
    let redis = with_dead_letters();
    let ended = dead(&redis, &["replay", "--all"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(ended.stdout, "replayed 3 dead letters\n");
    assert!(ended.stderr.contains("1 cannot be replayed"), "{}", ended.stderr);
    assert_eq!((redis.length(DEAD), redis.length(INBOX)), (1, 3));
    // A later replay finds them in the inbox.
    let _host = Host::on(&redis).ready(&redis, 1);
    redis.result_of("later");
}

#[test]
fn an_id_that_was_processed_meanwhile_is_not_processed_again() {
    let redis = Redis::start();
    let host = one_attempt(&redis).arg("--dedup-window", "1s").arg("--intake-lease", "500ms").ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    for id in ["again", "alone"] {
        publisher.publish(healing(id));
        redis.dead_letter_of(id);
    }
    let claimed = |id: &str| redis.run::<bool>(cmd("EXISTS").arg(format!("{{messages:processed}}:claim:{id}")));
    wait_until("the end of the window", || !claimed("again") && !claimed("alone"));
    host.stop();
    let host = Host::on(&redis).arg("--log-format", "json").arg("--report-interval", "100ms").ready(&redis, 1);
    publisher.publish(message("again", json!({})));
    redis.result_of("again");
    assert_eq!(done(&redis, &["replay", "--all"]), "replayed 2 dead letters\n");
    redis.result_of("alone");
    host.wait_for_report("one duplicate", |report| report["duplicates"] == 1);
    expect_each_once(&redis, ["again".into(), "alone".into()]);
}

#[test]
fn thousands_are_replayed_by_several_at_once_and_give_one_result_each() {
    let redis = Redis::start();
    let host = one_attempt(&redis).ready(&redis, 4);
    let ids: Vec<String> = (0..5_000).map(|n| format!("d-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| healing(id)));
    wait_until("a dead letter each", || redis.length(DEAD) == ids.len());
    host.stop();
    let _hosts = [Host::ready(&redis, 4), Host::ready(&redis, 4)];
    let replay = || Launch::subcommand("dead").words(&["replay", "--since", "1h"]).arg("--redis", redis.url()).start();
    let replayed: u64 = [replay(), replay(), replay()]
        .into_iter()
        .map(|running| {
            let ended = running.ended();
            // A command that comes after all the others finds no dead letters.
            assert!(matches!(ended.code, Some(0 | 1)), "{}", ended.stderr);
            let count = ended.stdout.split(' ').nth(1).expect("a sentence with a number");
            count.replace(',', "").parse::<u64>().expect("a number")
        })
        .sum();
    assert_eq!(replayed, 5_000);
    expect_each_once(&redis, ids);
}

#[test]
fn dead_letters_are_purged_only_when_somebody_says_so() {
    let redis = with_dead_letters();
    for (words, part) in
        [(["purge", "--all"].as_slice(), "--yes"), (&["purge", "--yes"], "--all"), (&["replay"], "--all")]
    {
        let refused = dead(&redis, words);
        assert_eq!(refused.code, Some(2), "{words:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(part), "{words:?}: {}", refused.stderr);
    }
    assert_eq!(redis.length(DEAD), 4);
    assert_eq!(done(&redis, &["purge", "--reason", "plugin-failed", "--yes"]), "purged 1 dead letters\n");
    assert_eq!(redis.length(DEAD), 3);
    let nothing = dead(&redis, &["purge", "--id", "failed", "--yes"]);
    assert_eq!(nothing.code, Some(1), "{}", nothing.stderr);
    assert_eq!(done(&redis, &["purge", "--all", "--yes"]), "purged 3 dead letters\n");
    assert_eq!(done(&redis, &["purge", "--all", "--yes"]), "purged 0 dead letters\n");
    assert_eq!((redis.length(DEAD), redis.length(OUTPUT)), (0, 0));
    assert!(dead(&redis, &["list"]).stderr.contains("no dead letter"));
}

#[test]
fn on_a_terminal_a_purge_asks_first() {
    let redis = with_dead_letters();
    for (answer, left) in [("n", 4), ("", 4), ("y", 0)] {
        let binary = env!("CARGO_BIN_EXE_host");
        // Python gives the command a terminal.
        let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let mut terminal = Command::new("python3")
            .args(["-c", terminal, binary, "dead", "purge", "--all", "--redis", &redis.url()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("run python3");
        let mut keyboard = terminal.stdin.take().unwrap();
        keyboard.write_all(format!("{answer}\n").as_bytes()).unwrap();
        let mut screen = String::new();
        terminal.stdout.take().unwrap().read_to_string(&mut screen).unwrap();
        drop(keyboard);
        assert!(terminal.wait().unwrap().success(), "{screen}");
        assert!(screen.contains("delete 4 dead letters permanently? [y/N]"), "{screen}");
        assert_eq!(redis.length(DEAD), left, "{answer:?}: {screen}");
    }
}

#[test]
fn dead_letters_need_a_redis_that_answers_and_one_that_is_not_private() {
    let redis = Redis::start();
    assert_eq!(
        Launch::subcommand("dead")
            .words(&["list"])
            .arg("--redis", "embedded")
            .env("XDG_RUNTIME_DIR", redis.folder())
            .run()
            .code,
        Some(3)
    );
    let port = crate::support::redis::free_port();
    let nobody = Launch::subcommand("dead").words(&["list"]).arg("--redis", format!("redis://127.0.0.1:{port}")).run();
    assert_eq!(nobody.code, Some(3), "{}", nobody.stderr);
    redis.run::<()>(cmd("SET").arg(DEAD).arg("something else"));
    let wrong = dead(&redis, &["list"]);
    assert_eq!(wrong.code, Some(3), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("WRONGTYPE"), "{}", wrong.stderr);
}
