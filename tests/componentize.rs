//! `host wit` and `host componentize`: the contract as files, and plugins out of core modules.
//! The modules are written by hand here, except for the examples in C, Zig and Go, which are built as their authors build them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;
use wit_component::{StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::support::host::Ended;
use crate::support::repository;

const BINARY: &str = env!("CARGO_BIN_EXE_host");

/// Compiled plugins are shared with the other tests, and kept apart from the user's.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");

fn end(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().expect("start the command");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn host(arguments: &[&str]) -> Ended {
    end(Command::new(BINARY).args(arguments).env_clear().env("XDG_CACHE_HOME", CACHE).current_dir(repository()))
}

#[track_caller]
fn expect(ended: &Ended, code: i32, stderr: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
    for word in stderr {
        assert!(ended.stderr.contains(word), "no {word:?} in: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("panicked at host"), "{}", ended.stderr);
}

#[track_caller]
fn expect_silence(ended: &Ended) {
    assert_eq!((ended.code, &*ended.stdout, &*ended.stderr), (Some(0), "", ""));
}

/// Paths below the folder with their contents.
fn tree(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("read a folder") {
            let path = entry.expect("read a folder").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn the_contract_is_printed() {
    let ended = host(&["wit"]);
    expect(&ended, 0, &[]);
    assert_eq!(ended.stdout, fs::read_to_string(repository().join("wit/plugin.wit")).unwrap());

    let ended = host(&["wit", "--contract", "0.1.0"]);
    expect(&ended, 0, &[]);
    assert_eq!(ended.stdout, fs::read_to_string(repository().join("wit/released/0.1.0/plugin.wit")).unwrap());

    expect(&host(&["wit", "--contract", "0.2.0"]), 2, &["0.2.0", "possible values: 1.0.0, 0.1.0"]);
    expect(&host(&["--consumers", "3", "wit"]), 2, &["does not use --consumers"]);
}

#[test]
fn the_contract_is_written_with_everything_that_it_imports() {
    let folder = tempfile::tempdir().unwrap();
    let wit = folder.path().join("new/wit");
    expect_silence(&host(&["wit", "--dir", wit.to_str().unwrap()]));
    let mut expected = tree(&repository().join("wit"));
    expected.retain(|path, _| !path.starts_with("released"));
    assert_eq!(tree(&wit), expected);

    // An older version lacks what that version does not import; the files of a generator stay out of it.
    for version in ["1.0.0", "0.1.0"] {
        let wit = folder.path().join(version);
        expect_silence(&host(&["wit", "--contract", version, "--dir", wit.to_str().unwrap()]));
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(&wit).expect("a generator can read the files");
        resolve.select_world(&[package], Some("plugin")).expect("the world of a plugin");
    }
}

#[test]
fn a_file_that_differs_is_overwritten_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let wit = folder.path().to_str().unwrap();
    expect_silence(&host(&["wit", "--dir", wit]));
    // Once more is no difference.
    expect_silence(&host(&["wit", "--dir", wit]));

    fs::write(folder.path().join("mine.wit"), "package mine:own;").unwrap();
    fs::write(folder.path().join("plugin.wit"), "package mine:plugin;").unwrap();
    fs::remove_file(folder.path().join("deps/wasi-io-0.2.0/poll.wit")).unwrap();
    let before = tree(folder.path());
    expect(&host(&["wit", "--dir", wit]), 1, &["plugin.wit", "--force", "--dir"]);
    assert_eq!(tree(folder.path()), before, "nothing is written when something differs");

    expect_silence(&host(&["wit", "--dir", wit, "--force"]));
    let after = tree(folder.path());
    assert!(after[Path::new("plugin.wit")].contains("package host:plugin@"));
    assert_eq!(after[Path::new("mine.wit")], "package mine:own;");
    assert!(after.contains_key(Path::new("deps/wasi-io-0.2.0/poll.wit")));
}

/// A module that drops every message, with this export and these further lines.
fn dropping(export: &str, imports: &str, more: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
            {imports}
            (memory (export "memory") 8)
            (global $end (mut i32) (i32.const 1024))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                global.get $end
                global.get $end local.get 3 i32.add i32.const 7 i32.add i32.const -8 i32.and global.set $end)
            ;; A result without an error, whose outcome is the third: drop.
            (data (i32.const 16) "\00\00\00\00\02\00\00\00\00\00\00\00\00\00\00\00")
            (func (export "{export}") (param i32 i32 i32 i32 i32) (result i32)
                i32.const 16)
            {more})"#
    );
    wat::parse_str(text).expect("the module is WebAssembly text")
}

fn process(version: &str) -> String {
    format!("host:plugin/processor@{version}#process")
}

/// A module in a folder of its own, and the result of `host componentize`.
fn componentize(module: &[u8]) -> (TempDir, Ended) {
    let folder = tempfile::tempdir().unwrap();
    let core = folder.path().join("core.wasm");
    fs::write(&core, module).unwrap();
    let plugin = folder.path().join("plugin.wasm");
    let ended = host(&["componentize", core.to_str().unwrap(), "-o", plugin.to_str().unwrap()]);
    assert_eq!(plugin.exists(), ended.code == Some(0), "a file is written only when it is a component");
    (folder, ended)
}

/// What `host check` says about the plugin in this folder, which drops every message.
#[track_caller]
fn expect_a_dropping_plugin(folder: &TempDir) -> Value {
    let plugin = folder.path().join("plugin.wasm");
    let plugin = plugin.to_str().unwrap();
    let cases = folder.path().join("cases.jsonl");
    fs::write(&cases, "{\"message\": {\"message_id\": 1}, \"drop\": true}\n").unwrap();
    expect(&host(&["test", plugin, cases.to_str().unwrap()]), 0, &[]);
    let ended = host(&["check", "--json", plugin]);
    expect(&ended, 0, &[]);
    serde_json::from_str(&ended.stdout).expect("one JSON object")
}

fn imports(facts: &Value) -> Vec<&str> {
    facts["imports"].as_array().unwrap().iter().map(|import| import["name"].as_str().unwrap()).collect()
}

#[test]
fn a_module_becomes_a_plugin_of_the_contract_whose_function_it_exports() {
    for version in ["1.0.0", "0.1.0"] {
        let (folder, ended) = componentize(&dropping(&process(version), "", ""));
        expect_silence(&ended);
        let facts = expect_a_dropping_plugin(&folder);
        assert_eq!(facts["contract"], format!("host:plugin/processor@{version}"));
        assert_eq!(imports(&facts), Vec::<&str>::new(), "what a module does not use it does not import");
    }
}

#[test]
fn a_module_with_types_of_its_own_keeps_them() {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(repository().join("wit/released/0.1.0")).unwrap();
    let world = resolve.select_world(&[package], Some("plugin")).unwrap();
    let mut module = dropping(&process("0.1.0"), "", "");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let (folder, ended) = componentize(&module);
    expect_silence(&ended);
    assert_eq!(expect_a_dropping_plugin(&folder)["contract"], "host:plugin/processor@0.1.0");

    // Types of a library only: those of the contract are added, and the library's imports stay.
    let mut resolve = Resolve::default();
    let text = "package example:extra; interface more { f: func(); } world w { import more; }";
    let package = resolve.push_str("extra.wit", text).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let mut module = dropping(&process("1.0.0"), r#"(import "example:extra/more" "f" (func))"#, "");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let (folder, ended) = componentize(&module);
    expect_silence(&ended);
    let ended = host(&["check", "--json", folder.path().join("plugin.wasm").to_str().unwrap()]);
    let facts: Value = serde_json::from_str(&ended.stdout).expect("one JSON object");
    assert_eq!(facts["contract"], "host:plugin/processor@1.0.0");
    assert_eq!(imports(&facts), ["example:extra/more"]);
}

#[test]
fn imports_of_wasi_preview_1_and_of_the_contract_are_linked() {
    let imported = r#"
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "adapter_monotonic_clock_set_paused" (func (param i32)))
        (import "wasi:random/random@0.2.0" "get-random-u64" (func (result i64)))
        (import "host:plugin/context@1.0.0" "generation" (func (result i64)))"#;
    let start = r#"(func (export "_initialize") i32.const 0 i32.const 8 call $random drop)"#;
    let (folder, ended) = componentize(&dropping(&process("1.0.0"), imported, start));
    expect_silence(&ended);
    let facts = expect_a_dropping_plugin(&folder);
    for name in ["wasi:random/random@0.2.", "host:plugin/context@1.0.0"] {
        assert!(imports(&facts).iter().any(|import| import.starts_with(name)), "{facts}");
    }
}

#[test]
fn debug_information_is_left_out_and_names_stay() {
    let more = r#"
        (@producers (language "C11" "") (processed-by "clang" "22.1.8"))
        (@custom ".debug_info" (after code) "debug information of the module")
        (@custom ".debug_str" "clang version 22.1.8")
        (@custom "mine" "a section of the author's own")
        (func $a_function_with_a_name)"#;
    let (folder, ended) = componentize(&dropping(&process("1.0.0"), "", more));
    expect_silence(&ended);
    let facts = expect_a_dropping_plugin(&folder);
    assert_eq!((&facts["language"], &facts["toolchain"]), (&"C".into(), &"clang".into()));
    let component = fs::read(folder.path().join("plugin.wasm")).unwrap();
    let has = |text: &str| component.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(has("a_function_with_a_name") && has("a section of the author's own"));
    assert!(!has(".debug_") && !has("debug information") && !has("clang version"));
}

#[test]
fn a_module_that_cannot_become_a_plugin_is_refused_with_advice() {
    let process = process("1.0.0");
    let text = |text: &str| wat::parse_str(text).expect("WebAssembly text");
    let plain = |imports: &str| dropping(&process, imports, "");
    let refused: [(Vec<u8>, &[&str]); 9] = [
        (b"int main(void) { return 0; }".to_vec(), &["not WebAssembly", "a compiler has written"]),
        (Vec::new(), &["not WebAssembly"]),
        (text("(component)"), &["a component already", "`host check`"]),
        (b"\0asm\x01\0\0\0\x01\xff".to_vec(), &["damaged"]),
        (
            text(r#"(module (memory (export "memory") 1) (func (export "proces")))"#),
            &["`memory`, `proces`", "`host:plugin/processor@1.0.0#process`", "`wit-bindgen`"],
        ),
        (text("(module)"), &["exports nothing"]),
        (dropping(&process, "", r#"(func (export "_start"))"#), &["`_start`", "-mexec-model=reactor", "c-shared"]),
        (
            plain(r#"(import "env" "sha256" (func)) (import "wasi_snapshot_preview1" "fd_writ" (func))"#),
            &["`sha256` of `env`, `fd_writ` of `wasi_snapshot_preview1`", "link the library", "`host wit`"],
        ),
        (
            plain(r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func (result i32)))"#),
            &["get-random-u64", "`host wit --dir wit`"],
        ),
    ];
    for (module, words) in refused {
        let (_, ended) = componentize(&module);
        expect(&ended, 4, words);
        assert!(ended.stderr.contains("core.wasm") && ended.stdout.is_empty(), "{}", ended.stderr);
    }
}

#[test]
fn files_that_cannot_be_read_or_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = |name: &str| folder.path().join(name).display().to_string();
    expect(&host(&["componentize", &here("none.wasm"), "-o", &here("x.wasm")]), 4, &["none.wasm", "No such file"]);
    fs::write(here("core.wasm"), dropping(&process("1.0.0"), "", "")).unwrap();
    expect(&host(&["componentize", &here("core.wasm")]), 2, &["--output"]);
    expect(
        &host(&["componentize", &here("core.wasm"), "-o", &here("none/x.wasm")]),
        1,
        &["cannot write", "none/x.wasm"],
    );

    // A module may be replaced by its component, through a link too; nothing else is left behind.
    std::os::unix::fs::symlink("core.wasm", here("link.wasm")).unwrap();
    expect_silence(&host(&["componentize", &here("core.wasm"), "-o", &here("link.wasm")]));
    expect(&host(&["check", &here("core.wasm")]), 0, &[]);
    assert!(fs::symlink_metadata(here("link.wasm")).unwrap().is_symlink());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// Builds an example as its author does, and gives the plugin.
fn built(example: &str) -> String {
    let folder = repository().join("plugins").join(example);
    let ended = end(Command::new(folder.join("build")).env("HOST_BINARY", BINARY));
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    folder.join(format!("{example}.wasm")).display().to_string()
}

#[test]
fn a_plugin_in_c_passes_its_cases() {
    let plugin = built("enrich-c");
    expect(&host(&["test", &plugin, "plugins/enrich-c/cases.jsonl"]), 0, &[]);
}

#[test]
fn every_function_for_zig_does_what_it_says() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().to_str().expect("a path of text");
    expect(&host(&["new", "probe", "--lang", "zig", "--dir", dir]), 0, &[]);
    let folder = scratch.path().join("probe");
    fs::copy(repository().join("tests/languages/probe.zig"), folder.join("enrich.zig")).unwrap();
    let ended = end(Command::new(folder.join("build")).env("HOST_BINARY", BINARY));
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let plugin = folder.join("probe.wasm").display().to_string();
    let asked = |order: &str| {
        let message = format!(r#"{{"message_id":1,"do":"{order}"}}"#);
        let words = ["test", &plugin, "--plugin-config", "currency=EUR", "--log-level", "debug", "--message", &message];
        let ended = host(&words);
        (ended.stdout.trim_end().to_owned(), ended.stderr)
    };
    for (order, expected) in [
        ("drop", r#"{"drop": true}"#),
        ("retry", r#"{"retry": true}"#),
        ("retry-later", r#"{"retry": 1500}"#),
        ("reject", r#"{"reject": "bad 7%s"}"#),
        ("fail", r#"{"fail": "worse 8"}"#),
        ("error", r#"{"fail": "Broken"}"#),
        ("several", r#"{"emit": [{"currency": "EUR", "missing": true}, {"n": 2}]}"#),
        (
            "facts",
            r#"{"emit": {"channel": "messages:published", "consumer": "test", "generation": 1, "attempt": 1, "now": true}}"#,
        ),
    ] {
        let (stdout, stderr) = asked(order);
        assert_eq!(stdout, expected, "{order}: {stderr}");
    }
    let (stdout, _) = asked("out-of-bounds");
    assert!(stdout.contains("panic: index out of bounds"), "{stdout}");
    let (_, log) = asked("log");
    for line in ["DEBUG to debug", "INFO to the log: 1", "WARN (part) to warn", "ERROR to error"] {
        assert!(log.contains(line), "no {line:?} in: {log}");
    }
}

/// What becomes of a message, with `R` for the random value.
#[track_caller]
fn answer(plugin: &str, message: &str) -> String {
    let ended = host(&["test", plugin, "--message", message]);
    expect(&ended, 0, &[]);
    let (before, rest) = ended.stdout.split_once(r#""random_property": ""#).expect("the property is added");
    let (value, after) = rest.split_once('"').expect("the value is a string");
    assert!(value.len() == 16 && value.bytes().all(|digit| digit.is_ascii_hexdigit()), "{value}");
    format!(r#"{before}"random_property": R{}"#, after.trim_end())
}

#[test]
fn helpers_for_c_zig_and_go_keep_every_digit_and_the_order() {
    let plugins = [built("enrich-c"), built("enrich-zig"), built("enrich-go")];
    for (message, expected) in [
        (r#"{"message_id":"1"}"#, r#"{"emit": {"random_property": R}}"#),
        // Names below the top level are others.
        (
            r#"{ "b" : 12.50 , "a" :[1E400, {"random_property": 1}], "message_id" : 2 }"#,
            r#"{"emit": {"b": 12.50, "a": [1E400, {"random_property": 1}], "random_property": R}}"#,
        ),
        // The property exists: its value is replaced where it stands, whatever the value holds.
        (
            r#"{"2":0,"random_property":{"old":"\"}"},"message_id":"\\","1":"\"}"}"#,
            r#"{"emit": {"2": 0, "random_property": R, "1": "\"}"}}"#,
        ),
        (
            r#"{"message_id":4,"r\u0061ndom_pr\u006fperty":[],"\ud83d\ude00":-9007199254740993}"#,
            r#"{"emit": {"random_property": R, "😀": -9007199254740993}}"#,
        ),
        // Halves of a pair are names and values too; `host test` shows them as U+FFFD.
        (
            r#"{"message_id":5,"\ud800andom_property":0,"random\\property":"\ud800"}"#,
            "{\"emit\": {\"\u{fffd}andom_property\": 0, \"random\\\\property\": \"\u{fffd}\", \"random_property\": R}}",
        ),
    ] {
        for plugin in &plugins {
            assert_eq!(answer(plugin, message), expected, "{plugin}: {message}");
        }
    }
}

#[test]
fn a_filter_follows_the_rule_of_its_configuration() {
    let plugin = built("filter");
    expect(&host(&["test", &plugin, "plugins/filter/cases.jsonl", "--config", "plugins/filter/host.toml"]), 0, &[]);

    let folder = tempfile::tempdir().unwrap();
    let cases = folder.path().join("cases.jsonl");
    let message = r#"{"message_id": "1", "total": 9007199254740993, "vat": -0.50, "paid": true, "note": null,
        "status": "on hold", "zip": "8001", "customer": {"a": {"b": 1e-3}}}"#
        .replace('\n', "");
    for (rule, holds) in [
        ("total = 9007199254740993", true),
        ("total > 9007199254740992", true),
        ("total = 9007199254740992", false),
        ("total <= 9.007199254740993e15", true),
        ("total < 1E999999999999999999999", true),
        ("vat < 0 and vat >= -0.5 and vat > -0.51", true),
        ("vat > -1e-999999999999999999999", false),
        ("paid = true and note = null", true),
        ("paid != false", true),
        ("paid != 1", true),
        (r#"status = "on hold""#, true),
        ("status > on", true),
        (r#"zip = "8001""#, true),
        ("zip = 8001", false),
        ("customer.a.b=0.001", true),
        ("customer.a.c != 1", false),
        ("customer.a != 1", false),
    ] {
        let expected = if holds { r#""emit-subset": {}"# } else { r#""drop": true"# };
        fs::write(&cases, format!("{{\"message\": {message}, {expected}}}\n")).unwrap();
        let ended = host(&["test", &plugin, cases.to_str().unwrap(), "--plugin-config", &format!("rule={rule}")]);
        assert_eq!(ended.code, Some(0), "{rule}: {}{}", ended.stdout, ended.stderr);
    }

    for (rule, word) in [
        ("total", "such as total > 100"),
        ("total > 1 or paid = true", "expected \"and\" or the end"),
        ("paid > true", "no order"),
        (r#"zip = "80"#, "such as total > 100"),
    ] {
        let ended = host(&["check", &plugin, "--plugin-config", &format!("rule={rule}")]);
        expect(&ended, 4, &["does not start", "plugin_config.rule", word]);
    }
    expect(&host(&["check", &plugin]), 4, &["plugin_config.rule", "there is no rule"]);
}

#[test]
fn the_bindings_of_the_examples_are_those_of_the_contract() {
    expect_silence(&end(Command::new(repository().join(".ci/bindings")).arg("--check")));
}
