//! The host among other processes: readers that do not read, doubled signals, terminals that are closed.

use std::fs;
use std::io::{Read as _, pipe};
use std::process::{Command, Stdio};

use redis::cmd;
use serde_json::json;
use tempfile::TempDir;

use crate::support::host::{Launch, full_pipe};
use crate::support::records::OUTPUT;
use crate::support::{Host, Publisher, Redis, Signal, expect_each_once, message, puppet, wait_until};

#[test]
fn a_host_whose_output_nobody_reads_goes_on_and_stops_in_order() {
    for stream in ["stdout", "stderr"] {
        let redis = Redis::start();
        let (mut reader, writer) = full_pipe();
        let mut launch = Host::on(&redis).arg("--report-interval", "100ms").arg("--max-log-rate", "1000000");
        launch = if stream == "stdout" { launch.stdout(writer) } else { launch.stderr(writer) };
        let host = launch.ready(&redis, 2);
        let text = "x".repeat(8_000);
        let ids: Vec<String> = (0..400).map(|n| format!("m-{n}")).collect();
        Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({"do": "log", "text": text}))));
        expect_each_once(&redis, ids);
        if stream == "stderr" {
            // More lines were logged than may wait. The loss is reported when the reader reads again.
            let all = std::thread::spawn(move || {
                let mut all = String::new();
                reader.read_to_string(&mut all).unwrap();
                all
            });
            host.stop();
            assert!(all.join().unwrap().contains("dropped lines"));
        } else {
            host.stop();
        }
        assert!(redis.consumer_ids().is_empty());
    }
}

#[test]
fn two_signals_close_to_each_other_are_one() {
    let redis = Redis::start();
    let host = Host::ready(&redis, 2);
    let ids: Vec<String> = (0..10).map(|n| format!("m-{n}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({"do": "wait", "ms": 300}))));
    redis.wait_until_received(&ids);
    redis.wait_until_all_is_in_work();
    host.signal(Signal::Interrupt);
    host.signal(Signal::Terminate);
    let ended = host.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(redis.pending().is_empty(), "what was in work is settled");
}

/// A host on its own terminal, with its log in a file.
struct OnTerminal {
    terminal: std::process::Child,
    /// Process id of the host.
    process: Option<u32>,
    log: std::path::PathBuf,
    _folder: TempDir,
}

impl OnTerminal {
    fn start(redis: &Redis, before: &str) -> OnTerminal {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        // The last descriptor keeps the terminal in use: `pty.spawn` closes a terminal that nobody has open, which may be
        // the case before `nohup` ignores the hang-up.
        let host = format!(
            "exec {before} {} --redis {} --plugin {} --consumers 1 2>{} 3>/dev/tty",
            env!("CARGO_BIN_EXE_host"),
            redis.url(),
            puppet().display(),
            log.display()
        );
        let mut command = Command::new("python3");
        // Tests that run under `nohup` ignore the hang-up, and hand that on.
        let spawn = "import pty, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); pty.spawn(sys.argv[1:])";
        command.args(["-c", spawn, "sh", "-c", &host]);
        // `nohup` writes a file into the working directory.
        command.current_dir(folder.path()).env_remove("HOST_CONFIG");
        let terminal = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let mut on_terminal = OnTerminal { terminal, process: None, log, _folder: folder };
        wait_until("a host on a terminal", || on_terminal.log().contains("ready"));
        let id = redis.consumer_ids().swap_remove(0);
        on_terminal.process = id.rsplit('-').nth(1).and_then(|process| process.parse().ok());
        on_terminal
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn close(&mut self) {
        self.terminal.kill().unwrap();
        self.terminal.wait().unwrap();
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.terminal.kill();
        let _ = self.terminal.wait();
        if let Some(process) = self.process {
            // The process has already ended, unless the test has failed.
            let _ = Command::new("sh").arg("-c").arg(format!("kill -9 {process} 2>/dev/null")).status();
        }
    }
}

#[test]
fn a_closed_terminal_stops_the_host_in_order() {
    let redis = Redis::start();
    let mut host = OnTerminal::start(&redis, "");
    // While the terminal exists, SIGHUP reloads.
    Signal::Hangup.send(host.process.unwrap());
    wait_until("a reload", || host.log().contains("after SIGHUP"));
    host.close();
    wait_until("an orderly end", || host.log().contains("stopped"));
    assert!(redis.consumer_ids().is_empty());
}

#[test]
fn a_host_under_nohup_outlives_its_terminal() {
    let redis = Redis::start();
    let mut host = OnTerminal::start(&redis, "nohup");
    let process = host.process.unwrap();
    host.close();
    Signal::Hangup.send(process);
    wait_until("a reload", || host.log().contains("after SIGHUP"));
    Publisher::new(&redis).publish(message("m", json!({})));
    redis.result_of("m");
    Signal::Terminate.send(process);
    wait_until("an orderly end", || host.log().contains("stopped"));
}

#[test]
fn other_commands_find_the_private_redis() {
    let runtime = tempfile::tempdir().unwrap();
    fs::set_permissions(runtime.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let in_session = |launch: Launch| launch.env("XDG_RUNTIME_DIR", runtime.path()).arg("--redis", "embedded");
    let publish = || in_session(Launch::subcommand("publish").arg("--count", "10"));
    let ended = publish().run();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("no private Redis"), "{}", ended.stderr);

    let host = in_session(Launch::bare().arg("--plugin", puppet())).start();
    host.wait_for_log("ready");
    let ended = publish().run();
    assert!(ended.code == Some(0) && ended.stdout.contains("by 1 subscriber"), "{}{}", ended.stdout, ended.stderr);
    let url =
        host.log().split("redis=").nth(1).unwrap().split_whitespace().next().unwrap().trim_matches('"').to_owned();
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    wait_until("results", || cmd("XLEN").arg(OUTPUT).query::<usize>(&mut connection).unwrap() == 10);
    assert_eq!(in_session(Launch::subcommand("dead").words(&["list"])).run().code, Some(0));

    let second = in_session(Launch::bare().arg("--plugin", puppet())).start();
    second.wait_for_log("ready");
    let ended = publish().run();
    assert!(ended.code == Some(3) && ended.stderr.contains("several"), "{}", ended.stderr);
    host.kill();
    second.kill();
}

#[test]
fn a_rate_and_a_duration_make_an_exact_number() {
    let redis = Redis::start();
    let launch = Launch::subcommand("publish").arg("--redis", redis.url());
    let ended = launch.arg("--rate", "997").arg("--duration", "1s").run();
    assert!(ended.stdout.contains("published 997 messages"), "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn publish_ends_quietly_when_nobody_reads_its_summary() {
    let redis = Redis::start();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let launch = || Launch::subcommand("publish").arg("--redis", redis.url()).arg("--count", "1");
    let ended = launch().stdout(writer).run();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = launch().stdout(full).run();
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("cannot write to standard output") && !ended.stderr.contains("panicked"));
}

#[test]
fn a_cluster_node_and_a_sentinel_are_recognised() {
    let cluster = Redis::start_with(&["--save", "", "--cluster-enabled", "yes"]);
    let ended = Host::on(&cluster).run();
    assert!(ended.code == Some(3) && ended.stderr.contains("node of a Redis Cluster"), "{}", ended.stderr);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sentinel.conf");
    fs::write(&file, "").unwrap();
    let port = crate::support::redis::free_port();
    let mut command = Command::new(crate::support::redis::server_program());
    command.arg(&file).args(["--sentinel", "--port", &port.to_string()]).stdout(Stdio::null());
    let mut sentinel = command.spawn().unwrap();
    let url = format!("redis://127.0.0.1:{port}");
    wait_until("a sentinel", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let ended = Launch::bare().arg("--plugin", puppet()).arg("--redis", url).run();
    let _ = sentinel.kill();
    let _ = sentinel.wait();
    assert!(ended.code == Some(3) && ended.stderr.contains("is a Sentinel"), "{}", ended.stderr);
}

#[test]
fn no_error_says_a_thing_twice() {
    let redis = Redis::start();
    let nowhere = || Launch::subcommand("publish").arg("--redis", "redis://127.0.0.1:1");
    let missing = || Launch::subcommand("publish").arg("--redis", redis.url()).arg("--file", "no/such/file");
    let no_folder = Launch::bare().arg("--redis", "embedded").arg("--plugin", puppet()).env("TMPDIR", "/no/such");
    let no_plugin = Host::on(&redis).arg("--plugin", "no/such.wasm");
    for launch in [nowhere(), missing(), no_folder, no_plugin] {
        let ended = launch.env("XDG_RUNTIME_DIR", "").run();
        let error = ended.stderr.lines().last().unwrap_or_default().to_owned();
        let parts: Vec<&str> = error.split(": ").collect();
        for (index, part) in parts.iter().enumerate() {
            assert!(!parts[..index].contains(part), "{error}");
        }
        assert!(error.starts_with("error: "), "{error}");
    }
}
