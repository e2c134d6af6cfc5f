//! A running host reads its configuration again: the number of consumers, the plugin's path, its limits and its own
//! configuration follow at once, anything else at the next start.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::flow::{self, CONFIGURATION_REFUSED, CONSUMERS_CHANGED, IN_USE, PER_SECOND, REFUSED, ROLLED_BACK};
use crate::support::host::Launch;
use crate::support::records::OUTPUT;
use crate::support::{BOUND, Flow, Publisher, Redis, Release, Signal, message, puppet, wait_for};

/// A flow through a host with a configuration file.
struct Configured {
    flow: Flow,
    file: PathBuf,
}

impl Configured {
    /// Starts a host with so many consumers and these sections; further options are flags.
    fn start(first: &Release, consumers: usize, sections: &str, options: &[(&str, &str)]) -> Configured {
        let redis = Redis::start();
        let file = redis.folder().join("host.toml");
        fs::create_dir(flow::plugin_folder(&redis)).unwrap();
        first.write_to(&flow::plugin_folder(&redis).join("plugin.wasm"));
        fs::write(&file, text(&redis, "plugin.wasm", consumers, sections)).unwrap();
        let launch =
            Launch::bare().arg("--config", &file).arg("--log-format", "json").arg("--report-interval", "200ms");
        let launch =
            options.iter().fold(launch.switch("--output-plugin-digest"), |all, (name, value)| all.arg(name, value));
        let host = launch.ready_as_configured(&redis, consumers);
        Configured { flow: Flow::through(redis, host, first), file }
    }

    /// Writes the file again.
    fn change(&self, plugin: &str, consumers: usize, sections: &str) {
        fs::write(&self.file, text(&self.flow.redis, plugin, consumers, sections)).unwrap();
    }

    /// Publishes one message besides the traffic.
    fn publish(&mut self, id: &str, properties: Value) {
        Publisher::new(&self.flow.redis).publish(message(id, properties));
        self.flow.also_published([id.to_owned()]);
    }
}

/// The configuration file of a host on this Redis.
fn text(redis: &Redis, plugin: &str, consumers: usize, sections: &str) -> String {
    let plugin = flow::plugin_folder(redis).join(plugin);
    format!("plugin = {plugin:?}\nconsumers = {consumers}\n[redis]\nurl = {:?}\n{sections}", redis.url())
}

/// Grows and shrinks the host through this way of reloading, under traffic and with long calls.
fn expect_resized(options: &[(&str, &str)], tell: impl Fn(&Flow)) {
    let a = Release::new("A");
    let mut host = Configured::start(&a, 4, "", options);
    for (count, (from, to)) in [(4, 12), (12, 3), (3, 1), (1, 5)].into_iter().enumerate() {
        for number in 0..from {
            host.publish(&format!("slow-{from}-{number}"), json!({"ms": 300}));
        }
        host.change("plugin.wasm", to, "");
        tell(&host.flow);
        let line = host.flow.wait_for_logged(CONSUMERS_CHANGED, count + 1).remove(count);
        assert_eq!((&line["from"], &line["to"]), (&json!(from), &json!(to)), "{line}");
        let ids: HashSet<String> = host.flow.redis.wait_for_consumers(to).into_iter().collect();
        assert_eq!(ids.len(), to);
        // Results come from these consumers only, as soon as the deliveries in progress are finished.
        let redis = &host.flow.redis;
        wait_for("work of all consumers on the list and nobody else", BOUND, || {
            let before = redis.length(OUTPUT);
            host.flow.wait_for_more(PER_SECOND / 4);
            let new = redis.output().split_off(before);
            let workers: HashSet<String> = new.iter().map(|entry| entry.text("consumer_id").to_owned()).collect();
            if workers == ids { Ok(()) } else { Err(format!("{workers:?} instead of {ids:?}")) }
        });
    }
    host.flow.finish_with_turns(&["A"]);
}

#[test]
fn the_number_of_consumers_follows_the_file() {
    expect_resized(&[], |_| {});
}

#[test]
fn the_number_of_consumers_follows_the_file_when_the_host_is_told_to_look() {
    expect_resized(&[("--watch", "off")], |flow| flow.host.signal(Signal::Hangup));
}

#[test]
fn the_plugins_path_follows_the_file() {
    let (a, b, c) = (Release::new("A"), Release::new("B"), Release::new("C"));
    let mut host = Configured::start(&a, 4, "", &[]);
    let other = host.flow.folder().join("other.wasm");
    b.write_to(&other);
    host.flow.expect(&b);
    host.change("other.wasm", 4, "");
    host.flow.wait_for_results_of(&b);
    // From now on the plugin is this file.
    Release::new("nobody's").write_to(&host.flow.plugin());
    host.flow.wait_for_more(PER_SECOND / 2);
    host.flow.expect(&c);
    c.write_to(&other);
    host.flow.wait_for_results_of(&c);
    host.flow.finish_with_turns(&["A", "B", "C"]);
}

#[test]
fn limits_follow_the_file() {
    let a = Release::new("A");
    let limit = |time: &str| format!("[limits]\ntime_max = {time:?}\n[retry]\nattempts_max = 1\n");
    let mut host = Configured::start(&a, 4, &limit("200ms"), &[]);
    let slow = message("too-slow", json!({"ms": 1_000}));
    Publisher::new(&host.flow.redis).publish(&slow);
    assert_eq!(host.flow.redis.dead_letter_of("too-slow").text("reason"), "plugin-timed-out");
    host.change("plugin.wasm", 4, &limit("20s"));
    let line = host.flow.wait_for_logged(IN_USE, 1).remove(0);
    assert_eq!((&line["digest"], &line["generation"]), (&json!(a.digest[..12]), &json!(2)), "{line}");
    host.publish("slow", json!({"ms": 1_000}));
    host.flow.redis.result_of("slow");
    host.flow.pause();
    assert_eq!(host.flow.redis.dead_letters().len(), 1);
}

#[test]
fn limits_with_which_the_plugin_does_not_start_are_refused() {
    let a = Release::new("A");
    let mut host = Configured::start(&a, 4, "", &[]);
    host.change("plugin.wasm", 4, "[limits]\nmemory_bytes_max = \"64KiB\"\n");
    let line = host.flow.wait_for_logged(REFUSED, 1).remove(0);
    assert!(line["message"].as_str().unwrap().contains("memory"), "{line}");
    // Once more as it was, and then another version as ever.
    host.change("plugin.wasm", 4, "");
    host.flow.change_to(&Release::new("B"));
    host.flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn limits_that_fail_what_the_ones_before_allowed_are_rolled_back() {
    let a = Release::new("A");
    let limit = |time: &str| format!("[limits]\ntime_max = {time:?}\n[reload]\nprobation_time = \"10m\"\n");
    let mut host = Configured::start(&a, 4, &limit("20s"), &[]);
    host.change("plugin.wasm", 4, &limit("100ms"));
    host.flow.wait_for_logged(IN_USE, 1);
    for number in 0..3 {
        host.publish(&format!("slow-{number}"), json!({"ms": 500}));
    }
    let line = host.flow.wait_for_logged(ROLLED_BACK, 1).remove(0);
    assert_eq!((&line["bad"], &line["digest"]), (&json!(a.digest[..12]), &json!(a.digest[..12])), "{line}");
    host.publish("slow-at-last", json!({"ms": 500}));
    host.flow.finish_with_turns(&["A"]);
}

#[test]
fn a_wrong_file_is_refused_and_the_configuration_in_use_goes_on() {
    // Large, so that each change falls into the time in which the host reads the plugin because of the one before.
    let a = Release::new("A").with_section("A", &vec![0; 32 << 20]);
    let b = Release::new("B");
    let mut host = Configured::start(&a, 4, "", &[]);
    let wrong = [("consumers = 10001\n", "from 0 to 10000"), ("consumer = 1\n", "consumers"), ("[redis", "TOML")];
    for (count, (text, words)) in wrong.into_iter().enumerate() {
        fs::write(&host.file, text).unwrap();
        let line = host.flow.wait_for_logged(CONFIGURATION_REFUSED, count + 1).remove(count);
        assert_eq!(line["level"], "WARN", "{line}");
        let said = line["message"].as_str().unwrap();
        assert!(said.contains("host.toml:1:") && said.contains(words), "no {words:?} in {line}");
    }
    // The file of the plugin is watched as before, and the configuration again when it is right.
    host.flow.change_to(&b);
    host.change("plugin.wasm", 6, "");
    host.flow.redis.wait_for_consumers(6);
    host.flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn what_cannot_change_while_a_host_runs_is_warned_of() {
    let a = Release::new("A");
    let host = Configured::start(&a, 4, "", &[]);
    let elsewhere = text(&host.flow.redis, "plugin.wasm", 4, "").replace("redis://127.0.0.1:", "redis://127.0.0.2:");
    fs::write(&host.file, elsewhere).unwrap();
    let is_it = |line: &Value| {
        let message = line["message"].as_str().unwrap_or_default();
        line["level"] == "WARN" && line.to_string().contains("redis.url") && message.contains("next start")
    };
    wait_for("a warning", BOUND, || {
        if host.flow.logged("").iter().any(is_it) { Ok(()) } else { Err(host.flow.host.log()) }
    });
    host.flow.finish_with_turns(&["A"]);
}

#[test]
fn the_plugins_own_configuration_follows_the_file() {
    let puppet = Release::of("puppet", fs::read(puppet()).unwrap());
    let greeting = |text: &str| format!("[plugin_config]\ngreeting = {text:?}\n");
    let mut host = Configured::start(&puppet, 4, &greeting("good morning"), &[]);
    host.publish("before", json!({"do": "config", "key": "greeting"}));
    assert_eq!(host.flow.redis.result_of("before").text("value"), "good morning");
    host.change("plugin.wasm", 4, &greeting("good evening"));
    let line = host.flow.wait_for_logged(IN_USE, 1).remove(0);
    assert_eq!((&line["digest"], &line["generation"]), (&json!(puppet.digest[..12]), &json!(2)), "{line}");
    host.publish("after", json!({"do": "config", "key": "greeting"}));
    assert_eq!(host.flow.redis.result_of("after").text("value"), "good evening");
    assert!(!host.flow.host.log().contains("good "), "values may be secrets");
    host.flow.finish_with_turns(&["puppet"]);
}
