//! Plugins that cannot be used for a reason outside their contract: each reason has its own error with advice.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

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

/// A plugin with these core modules beside its own, written here because no toolchain of these tests makes such a thing. Its
/// result is the message.
fn echo(own_memories: &str, other_modules: &str) -> String {
    format!(
        r#"(component
            {other_modules}
            (core module $echo
                (memory (export "memory") 1) {own_memories}
                (global $free (mut i32) (i32.const 64))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (global.get $free)
                    (global.set $free (i32.add (global.get $free) (local.get 3))))
                (func (export "process") (param $id i32) (param i32) (param $body i32) (param $bytes i32) (param i32) (result i32)
                    ;; What was handed over is overwritten by the next call. `ok(emit(body))` is zero but for the text.
                    (global.set $free (i32.const 64))
                    (i32.store (i32.const 24) (local.get $body))
                    (i32.store (i32.const 28) (local.get $bytes))
                    (i32.const 16)))
            (core instance $echo (instantiate $echo))
            (type $message (record (field "id" string) (field "body" string) (field "attempt" u32)))
            (type $outcome (variant
                (case "emit" string) (case "emit-all" (list string)) (case "drop") (case "retry" (option u32)) (case "reject" string)))
            (func $process (param "message" $message) (result (result $outcome (error string)))
                (canon lift (core func $echo "process") (memory $echo "memory") (realloc (func $echo "realloc"))))
            (component $named
                (type $a (record (field "id" string) (field "body" string) (field "attempt" u32)))
                (import "a" (type $message (eq $a)))
                (type $b (variant
                    (case "emit" string) (case "emit-all" (list string)) (case "drop") (case "retry" (option u32)) (case "reject" string)))
                (import "b" (type $outcome (eq $b)))
                (import "c" (func $process (param "message" $message) (result (result $outcome (error string)))))
                (export $message-out "message" (type $message))
                (export $outcome-out "outcome" (type $outcome))
                (export "process" (func $process)
                    (func (param "message" $message-out) (result (result $outcome-out (error string))))))
            (instance $processor (instantiate $named
                (with "a" (type $message)) (with "b" (type $outcome)) (with "c" (func $process))))
            (export "host:plugin/processor@0.1.0" (instance $processor)))"#
    )
}

#[test]
fn a_component_is_compiled_once_and_has_slots_when_it_has_two_memories() {
    let folder = tempfile::tempdir().unwrap();
    let other = r#"(core module $other (memory (export "memory") 1)) (core instance (instantiate $other))"#;
    for (own_memories, other_modules, has_slots) in
        [("", "", true), ("(memory 1)", "", true), ("", other, true), ("(memory 1)", other, false)]
    {
        let plugin = component(&folder, &echo(own_memories, other_modules));
        let plugin = plugin.to_str().unwrap();
        let check = || Launch::subcommand("check").words(&[plugin]);
        let what = format!("own memory and {own_memories:?}, {other_modules:?}");
        let ended = check().switch("--json").arg("--log-level", "debug").run();
        assert_eq!(ended.code, Some(0), "{what}: {}{}", ended.stdout, ended.stderr);
        let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
        assert_eq!(facts["pooled"], has_slots, "{what}: {facts}");
        let compiled = if has_slots { "for instances in slots" } else { "for instances on demand" };
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("compiling the plugin")).collect();
        assert!(lines.len() == 1 && lines[0].ends_with(compiled), "{what}: {lines:?}");
        let text = if has_slots { "instances  in slots" } else { "instances  on demand" };
        assert!(check().run().stdout.contains(text), "{what}");

        let message = r#"{"message_id":"1","a":1.0}"#;
        let ended = Launch::subcommand("test").words(&[plugin, "--message", message]).run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "{\"emit\": {\"a\": 1.0}}\n"), "{what}");
    }
}
