//! A version that goes bad quietly: it gets slow, it takes more and more memory, or it fails everything when its probation is
//! over. The host says so, and does what it can.

use redis::cmd;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::flow::{PROVED, ROLLED_BACK};
use crate::support::host::Launch;
use crate::support::{Flow, Host, Publisher, Redis, Release, expect_each_once, message, wait_until};

const SLOW: &str = "the new version of the plugin takes";
const GROWS: &str = "the memory of the new version of the plugin grows";
const INBOX_GROWS: &str = "the new version of the plugin stays on probation, because the inbox grows";

/// Whether the status of the host in Redis has this text.
fn status_has(flow: &Flow, text: &str) -> bool {
    let statuses: Vec<String> = flow.redis.run(cmd("HVALS").arg("{consumer:ids}:hosts"));
    statuses.iter().any(|status| status.contains(text))
}

#[test]
fn a_slow_version_is_warned_of_and_stays_on_probation_while_the_inbox_grows() {
    let (a, b) = (Release::new("A"), Release::failing("B", "slow", 1));
    let mut flow = Flow::with(&a, |launch| launch.arg("--probation-time", "0s").arg("--probation-messages", "100"));
    flow.wait_for_more(1_000);
    flow.change_to(&b);
    let warning = &flow.wait_for_logged(SLOW, 1)[0];
    assert_eq!((&warning["digest"], &warning["before"]), (&b.digest[..12].into(), &a.digest[..12].into()), "{warning}");
    flow.wait_for_logged(INBOX_GROWS, 1);
    wait_until("the status to tell", || status_has(&flow, "\"slow\":true"));
    assert!(flow.logged(PROVED).is_empty(), "{}", flow.host.log());
    let is_slow = |report: &Value| report["plugin_time_percent"].as_u64().is_some_and(|percent| percent > 500);
    flow.host.wait_for_report("the slowness", is_slow);
    // An inbox that gets shorter is no reason any more.
    flow.stop();
    flow.wait_for_logged(PROVED, 1);
    assert_eq!((flow.logged(SLOW).len(), flow.logged(ROLLED_BACK).len()), (1, 0), "{}", flow.host.log());
}

#[test]
fn a_slow_version_is_rolled_back_if_the_operator_wants_that() {
    let (a, b) = (Release::new("A"), Release::failing("B", "slow", 1));
    let mut flow = Flow::with(&a, |launch| launch.arg("--rollback-slowdown", "5"));
    flow.wait_for_more(1_000);
    flow.deploy(&b);
    let line = flow.wait_for_logged(ROLLED_BACK, 1).remove(0);
    assert!(line["message"].as_str().unwrap().contains("--rollback-slowdown is 5"), "{line}");
    assert_eq!((&line["bad"], &line["digest"]), (&b.digest[..12].into(), &a.digest[..12].into()), "{line}");
    flow.wait_for_results_of(&a);
    // No message was failed: it was slow, and that is all.
    let (_, host) = flow.finish();
    let report = host.wait_for_report("the rollback", |report| report["rollbacks"] == 1);
    assert_eq!((&report["retries"], &report["dead_letters"]), (&0.into(), &0.into()), "{report}");
}

#[test]
fn a_version_whose_memory_grows_is_warned_of() {
    let (a, b) = (Release::new("A"), Release::failing("B", "leak", 10));
    let mut flow = Flow::start(&a);
    flow.wait_for_more(1_000);
    flow.change_to(&b);
    let warning = &flow.wait_for_logged(GROWS, 1)[0];
    assert_eq!(warning["digest"], b.digest[..12], "{warning}");
    wait_until("the status to tell", || status_has(&flow, "\"leaking\":true"));
    flow.finish();
}

const FAILS: &str = "the plugin fails nearly everything";
const RECOVERED: &str = "the plugin processes messages again";

/// Publishes messages with which a version fails that fails only when it is provoked; gives their ids.
fn provoke(redis: &Redis, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|number| format!("provoke-{number}")).collect();
    Publisher::new(redis).publish_all(ids.iter().map(|id| message(id, json!({"provoke": true}))));
    ids
}

#[test]
fn a_version_that_fails_everything_after_its_probation_gives_way_to_the_good_one_before() {
    let (a, b) = (Release::new("A"), Release::failing("B", "fail", 0));
    let mut flow = Flow::with(&a, |launch| {
        let soon = launch.arg("--probation-time", "0s").arg("--probation-messages", "100");
        soon.arg("--heartbeat-interval", "100ms").arg("--heartbeat-ttl", "2s").arg("--max-attempts", "2")
    });
    flow.change_to(&b);
    flow.wait_for_logged(PROVED, 1);
    flow.pause();
    let provoked = provoke(&flow.redis, 500);
    flow.also_published(provoked);
    let line = flow.wait_for_logged(ROLLED_BACK, 1).remove(0);
    assert_eq!((&line["bad"], &line["digest"]), (&json!(b.digest[..12]), &json!(a.digest[..12])), "{line}");
    assert!(line["message"].as_str().unwrap().contains("failed 100 of the last 100 messages"), "{line}");
    flow.resume();
    flow.wait_for_results_of(&a);
    let (_, host) = flow.finish_at_any_attempt();
    let report = host.wait_for_report("the rollback", |report| report["rollbacks"] == 1);
    assert_eq!((&report["plugin_state"], &report["dead_letters"]), (&json!("rolled-back"), &json!(0)), "{report}");
}

#[test]
fn without_a_good_version_messages_wait_until_there_is_one() {
    let (a, bad) = (Release::new("A"), Release::failing("bad", "trap", 1));
    let (redis, folder) = (Redis::start(), tempdir().unwrap());
    let plugin = folder.path().join("plugin.wasm");
    bad.write_to(&plugin);
    let host = Host::on(&redis).arg("--plugin", &plugin).arg("--max-attempts", "2").arg("--retry-delay", "2s");
    let host = host.arg("--log-format", "json").arg("--report-interval", "200ms").ready(&redis, 4);
    let ids: Vec<String> = (0..1_000).map(|number| format!("m-{number}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({}))));
    host.wait_for_log(FAILS);
    host.wait_for_report("the state", |report| report["plugin_state"] == "failing");
    wait_until("the status to tell", || {
        let ended = Launch::subcommand("status").arg("--redis", redis.url()).switch("--json").run();
        let status: Value = serde_json::from_str(&ended.stdout).unwrap();
        status["problems"].as_array().unwrap().iter().any(|problem| problem["code"] == "failing")
    });
    let new = folder.path().join("new");
    a.write_to(&new);
    std::fs::rename(&new, &plugin).unwrap();
    expect_each_once(&redis, ids.iter().cloned());
    let report = host.wait_for_report("the other version", |report| report["plugin_state"] == "probation");
    assert_eq!(report["dead_letters"], 0, "{report}");
    assert_eq!(host.log().matches(FAILS).count(), 1, "it is said once: {}", host.log());
}

#[test]
fn processing_goes_on_by_itself_when_a_single_message_comes_through() {
    let only_provoked = Release::failing("only", "fail", 0);
    let (redis, folder) = (Redis::start(), tempdir().unwrap());
    let plugin = folder.path().join("plugin.wasm");
    only_provoked.write_to(&plugin);
    let host = Host::on(&redis).arg("--plugin", &plugin).arg("--retry-delay", "30s").ready(&redis, 4);
    provoke(&redis, 110);
    host.wait_for_log(FAILS);
    let good: Vec<String> = (0..50).map(|number| format!("good-{number}")).collect();
    Publisher::new(&redis).publish_all(good.iter().map(|id| message(id, json!({}))));
    host.wait_for_log(RECOVERED);
    good.iter().for_each(|id| assert_eq!(redis.result_of(id).text("version"), "only"));
    assert!(redis.dead_letters().is_empty());
}

#[test]
fn good_messages_behind_a_crowd_of_bad_ones_are_found() {
    let only_provoked = Release::failing("only", "fail", 0);
    let (redis, folder) = (Redis::start(), tempdir().unwrap());
    let plugin = folder.path().join("plugin.wasm");
    only_provoked.write_to(&plugin);
    let host = Host::on(&redis).arg("--plugin", &plugin).arg("--retry-delay", "30s").ready(&redis, 10);
    let crowd = provoke(&redis, 110);
    host.wait_for_log(FAILS);
    // With one delivery every two seconds, a hundred deliveries would take longer than any test waits.
    let more: Vec<String> = (0..12_800).map(|number| format!("more-{number}")).collect();
    Publisher::new(&redis).publish_all(more.iter().map(|id| message(id, json!({"provoke": true}))));
    redis.wait_until_known(&more);
    let good: Vec<String> = (0..128).map(|number| format!("good-{number}")).collect();
    Publisher::new(&redis).publish_all(good.iter().map(|id| message(id, json!({}))));
    host.wait_for_log(RECOVERED);
    good.iter().for_each(|id| assert_eq!(redis.result_of(id).text("version"), "only"));
    assert!(redis.dead_letters().is_empty() && crowd.iter().all(|id| redis.results_of(id).is_empty()));
}

/// Sends messages with which an instance grows, and requires that each has a result at its first attempt.
fn expect_no_failure(options: impl FnOnce(Launch) -> Launch) -> Host {
    let leaking = Release::failing("leak", "leak", 1);
    let (redis, folder) = (Redis::start(), tempdir().unwrap());
    let plugin = folder.path().join("plugin.wasm");
    leaking.write_to(&plugin);
    let host = options(Host::on(&redis).arg("--plugin", &plugin).arg("--max-plugin-memory", "4MiB"));
    let host = host.arg("--max-attempts", "1").ready(&redis, 2);
    // 16 KiB each: eight times what two instances may take.
    let ids: Vec<String> = (0..4_000).map(|number| format!("m-{number}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({}))));
    expect_each_once(&redis, ids);
    assert!(redis.dead_letters().is_empty());
    host
}

#[test]
fn an_instance_whose_memory_grows_is_replaced_before_a_message_suffers() {
    let log = expect_no_failure(|launch| launch).stop().stderr;
    assert_eq!(log.matches("the plugin's memory grows by").count(), 1, "one line a version: {log}");
    // The memory grows in steps of 64 KiB, by 16 KiB and what the allocator adds.
    let bytes = log.split("the plugin's memory grows by ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!((15_000..30_000).contains(&bytes.parse::<u32>().unwrap()), "{log}");
}

#[test]
fn a_message_that_finds_no_memory_in_a_used_instance_is_tried_in_a_fresh_one() {
    let host = expect_no_failure(|launch| launch.arg("--replace-at-memory", "100"));
    let log = host.stop().stderr;
    assert!(!log.contains("the plugin's memory grows by"), "{log}");
}
