//! Bursts as fast as the publisher can, under the default limit of Redis: a subscriber with a backlog of 32 MB is
//! disconnected, and messages published then are lost. No host may be disconnected, and the host's memory must stay
//! bounded.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::columns::{Column, Table};
use crate::findings::{Findings, Target};
use crate::load::{self, Load, SMALL_BYTES};
use crate::machine::memory_mib;
use crate::run::{self, Arm, Ended, POLL, Subject};
use crate::{Args, ledger, progress_bar};

/// After this time without a new result, missing results will not come.
const STILL: Duration = Duration::from_secs(5);

/// Messages as a percentage of `--messages`, their length, and the name of the burst.
const BURSTS: [(u64, u32, &str); 2] = [(500, SMALL_BYTES, "54 B"), (200, 1 << 10, "1 KiB")];

const COLUMNS: [Column; 4] = [
    Column { key: "published_per_second", title: "published/s", digits: 0 },
    Column { key: "lost", title: "lost", digits: 0 },
    Column { key: "messages_per_second", title: "processed/s", digits: 0 },
    Column { key: "peak_mib", title: "host's peak memory, MiB", digits: 0 },
];

/// Measures each burst `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32, plugin: &Path) -> Result<Findings> {
    let arms = BURSTS.map(|(percent, bytes, length)| {
        let load = Load { flood: true, ..Load::of(args.messages * percent / 100, bytes) };
        let name = format!("{} of {length}", load.messages);
        Arm::new(Subject::Host { consumers: 10 }, load, plugin).called(name)
    });
    let names = arms.iter().map(|arm| arm.name.clone());
    let mut table = Table::new(&COLUMNS, names).compared_with([None, None]);
    let bar = progress_bar(u64::from(rounds) * arms.len() as u64)?;
    for round in 1..=rounds {
        for (index, arm) in arms.iter().enumerate() {
            bar.set_message(format!("burst, round {round}, {}", arm.name));
            table.add(index, &one_burst(arm).with_context(|| format!("burst: {}, round {round}", arm.name))?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    let rate = table.median(0, "published_per_second");
    let lost = [0, 1].map(|index| table.highest(index, "lost"));
    let peaks = [0, 1].map(|index| table.highest(index, "peak_mib") * 1.048_576);
    let mut findings = Findings::from(table).reaching(
        "publish rate of the burst of small messages",
        rate,
        "messages/s",
        Target::AtLeast(350_000.0),
    );
    for ((arm, lost), peak) in arms.iter().zip(lost).zip(peaks) {
        let name = &arm.name;
        if lost > 0.0 {
            findings.wrong.push(format!("{lost} messages of a burst of {name} were lost"));
        }
        findings = findings
            .reaching(format!("lost in a burst of {name}, at worst"), lost, "messages", Target::AtMost(0.0))
            .reaching(format!("peak memory of the host in it, {name}, at worst"), peak, "MB", Target::AtMost(512.0));
    }
    Ok(findings)
}

/// Messages published a second, lost, processed a second, and maximum memory. Here a loss is a figure and no error:
/// finding losses is the purpose of this part.
fn one_burst(arm: &Arm) -> Result<[f64; 4]> {
    let messages = arm.load.messages;
    let (server, mut redis) = run::redis_for(&arm.subject)?;
    let mut processes = run::start(arm, &server)?;
    run::wait_until_ready(&arm.subject, &mut redis, &mut processes[0].0)?;
    let start = Instant::now();
    let mut publisher = Ended(arm.load.publish(&server, 1)?);
    let published = load::published(&mut publisher.0)?;
    let (mut results, mut moved) = (0, Instant::now());
    while results < messages && moved.elapsed() < STILL {
        let now: u64 = run::ask(&mut redis, &["XLEN", "messages:processed"])?;
        if now > results {
            (results, moved) = (now, Instant::now());
        }
        sleep(POLL);
    }
    let elapsed = moved.duration_since(start).as_secs_f64();
    let lost = ledger::lost(&mut redis, messages, 0)?;
    ledger::expect_in_order(&mut redis, messages - lost)?;
    let peak_mib = memory_mib(processes[0].0.id(), "VmHWM")?;
    Ok([messages as f64 / published.seconds, lost as f64, results as f64 / elapsed, peak_mib])
}
