//! Plugins that cannot be used for a reason outside their contract: each reason has its own error with advice.

use std::path::PathBuf;
use std::process::Command;

use crate::support::host::{Ended, Launch};
use crate::support::puppet;

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
fn a_component_that_needs_what_is_switched_off_is_told_what_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let asynchronous = r#"(component
        (core module $m
            (func (export "f") (result i32) i32.const 0)
            (func (export "cb") (param i32 i32 i32) (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func (export "run") async (canon lift (core func $i "f") async (callback (func $i "cb")))))"#;
    for (text, words) in [
        (asynchronous, ["async component", "--sync"]),
        ("(component (core module (tag $t) (func throw $t)))", ["exceptions", "-fno-exceptions"]),
        ("(component (core module (type (struct (field i32)))))", ["garbage collection", "toolchain"]),
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
        r#"(component (import "wasi:random/random@0.3.0" (instance (export "get-random-u64" (func (result u64))))))"#,
    );
    let ended = Launch::subcommand("check").words(&[plugin.to_str().unwrap()]).run();
    expect_refusal(&ended, &["wasi:random/random@0.3.0", "0.2"]);
    let line =
        ended.stdout.lines().find(|line| line.contains("wasi:random/random@0.3.0")).expect("a line on the import");
    assert!(line.contains("MISSING") && !line.contains("granted"), "{line}");
}

#[test]
fn what_a_plugin_prints_is_shown_by_host_test() {
    let message = r#"{"message_id":"1","do":"print","text":"printed by the plugin"}"#;
    let ended = Launch::subcommand("test").words(&[puppet().to_str().unwrap(), "--message", message]).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("printed by the plugin").count(), 2, "{}", ended.stderr);
}
