//! A new plugin file replaces the version in use, in every way of replacing a file, while messages flow.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::SystemTime;

use crate::support::flow::{self, GONE, IN_USE, PER_SECOND, REFUSED};
use crate::support::host::Launch;
use crate::support::{Flow, Redis, Release, Signal};

/// Only events report changes.
fn only_events(launch: Launch) -> Launch {
    launch.arg("--watch-interval", "1h")
}

/// Runs version A, changes its file to version B in this way, and requires that the flow switches to version B.
fn expect_taken_over(options: impl FnOnce(Launch) -> Launch, change: impl FnOnce(&Flow, &Release)) {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::with(&a, options);
    flow.expect(&b);
    change(&flow, &b);
    flow.wait_for_results_of(&b);
    assert_eq!(fs::read(flow.plugin()).unwrap(), b.bytes, "the test wrote version B");
    flow.finish_with_turns(&["A", "B"]);
}

/// Replaces a symbolic link in one step.
fn retarget(link: &Path, target: &str) {
    let new = link.with_file_name("..new-link");
    symlink(target, &new).unwrap();
    fs::rename(new, link).unwrap();
}

fn set_modified(file: &Path, time: SystemTime) {
    File::options().append(true).open(file).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_file_written_in_place_is_taken() {
    expect_taken_over(only_events, |flow, b| b.write_to(&flow.plugin()));
}

#[test]
fn a_file_renamed_over_the_old_one_is_taken() {
    expect_taken_over(only_events, |flow, b| {
        let new = flow.folder().join("new");
        b.write_to(&new);
        fs::rename(new, flow.plugin()).unwrap();
    });
}

#[test]
fn a_file_that_was_deleted_is_missed_and_its_successor_taken() {
    expect_taken_over(only_events, |flow, b| {
        fs::remove_file(flow.plugin()).unwrap();
        flow.wait_for_logged(GONE, 1);
        flow.wait_for_more(PER_SECOND / 5);
        b.write_to(&flow.plugin());
    });
}

#[test]
fn a_file_deleted_and_created_at_once_is_taken() {
    expect_taken_over(only_events, |flow, b| {
        fs::remove_file(flow.plugin()).unwrap();
        b.write_to(&flow.plugin());
    });
}

#[test]
fn an_editors_save_is_taken() {
    expect_taken_over(only_events, |flow, b| {
        let (plugin, temporary) = (flow.plugin(), flow.folder().join(".plugin.wasm.swp"));
        b.write_to(&temporary);
        fs::rename(&plugin, flow.folder().join("plugin.wasm~")).unwrap();
        fs::rename(&temporary, &plugin).unwrap();
    });
}

#[test]
fn a_copy_with_the_old_time_and_size_is_taken() {
    expect_taken_over(only_events, |flow, b| {
        let before = fs::metadata(flow.plugin()).unwrap();
        b.write_to(&flow.plugin());
        set_modified(&flow.plugin(), before.modified().unwrap());
        let after = fs::metadata(flow.plugin()).unwrap();
        assert_eq!((after.len(), after.modified().unwrap()), (before.len(), before.modified().unwrap()));
    });
}

#[test]
fn polling_finds_what_no_event_tells() {
    expect_taken_over(
        |launch| launch.arg("--watch", "poll").arg("--watch-interval", "100ms"),
        |flow, b| {
            // Written under another name of the same file, so there is no event in the plugin's folder.
            let other = flow.redis.folder().join("other-name");
            fs::hard_link(flow.plugin(), &other).unwrap();
            b.write_to(&other);
        },
    );
}

#[test]
fn a_host_that_does_not_watch_looks_when_it_is_told_to() {
    expect_taken_over(
        |launch| launch.arg("--watch", "off"),
        |flow, b| {
            b.write_to(&flow.plugin());
            flow.wait_for_more(PER_SECOND);
            assert!(flow.logged(IN_USE).is_empty(), "nobody has told it to look");
            flow.host.signal(Signal::Hangup);
        },
    );
}

#[test]
fn a_link_swapped_as_kubernetes_does_it_is_followed() {
    let (a, b, c) = (Release::new("A"), Release::new("B"), Release::new("C"));
    let redis = Redis::start();
    let folder = flow::plugin_folder(&redis);
    let publish = |version: &Release, name: &str| {
        fs::create_dir(folder.join(name)).unwrap();
        version.write_to(&folder.join(name).join("plugin.wasm"));
        retarget(&folder.join("..data"), name);
    };
    fs::create_dir(&folder).unwrap();
    publish(&a, "..2026_11_01");
    symlink("..data/plugin.wasm", folder.join("plugin.wasm")).unwrap();
    let mut flow = Flow::prepared(redis, &a, only_events);
    for (version, name, old) in [(&b, "..2026_11_02", "..2026_11_01"), (&c, "..2026_11_03", "..2026_11_02")] {
        flow.expect(version);
        publish(version, name);
        fs::remove_dir_all(folder.join(old)).unwrap();
        flow.wait_for_results_of(version);
    }
    flow.finish_with_turns(&["A", "B", "C"]);
}

#[test]
fn a_link_to_another_folder_is_followed_when_it_changes_and_when_its_target_does() {
    let versions = ["A", "B", "C", "D"].map(Release::new);
    let [a, b, c, d] = &versions;
    let redis = Redis::start();
    let folder = flow::plugin_folder(&redis);
    for (name, version) in [("", None), ("blue", Some(a)), ("green", Some(b))] {
        fs::create_dir(folder.join(name)).unwrap();
        version.inspect(|version| version.write_to(&folder.join(name).join("it.wasm")));
    }
    symlink("blue/it.wasm", folder.join("plugin.wasm")).unwrap();
    let mut flow = Flow::prepared(redis, a, only_events);
    versions.iter().for_each(|version| flow.expect(version));
    retarget(&flow.plugin(), "green/it.wasm");
    flow.wait_for_results_of(b);
    // The new target is watched like the old one.
    c.write_to(&folder.join("green/it.wasm"));
    flow.wait_for_results_of(c);
    // Like `ln -sf`: for a moment there is no link.
    d.write_to(&folder.join("blue/it.wasm"));
    fs::remove_file(flow.plugin()).unwrap();
    symlink("blue/it.wasm", flow.plugin()).unwrap();
    flow.wait_for_results_of(d);
    flow.finish_with_turns(&["A", "B", "C", "D"]);
}

#[test]
fn every_link_on_the_way_to_the_file_is_followed() {
    let (a, b, c) = (Release::new("A"), Release::new("B"), Release::new("C"));
    let redis = Redis::start();
    let (folder, releases) = (flow::plugin_folder(&redis), redis.folder().join("releases"));
    fs::create_dir(&folder).unwrap();
    for version in [&a, &b, &c] {
        fs::create_dir_all(releases.join(&version.name)).unwrap();
        version.write_to(&releases.join(&version.name).join("it.wasm"));
    }
    symlink("A", releases.join("current")).unwrap();
    symlink("../releases/current/it.wasm", folder.join("plugin.wasm")).unwrap();
    let mut flow = Flow::prepared(redis, &a, only_events);
    for version in [&b, &c] {
        flow.expect(version);
        retarget(&releases.join("current"), &version.name);
        flow.wait_for_results_of(version);
    }
    flow.finish_with_turns(&["A", "B", "C"]);
}

#[test]
fn a_large_file_copied_in_slow_pieces_is_taken_when_it_is_complete() {
    let a = Release::new("A");
    let b = Release::new("B").with_section("B", &vec![0; 10 << 20]);
    let mut flow = Flow::with(&a, only_events);
    flow.expect(&b);
    let mut file = File::create(flow.plugin()).unwrap();
    // Pauses of about 20 ms, within which the file must not count as complete.
    for piece in b.bytes[..b.bytes.len() / 2].chunks(256 << 10) {
        file.write_all(piece).unwrap();
        flow.wait_for_more(PER_SECOND / 50);
    }
    // A pause that is long enough to count as the end.
    flow.wait_for_logged(REFUSED, 1);
    for piece in b.bytes[b.bytes.len() / 2..].chunks(1 << 20) {
        file.write_all(piece).unwrap();
        flow.wait_for_more(PER_SECOND / 50);
    }
    flow.wait_for_results_of(&b);
    flow.finish_with_turns(&["A", "B"]);
}

#[test]
fn of_many_saves_in_a_second_the_last_one_stays() {
    let versions: Vec<Release> = (0..30).map(|number| Release::new(&format!("V{number}"))).collect();
    let mut flow = Flow::start(&versions[0]);
    for version in &versions[1..] {
        flow.deploy(version);
        flow.wait_for_more(PER_SECOND / 50);
    }
    flow.wait_for_results_of(&versions[29]);
    let in_use = flow.logged(IN_USE).len();
    assert!(in_use < 29, "most of them were passed over: {in_use} were in use");
    let (account, _) = flow.finish();
    let names: Vec<&str> = versions.iter().map(|version| version.name.as_str()).collect();
    let taken: Vec<&str> = names.into_iter().filter(|name| account.by_version.contains_key(*name)).collect();
    account.expect_turns(&taken);
}

#[test]
fn a_file_touched_without_a_change_is_no_new_version() {
    let (a, b) = (Release::new("A"), Release::new("B"));
    let mut flow = Flow::start(&a);
    set_modified(&flow.plugin(), SystemTime::now());
    flow.wait_for_more(PER_SECOND);
    a.write_to(&flow.plugin());
    flow.wait_for_more(PER_SECOND);
    flow.change_to(&b);
    let (account, host) = flow.finish();
    account.expect_turns(&["A", "B"]);
    let report = host.wait_for_report("version B", |report| report["plugin_digest"] == b.digest);
    assert_eq!((&report["swaps"], &report["generation"]), (&1.into(), &2.into()), "{report}");
}

#[test]
fn a_folder_deleted_and_made_again_is_watched_again() {
    let (a, b, c) = (Release::new("A"), Release::new("B"), Release::new("C"));
    let mut flow = Flow::start(&a);
    for (count, version) in [(1, &b), (2, &c)] {
        fs::remove_dir_all(flow.folder()).unwrap();
        flow.wait_for_logged(GONE, count);
        fs::create_dir(flow.folder()).unwrap();
        flow.change_to(version);
    }
    flow.finish_with_turns(&["A", "B", "C"]);
}

#[test]
fn a_folder_replaced_by_another_is_watched_again() {
    let (a, b, c) = (Release::new("A"), Release::new("B"), Release::new("C"));
    let mut flow = Flow::start(&a);
    flow.expect(&b);
    let (folder, other) = (flow.folder(), flow.redis.folder().join("other"));
    fs::create_dir(&other).unwrap();
    b.write_to(&other.join("plugin.wasm"));
    fs::rename(&folder, flow.redis.folder().join("old")).unwrap();
    fs::rename(&other, &folder).unwrap();
    flow.wait_for_results_of(&b);
    flow.change_to(&c);
    flow.finish_with_turns(&["A", "B", "C"]);
}
