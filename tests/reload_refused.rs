//! A wrong version does no harm: it is refused once, with a reason, and the version in use stays.

use std::fs::{self, File};
use std::time::SystemTime;

use serde_json::Value;

use crate::support::flow::{GONE, IN_USE, PER_SECOND, REFUSED};
use crate::support::guests::{loops_at_start, traps_at_start, unknown_import, wrong_world};
use crate::support::host::Launch;
use crate::support::{Flow, Redis, Release, Signal};

/// Replaces version A by these bytes. Requires that they are refused once with these words, that version A stays in
/// use, and that version B is accepted afterwards.
fn expect_refused(options: impl FnOnce(Launch) -> Launch, wrong: &[u8], words: &[&str]) {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let wrong = Release::of("wrong", wrong);
    let mut flow = Flow::with(&a, options);
    wrong.write_to(&flow.plugin());
    let refused = &flow.wait_for_logged(REFUSED, 1)[0];
    expect_refusal(refused, &wrong, &a, words);
    // The same bytes again are not tried again.
    File::options().append(true).open(flow.plugin()).unwrap().set_modified(SystemTime::now()).unwrap();
    flow.wait_for_more(PER_SECOND / 2);
    wrong.write_to(&flow.plugin());
    flow.wait_for_more(PER_SECOND / 2);
    flow.change_to(&b);
    assert_eq!(flow.logged(REFUSED).len(), 1, "{}", flow.host.log());
    let (account, host) = flow.finish();
    account.expect_turns(&["A", "B"]);
    let report = host.wait_for_report("version B", |report| report["plugin_digest"] == b.digest);
    assert_eq!((&report["refusals"], &report["swaps"]), (&1.into(), &1.into()), "{report}");
}

/// Requires this content of a log line.
fn expect_refusal(line: &Value, wrong: &Release, in_use: &Release, words: &[&str]) {
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(line["digest"], wrong.digest[..12], "{line}");
    assert_eq!(line["in_use"], in_use.digest[..12], "{line}");
    for word in words {
        assert!(line["message"].as_str().unwrap().contains(word), "no {word:?} in {line}");
    }
}

#[test]
fn a_component_of_another_world() {
    let wrong = fs::read(wrong_world()).unwrap();
    expect_refused(|launch| launch, &wrong, &["does not export", "host:plugin/processor"]);
}

#[test]
fn a_component_with_an_import_that_the_host_does_not_have() {
    let wrong = fs::read(unknown_import()).unwrap();
    expect_refused(|launch| launch, &wrong, &["example:thing/api"]);
}

#[test]
fn a_truncated_component() {
    let whole = Release::new("whole").bytes;
    expect_refused(|launch| launch, &whole[..whole.len() * 2 / 3], &["cannot compile"]);
}

#[test]
fn an_empty_file() {
    expect_refused(|launch| launch, b"", &["plugin.wasm", "empty"]);
}

#[test]
fn a_text_file() {
    expect_refused(|launch| launch, b"# Release notes\n", &["plugin.wasm", "not WebAssembly"]);
}

#[test]
fn a_component_whose_start_traps() {
    let wrong = fs::read(traps_at_start()).unwrap();
    expect_refused(|launch| launch, &wrong, &["does not start", "not today"]);
}

#[test]
fn a_component_whose_start_never_ends() {
    let wrong = fs::read(loops_at_start()).unwrap();
    expect_refused(|launch| launch.arg("--max-plugin-time", "300ms"), &wrong, &["does not start", "longer than 300ms"]);
}

/// A case that every version passes that does not fail.
const CASE: &str = r#"{"name": "any order", "message": {"message_id": "case-1"}, "emit-subset": {"attempt": 1}}"#;

#[test]
fn a_version_that_does_not_pass_the_operators_own_cases() {
    let redis = Redis::start();
    let (a, b) = (Release::new("A"), Release::new("B"));
    let wrong = Release::failing("wrong", "fail", 1);
    let cases = redis.folder().join("cases.jsonl");
    fs::write(&cases, CASE).unwrap();
    let mut flow = Flow::on(redis, &a, |launch| launch.arg("--reload-cases", &cases));
    wrong.write_to(&flow.plugin());
    let refused = &flow.wait_for_logged(REFUSED, 1)[0];
    expect_refusal(refused, &wrong, &a, &["any order", "version wrong cannot do this"]);
    flow.change_to(&b);
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn cases_that_cannot_be_read_refuse_every_version() {
    let redis = Redis::start();
    let (a, b, c) = (Release::new("A"), Release::new("B"), Release::new("C"));
    let cases = redis.folder().join("cases.jsonl");
    fs::write(&cases, CASE).unwrap();
    let mut flow = Flow::on(redis, &a, |launch| launch.arg("--reload-cases", &cases));
    fs::remove_file(&cases).unwrap();
    b.write_to(&flow.plugin());
    let refused = &flow.wait_for_logged(REFUSED, 1)[0];
    expect_refusal(refused, &b, &a, &["cases.jsonl"]);
    fs::write(&cases, CASE).unwrap();
    flow.change_to(&c);
    flow.finish_with_turns(&["A", "C"]);
}

#[test]
fn a_missing_file_is_warned_of_once_and_the_version_in_use_goes_on() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::start(&a);
    fs::remove_file(flow.plugin()).unwrap();
    let gone = &flow.wait_for_logged(GONE, 1)[0];
    assert_eq!(gone["level"], "WARN", "{gone}");
    // Other files are created and deleted.
    for _ in 0..3 {
        Release::new("other").write_to(&flow.folder().join("other.wasm"));
        flow.wait_for_more(PER_SECOND / 2);
    }
    assert_eq!(flow.logged(GONE).len(), 1, "{}", flow.host.log());
    // The same version again is not a new version.
    flow.deploy(&a);
    flow.wait_for_more(PER_SECOND / 2);
    assert!(flow.logged(IN_USE).is_empty(), "{}", flow.host.log());
    flow.change_to(&b);
    let (account, host) = flow.finish();
    account.expect_turns(&["A", "B"]);
    let report = host.wait_for_report("version B", |report| report["plugin_digest"] == b.digest);
    assert_eq!((&report["refusals"], &report["swaps"]), (&0.into(), &1.into()), "{report}");
}

#[test]
fn what_was_refused_is_tried_again_when_the_host_is_told_to_look() {
    let (a, wrong) = (Release::new("A"), Release::of("wrong", "no WebAssembly at all"));
    let flow = Flow::start(&a);
    wrong.write_to(&flow.plugin());
    flow.wait_for_logged(REFUSED, 1);
    flow.host.signal(Signal::Hangup);
    let refused = flow.wait_for_logged(REFUSED, 2);
    expect_refusal(&refused[1], &wrong, &a, &["not WebAssembly"]);
    let (account, host) = flow.finish();
    account.expect_turns(&["A"]);
    host.wait_for_report("two refusals", |report| report["refusals"] == 2 && report["generation"] == 1);
}

#[test]
fn a_version_that_was_in_use_before_is_taken_again_after_a_refusal() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::start(&a);
    flow.change_to(&b);
    Release::of("wrong", "").write_to(&flow.plugin());
    flow.wait_for_logged(REFUSED, 1);
    // Back to what is in use: nothing to do. Back to what was in use before: a new generation.
    flow.deploy(&b);
    flow.wait_for_more(PER_SECOND / 2);
    flow.change_to(&a);
    let (account, host) = flow.finish();
    account.expect_turns(&["A", "B", "A"]);
    host.wait_for_report("the third generation", |report| report["generation"] == 3 && report["swaps"] == 2);
}
