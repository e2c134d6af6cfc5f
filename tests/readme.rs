//! Every command in the README does what a reader expects: it works.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::host::{Host, Launch, Signal};
use crate::support::{Redis, examples, repository, wait_until};

/// Beginnings of commands that prepare the machine or the build instead of using the host. Running them here
/// would install programs or build inside the test of the build; continuous integration runs them.
const PREPARATION: [&str; 8] =
    ["apt-get ", "brew ", "cargo install ", "cd ", "git clone ", "just ", "rustup ", "sudo "];

/// The commands in the README's `sh` blocks, in order, without comments; a line ending in a backslash goes on.
fn commands() -> Vec<String> {
    let readme = fs::read_to_string(repository().join("README.md")).expect("read README.md");
    let blocks = readme.split("\n```sh\n").skip(1).map(|block| block.split("\n```").next().unwrap_or_default());
    let text: String = blocks.map(|block| format!("{block}\n")).collect();
    let lines = text.replace("\\\n", " ");
    lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// `host` itself and a demo without an end run until somebody stops them.
fn runs_for_ever(command: &str) -> bool {
    let words = command.split_whitespace();
    let mut words =
        words.skip_while(|word| !word.contains('/') && word.contains('=')).skip_while(|word| *word == "env");
    match (words.next(), words.next()) {
        (Some("host"), Some("demo")) => !command.contains("--for"),
        (Some("host"), Some(word)) => word.starts_with("--") && !["--help", "--version"].contains(&word),
        _ => false,
    }
}

/// A folder to put first in PATH: `redis-cli` there speaks to the test's Redis, as it speaks to the reader's by
/// default, and `host` is the binary under test.
fn programs(redis: &Redis) -> PathBuf {
    let folder = redis.folder().join("programs");
    fs::create_dir(&folder).expect("make a folder");
    let search = env::var_os("PATH").expect("PATH is set");
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

/// Starts what runs for ever and waits until it reports.
fn start(command: &str, redis: &Redis, path: &OsString) -> Host {
    let launch = Launch::shell(&format!("exec {command}"));
    let host = launch.env("PATH", path).env("REDIS_URL", redis.url()).env("HOST_REPORT_INTERVAL", "200ms").start();
    wait_until(&format!("a report of `{command}`"), || !host.written().is_empty());
    host
}

#[test]
fn every_command_in_the_readme_works() {
    examples();
    let redis = Redis::start();
    let path = path(&programs(&redis));
    let commands = commands();
    assert!(commands.len() >= 5, "the README explains itself by commands: {commands:?}");

    let mut running: Vec<(String, Host)> = Vec::new();
    for command in commands {
        if PREPARATION.iter().any(|beginning| command.starts_with(beginning)) {
            continue;
        }
        if runs_for_ever(&command) {
            let host = start(command.trim_end_matches('&'), &redis, &path);
            running.push((command, host));
            continue;
        }
        let ended = Launch::shell(&command).env("PATH", &path).env("REDIS_URL", redis.url()).run();
        assert_eq!(ended.code, Some(0), "`{command}`: {}{}", ended.stdout, ended.stderr);
    }
    for (command, host) in running {
        host.signal(Signal::Interrupt);
        let ended = host.ended();
        assert_eq!(ended.code, Some(0), "`{command}`: {}", ended.stderr);
    }
}
