//! Changes of the plugin at the worst of times: in quick succession, during a long call, without Redis, and with a
//! component that takes seconds to compile.

use std::fs;

use serde_json::json;
use tempfile::tempdir;

use crate::support::flow::{self, IN_USE};
use crate::support::guests::large;
use crate::support::host::{Launch, Thread};
use crate::support::records::OUTPUT;
use crate::support::{
    BOUND, Flow, Host, Publisher, Redis, Release, expect_each_once, message, puppet, wait_for, wait_until,
};

/// How much more memory a host may have after a hundred swaps than after twenty; eighty versions that stay are more.
const KEPT_BYTES_MAX: u64 = 8 << 20;

#[test]
fn there_and_back_in_quick_succession() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::start(&a);
    for version in [&b, &a, &b, &a] {
        flow.change_to(version);
    }
    let (account, host) = flow.finish();
    account.expect_turns(&["A", "B", "A", "B", "A"]);
    host.wait_for_report("four swaps", |report| report["swaps"] == 4 && report["generation"] == 5);
}

#[test]
fn a_hundred_swaps_as_fast_as_they_are_taken_leave_no_memory_behind() {
    let versions: Vec<Release> = (0..=100).map(|number| Release::new(&format!("V{number}"))).collect();
    // Every version is compiled, whatever other tests have left in their cache.
    let cache = tempdir().unwrap();
    let mut flow =
        Flow::with(&versions[0], |launch| launch.arg("--watch-quiet", "20ms").env("XDG_CACHE_HOME", cache.path()));
    let mut after_twenty = 0;
    for (number, version) in versions.iter().enumerate().skip(1) {
        flow.change_to(version);
        if number == 20 {
            after_twenty = flow.host.resident_bytes();
        }
    }
    // Messages that wait, and versions that consumers have yet to leave, take memory for a while.
    wait_for("the memory of old versions to be free", BOUND, || {
        let after_all = flow.host.resident_bytes();
        let is_free = after_all < after_twenty + KEPT_BYTES_MAX;
        if is_free { Ok(()) } else { Err(format!("{after_twenty} bytes after 20 swaps, {after_all} after 100")) }
    });
    let (account, host) = flow.finish();
    account.expect_turns(&versions.iter().map(|version| version.name.as_str()).collect::<Vec<_>>());
    host.wait_for_report("a hundred swaps", |report| report["swaps"] == 100 && report["rollbacks"] == 0);
}

#[test]
fn a_long_call_ends_in_the_version_in_which_it_began() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::with(&a, |launch| launch.arg("--max-plugin-time", "30s"));
    Publisher::new(&flow.redis).publish(message("slow", json!({"ms": 6_000})));
    flow.redis.wait_until_in_work("slow");
    // The other consumers go over while this call lasts.
    flow.change_to(&b);
    assert!(flow.redis.results_of("slow").is_empty(), "the call outlasts the change");
    assert_eq!(flow.redis.result_of("slow").text("version"), "A");
    flow.also_published(["slow".to_owned()]);
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn a_version_that_comes_while_redis_is_away_is_taken() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let redis = Redis::start_with(&["--save", "", "--appendonly", "yes", "--appendfsync", "no"]);
    let mut flow = Flow::on(redis, &a, |launch| launch);
    flow.pause();
    // In work when Redis goes away.
    let slow: Vec<String> = (0..400).map(|number| format!("slow-{number}")).collect();
    Publisher::new(&flow.redis).publish_all(slow.iter().map(|id| message(id, json!({"ms": 10}))));
    flow.redis.wait_until_received(&slow);
    flow.redis.kill();
    flow.deploy(&b);
    flow.wait_for_logged(IN_USE, 1);
    flow.redis.restart();
    flow.redis.wait_for_subscribers(1);
    flow.also_published(slow);
    flow.resume();
    flow.wait_for_results_of(&b);
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn the_flow_does_not_notice_that_a_component_of_megabytes_is_compiled() {
    let a = Release::new("A");
    let large = Release::of("large", fs::read(large()).unwrap()).fresh();
    let mut flow = Flow::start(&a);
    flow.deploy(&large);
    // The results of version A keep up with what is published while the new version is compiled.
    let mut kept_up = 0;
    while flow.logged(IN_USE).is_empty() {
        let published = flow.published();
        wait_until("results of all that was published", || flow.redis.length(OUTPUT) >= published);
        kept_up += 1;
    }
    assert!(kept_up > 10, "compiling took long enough to look many times, not {kept_up}");
    flow.wait_for_results_of(&large);
    flow.finish_with_turns(&["A", "large"]);
}

/// Whether a thread that compiles with this niceness has done some of the work.
fn has_compiled(host: &Host, niceness: i32) -> bool {
    let is_it = |thread: &Thread| thread.name.starts_with("compiler-") && thread.niceness == niceness;
    host.threads_of_children().iter().any(|thread| is_it(thread) && thread.has_computed)
}

#[test]
fn a_component_of_megabytes_is_compiled_at_a_rising_priority_while_the_processor_has_other_work() {
    let large = Release::of("large", fs::read(large()).unwrap()).fresh();
    let redis = Redis::start();
    let (folder, plugin) = (flow::plugin_folder(&redis), flow::plugin_folder(&redis).join("plugin.wasm"));
    fs::create_dir(&folder).unwrap();
    fs::copy(puppet(), &plugin).unwrap();
    let launch = Launch::on_one_processor(env!("CARGO_BIN_EXE_host")).arg("--redis", redis.url());
    let host = launch.arg("--plugin", &plugin).ready(&redis, flow::CONSUMERS);
    // The consumers compute all the time, and so do others on their processor.
    let busy = || Launch::on_one_processor("sh").words(&["-c", "while :; do :; done"]).start();
    let _others = [busy(), busy()];
    let ids: Vec<String> = (0..2_000).map(|number| format!("m-{number}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({"do": "burn", "ms": 200}))));
    wait_until("results of the first version", || redis.length(OUTPUT) > 0);

    let new = folder.join("new");
    large.write_to(&new);
    fs::rename(new, &plugin).unwrap();
    for niceness in [10, 5, 0] {
        wait_until(&format!("a compiling thread of niceness {niceness}"), || has_compiled(&host, niceness));
    }
    host.wait_for_log(IN_USE);
    // What waits is work for minutes as the first version does it, and for a moment as the new one does it.
    expect_each_once(&redis, ids);
}
