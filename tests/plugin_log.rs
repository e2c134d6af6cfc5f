//! A plugin's output appears in the host's log, and cannot be mistaken for another line.

use serde_json::{Value, json};

use crate::support::{Host, Publisher, Redis, message, wait_until};

#[test]
fn a_plugins_log_lines_name_the_consumer() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--log-format", "json").ready(&redis, 2);
    let order = json!({"do": "log", "level": "warn", "context": "orders", "text": "Füße are cold"});
    Publisher::new(&redis).publish(message("m", order));
    let worker = redis.result_of("m").text("consumer_id").to_owned();
    host.wait_for_log("Füße are cold");
    let log = host.log();
    let line = log.lines().find(|line| line.contains("Füße are cold")).unwrap();
    assert!(line.contains(&worker) && line.contains("orders") && line.contains("WARN"), "{line}");
}

#[test]
fn a_plugin_cannot_forge_a_log_line() {
    let redis = Redis::start();
    for format in ["text", "json"] {
        let host = Host::on(&redis).arg("--log-format", format).arg("--log-level", "debug").ready(&redis, 1);
        let text = format!("harmless\nforged-{format}\r\n\u{1b}[2Jcleared\u{7}");
        let mut publisher = Publisher::new(&redis);
        publisher.publish(message(&format!("log-{format}"), json!({"do": "log", "text": text, "context": text})));
        redis.result_of(&format!("log-{format}"));
        host.wait_for_log("harmless");
        let ended = host.stop();
        let begins_a_line = ended.stderr.lines().any(|line| line.starts_with("forged"));
        assert!(!begins_a_line && !ended.stderr.contains("\u{1b}[2J"), "{}", ended.stderr);
    }
}

#[test]
fn a_log_line_that_is_too_long_is_named_as_what_it_is() {
    let redis = Redis::start();
    let launch = Host::on(&redis).arg("--max-result-bytes", "1KiB").arg("--max-attempts", "1");
    let _host = launch.ready(&redis, 1);
    let mut publisher = Publisher::new(&redis);
    publisher.publish(message("line", json!({"do": "log", "text": "x".repeat(5_000)})));
    let letter = redis.dead_letter_of("line");
    let error = letter.text("error");
    assert_eq!(letter.text("reason"), "plugin-trapped", "{error}");
    assert!(error.contains("it passed more than 4096 bytes to the host at once, such as a log line"), "{error}");
    publisher.publish(message("result", json!({"do": "grow", "bytes": 5_000})));
    let letter = redis.dead_letter_of("result");
    assert_eq!(letter.text("reason"), "bad-result");
    assert!(letter.text("error").contains("the plugin's result is longer than 4096 bytes"), "{letter:?}");
}

#[test]
fn what_a_plugin_prints_goes_to_the_log_and_not_among_the_report_lines() {
    let redis = Redis::start();
    let launch = Host::on(&redis).arg("--log-format", "json").arg("--log-level", "debug");
    let host = launch.arg("--report-interval", "100ms").ready(&redis, 1);
    Publisher::new(&redis).publish(message("m", json!({"do": "print", "text": "printed by the plugin"})));
    redis.result_of("m");
    host.wait_for_log("printed by the plugin");
    let reports = host.reports().len();
    wait_until("more reports", || host.reports().len() > reports);
    assert!(host.reports().iter().all(Value::is_object));
    assert!(!host.written().contains("printed"), "{}", host.written());
}
