//! A version that goes bad quietly: it gets slow, it takes more and more memory, or it fails everything when its probation is
//! over. The host says so, and does what it can.

use redis::cmd;

use crate::support::flow::{PROVED, ROLLED_BACK};
use crate::support::{Flow, Release, wait_until};

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
    let is_slow =
        |report: &serde_json::Value| report["plugin_time_percent"].as_u64().is_some_and(|percent| percent > 500);
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
