//! The host rolls back a version that fails messages which the previous version processes, and no message is lost.

use serde_json::{Value, json};

use crate::support::flow::{self, CONSUMERS, IN_USE, PER_SECOND, PROVED, REFUSED, ROLLED_BACK};
use crate::support::host::Launch;
use crate::support::{Flow, Host, Publisher, Release, Signal, message, wait_until};

/// A probation that lasts as long as a test.
fn long_probation(launch: Launch) -> Launch {
    launch.arg("--probation-time", "10m")
}

/// A probation that ends soon.
fn short_probation(launch: Launch) -> Launch {
    launch.arg("--probation-time", "300ms").arg("--probation-messages", "1000")
}

/// Puts this in the place of version A, and requires that the host goes back to version A by itself: all messages have
/// their one result, none of them after another attempt, and all that came after the way back are version A's.
fn expect_rolled_back(options: impl FnOnce(Launch) -> Launch, bad: &Release, failure: &str) {
    let a = Release::new("A");
    let mut flow = Flow::with(&a, options);
    flow.deploy(bad);
    let line = flow.wait_for_logged(ROLLED_BACK, 1).remove(0);
    expect_rollback(&line, bad, &a);
    assert!(line["failure"].as_str().unwrap().contains(failure), "{line}");
    let back = flow.published();
    flow.wait_for_more(PER_SECOND);
    assert_eq!(flow.logged(ROLLED_BACK).len(), 1, "it is said once");
    let (account, host) = flow.finish();
    account.expect_all_of(back..usize::MAX, "A");
    let is_back = |report: &Value| report["plugin_state"] == "rolled-back";
    let report = host.wait_for_report("the rollback", is_back);
    assert_eq!((&report["plugin_digest"], &report["generation"]), (&json!(a.digest), &json!(3)), "{report}");
    for (counter, count) in [("rollbacks", 1), ("retries", 0), ("dead_letters", 0)] {
        assert_eq!(report[counter], count, "{counter} in {report}");
    }
}

/// Requires that this log line says that the host went back from one version to the other.
fn expect_rollback(line: &Value, bad: &Release, before: &Release) {
    assert_eq!(line["level"], "ERROR", "{line}");
    assert_eq!((&line["bad"], &line["digest"]), (&json!(bad.digest[..12]), &json!(before.digest[..12])), "{line}");
    let number = |name: &str| line[name].as_u64().unwrap_or_else(|| panic!("no {name} in {line}"));
    assert!(number("regressions") >= 3 && number("messages") >= number("regressions"), "{line}");
    assert!(line["example"].as_str().is_some_and(|id| !id.is_empty()), "{line}");
}

#[test]
fn a_version_that_traps_on_every_message() {
    expect_rolled_back(|launch| launch, &Release::failing("B", "trap", 1), "unreachable");
}

#[test]
fn a_version_that_traps_on_one_message_in_a_hundred() {
    expect_rolled_back(|launch| launch, &Release::failing("B", "trap", 100), "unreachable");
}

#[test]
fn a_version_that_returns_errors() {
    expect_rolled_back(|launch| launch, &Release::failing("B", "fail", 10), "version B cannot do this");
}

#[test]
fn a_version_that_loops() {
    let bad = Release::failing("B", "loop", 50);
    expect_rolled_back(|launch| launch.arg("--max-plugin-time", "200ms"), &bad, "longer than 200ms");
}

#[test]
fn a_version_whose_results_are_no_objects() {
    expect_rolled_back(|launch| launch, &Release::failing("B", "bad-result", 10), "not an object");
}

#[test]
fn a_version_that_was_taken_back_is_refused_until_the_host_is_told_to_look() {
    let (a, bad, c) = (Release::new("A"), Release::failing("B", "trap", 2), Release::new("C"));
    let mut flow = Flow::start(&a);
    flow.deploy(&bad);
    flow.wait_for_logged(ROLLED_BACK, 1);
    flow.change_to(&c);
    flow.deploy(&bad);
    let refused = &flow.wait_for_logged(REFUSED, 1)[0];
    assert_eq!((&refused["digest"], &refused["in_use"]), (&json!(bad.digest[..12]), &json!(c.digest[..12])));
    assert!(refused["message"].as_str().unwrap().contains("rolled back"), "{refused}");
    flow.wait_for_results_of(&c);
    flow.host.signal(Signal::Hangup);
    flow.wait_for_logged(ROLLED_BACK, 2);
    let (_, host) = flow.finish();
    host.wait_for_report("both rollbacks", |report| report["rollbacks"] == 2);
}

#[test]
fn the_version_to_go_back_to_is_the_last_one_that_has_proved_itself() {
    let [a, b, c] = ["A", "B", "C"].map(Release::new);
    let bad = Release::failing("bad", "trap", 1);
    let mut flow = Flow::with(&a, short_probation);
    flow.change_to(&b);
    let proved = &flow.wait_for_logged(PROVED, 1)[0];
    assert_eq!((&proved["digest"], &proved["generation"]), (&json!(b.digest[..12]), &json!(2)), "{proved}");
    flow.deploy(&bad);
    expect_rollback(&flow.wait_for_logged(ROLLED_BACK, 1)[0], &bad, &b);
    flow.finish();

    // A version on probation is not trusted yet.
    let mut flow = Flow::with(&a, long_probation);
    flow.change_to(&c);
    flow.deploy(&bad);
    expect_rollback(&flow.wait_for_logged(ROLLED_BACK, 1)[0], &bad, &a);
    flow.wait_for_results_of(&a);
    flow.finish();
}

/// Publishes messages with which a version that fails only when it is provoked fails; gives their ids.
fn provoke(flow: &mut Flow, name: &str, count: usize) -> Vec<String> {
    let ids: Vec<String> = (0..count).map(|number| format!("{name}-{number}")).collect();
    Publisher::new(&flow.redis).publish_all(ids.iter().map(|id| message(id, json!({"provoke": true}))));
    flow.also_published(ids.iter().cloned());
    ids
}

#[test]
fn few_failures_are_no_reason_and_their_messages_get_the_results_of_the_version_before() {
    let (a, b) = (Release::new("A"), Release::failing("B", "fail", 0));
    let mut flow = Flow::with(&a, |launch| long_probation(launch).arg("--rollback-failures", "5"));
    flow.change_to(&b);
    for id in provoke(&mut flow, "few", 4) {
        let result = flow.redis.result_of(&id);
        assert_eq!((result.text("version"), result.text("attempt")), ("A", "1"), "{result:?}");
        assert_eq!(result.text("plugin_digest"), a.digest);
    }
    flow.wait_for_results_of(&b);
    assert!(flow.logged(ROLLED_BACK).is_empty(), "{}", flow.host.log());
    provoke(&mut flow, "last", 1);
    flow.wait_for_logged(ROLLED_BACK, 1);
    flow.finish();
}

#[test]
fn failures_after_the_probation_are_ordinary_ones() {
    let (a, b) = (Release::new("A"), Release::failing("B", "fail", 0));
    let mut flow = Flow::with(&a, |launch| short_probation(launch).arg("--max-attempts", "2"));
    flow.change_to(&b);
    flow.wait_for_logged(PROVED, 1);
    for id in provoke(&mut flow, "late", 10) {
        let letter = flow.redis.dead_letter_of(&id);
        assert_eq!((letter.text("reason"), letter.text("attempts")), ("plugin-failed", "2"));
        assert_eq!((letter.text("plugin_digest"), letter.text("plugin_generation")), (b.digest.as_str(), "2"));
    }
    flow.pause();
    assert!(flow.logged(ROLLED_BACK).is_empty(), "{}", flow.host.log());
}

#[test]
fn a_message_that_fails_under_both_versions_says_nothing_against_the_new_one() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::with(&a, |launch| launch.arg("--probation-time", "0s").arg("--max-attempts", "1"));
    // Without other messages the probation lasts.
    flow.pause();
    flow.deploy(&b);
    flow.wait_for_logged(IN_USE, 1);
    let poison: Vec<String> = (0..20).map(|number| format!("poison-{number}")).collect();
    Publisher::new(&flow.redis).publish_all(poison.iter().map(|id| message(id, json!({"do": "trap"}))));
    for id in &poison {
        assert_eq!(flow.redis.dead_letter_of(id).text("reason"), "plugin-trapped");
    }
    assert!(flow.logged(PROVED).is_empty(), "{}", flow.host.log());
    flow.resume();
    flow.wait_for_logged(PROVED, 1);
    assert!(flow.logged(ROLLED_BACK).is_empty(), "{}", flow.host.log());
}

#[test]
fn a_new_version_that_fails_no_more_often_than_the_flaky_one_before_stays() {
    let (a, b) = (Release::failing("A", "fail", 20), Release::failing("B", "fail", 20));
    let hasty = |launch: Launch| launch.arg("--max-attempts", "100").arg("--retry-delay", "10ms");
    // More failures than by default, so that chance is no reason in any run of this test.
    let mut flow = Flow::with(&a, |launch| short_probation(hasty(launch)).arg("--rollback-failures", "10"));
    flow.wait_for_more(PER_SECOND);
    flow.change_to(&b);
    flow.wait_for_logged(PROVED, 1);
    // Much worse than that is a reason.
    let bad = Release::failing("bad", "fail", 3);
    flow.deploy(&bad);
    expect_rollback(&flow.wait_for_logged(ROLLED_BACK, 1)[0], &bad, &b);
    flow.finish_at_any_attempt();
}

#[test]
fn a_version_that_retries_rejects_and_drops_has_not_failed() {
    let a = Release::new("A");
    let mut flow = Flow::with(&a, short_probation);
    for (count, mode) in [(1, "retry"), (2, "reject"), (3, "drop")] {
        flow.change_to(&Release::failing(mode, mode, 10));
        flow.wait_for_logged(PROVED, count);
    }
    assert!(flow.logged(ROLLED_BACK).is_empty(), "{}", flow.host.log());
    let published = flow.stop();
    let report = flow.host.wait_for_report("every message", |report| report["processed"] == published);
    let rejected = flow.redis.dead_letters();
    assert!(!rejected.is_empty() && rejected.iter().all(|letter| letter.text("reason") == "plugin-rejected"));
    assert_eq!(report["dead_letters"], rejected.len(), "{report}");
    assert!(flow.redis.output().len() + rejected.len() < published, "some were dropped: {report}");
}

#[test]
fn without_rollback_a_failing_version_stays_and_its_messages_become_dead_letters() {
    let (a, bad) = (Release::new("A"), Release::failing("B", "fail", 2));
    let off = |launch: Launch| launch.arg("--rollback", "off").arg("--max-attempts", "2").arg("--retry-delay", "10ms");
    let mut flow = Flow::with(&a, off);
    flow.change_to(&bad);
    flow.wait_for_more(PER_SECOND / 2);
    flow.pause();
    assert!(flow.logged(ROLLED_BACK).is_empty(), "{}", flow.host.log());
    let letters = flow.redis.dead_letters();
    assert!(letters.len() > 100, "{}", letters.len());
    for letter in &letters {
        assert_eq!((letter.text("reason"), letter.text("attempts")), ("plugin-failed", "2"));
        assert_eq!(letter.text("plugin_digest"), bad.digest);
    }
    flow.wait_for_results_of(&bad);
}

#[test]
fn a_host_killed_in_the_middle_of_a_probation_loses_nothing() {
    let (a, bad) = (Release::new("A"), Release::failing("B", "trap", 10));
    let options = |launch: Launch| {
        let patient = long_probation(launch).arg("--rollback-failures", "1000000");
        patient.arg("--heartbeat-interval", "200ms").arg("--heartbeat-ttl", "2s").arg("--intake-lease", "1s")
    };
    let mut flow = Flow::with(&a, options);
    let heir_plugin = flow.redis.folder().join("heir.wasm");
    a.write_to(&heir_plugin);
    let _heir: Host = options(flow::launch(&flow.redis)).arg("--plugin", &heir_plugin).ready(&flow.redis, CONSUMERS);
    flow.deploy(&bad);
    wait_until("results of version B", || flow.redis.output().iter().any(|entry| entry.text("version") == "B"));
    flow.wait_for_more(PER_SECOND / 2);
    flow.host.signal(Signal::Kill);
    flow.wait_for_more(PER_SECOND / 2);
    let (account, _) = flow.finish();
    assert!(account.by_version["B"] > 0, "{:?}", account.by_version);
}
