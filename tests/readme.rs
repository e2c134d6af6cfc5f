//! Every command in the README and in the handbook works, and every link has a target.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::host::{Host, Launch, Signal};
use crate::support::{BOUND, Redis, examples, repository, wait_for};

/// Beginnings of commands that prepare the machine or the build instead of using the host. Running them here
/// would install programs or build inside the test of the build; continuous integration runs them.
const PREPARATION: [&str; 9] =
    ["apt-get ", "brew ", "cargo install ", "cd ", "export ", "git clone ", "just ", "rustup ", "sudo "];

/// The README and the chapters of the handbook, below the repository's root.
const DOCUMENTS: [&str; 15] = [
    "README.md",
    "host/docs/README.md",
    "host/docs/getting-started.md",
    "host/docs/writing-plugins.md",
    "host/docs/state.md",
    "host/docs/languages.md",
    "host/docs/configuration.md",
    "host/docs/reload.md",
    "host/docs/operating.md",
    "host/docs/deploying.md",
    "host/docs/http-api.md",
    "host/docs/remote-consumers.md",
    "host/docs/guarantees.md",
    "host/docs/benchmarks.md",
    "SECURITY.md",
];

fn read(document: &str) -> String {
    fs::read_to_string(repository().join(document)).unwrap_or_else(|error| panic!("read {document}: {error}"))
}

/// The commands in the `sh` blocks of a document, in order, without comments. A line that ends in a backslash
/// continues.
fn commands(document: &str) -> Vec<String> {
    let text = read(document);
    let blocks = text.split("\n```sh\n").skip(1).map(|block| block.split("\n```").next().unwrap_or_default());
    let text: String = blocks.map(|block| format!("{block}\n")).collect();
    let lines = text.replace("\\\n", " ");
    lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// `host` itself, `host dev` and a demo without an end run until a signal stops them.
fn runs_for_ever(command: &str) -> bool {
    let words = command.split_whitespace();
    let mut words =
        words.skip_while(|word| !word.contains('/') && word.contains('=')).skip_while(|word| *word == "env");
    match (words.next(), words.next()) {
        (Some("host"), Some("demo")) => !command.contains("--for"),
        (Some("host"), Some("dev")) => true,
        (Some("host"), Some(word)) => word.starts_with("--") && !["--help", "--version"].contains(&word),
        _ => false,
    }
}

/// In place of `curl` where that is not installed.
const CURL: &str = "#!/usr/bin/env python3
import sys, urllib.request
words, headers, data, url = sys.argv[1:], {}, None, None
while words:
    word = words.pop(0)
    if word == '-H':
        name, value = words.pop(0).split(':', 1)
        headers[name] = value.strip()
    elif word == '-d':
        data = words.pop(0).encode()
    elif not word.startswith('-'):
        url = word
for line in urllib.request.urlopen(urllib.request.Request(url, data, headers)):
    print(line.decode(), end='', flush=True)
";

/// A folder to put first in PATH: `redis-cli` there speaks to the test's Redis, as it speaks to the reader's by
/// default, and `host` is the binary under test.
fn programs(redis: &Redis) -> PathBuf {
    let folder = redis.folder().join("programs");
    fs::create_dir(&folder).expect("make a folder");
    let search = env::var_os("PATH").expect("PATH is set");
    if !env::split_paths(&search).any(|folder| folder.join("curl").is_file()) {
        fs::write(folder.join("curl"), CURL).expect("write a script");
        fs::set_permissions(folder.join("curl"), fs::Permissions::from_mode(0o755)).expect("make it a program");
    }
    for name in ["redis-cli", "valkey-cli"] {
        if let Some(real) = env::split_paths(&search).map(|folder| folder.join(name)).find(|file| file.is_file()) {
            let script = format!("#!/bin/sh\nexec {} -p {} \"$@\"\n", real.display(), redis.port());
            fs::write(folder.join(name), script).expect("write a script");
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).expect("make it a program");
        }
    }
    folder
}

fn path(programs: &Path) -> OsString {
    let binary = Path::new(env!("CARGO_BIN_EXE_host")).parent().expect("the binary lies in a folder");
    let search = env::var_os("PATH").expect("PATH is set");
    let folders = [programs.to_owned(), binary.to_owned()].into_iter().chain(env::split_paths(&search));
    env::join_paths(folders).expect("PATH can be extended")
}

/// A folder that looks like the repository, for commands that write files.
fn scratch(redis: &Redis) -> PathBuf {
    let folder = redis.folder().join("scratch");
    fs::create_dir(&folder).expect("make a folder");
    for entry in fs::read_dir(repository()).expect("read the repository") {
        let entry = entry.expect("read the repository");
        symlink(entry.path(), folder.join(entry.file_name())).expect("link to the repository");
    }
    folder
}

/// Runs all commands of a document, one after the other, as a reader with a Redis of their own would.
fn expect_commands_to_work(document: &str, commands_min: usize) {
    examples();
    let redis = Redis::start();
    let path = path(&programs(&redis));
    let (scratch, runtime) = (scratch(&redis), redis.folder().join("runtime"));
    fs::create_dir(&runtime).expect("make a folder");
    fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).expect("make it private");
    let launch = |line: &str| {
        let launch = Launch::shell(line).env("PATH", &path).env("REDIS_URL", redis.url()).folder(&scratch);
        launch.env("XDG_RUNTIME_DIR", &runtime).env("HOST_REPORT_INTERVAL", "200ms")
    };

    let mut running: Vec<(String, Host)> = Vec::new();
    let mut run = 0;
    for command in commands(document) {
        if PREPARATION.iter().any(|beginning| command.starts_with(beginning)) {
            continue;
        }
        run += 1;
        if runs_for_ever(&command) {
            let host = launch(&format!("exec {}", command.trim_end_matches('&'))).start();
            // `host dev` reports its first build, which compiles crates.
            wait_for(&format!("a report of `{command}`"), 5 * BOUND, || {
                if host.written().is_empty() { Err(host.log()) } else { Ok(()) }
            });
            running.push((command, host));
            continue;
        }
        let ended = launch(&command).run();
        assert_eq!(ended.code, Some(0), "`{command}`: {}{}", ended.stdout, ended.stderr);
    }
    assert!(run >= commands_min, "{document} explains itself by commands, and {run} were run");
    for (command, host) in running {
        host.signal(Signal::Interrupt);
        let ended = host.ended();
        assert_eq!(ended.code, Some(0), "`{command}`: {}", ended.stderr);
    }
}

#[test]
fn every_command_in_the_readme_works() {
    expect_commands_to_work("README.md", 3);
}

#[test]
fn every_command_in_getting_started_works() {
    expect_commands_to_work("host/docs/getting-started.md", 7);
}

#[test]
fn every_command_in_writing_plugins_works() {
    expect_commands_to_work("host/docs/writing-plugins.md", 4);
}

#[test]
fn every_command_in_configuration_works() {
    expect_commands_to_work("host/docs/configuration.md", 3);
}

#[test]
fn every_command_in_operating_works() {
    expect_commands_to_work("host/docs/operating.md", 7);
}

#[test]
fn every_command_in_http_api_works() {
    expect_commands_to_work("host/docs/http-api.md", 15);
}

#[test]
fn every_command_in_the_other_chapters_works() {
    for document in ["README", "languages", "reload", "deploying", "remote-consumers", "guarantees", "benchmarks"] {
        expect_commands_to_work(&format!("host/docs/{document}.md"), 0);
    }
}

#[test]
fn every_chapter_is_among_the_documents() {
    let chapters = fs::read_dir(repository().join("host/docs")).expect("read the handbook");
    for chapter in chapters {
        let name = format!("host/docs/{}", chapter.expect("read the handbook").file_name().to_string_lossy());
        let is_tested = !name.ends_with(".md") || DOCUMENTS.contains(&name.as_str());
        assert!(is_tested, "{name}: its commands and links are not tested");
    }
}

/// A document without its blocks of code.
fn prose(document: &str) -> String {
    read(document).split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// The anchors of a document's headings, as they are made where the repository is read.
fn anchors(document: &str) -> Vec<String> {
    let text = prose(document);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|char| char.is_alphanumeric() || matches!(char, ' ' | '-' | '_'));
        kept.map(|char| if char == ' ' { '-' } else { char }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for document in DOCUMENTS.into_iter().chain(["ARCHITECTURE.md", "CHANGELOG.md"]) {
        let folder = Path::new(document).parent().expect("a document lies in a folder");
        let text = prose(document);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { PathBuf::from(document) } else { folder.join(file) };
            assert!(repository().join(&target).exists(), "{document}: there is no {link}");
            if !anchor.is_empty() {
                let anchors = anchors(target.to_str().expect("a path of text"));
                assert!(anchors.iter().any(|known| known == anchor), "{document}: no heading for {link}: {anchors:?}");
            }
        }
    }
    assert!(links > 20, "the documents refer to each other: {links}");
}

#[test]
fn the_contract_names_the_defaults_that_the_host_has() {
    let contract = read("wit/plugin.wit").replace("///", " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let reference = Launch::subcommand("config").switch("--reference").run().stdout;
    let mut named = 0;
    for (before, after) in contract.split("`, by default ").zip(contract.split("`, by default ").skip(1)) {
        let (_, flag) = before.rsplit_once('`').expect("a flag");
        let in_contract: String = after.chars().take_while(|char| char.is_ascii_digit() || *char == ',').collect();
        let (_, chapter) = reference.split_once(&format!("`{flag} ")).unwrap_or_else(|| panic!("no setting {flag}"));
        let (_, default) = chapter.split_once("default `").expect("a default");
        let default = default.split('`').next().expect("a default");
        assert_eq!(in_contract.replace(',', ""), default, "{flag}");
        named += 1;
    }
    assert!(named > 0, "the contract names the number of results");
}
