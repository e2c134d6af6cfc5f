//! Plugins that do their worst: their message gets the right outcome, the host stays alive, every other message is
//! processed, and the memory is freed.

use serde_json::{Value, json};

use crate::support::guests::{grows_at_start, loops_at_start, traps_at_start};
use crate::support::host::Launch;
use crate::support::records::{DEAD, OUTPUT};
use crate::support::{BOUND, Host, Publisher, Redis, message, wait_for};

/// Number of attacking messages.
const ATTACKS: usize = 3;
/// Number of other messages around each attack.
const OTHERS: usize = 40;
/// Maximum growth of the host's memory over an attack.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// A host with two consumers that have already worked, and its memory at that time.
struct Scene {
    redis: Redis,
    host: Host,
    before_bytes: u64,
    others: usize,
}

impl Scene {
    fn set(options: &[(&str, &str)]) -> Scene {
        let redis = Redis::start();
        // One attempt: what an attack does to the host does not depend on how often it is tried.
        let once = Host::on(&redis).arg("--max-attempts", "1");
        let launch = options.iter().fold(once, |launch, (name, value)| launch.arg(name, value));
        let host = launch.ready(&redis, 2);
        let mut scene = Scene { redis, host, before_bytes: 0, others: 0 };
        scene.publish_others();
        scene.redis.wait_for_settled(OTHERS);
        scene.before_bytes = scene.host.resident_bytes();
        scene
    }

    fn publish_others(&mut self) {
        let ids = self.others..self.others + OTHERS;
        self.others += OTHERS;
        Publisher::new(&self.redis).publish_all(ids.map(|n| message(&format!("other-{n}"), json!({}))));
    }

    /// Publishes the attack several times among other messages, and returns the ids of the attacks.
    fn attack(&mut self, name: &str, order: &Value) -> Vec<String> {
        let ids: Vec<String> = (0..ATTACKS).map(|n| format!("{name}-{n}")).collect();
        for id in &ids {
            self.publish_others();
            Publisher::new(&self.redis).publish(message(id, order.clone()));
        }
        self.publish_others();
        ids
    }

    /// Requires that every other message, including new ones, has exactly one result, and that the memory is freed.
    /// `results` and `letters` are those of the attacks.
    fn expect_survived(mut self, results: usize, letters: usize) {
        self.publish_others();
        self.redis.wait_for_settled(self.others + results + letters);
        self.redis.wait_for_an_empty_inbox();
        assert_eq!((self.redis.length(OUTPUT), self.redis.length(DEAD)), (self.others + results, letters));
        let mut ids: Vec<String> =
            self.redis.output().iter().map(|entry| entry.text("message_id").to_owned()).collect();
        ids.retain(|id| id.starts_with("other-"));
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), self.others);

        let bytes_max = self.before_bytes + KEPT_BYTES_MAX;
        wait_for("the memory to come back", BOUND, || match self.host.resident_bytes() {
            bytes if bytes <= bytes_max => Ok(()),
            bytes => Err(format!("{bytes} bytes, {} before the attack", self.before_bytes)),
        });
        self.host.stop();
    }
}

/// Requires that each attack ends as a dead letter with this reason and this error, and affects no other message.
fn expect_dead_letters(options: &[(&str, &str)], order: Value, reason: &str, words: &str) {
    let mut scene = Scene::set(options);
    let ids = scene.attack("bad", &order);
    for id in &ids {
        let letter = scene.redis.dead_letter_of(id);
        assert_eq!(letter.text("reason"), reason, "{}", letter.text("error"));
        assert!(letter.text("error").contains(words), "{}", letter.text("error"));
    }
    scene.expect_survived(0, ids.len());
}

#[test]
fn a_trap() {
    expect_dead_letters(&[], json!({"do": "trap"}), "plugin-trapped", "unreachable");
}

#[test]
fn a_panic_with_its_message() {
    let order = json!({"do": "panic", "reason": "what went wrong"});
    expect_dead_letters(&[], order, "plugin-trapped", "what went wrong");
}

#[test]
fn a_plugin_that_exits() {
    expect_dead_letters(&[], json!({"do": "exit", "code": 0}), "plugin-trapped", "exit");
    expect_dead_letters(&[], json!({"do": "exit", "code": 3}), "plugin-trapped", "exit");
}

#[test]
fn a_busy_loop() {
    let limits = [("--max-plugin-time", "300ms")];
    expect_dead_letters(&limits, json!({"do": "loop"}), "plugin-timed-out", "longer than 300ms");
}

#[test]
fn a_sleep_of_an_hour() {
    let limits = [("--max-plugin-time", "300ms")];
    expect_dead_letters(&limits, json!({"do": "sleep"}), "plugin-timed-out", "longer than 300ms");
}

#[test]
fn memory_eaten_little_by_little() {
    let limits = [("--max-plugin-time", "20s")];
    expect_dead_letters(&limits, json!({"do": "eat-memory"}), "plugin-memory", "more than 268435456 bytes");
}

#[test]
fn memory_eaten_at_once() {
    let order = json!({"do": "eat-at-once", "bytes": 2_000_000_000_u32});
    expect_dead_letters(&[], order, "plugin-memory", "more than 268435456 bytes");
}

#[test]
fn endless_recursion() {
    expect_dead_letters(&[], json!({"do": "recurse"}), "plugin-trapped", "stack");
}

#[test]
fn a_result_of_a_hundred_megabytes() {
    let limits = [("--max-plugin-time", "20s"), ("--max-plugin-memory", "1GiB")];
    expect_dead_letters(&limits, json!({"do": "grow", "bytes": 100_000_000}), "bad-result", "longer than");
}

#[test]
fn a_million_results() {
    let limits = [("--max-plugin-time", "20s")];
    expect_dead_letters(&limits, json!({"do": "many-results", "count": 1_000_000}), "bad-result", "result");
    expect_dead_letters(&limits, json!({"do": "many-results", "count": 1_001}), "bad-result", "more than 1000 results");
}

#[test]
fn results_that_are_no_objects() {
    expect_dead_letters(&[], json!({"do": "raw", "result": "{\"a\":"}), "bad-result", "");
    expect_dead_letters(&[], json!({"do": "raw", "result": "[1]"}), "bad-result", "");
}

#[test]
fn leaked_handles() {
    let limits = [("--max-plugin-time", "20s")];
    expect_dead_letters(&limits, json!({"do": "leak-handles"}), "plugin-trapped", "no free keys");
}

#[test]
fn forged_ids_are_replaced() {
    let mut scene = Scene::set(&[]);
    let ids = scene.attack("forger", &json!({"do": "forge"}));
    let consumers = scene.redis.consumer_ids();
    for id in &ids {
        let result = scene.redis.result_of(id);
        assert!(consumers.iter().any(|consumer| consumer == result.text("consumer_id")), "{result:?}");
        assert_eq!(result.text("kept"), "true");
    }
    scene.expect_survived(ids.len(), 0);
}

#[test]
fn a_log_flood_is_dropped_and_counted() {
    let lines = 20_000;
    let mut scene = Scene::set(&[("--log-format", "json"), ("--max-plugin-time", "20s")]);
    let ids = scene.attack("flood", &json!({"do": "log-flood", "lines": lines}));
    ids.iter().for_each(|id| drop(scene.redis.result_of(id)));
    let parsed = |log: String| -> Vec<Value> {
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    // Dropped lines are reported with the next message after a second.
    let dropped = wait_for("every dropped line to be counted", BOUND, || {
        let id = format!("late-{}", scene.others);
        Publisher::new(&scene.redis).publish(message(&id, json!({})));
        scene.redis.result_of(&id);
        scene.others += 1;
        let counts = parsed(complete(&scene.host.log()));
        let dropped: u64 = counts.iter().filter_map(|line| line["dropped"].as_u64()).sum();
        if dropped >= (ATTACKS * (lines - 100)) as u64 { Ok(dropped) } else { Err(format!("{dropped} counted")) }
    });
    let logged = scene.host.log().matches("of a flood").count();
    assert_eq!(logged as u64 + dropped, (ATTACKS * lines) as u64);
    assert!(logged <= ATTACKS * 100, "{logged} lines of the flood");
}

/// The complete lines of a log.
fn complete(log: &str) -> String {
    log[..log.rfind('\n').map_or(0, |end| end + 1)].to_owned()
}

#[test]
fn a_log_of_rubbish_stays_on_its_lines() {
    let mut scene = Scene::set(&[("--log-format", "json"), ("--log-level", "info,plugin=debug")]);
    let ids = scene.attack("rubbish", &json!({"do": "log-rubbish", "bytes": 300_000}));
    ids.iter().for_each(|id| drop(scene.redis.result_of(id)));
    scene.host.wait_for_log("stdout");
    for line in complete(&scene.host.log()).lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["level"].is_string(), "{line}");
        // Control characters are written out, at most six characters for a byte.
        assert!(line.len() < 64 << 10, "a line of {} bytes", line.len());
    }
    scene.expect_survived(ids.len(), 0);
}

#[test]
fn all_of_them_at_once() {
    let limits = [("--max-plugin-time", "500ms"), ("--log-level", "info,plugin=debug")];
    let mut scene = Scene::set(&limits);
    let deadly = ["trap", "panic", "exit", "loop", "sleep", "eat-memory", "recurse", "leak-handles"];
    let mut ids = Vec::new();
    for name in deadly {
        ids.extend(scene.attack(name, &json!({"do": name})));
    }
    for id in &ids {
        let reason = scene.redis.dead_letter_of(id).text("reason").to_owned();
        assert!(["plugin-trapped", "plugin-timed-out", "plugin-memory"].contains(&reason.as_str()), "{id}: {reason}");
    }
    scene.expect_survived(0, ids.len());
}

/// Requires that a host with this plugin does not start, and that the error contains these words.
fn expect_refused(launch: Launch, words: &[&str]) {
    let ended = launch.run();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in: {}", ended.stderr);
    }
}

#[test]
fn a_start_that_never_ends() {
    let redis = Redis::start();
    let launch = Host::on(&redis).arg("--plugin", loops_at_start()).arg("--max-plugin-time", "300ms");
    expect_refused(launch, &["does not start", "longer than 300ms", "--max-plugin-time"]);
}

#[test]
fn a_start_that_traps() {
    let redis = Redis::start();
    let launch = Host::on(&redis).arg("--plugin", traps_at_start());
    expect_refused(launch, &["does not start", "not today"]);
}

#[test]
fn a_start_that_takes_too_much_memory() {
    let redis = Redis::start();
    let greedy = || Host::on(&redis).arg("--plugin", grows_at_start()).arg("--max-plugin-time", "20s");
    expect_refused(
        greedy().arg("--max-plugin-memory", "32MiB"),
        &["does not start", "more than 33554432 bytes", "--max-plugin-memory"],
    );
    let _host = greedy().ready(&redis, 1);
}
