//! The cost of one consumer's endless loops for the others: a burst for ten consumers, first alone, then while one
//! message after the other loops until the time limit, then beside a process that only burns a core. The last one shows
//! how much of the loss is the core of the loop, which no host can give back.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use host::redis::embedded::Embedded;

use crate::columns::{Column, Table};
use crate::run::{self, Ended, POLL, Subject};
use crate::{Args, guests, ledger, load, progress_bar};

/// Time limit for a message, and so the duration of each loop.
const LIMIT: &str = "100ms";

/// Consumers of the host.
const CONSUMERS: u32 = 10;

const COLUMNS: [Column; 2] = [
    Column { key: "messages_per_second", title: "messages/s", digits: 0 },
    Column { key: "loops_per_second", title: "loops/s", digits: 1 },
];

#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    Loops,
    BusyProcess,
}

const ALL: [Beside; 3] = [Beside::Nothing, Beside::Loops, Beside::BusyProcess];

impl fmt::Display for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Beside::Nothing => "good messages only",
            Beside::Loops => "one more loops, always",
            Beside::BusyProcess => "another process loops",
        })
    }
}

/// Measures each situation `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32) -> Result<Table> {
    let plugin = guests::puppet()?;
    let mut table = Table::new(&COLUMNS, ALL.map(|beside| beside.to_string()));
    let bar = progress_bar(u64::from(rounds) * ALL.len() as u64)?;
    for round in 1..=rounds {
        for (index, beside) in ALL.into_iter().enumerate() {
            bar.set_message(format!("loop, round {round}, {beside}"));
            let values = one_burst(beside, args.messages, &plugin);
            table.add(index, &values.with_context(|| format!("{beside}, round {round}"))?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(table)
}

/// Endless work in a separate process.
pub fn burn() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Good messages a second, and loops a second.
fn one_burst(beside: Beside, messages: u64, plugin: &Path) -> Result<[f64; 2]> {
    let server = Embedded::start_on_loopback()?;
    let mut redis = redis::Client::open(server.url())?.get_connection()?;
    let subject = Subject::Host { consumers: CONSUMERS };
    let mut command = run::host(CONSUMERS, &server, plugin);
    // A loop that is given up at once is followed by the next loop, and not by its own second attempt.
    command.args(["--max-plugin-time", LIMIT]).env("HOST_MAX_ATTEMPTS", "1").env("HOST_LOG_LEVEL", "error");
    let mut process = Ended(command.spawn().context("cannot start the host")?);
    run::wait_until_ready(&subject, &mut redis, &mut process.0)?;
    let _busy = match beside {
        Beside::BusyProcess => {
            let mut command = Command::new(std::env::current_exe()?);
            Some(Ended(command.arg("--burn").stdin(Stdio::null()).spawn().context("cannot start a busy process")?))
        }
        Beside::Nothing | Beside::Loops => None,
    };

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let loops = matches!(beside, Beside::Loops).then(|| scope.spawn(|| keep_looping(&server.url(), &stop)));
        let start = Instant::now();
        let mut publisher = Ended(run::publisher(&server, messages)?);
        let elapsed = run::wait_for_results(&mut redis, &mut process.0, messages, start);
        stop.store(true, Ordering::Relaxed);
        let loops =
            loops.map(|thread| thread.join().map_err(|_| anyhow!("the publisher of loops ended"))?).transpose()?;
        let elapsed = elapsed?.as_secs_f64();
        load::published(&mut publisher.0)?.by_all()?;
        // A looping message is given up; any other message has one result.
        ledger::expect_each_once(&mut redis, messages, 0)?;
        Ok([messages as f64 / elapsed, loops.unwrap_or(0) as f64 / elapsed])
    })
}

/// Publishes a looping message whenever the previous one was given up. Returns the number of such messages.
fn keep_looping(url: &str, stop: &AtomicBool) -> Result<u64> {
    let mut redis = redis::Client::open(url)?.get_connection()?;
    for looped in 0.. {
        let message = format!(r#"{{"message_id":"loop-{looped}","do":"loop"}}"#);
        let _: u64 = redis::cmd("PUBLISH").arg("messages:published").arg(message).query(&mut redis)?;
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(looped);
            }
            let given_up: u64 = redis::cmd("XLEN").arg("{messages:processed}:dead").query(&mut redis)?;
            if given_up > looped {
                break;
            }
            sleep(POLL);
        }
    }
    unreachable!("nobody counts so far")
}
