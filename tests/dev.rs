//! `host dev`: every change of a plugin's sources is built and tested, until a signal ends that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::host::Launch;
use crate::support::{BOUND, Host, Publisher, Redis, Signal, enrich, message, wait_for, wait_until};

/// A new plugin in C, whose build takes a moment.
fn plugin() -> (TempDir, PathBuf) {
    let scratch = tempfile::tempdir().expect("make a folder");
    let ended = Launch::subcommand("new").words(&["hello", "--lang", "c"]).folder(scratch.path()).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let folder = scratch.path().join("hello");
    (scratch, folder)
}

/// `host dev` with the user's own cache folder, which has the tools of the build.
fn dev(folder: &Path) -> Launch {
    let cache = std::env::var_os("XDG_CACHE_HOME").unwrap_or_default();
    Launch::subcommand("dev").words(&[folder.to_str().expect("a path of text")]).env("XDG_CACHE_HOME", cache)
}

/// A folder whose build only copies the example `enrich`, with a line of the shell in front of that.
fn copying(line: &str) -> (TempDir, Launch) {
    let folder = tempfile::tempdir().expect("make a folder");
    fs::write(folder.path().join("source"), "1").unwrap();
    fs::write(folder.path().join("cases.jsonl"), cases("{}")).unwrap();
    // Builds that write all kinds of files, which are no sources.
    let build = format!("{line} mkdir -p target; date > target/x; date > .log; cp {} made.wasm", enrich().display());
    let launch = dev(folder.path()).arg("--build", build);
    (folder, launch)
}

/// A case that passes if the result has these properties.
fn cases(properties: &str) -> String {
    format!(r#"{{"message": {{"message_id": "1", "total": 12.50}}, "emit-subset": {properties}}}"#) + "\n"
}

/// Replaces text in a source.
fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).expect("read a source");
    assert!(text.contains(from), "{text}");
    save(file, text.replace(from, to));
}

/// Writes a source all at once, so that nobody sees half of it.
fn save(file: &Path, content: impl AsRef<[u8]>) {
    let new = file.with_file_name(".new");
    fs::write(&new, content).expect("write a source");
    fs::rename(new, file).expect("replace a source");
}

/// Waits for so many lines with this beginning, and returns everything that was written.
fn wait_for_lines(dev: &Host, beginning: &str, count: usize) -> String {
    wait_for(&format!("{count} lines {beginning:?}"), BOUND, || {
        let text = dev.written();
        let found = text.lines().filter(|line| line.starts_with(beginning)).count();
        assert!(found <= count, "{text}");
        if found == count { Ok(text) } else { Err(format!("{text}{}", dev.log())) }
    })
}

/// Ends it as Ctrl-C does.
fn end(dev: Host) {
    dev.signal(Signal::Interrupt);
    let ended = dev.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

const ALL_WELL: &str = "ok      5 cases passed, ";

#[test]
fn every_edit_is_built_and_tested() {
    let (_scratch, folder) = plugin();
    let (source, wasm) = (folder.join("enrich.c"), folder.join("hello.wasm"));
    let dev = dev(&folder).start();
    let written = wait_for_lines(&dev, ALL_WELL, 1);
    assert_eq!(written.lines().count(), 1, "one line when all is well: {written}");
    assert!(written.contains("; built in ") && written.contains(", loaded in "), "{written}");
    dev.wait_for_log(&format!("  host --plugin {} --redis embedded", wasm.display()));
    let first = fs::read(&wasm).unwrap();

    edit(&source, "random_property", "lucky_number");
    wait_for_lines(&dev, ALL_WELL, 2);
    dev.wait_for_log("enrich.c changed\n");
    assert_ne!(fs::read(&wasm).unwrap(), first);

    // The compiler's own words, and the next good edit.
    edit(&source, "return host_emit", "retrun host_emit");
    wait_for_lines(&dev, "FAILED  ./build: exit status: ", 1);
    assert!(dev.log().contains("enrich.c:") && dev.log().contains("retrun"), "{}", dev.log());
    edit(&source, "retrun host_emit", "return host_emit");
    wait_for_lines(&dev, ALL_WELL, 3);

    edit(&source, "return host_emit(", "host_log(HOST_INFO, \"here I am\");\n    return host_drop(); host_emit(");
    let written = wait_for_lines(&dev, "FAILED  3 of 5 cases failed, ", 1);
    assert!(written.contains("expected emit") && written.contains("got      drop"), "{written}");
    assert!(dev.log().contains("here I am"), "the plugin's own lines: {}", dev.log());
    end(dev);
}

#[test]
fn a_running_host_swaps_to_every_good_build() {
    let (_scratch, folder) = plugin();
    let dev = dev(&folder).start();
    wait_for_lines(&dev, ALL_WELL, 1);
    let redis = Redis::start();
    let host = Host::on(&redis).arg("--plugin", folder.join("hello.wasm")).ready(&redis, 1);
    edit(&folder.join("enrich.c"), "random_property", "lucky_number");
    wait_for_lines(&dev, ALL_WELL, 2);
    host.wait_for_log("a new version of the plugin is in use");
    Publisher::new(&redis).publish(message("order-1", serde_json::json!({})));
    wait_until("a result of the new version", || redis.results_of("order-1").len() == 1);
    assert!(redis.result_of("order-1").names().contains(&"lucky_number"));
    host.stop();
    end(dev);
}

/// A pipe with a name: who opens it to read waits until somebody opens it to write. Builds wait with a bound, so that a
/// failed test leaves no process behind.
fn gate(folder: &Path) -> PathBuf {
    let gate = folder.join(".gate");
    let made = Command::new("mkfifo").arg(&gate).status().expect("run mkfifo");
    assert!(made.success());
    gate
}

#[test]
fn changes_during_a_build_lead_to_one_more() {
    let (folder, launch) = copying("echo begun; timeout --foreground 90 cat .gate;");
    let (gate, source) = (gate(folder.path()), folder.path().join("source"));
    let open = |gate: &Path| fs::write(gate, "").expect("let a build go on");
    let dev = launch.start();
    open(&gate);
    wait_for_lines(&dev, "ok ", 1);
    save(&source, "2");
    // The build reads the gate now: opening it waits for that.
    let writer = fs::OpenOptions::new().write(true).open(&gate).unwrap();
    for content in 3..20 {
        fs::write(&source, content.to_string()).unwrap();
        fs::write(folder.path().join(format!("source-{content}")), "").unwrap();
    }
    drop(writer);
    wait_for_lines(&dev, "ok ", 2);
    open(&gate);
    wait_for_lines(&dev, "ok ", 3);
    assert!(dev.log().contains("source and 17 more changed"), "{}", dev.log());

    // A further change is the next one: there was no build in between.
    save(&source, "20");
    open(&gate);
    wait_for_lines(&dev, "ok ", 4);
    assert_eq!(dev.log().matches(" changed\n").count(), 3, "{}", dev.log());
    end(dev);
}

#[test]
fn what_is_no_source_and_what_has_the_same_content_leads_to_no_build() {
    let (folder, launch) = copying("");
    fs::write(folder.path().join(".gitignore"), "/bindings/\n*.log\n").unwrap();
    let dev = launch.start();
    wait_for_lines(&dev, "ok ", 1);
    for made in ["bindings", "node_modules", ".hidden"] {
        fs::create_dir(folder.path().join(made)).unwrap();
        fs::write(folder.path().join(made).join("x"), "").unwrap();
    }
    for made in ["a.log", "source~", ".source.swp", "4913", "other.tmp", "Cargo.lock"] {
        fs::write(folder.path().join(made), "x").unwrap();
    }
    save(&folder.path().join("source"), "1");
    fs::create_dir(folder.path().join("deep")).unwrap();
    fs::write(folder.path().join("deep/new"), "").unwrap();
    wait_for_lines(&dev, "ok ", 2);
    assert!(dev.log().contains("deep/new changed\n"), "{}", dev.log());
    assert_eq!(dev.log().matches(" changed\n").count(), 1, "{}", dev.log());
    end(dev);
}

#[test]
fn a_change_of_the_cases_or_the_configuration_is_tested_without_a_build() {
    let (folder, launch) = copying("");
    let dev = launch.start();
    let written = wait_for_lines(&dev, "ok      1 cases passed, ", 1);
    assert!(written.contains("; built in "), "{written}");
    save(&folder.path().join("cases.jsonl"), cases(r#"{"total": 13}"#));
    let written = wait_for_lines(&dev, "FAILED  1 of 1 cases failed, ", 1);
    assert!(written.contains("expected 13\n            got      12.50\n"), "{written}");
    assert_eq!(written.matches("; built in ").count(), 1, "{written}");

    // A wrong configuration is reported like anything else that the next edit can mend.
    save(&folder.path().join("host.toml"), "[limits]\nmax_plugin_memory = \"1 potato\"\n");
    wait_for_lines(&dev, "FAILED  the configuration is not valid", 1);
    save(&folder.path().join("host.toml"), "[limits]\nmax_plugin_memory = \"64KiB\"\n");
    wait_for("a limit of host.toml", BOUND, || {
        let text = dev.written();
        if text.contains("memory") { Ok(()) } else { Err(text) }
    });
    end(dev);
}

#[test]
fn ctrl_c_ends_a_build_in_progress() {
    let (folder, launch) = copying("echo $$ > .process; timeout --foreground 90 cat .gate;");
    let (_gate, process) = (gate(folder.path()), folder.path().join(".process"));
    let dev = launch.start();
    let process = wait_for("a build", BOUND, || {
        let text = fs::read_to_string(&process).unwrap_or_default();
        text.trim().parse::<u32>().map_err(|_| text)
    });
    end(dev);
    wait_until("the end of the build", || !Path::new(&format!("/proc/{process}")).exists());
}

#[test]
fn what_no_edit_can_mend_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let refused = |words: &[&str], problem: &str| {
        let ended = Launch::subcommand("dev").words(words).run();
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{}", ended.stderr);
        assert!(ended.stderr.contains(problem), "{}", ended.stderr);
    };
    refused(&["nowhere"], "there is no folder nowhere; `host new`");
    refused(&[path], "no script `build`");
    refused(&[path, "--build", "true", "--max-plugin-memory", "1 potato"], "max-plugin-memory");
    let ended = Launch::bare().words(&["--consumers", "3", "dev", path, "--build", "true"]).run();
    assert!(ended.code == Some(2) && ended.stderr.contains("does not use --consumers"), "{}", ended.stderr);
}
