//! Work in equal shares: ten consumers that know a quick plugin get messages that wait, all of them or one in a hundred; and a
//! second host joins while all messages are in hand. Each time is compared with the ideal of the same run: every consumer works
//! from the first moment to the last.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use host::redis::embedded::Embedded;
use redis::Connection;

use crate::columns::{Column, Table};
use crate::findings::{Findings, Target};
use crate::load::{self, Load, Order};
use crate::run::{self, Ended, POLL, Subject, WAIT_MAX};
use crate::{guests, ledger, progress_bar};

/// Consumers of each host.
const CONSUMERS: u32 = 10;

/// Quick messages before, from which the host learns that the plugin is quick.
const QUICK: u64 = 20_000;

/// Number of the first of them, beyond all others.
const QUICK_FIRST: u64 = 1 << 40;

/// Waiting time of a slow message.
const WAIT_MS: u32 = 200;

/// Results with which a second host is started.
const JOIN_AT: u64 = 20;

const COLUMNS: [Column; 3] = [
    Column { key: "seconds", title: "until the last result, s", digits: 2 },
    Column { key: "ideal_seconds", title: "ideal, s", digits: 2 },
    Column { key: "ratio", title: "× ideal", digits: 2 },
];

/// A situation.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    messages: u64,
    order: Order,
    is_joined: bool,
}

const CASES: [Case; 4] = [
    Case { name: "128 that wait", messages: 128, order: Order::WaitMs(WAIT_MS), is_joined: false },
    Case { name: "640 that wait", messages: 640, order: Order::WaitMs(WAIT_MS), is_joined: false },
    Case { name: "25,600, of which 1% wait", messages: 25_600, order: Order::SomeWaitMs(WAIT_MS), is_joined: false },
    Case { name: "1,280 that wait, a host joins", messages: 1_280, order: Order::WaitMs(WAIT_MS), is_joined: true },
];

/// Measures each case `rounds` times, in turn.
pub fn measure(rounds: u32) -> Result<Findings> {
    let mut table =
        Table::new(&COLUMNS, CASES.iter().map(|case| case.name.to_owned())).compared_with([None; CASES.len()]);
    let bar = progress_bar(u64::from(rounds) * CASES.len() as u64)?;
    let plugin = guests::puppet()?;
    for round in 1..=rounds {
        for (index, case) in CASES.iter().enumerate() {
            bar.set_message(format!("fairness, round {round}, {}", case.name));
            let start = || run::redis_for(&Subject::Host { consumers: CONSUMERS });
            let (took, ideal) = start()
                .and_then(|(server, mut redis)| case.measure(&server, &mut redis, &plugin))
                .with_context(|| format!("{}, round {round}", case.name))?;
            table.add(index, &[took.as_secs_f64(), ideal.as_secs_f64(), took.as_secs_f64() / ideal.as_secs_f64()]);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let ratios: Vec<f64> = (0..CASES.len()).map(|index| table.median(index, COLUMNS[2].key)).collect();
    let findings = Findings::from(table);
    Ok(CASES.iter().zip(ratios).fold(findings, |findings, (case, ratio)| {
        findings.reaching(format!("time of {}", case.name), ratio, "× ideal", Target::AtMost(1.3))
    }))
}

impl Case {
    /// The time until the last result, and the ideal.
    fn measure(
        &self,
        server: &Embedded,
        redis: &mut Connection,
        plugin: &std::path::Path,
    ) -> Result<(Duration, Duration)> {
        let start_host = || -> Result<Ended> {
            Ok(Ended(run::host(CONSUMERS, server, plugin).spawn().context("cannot start the host")?))
        };
        let mut first = start_host()?;
        run::wait_until_ready(&Subject::Host { consumers: CONSUMERS }, redis, &mut first.0)?;
        let quick = Load { first: QUICK_FIRST, ..Load::small(QUICK) };
        publish(quick, server)?;
        run::wait_for_results(redis, &mut first.0, QUICK, Instant::now())?;

        let load = Load { order: self.order, ..Load::small(self.messages) };
        let work = Duration::from_millis(u64::from(WAIT_MS)) * u32::try_from(load.slow())?;
        let start = Instant::now();
        publish(load, server)?;
        let (mut ideal, mut second) = (work / CONSUMERS, None);
        if self.is_joined {
            results_from(redis, QUICK + JOIN_AT)?;
            let mut joined = start_host()?;
            run::wait_until_ready(&Subject::Hosts { hosts: 2, consumers: CONSUMERS }, redis, &mut joined.0)?;
            second = Some(joined);
            let alone = start.elapsed();
            ideal = alone + work.saturating_sub(CONSUMERS * alone) / (2 * CONSUMERS);
        }
        let took = run::wait_for_results(redis, &mut first.0, QUICK + self.messages, start)?;
        drop(second);
        ledger::expect_each_once(redis, self.messages, QUICK)?;
        ledger::expect_in_order(redis, self.messages)?;
        Ok((took, ideal))
    }
}

fn publish(load: Load, server: &Embedded) -> Result<()> {
    let mut publisher = Ended(load.publish(server, 1)?);
    load::published(&mut publisher.0)?.by_all().map(drop)
}

fn results(redis: &mut Connection) -> Result<u64> {
    Ok(run::ask(redis, &["XLEN", "messages:processed"])?)
}

/// Waits until there are so many results.
fn results_from(redis: &mut Connection, count: u64) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    while results(redis)? < count {
        ensure!(Instant::now() < deadline, "no {count} results within {WAIT_MAX:?}");
        std::thread::sleep(POLL);
    }
    Ok(())
}
