//! The language and the toolchain that `host check` finds in components, and what it advises their authors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::languages::{example, host_test};
use crate::support::guests::{unknown_import, wrong_world};
use crate::support::host::Launch;
use crate::support::languages::{build, copy, folder_like, run};
use crate::support::repository;

/// `host check` as JSON, also of what a host cannot use.
fn check(plugin: &Path) -> (Value, String) {
    let ended = Launch::subcommand("check").words(&[plugin.to_str().expect("a path of text"), "--json"]).run();
    (serde_json::from_str(&ended.stdout).expect("one JSON object"), ended.stderr)
}

/// The result of one message in a fresh instance.
fn result(plugin: &Path, payload: &Value) -> Value {
    let ended = host_test(plugin, &["--message", &payload.to_string()]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let outcome: Value = serde_json::from_str(&ended.stdout).expect("an outcome");
    outcome["emit"].clone()
}

#[test]
fn host_check_names_the_language_and_the_toolchain_of_every_example() {
    let quickjs = ("JavaScript or TypeScript, on QuickJS", "componentize-qjs");
    let python = ("Python", "componentize-py");
    let go = ("Go", "Go cmd/compile");
    for (name, (language, tool)) in [
        ("enrich-typescript", quickjs),
        ("route", quickjs),
        ("enrich-python", python),
        ("redact", python),
        ("enrich-go", go),
        ("filter", go),
        ("enrich-c", ("C", "clang")),
    ] {
        let plugin = example(name);
        let (facts, stderr) = check(&plugin);
        assert_eq!((&facts["language"], &facts["toolchain"]), (&language.into(), &tool.into()), "{name}: {stderr}");
        assert_eq!(facts["warnings"], json!([]), "{name}");
        let text = Launch::subcommand("check").words(&[plugin.to_str().expect("a path of text")]).run().stdout;
        assert!(text.contains(&format!("  language   {language}\n  made by    ")) && text.contains(tool), "{text}");
        assert!(!text.contains("Rust") && !text.contains("rustc"), "an adapter is not the plugin: {text}");
    }
}

/// A component of QuickJS without the helpers of the example, against another contract.
fn bare_quickjs(name: &str, wit: &Path, module: &str) -> PathBuf {
    let folder = folder_like("enrich-typescript", name);
    for part in ["src", "wit"] {
        fs::remove_dir_all(folder.join(part)).expect("remove a folder");
    }
    copy(wit, &folder.join("wit"), Path::new(""));
    fs::create_dir_all(folder.join("src/host")).expect("make a folder");
    fs::write(folder.join("src/host/entry.ts"), module).expect("write the module");
    let (success, stderr) = build(&folder);
    assert!(success, "{stderr}");
    folder.join("enrich-typescript.wasm")
}

#[test]
fn host_check_warns_of_a_quickjs_whose_random_numbers_are_part_of_the_component() {
    let module = "export const processor = { process(): { tag: \"emit\"; val: string } {\n\
                  return { tag: \"emit\", val: JSON.stringify({ random: Math.random() }) };\n} };\n";
    let plugin = bare_quickjs("frozen-random", &repository().join("wit/released/0.1.0"), module);
    let random = || result(&plugin, &json!({"message_id": "1"}))["random"].clone();
    assert_eq!(random(), random(), "two instances begin with the same number");
    let (facts, stderr) = check(&plugin);
    assert_eq!((&facts["usable"], stderr.as_str()), (&true.into(), ""));
    let warning = facts["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("Math.random()") && warning.contains("wasi:random/random"), "{warning}");
    let text = Launch::subcommand("check").words(&[plugin.to_str().expect("a path of text")]).run().stdout;
    assert!(text.contains("  warning    Math.random() gives the same numbers"), "{text}");
}

#[test]
fn an_error_names_the_setting_of_the_toolchain_that_made_the_file() {
    let wit = tempfile::tempdir().expect("make a folder");
    let world = "package a:b; world plugin { import c: interface { d: func(); } export run: func(); }";
    fs::write(wit.path().join("world.wit"), world).expect("write a world");
    let quickjs = bare_quickjs("other-world", wit.path(), "export function run(): void {}\n");

    let core = |name: &str| {
        example(name);
        repository().join("plugins").join(name).join(".build/core.wasm")
    };
    let zig = folder_like("enrich-c", "zig");
    fs::write(zig.join("add.zig"), "export fn add(a: i32, b: i32) i32 { return a + b; }\n").expect("write a module");
    let options = ["zig", "build-exe", "add.zig", "-target", "wasm32-wasi", "-fno-entry", "-rdynamic", "-OReleaseFast"];
    let (success, stderr) = run(Command::new(zig.join("build")).args(options));
    assert!(success, "{stderr}");

    let world = "--wit wit --world plugin; `host wit --dir wit` writes the files";
    for (plugin, words) in [
        (quickjs, ["does not export host:plugin/processor", &*format!("componentize-qjs: {world}")]),
        (core("enrich-go"), ["core module", "GOOS=wasip1 GOARCH=wasm and -buildmode=c-shared"]),
        (core("enrich-c"), ["core module", "--target=wasm32-wasi -mexec-model=reactor"]),
        (zig.join("add.wasm"), ["core module", "-target wasm32-wasi -fno-entry -rdynamic"]),
        (wrong_world(), ["does not export host:plugin/processor", "generate!({ path: \"wit\", world: \"plugin\" })"]),
        (unknown_import(), ["example:thing/api", "generate!({ path: \"wit\", world: \"plugin\" })"]),
    ] {
        let (facts, stderr) = check(&plugin);
        assert_eq!(facts["usable"], false);
        for word in words {
            assert!(stderr.contains(word), "{}: no {word} in {stderr}", plugin.display());
        }
    }
}
