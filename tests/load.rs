//! The commands around the host: `publish` and `demo`.

use std::collections::HashSet;
use std::fs;

use serde_json::json;
use tempfile::TempDir;

use crate::support::host::{Ended, Launch, full_pipe};
use crate::support::records::{DEAD, OUTPUT};
use crate::support::{BOUND, Host, Redis, enrich, examples, expect_each_once, message, wait_for, wait_until};

fn publish(redis: &Redis, options: &[(&str, &str)]) -> Ended {
    let launch = Launch::subcommand("publish").arg("--redis", redis.url());
    let ended = options.iter().fold(launch, |launch, (name, value)| launch.arg(name, value)).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

#[test]
fn publish_sends_so_many_messages_with_ids_of_their_own() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--plugin", enrich()).ready(&redis, 4);
    let ended = publish(&redis, &[("--count", "5000"), ("--batch", "300")]);
    assert!(ended.stdout.contains("5,000") && ended.stdout.contains("1 subscriber"), "{}", ended.stdout);
    redis.wait_for_settled(5_000);
    let ids: HashSet<String> = redis.output().iter().map(|entry| entry.text("message_id").to_owned()).collect();
    assert_eq!(ids.len(), 5_000);
    assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'4'), "random UUIDs");
    assert_eq!((redis.length(OUTPUT), redis.length(DEAD)), (5_000, 0));
}

#[test]
fn publish_repeats_ids_when_asked_to() {
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--log-format", "json").arg("--report-interval", "200ms").ready(&redis, 4);
    publish(&redis, &[("--count", "4000"), ("--duplicates", "25")]);
    let report = host.wait_for_report("all messages", |report| {
        let count = |name: &str| report[name].as_u64().unwrap();
        count("processed") + count("duplicates") == 4_000
    });
    let duplicates = report["duplicates"].as_u64().unwrap();
    assert!((800..1_200).contains(&duplicates), "a quarter of 4,000 is about 1,000, not {duplicates}");
    assert_eq!(redis.length(OUTPUT) as u64 + duplicates, 4_000);
}

#[test]
fn publish_makes_messages_of_the_wanted_length() {
    let redis = Redis::start();
    let _host = Host::on(&redis).arg("--output-format", "json").ready(&redis, 2);
    publish(&redis, &[("--count", "10"), ("--payload-bytes", "3000")]);
    redis.wait_for_settled(10);
    assert!(redis.output().iter().all(|entry| entry.text("json").len() == 3_000));
}

#[test]
fn publish_sends_the_lines_of_a_file_as_they_are() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 2);
    let lines: Vec<String> = (0..50).map(|n| message(&format!("line-{n}"), json!({"n": n}))).collect();
    let file = redis.folder().join("messages.jsonl");
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    publish(&redis, &[("--file", file.to_str().unwrap())]);
    expect_each_once(&redis, (0..50).map(|n| format!("line-{n}")));
}

#[test]
fn publish_refuses_a_file_of_another_kind_unless_its_lines_are_raw() {
    let redis = Redis::start();
    let _host = Host::ready(&redis, 1);
    let file = redis.folder().join("table.csv");
    fs::write(&file, "id,total\n1,20\u{1b}[2J\n{\"message_id\":\"after\"}\n").unwrap();
    let publish = |words: &[&str]| {
        Launch::subcommand("publish").arg("--redis", redis.url()).arg("--file", &file).words(words).run()
    };
    let refused = publish(&[]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    for words in ["table.csv", "id,total", "is no JSON object", "--raw"] {
        assert!(refused.stderr.contains(words), "{words} in {}", refused.stderr);
    }
    let raw = publish(&["--raw"]);
    assert_eq!(raw.code, Some(0), "{}", raw.stderr);
    redis.result_of("after");
    wait_until("a dead letter of each line of the table", || redis.length(DEAD) == 2);
}

#[test]
fn publish_to_nobody_is_warned_about() {
    let redis = Redis::start();
    let ended = publish(&redis, &[("--count", "10")]);
    assert!(ended.stderr.contains("10"), "{}", ended.stderr);
    assert!(ended.stderr.contains("no subscriber"), "{}", ended.stderr);
}

#[test]
fn the_demo_loses_nothing_and_ends_by_itself() {
    enrich();
    let launch = Launch::subcommand("demo").arg("--for", "3s").arg("--plugin", enrich());
    let ended = launch.run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let summary = ended.stdout.lines().rev().take(12).collect::<Vec<_>>().join("\n").to_lowercase();
    for word in ["published", "processed", "duplicates", "lost"] {
        assert!(summary.contains(word), "no {word:?} in {}", ended.stdout);
    }
}

#[test]
fn the_demo_is_ended_by_ctrl_c_with_its_summary() {
    let demo = Launch::subcommand("demo").arg("--plugin", enrich()).start();
    wait_until("a report of the demo", || demo.written().lines().count() > 1);
    demo.signal(crate::support::Signal::Interrupt);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.to_lowercase().contains("lost"), "{}", ended.stdout);
}

#[test]
fn a_demo_that_nobody_reads_ends_by_itself() {
    let demo = || Launch::subcommand("demo").arg("--plugin", enrich());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    // Without a reader there is no reason to wait for the end of the time.
    let closed = demo().arg("--for", "1h").stdout(writer).run();
    let (_reader, writer) = full_pipe();
    let unread = demo().arg("--for", "1s").stdout(writer).run();
    for ended in [closed, unread] {
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains("error: "), "{}", ended.stderr);
    }
}

#[test]
fn the_commands_that_the_demo_names_work_as_written() {
    // A folder whose name needs quotes in a shell.
    let runtime = tempfile::Builder::new().prefix("it's a folder ").tempdir().unwrap();
    fs::set_permissions(runtime.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let demo = Launch::subcommand("demo").arg("--plugin", enrich()).env("XDG_RUNTIME_DIR", runtime.path()).start();
    wait_until("a report of the demo", || demo.written().lines().any(|line| line.contains("processed ")));
    let written = demo.written();
    let commands: Vec<&str> = written.lines().map(str::trim).filter(|line| line.starts_with("redis-cli ")).collect();
    // What each answers, in its order, and what has become of the message that the last one publishes.
    let answers = ["consumer_id", "/9", "\"generation\"", "1"];
    assert_eq!(commands.len(), answers.len(), "{written}");
    let (cli, _) = commands[3].split_once(" PUBLISH ").expect("the last one publishes");
    let taken_in = format!("{cli} EXISTS '{{messages:processed}}:claim:mine'");
    let answers = commands.into_iter().zip(answers).chain([(taken_in.as_str(), "1")]);
    for (command, answer) in answers {
        wait_for(&format!("{answer:?} from `{command}`"), BOUND, || {
            let ended = Launch::shell(command).run();
            assert_eq!(ended.code, Some(0), "`{command}`: {}{}", ended.stdout, ended.stderr);
            if ended.stdout.contains(answer) { Ok(()) } else { Err(ended.stdout) }
        });
    }
    demo.signal(crate::support::Signal::Interrupt);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// The number in a line of a demo's summary.
fn number(summary: &str, line: &str) -> u64 {
    let line = summary.lines().find_map(|candidate| candidate.strip_prefix(line));
    let number =
        line.and_then(|rest| rest.split_whitespace().next()).unwrap_or_else(|| panic!("no {line:?} in {summary}"));
    number.replace(',', "").parse().unwrap()
}

/// `host demo --swap` in a folder of its own, with these examples as its three versions.
fn swap_demo_with(examples_named: [&str; 3]) -> (TempDir, Launch) {
    let folder = TempDir::new().unwrap();
    let dist = folder.path().join("plugins/dist");
    fs::create_dir_all(&dist).unwrap();
    for (version, example) in ["enrich", "enrich-sharded", "enrich-broken"].into_iter().zip(examples_named) {
        fs::copy(examples().join(example).with_extension("wasm"), dist.join(version).with_extension("wasm")).unwrap();
    }
    let line = format!("cd {} && exec {} demo --swap --for 3s", folder.path().display(), env!("CARGO_BIN_EXE_host"));
    (folder, Launch::shell(&line))
}

#[test]
fn the_demo_shows_a_swap_and_a_rollback() {
    examples();
    let ended = Launch::subcommand("demo").switch("--swap").arg("--for", "3s").run();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let steps: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with("== ")).collect();
    let expected = [
        ["copied", "enrich-sharded.wasm"],
        ["in use", "generation 2"],
        ["probation", "enrich-sharded.wasm"],
        ["copied", "enrich-broken.wasm"],
        ["rolled back", "generation 4"],
    ];
    assert_eq!(steps.len(), expected.len(), "{steps:?}");
    for (step, words) in steps.iter().zip(expected) {
        assert!(words.iter().all(|word| step.contains(word)), "no {words:?} in {step:?}");
    }
    let versions = ["enrich.wasm", "enrich-sharded.wasm", "enrich-broken.wasm"];
    let processed = versions.map(|version| number(&ended.stdout, version));
    assert!(processed[0] > 0 && processed[1] > 0, "{}", ended.stdout);
    assert_eq!(processed.iter().sum::<u64>(), number(&ended.stdout, "processed "));
    assert_eq!(number(&ended.stdout, "total"), number(&ended.stdout, "processed "));
}

#[test]
fn a_demo_whose_better_version_is_refused_fails() {
    let (folder, demo) = swap_demo_with(["enrich", "enrich-sharded", "enrich-broken"]);
    fs::write(folder.path().join("plugins/dist/enrich-sharded.wasm"), "no component").unwrap();
    let ended = demo.run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("error: the host refused enrich-sharded.wasm"), "{}", ended.stderr);
    assert_eq!(number(&ended.stdout, "lost"), 0, "the summary is there all the same");
}

#[test]
fn a_demo_whose_broken_version_is_none_fails() {
    let (_folder, demo) = swap_demo_with(["enrich", "enrich-sharded", "enrich"]);
    let ended = demo.run();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("error: the host did not roll back enrich-broken.wasm"), "{}", ended.stderr);
}

#[test]
fn a_demo_says_which_version_is_not_built() {
    let (folder, demo) = swap_demo_with(["enrich", "enrich-sharded", "enrich-broken"]);
    fs::remove_file(folder.path().join("plugins/dist/enrich-broken.wasm")).unwrap();
    let ended = demo.run();
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    for words in ["plugins/dist/enrich-broken.wasm", "just demo"] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[test]
fn a_demo_of_a_swap_has_versions_and_a_rate_of_its_own() {
    examples();
    for (name, value) in [("--plugin", "plugins/dist/enrich.wasm"), ("--rate", "99")] {
        let ended = Launch::subcommand("demo").switch("--swap").arg(name, value).run();
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
}

#[test]
fn a_demo_that_is_ended_before_the_swap_ends_well() {
    examples();
    let demo = Launch::subcommand("demo").switch("--swap").arg("--for", "1h").start();
    wait_until("a report of the demo", || demo.written().contains("messages/s"));
    demo.signal(crate::support::Signal::Interrupt);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(number(&ended.stdout, "enrich.wasm"), number(&ended.stdout, "processed "));
}
