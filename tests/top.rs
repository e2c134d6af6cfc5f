//! `host top` in a real terminal: what is on the screen, compared with what is in Redis.

use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread;

use pty_process::Size;
use pty_process::blocking::{self, Pty};
use redis::cmd;
use serde_json::json;

use crate::support::host::Launch;
use crate::support::records::{DEAD, HOSTS};
use crate::support::{BOUND, Host, Publisher, Redis, Signal, Traffic, message, repository, wait_for};

/// What a terminal has received: the screen, and every byte.
struct Seen {
    parser: vt100::Parser,
    bytes: Vec<u8>,
}

/// The command in a terminal.
struct Terminal {
    pty: Pty,
    child: Child,
    seen: Arc<Mutex<Seen>>,
}

fn number(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

impl Terminal {
    fn start(redis: &Redis, (rows, columns): (u16, u16), environment: &[(&str, &str)]) -> Terminal {
        let (pty, pts) = blocking::open().expect("open a terminal");
        pty.resize(Size::new(rows, columns)).expect("set the size");
        let mut command = blocking::Command::new(env!("CARGO_BIN_EXE_host"));
        command = command.args(["top", "--interval", "100ms", "--redis", &redis.url()]);
        command = command.current_dir(repository()).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command = command.env_remove("REDIS_URL").env_remove("HOST_REDIS");
        for (name, value) in environment {
            command = command.env(name, value);
        }
        let child = command.spawn(pts).expect("start the command");
        let parser = vt100::Parser::new(number(rows), number(columns), 0);
        let seen = Arc::new(Mutex::new(Seen { parser, bytes: Vec::new() }));
        let mut screen = std::fs::File::from(rustix::io::dup(&pty).expect("the other end of the terminal"));
        let written = seen.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end of the terminal.
            while let Ok(count @ 1..) = screen.read(&mut bytes) {
                let mut seen = written.lock().unwrap();
                seen.parser.process(&bytes[..count]);
                seen.bytes.extend_from_slice(&bytes[..count]);
            }
        });
        Terminal { pty, child, seen }
    }

    fn keys(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).expect("type");
    }

    fn resize(&mut self, rows: u16, columns: u16) {
        self.seen.lock().unwrap().parser.screen_mut().set_size(number(rows), number(columns));
        self.pty.resize(Size::new(rows, columns)).expect("set the size");
    }

    fn screen(&self) -> String {
        self.seen.lock().unwrap().parser.screen().contents()
    }

    /// Waits until the screen fulfils the condition.
    fn wait_for(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> String {
        wait_for(what, BOUND, || {
            let screen = self.screen();
            if is_it(&screen) {
                return Ok(screen);
            }
            let ended = self.child.try_wait().expect("look at the command");
            assert!(ended.is_none(), "the command ended with {ended:?}:\n{screen}");
            Err(format!("\n{screen}"))
        })
    }

    /// Waits until all of these texts are on the screen.
    fn wait_for_all(&mut self, texts: &[&str]) -> String {
        self.wait_for(&format!("{texts:?}"), |screen| texts.iter().all(|text| screen.contains(text)))
    }

    /// Waits for the end of the command, which must leave the terminal as it was.
    fn ended(mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = wait_for("the end", BOUND, || {
            child.try_wait().expect("look at the command").ok_or_else(|| "it runs".into())
        });
        wait_for("a terminal as before", BOUND, || {
            let seen = self.seen.lock().unwrap();
            let screen = seen.parser.screen();
            if screen.alternate_screen() || screen.hide_cursor() { Err("not yet".into()) } else { Ok(()) }
        });
        let modes = rustix::termios::tcgetattr(&self.pty).expect("modes of the terminal").local_modes;
        assert!(modes.contains(rustix::termios::LocalModes::ICANON | rustix::termios::LocalModes::ECHO), "{modes:?}");
        status
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn host(redis: &Redis) -> Launch {
    Host::on(redis).arg("--heartbeat-interval", "50ms").arg("--max-attempts", "1")
}

/// The line of the screen that begins with this text.
fn line<'a>(screen: &'a str, begin: &str) -> Option<Vec<&'a str>> {
    screen
        .lines()
        .map(str::trim_start)
        .find(|line| line.starts_with(begin))
        .map(|line| line.split_whitespace().collect())
}

#[test]
fn the_screen_shows_the_values_in_redis_on_80_by_24() {
    let redis = Redis::start();
    let hosts = [host(&redis).ready(&redis, 2), host(&redis).ready(&redis, 3)];
    let mut publisher = Publisher::new(&redis);
    publisher.publish_all((0..1_234).map(|n| message(&format!("m-{n}"), json!({}))));
    publisher.publish(message("r", json!({"do": "reject"})));
    redis.wait_for_settled(1_235);
    let mut terminal = Terminal::start(&redis, (24, 80), &[]);
    let screen =
        terminal.wait_for_all(&["2 hosts, 5 consumers", "healthy", "[1 Hosts]", "dead letters 1: plugin-rejected 1"]);
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    // Processed by both hosts together, once the last heartbeats have come.
    terminal.wait_for("all processed messages", |screen| {
        let rows = screen.lines().filter(|line| line.contains("active") || line.contains("standby"));
        let last_but_one = |row: &str| row.split_whitespace().rev().nth(1)?.replace(',', "").parse().ok();
        let processed: Vec<u64> = rows.filter_map(last_but_one).collect();
        processed.len() == 2 && processed.iter().sum::<u64>() == 1_235
    });
    terminal.keys("2");
    let consumers = redis.consumer_ids();
    terminal.wait_for("all consumers", |screen| {
        screen.contains("[2 Consumers]") && consumers.iter().all(|id| line(screen, id).is_some())
    });
    terminal.keys("\t");
    let digest = redis.run::<Vec<String>>(cmd("HVALS").arg(HOSTS)).remove(0);
    let digest: serde_json::Value = serde_json::from_str(&digest).unwrap();
    let short = digest["digest"].as_str().unwrap()[..12].to_owned();
    let row = terminal.wait_for("the version", |screen| line(screen, &short).is_some());
    assert_eq!(line(&row, &short).unwrap()[1..3], ["steady", "2"], "{row}");
    terminal.keys("4");
    let row = terminal.wait_for("dead letters", |screen| line(screen, "plugin-rejected").is_some());
    assert_eq!(line(&row, "plugin-rejected").unwrap()[1..], ["1", "100", "%"], "{row}");
    terminal.keys("5");
    let row = terminal.wait_for("outputs", |screen| line(screen, "main ").is_some());
    assert_eq!(line(&row, "main ").unwrap()[2..], ["1,234", "1,234"], "{row}");
    terminal.keys("q");
    assert!(terminal.ended().success());
    drop(hosts);
}

#[test]
fn rates_dead_letters_and_hosts_change_while_one_looks() {
    let redis = Redis::start();
    let short = |redis: &Redis| host(redis).arg("--heartbeat-ttl", "500ms").arg("--intake-lease", "500ms");
    let (doomed, _survivor) = (short(&redis).ready(&redis, 2), short(&redis).ready(&redis, 3));
    let mut terminal = Terminal::start(&redis, (24, 80), &[]);
    terminal.wait_for_all(&["2 hosts, 5 consumers", "messages/s 0.0"]);
    let traffic = Traffic::start_at(0, &redis, 3_000, json!({}));
    terminal.wait_for("a rate and a chart of it", |screen| {
        let is_fast =
            screen.contains("messages/s 1,") || screen.contains("messages/s 2,") || screen.contains("messages/s 3,");
        is_fast && screen.contains('█')
    });
    traffic.finish();
    terminal.wait_for_all(&["messages/s 0.0"]);
    Publisher::new(&redis).publish("no message");
    terminal.wait_for_all(&["dead letters 1: not-json 1 (+1)"]);
    doomed.kill();
    terminal.wait_for_all(&["1 host, 3 consumers", "healthy"]);
    terminal.keys("\u{3}");
    assert!(terminal.ended().success());
}

#[test]
fn rows_are_sorted_scrolled_and_explained() {
    let redis = Redis::start();
    for (n, reason) in ["bad-id", "not-json", "not-json", "too-big", "too-big", "too-big"].iter().enumerate() {
        redis.run::<String>(cmd("XADD").arg(DEAD).arg(format!("{}-1", n + 1)).arg("reason").arg(reason));
    }
    let _host = host(&redis).ready(&redis, 40);
    let mut terminal = Terminal::start(&redis, (24, 80), &[]);
    let in_order = |screen: &str, reasons: [&str; 3]| {
        let places = reasons.map(|reason| screen.find(&format!("\n {reason} ")));
        places.iter().all(Option::is_some) && places.is_sorted()
    };
    terminal.keys("4");
    terminal.wait_for("an order by reason", |screen| {
        screen.contains("REASON*") && in_order(screen, ["bad-id", "not-json", "too-big"])
    });
    terminal.keys("s");
    terminal.wait_for("an order by number", |screen| in_order(screen, ["too-big", "not-json", "bad-id"]));
    terminal.keys("r");
    terminal.wait_for("the reverse", |screen| {
        screen.contains("DEAD LETTERS^") && in_order(screen, ["bad-id", "not-json", "too-big"])
    });

    terminal.keys("2");
    let screen = terminal.wait_for_all(&["/1 ", "↓"]);
    assert!(!screen.contains("/40 "), "{screen}");
    // Further than there are rows: the last one stays on the screen.
    terminal.keys(&"\u{1b}[6~".repeat(9));
    terminal.wait_for_all(&["/40 ", "↑"]);
    terminal.keys("?");
    terminal.wait_for_all(&["close this help"]);
    terminal.keys("?");
    terminal.wait_for("no help", |screen| !screen.contains("close this help"));
    terminal.keys("q");
    assert!(terminal.ended().success());
}

#[test]
fn the_screen_follows_the_size_of_the_terminal() {
    let redis = Redis::start();
    let _host = host(&redis).ready(&redis, 1);
    let mut terminal = Terminal::start(&redis, (24, 80), &[]);
    let screen = terminal.wait_for_all(&["healthy", "q end"]);
    assert!(!screen.contains("PLUGIN"), "{screen}");
    terminal.resize(40, 140);
    let screen = terminal.wait_for_all(&["PLUGIN", "steady", "q end"]);
    assert!(screen.lines().any(|line| line.chars().count() > 120), "{screen}");
    terminal.resize(12, 40);
    terminal.wait_for("a small screen", |screen| screen.contains("q end") && !screen.contains("peak"));
    terminal.resize(3, 10);
    terminal.resize(24, 80);
    terminal.wait_for_all(&["healthy", "peak", "q end"]);
    Signal::Terminate.send(terminal.child.id());
    assert!(terminal.ended().success());
}

#[test]
fn without_colours_every_meaning_is_a_word() {
    let redis = Redis::start();
    let colours = |terminal: &Terminal| {
        let seen = terminal.seen.lock().unwrap();
        let text = String::from_utf8_lossy(&seen.bytes).into_owned();
        // Foreground colours, as `ESC [ 3x m` and `ESC [ 38;5;x m`.
        let codes = text.split("\u{1b}[").filter_map(|rest| rest.split_once('m'));
        codes.filter(|(code, _)| code.starts_with("38;5") || matches!(*code, "31" | "32" | "33" | "36")).count()
    };
    let mut terminal = Terminal::start(&redis, (24, 80), &[("NO_COLOR", "1")]);
    terminal.wait_for_all(&["NOT WORKING", "problem: no host of the group", "no host is alive"]);
    assert_eq!(colours(&terminal), 0);
    terminal.keys("q");
    assert!(terminal.ended().success());
    let mut terminal = Terminal::start(&redis, (24, 80), &[]);
    terminal.wait_for_all(&["NOT WORKING"]);
    assert!(colours(&terminal) > 0);
    Signal::Hangup.send(terminal.child.id());
    assert!(terminal.ended().success());
}

#[test]
fn while_redis_is_away_the_screen_says_so_and_how_old_its_figures_are() {
    let mut redis = Redis::start();
    let _host = host(&redis).ready(&redis, 1);
    let mut terminal = Terminal::start(&redis, (24, 80), &[]);
    terminal.wait_for_all(&["healthy"]);
    redis.kill();
    terminal.wait_for_all(&["NO ANSWER", "s old"]);
    redis.restart();
    terminal.wait_for_all(&["healthy"]);
    terminal.keys("q");
    assert!(terminal.ended().success());
}

#[test]
fn it_needs_a_terminal_and_a_redis() {
    let redis = Redis::start();
    let ended = Launch::subcommand("top").arg("--redis", redis.url()).run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("host status"), "{}", ended.stderr);
    let port = crate::support::redis::free_port();
    // In a terminal, so that the address is what is wrong.
    let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let words = [env!("CARGO_BIN_EXE_host"), "top", "--redis", &format!("redis://127.0.0.1:{port}")];
    let ended = Launch::python(terminal).words(&words).run();
    assert_eq!(ended.code, Some(3), "{}", ended.stdout);
    assert!(ended.stdout.contains(&port.to_string()) && !ended.stdout.contains("\u{1b}[?1049h"), "{}", ended.stdout);
}
