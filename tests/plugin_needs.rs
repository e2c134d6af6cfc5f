//! Plugins that cannot be used for a reason outside their contract: each reason has its own error with advice.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::host::{Ended, Launch};
use crate::support::puppet;
use crate::support::written::Written;

/// Forbids the process to change mapped memory to executable, like a service manager with MemoryDenyWriteExecute.
const DENY_EXECUTABLE: &str = "
import ctypes, os, sys
PR_SET_MDWE, REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit('this kernel has no PR_SET_MDWE')
os.execv(sys.argv[1], sys.argv[1:])
";

fn component(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("plugin.wasm");
    std::fs::write(&path, wat::parse_str(text).expect("a component")).expect("write a component");
    path
}

fn expect_refusal(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(4), "{}{}", ended.stdout, ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("current toolchain"), "{}", ended.stderr);
}

#[test]
fn a_component_that_needs_what_no_engine_has_is_told_what_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for (text, words) in [
        ("(component (core module (func try catch_all end)))", ["before the standard", "-wasm-use-legacy-eh=false"]),
        ("(component (core module (memory 1 1 shared)))", ["threads", "without threads"]),
        ("(component (core func (canon thread.index)))", ["not finished", "callbacks"]),
    ] {
        let plugin = component(&folder, text);
        let ended = Launch::subcommand("check").words(&[plugin.to_str().unwrap()]).run();
        expect_refusal(&ended, &words);
    }
}

#[test]
fn a_process_that_may_not_run_what_it_compiles_says_so() {
    let ended = Launch::python(DENY_EXECUTABLE).words(&[
        env!("CARGO_BIN_EXE_host"),
        "test",
        puppet().to_str().unwrap(),
        "--no-cache",
        "--message",
        r#"{"message_id":"1"}"#,
    ]);
    expect_refusal(&ended.run(), &["make memory executable", "MemoryDenyWriteExecute"]);
}

#[test]
fn a_process_with_little_address_space_says_so() {
    let host = env!("CARGO_BIN_EXE_host");
    let line = format!(
        "ulimit -v 2000000; exec {host} test {} --no-cache --message '{{\"message_id\":\"1\"}}'",
        puppet().display()
    );
    expect_refusal(&Launch::shell(&line).run(), &["no memory", "ulimit -v"]);
    // Otherwise the test would not test this limit.
    assert!(Command::new("sh").arg("-c").arg("ulimit -v 2000000").status().unwrap().success());
}

#[test]
fn a_version_that_the_host_does_not_have_is_not_granted() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = component(
        &folder,
        r#"(component (import "wasi:random/random@0.4.0" (instance (export "get-random-u64" (func (result u64))))))"#,
    );
    let ended = Launch::subcommand("check").words(&[plugin.to_str().unwrap()]).run();
    expect_refusal(&ended, &["wasi:random/random@0.4.0", "0.2"]);
    let line =
        ended.stdout.lines().find(|line| line.contains("wasi:random/random@0.4.0")).expect("a line on the import");
    assert!(line.contains("MISSING") && !line.contains("granted"), "{line}");
}

#[test]
fn what_a_plugin_prints_is_shown_by_host_test() {
    let message = r#"{"message_id":"1","do":"print","text":"printed by the plugin"}"#;
    let ended = Launch::subcommand("test").words(&[puppet().to_str().unwrap(), "--message", message]).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("printed by the plugin").count(), 2, "{}", ended.stderr);
}

#[test]
fn a_component_is_compiled_once_and_has_slots_when_it_has_two_memories() {
    let folder = tempfile::tempdir().unwrap();
    let other = r#"(core module $other (memory (export "memory") 1)) (core instance (instantiate $other))"#;
    for (own_memories, other_modules, has_slots) in
        [("", "", true), ("(memory 1)", "", true), ("", other, true), ("(memory 1)", other, false)]
    {
        let plugin = folder.path().join("plugin.wasm");
        let written = Written { component: other_modules, items: own_memories, ..Written::default() };
        std::fs::write(&plugin, written.build()).expect("write a component");
        let plugin = plugin.to_str().unwrap();
        let check = || Launch::subcommand("check").words(&[plugin]);
        let what = format!("own memory and {own_memories:?}, {other_modules:?}");
        let ended = check().switch("--json").arg("--log-level", "debug").run();
        assert_eq!(ended.code, Some(0), "{what}: {}{}", ended.stdout, ended.stderr);
        let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
        assert_eq!(facts["pooled"], has_slots, "{what}: {facts}");
        let instances = if has_slots { "has its instances in slots" } else { "has its instances on demand" };
        let count = |words: &str| ended.stderr.lines().filter(|line| line.contains(words)).count();
        assert_eq!((count("compiling the plugin in a process"), count(instances)), (1, 1), "{what}: {}", ended.stderr);
        let text = if has_slots { "instances  in slots" } else { "instances  on demand" };
        assert!(check().run().stdout.contains(text), "{what}");

        let message = r#"{"message_id":"1","a":1.0}"#;
        let ended = Launch::subcommand("test").words(&[plugin, "--message", message]).run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "{\"emit\": {\"a\": 1.0}}\n"), "{what}");
    }
}
