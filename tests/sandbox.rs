//! The rights of a plugin, the lifetime of its instances, its log, and the cache.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::support::guests::http;
use crate::support::records::OUTPUT;
use crate::support::{Host, Publisher, Redis, message};

/// Lets the puppet try something in a host where there is something to find, and returns the outcome.
fn attempt(what: &str, target: &str) -> (bool, String) {
    let redis = Redis::start();
    let host = Host::on(&redis).env("A_SECRET", "of the host").ready(&redis, 1);
    let target = target.replace("{redis}", &format!("127.0.0.1:{}", redis.port()));
    let target = target.replace("{folder}", &redis.folder().display().to_string());
    fs::write(redis.folder().join("secret.txt"), "a secret").unwrap();

    let order = json!({"do": "try", "what": what, "target": target});
    Publisher::new(&redis).publish(message("attempt", order));
    let result = redis.result_of("attempt");
    assert_eq!(fs::read_to_string(redis.folder().join("secret.txt")).unwrap(), "a secret");
    assert!(!redis.folder().join("new.txt").exists());
    // The instance stays in use.
    Publisher::new(&redis).publish(message("after", json!({})));
    redis.result_of("after");
    host.stop();
    (result.text("granted") == "true", result.text("answer").to_owned())
}

/// Requires that the guest gets an error, and that the host does nothing.
fn expect_denied(attempts: &[(&str, &str)]) {
    for (what, target) in attempts {
        let (granted, answer) = attempt(what, target);
        assert!(!granted, "{what} {target}: {answer}");
        assert!(!answer.is_empty() && !answer.contains("the puppet cannot"), "{what} {target}: {answer}");
    }
}

#[test]
fn there_are_no_files() {
    expect_denied(&[
        ("read-file", "{folder}/secret.txt"),
        ("read-file", "Cargo.toml"),
        ("write-file", "{folder}/new.txt"),
        ("delete-file", "{folder}/secret.txt"),
        ("list-folder", "/"),
        ("list-folder", "."),
    ]);
}

#[test]
fn there_is_no_environment_and_there_are_no_arguments() {
    expect_denied(&[("environment", ""), ("arguments", "")]);
}

#[test]
fn there_is_no_network() {
    expect_denied(&[("tcp", "{redis}"), ("tcp-listen", ""), ("udp", ""), ("lookup", "localhost")]);
}

#[test]
fn standard_input_is_closed() {
    expect_denied(&[("stdin", "")]);
}

#[test]
fn no_process_can_be_started() {
    expect_denied(&[("spawn", "/bin/true"), ("spawn", "true")]);
}

#[test]
fn http_is_there_to_be_linked_and_a_call_of_it_is_a_trap() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--plugin", http()).ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("quiet", json!({})));
    redis.result_of("quiet");
    publisher.publish(message("caller", json!({"do": "request"})));
    let letter = redis.dead_letter_of("caller");
    assert_eq!(letter.text("reason"), "plugin-trapped");
    let error = letter.text("error");
    assert!(error.contains("wasi:http/types") && error.contains("not granted"), "{error}");
    publisher.publish(message("after", json!({})));
    redis.result_of("after");
}

#[test]
fn clocks_and_randomness_work() {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let (granted, answer) = attempt("clock", "");
    assert!(granted && answer.parse::<u64>().unwrap().abs_diff(now) < 600, "{answer}");
    let random: Vec<(bool, String)> = (0..2).map(|_| attempt("random", "")).collect();
    assert!(random[0].0 && random[0] != random[1], "{random:?}");
}

/// How many calls its instance had served at each of these messages, on one consumer.
fn calls(options: &[&str], messages: usize) -> Vec<u64> {
    let redis = Redis::start();
    let launch = options.iter().fold(Host::on(&redis), |launch, option| launch.switch(option));
    let _host = launch.ready(&redis, 1);
    Publisher::new(&redis).publish_all((0..messages).map(|n| message(&format!("s-{n}"), json!({"do": "state"}))));
    redis.wait_for_settled(messages);
    assert_eq!(redis.length(OUTPUT), messages);
    (0..messages).map(|n| redis.result_of(&format!("s-{n}")).text("calls").parse().unwrap()).collect()
}

#[test]
fn an_instance_serves_one_message_after_another() {
    assert_eq!(calls(&[], 6), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn with_an_instance_for_each_message_nothing_survives() {
    assert_eq!(calls(&["--instance-per-message"], 6), [1; 6]);
}

#[test]
fn an_instance_retires_after_its_messages() {
    assert_eq!(calls(&["--max-instance-messages=2"], 5), [1, 2, 1, 2, 1]);
}

#[test]
fn log_lines_carry_consumer_message_generation_and_level() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--log-format", "json").ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("logged", json!({"do": "log", "level": "warn", "text": "by wasi:logging"})));
    publisher.publish(message("printed", json!({"do": "print", "text": "by println"})));
    let consumer = redis.result_of("logged").text("consumer_id").to_owned();
    redis.result_of("printed");
    host.wait_for_log("by println");
    let log = host.stop().stderr;
    let lines = |text: &str, context: &str| -> Vec<Value> {
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == text && line["context"] == context).collect()
    };
    for (text, context, id, level) in [
        ("by wasi:logging", "puppet", "logged", "WARN"),
        ("by println", "stdout", "printed", "INFO"),
        ("by println", "stderr", "printed", "INFO"),
    ] {
        let found = lines(text, context);
        let [line] = &found[..] else { panic!("{context}: {log}") };
        assert_eq!(
            (&line["level"], &line["consumer"], &line["message_id"], &line["generation"]),
            (&json!(level), &json!(consumer), &json!(id), &json!(1)),
        );
    }
}

#[test]
fn compiled_plugins_are_kept_in_a_folder_of_the_user_alone() {
    let redis = Redis::start();
    let cache = redis.folder().join("cache");
    let launch = || Host::on(&redis).env("XDG_CACHE_HOME", &cache).arg("--log-level", "debug");
    launch().switch("--no-cache").ready(&redis, 1).stop();
    assert!(!cache.exists(), "without a cache");

    launch().ready(&redis, 1).stop();
    let folder = cache.join("host/compiled");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let kept = || files(&folder);
    let first = kept();
    assert!(!first.is_empty());
    launch().ready(&redis, 1).stop();
    assert_eq!(kept(), first, "a second start compiles nothing");

    // A broken cache entry is compiled again.
    for file in &first {
        fs::write(file, "rubbish").unwrap();
    }
    let host = launch().ready(&redis, 1);
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.result_of("m");
    host.stop();
}

#[test]
fn a_cache_that_cannot_be_used_is_a_warning() {
    let redis = Redis::start();
    let file = redis.folder().join("file");
    fs::write(&file, "").unwrap();
    let open = redis.folder().join("open");
    fs::create_dir_all(open.join("host/compiled")).unwrap();
    fs::set_permissions(open.join("host/compiled"), fs::Permissions::from_mode(0o777)).unwrap();
    let below = redis.folder().join("below");
    fs::create_dir_all(below.join("host/compiled")).unwrap();
    fs::set_permissions(below.join("host/compiled"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(below.join("host"), fs::Permissions::from_mode(0o777)).unwrap();
    let of_parent = format!("other users may write to the folder above, {}", below.join("host").display());
    let start = |folder: &std::path::Path| Host::on(&redis).env("XDG_CACHE_HOME", folder);
    for (folder, words) in
        [(&file, "cannot create the folder"), (&open, "other users may write to the folder"), (&below, &*of_parent)]
    {
        let log = start(folder).ready(&redis, 1).stop().stderr;
        assert!(log.contains(words) && log.contains("--no-cache"), "{log}");
    }
    let log = start(&below).switch("--trust-cache-folder").ready(&redis, 1).stop().stderr;
    assert!(!log.contains("not cached"), "{log}");
    assert!(!files(&below.join("host/compiled")).is_empty());
}

/// All compiled plugins below a folder.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_none() {
            found.push(path);
        }
    }
    found.sort();
    found
}
