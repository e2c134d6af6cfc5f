//! Plugins that wait: each call sleeps for ten milliseconds, like a call that asks another service. Throughput should
//! grow with the number of consumers, because waiting costs no CPU time.

use anyhow::Result;

use crate::columns::{Column, Table};
use crate::findings::{Findings, Target};
use crate::load::{Load, Order};
use crate::path;
use crate::run::{self, Arm, Measured, Subject};
use crate::{Args, guests};

/// Waiting time of each call.
const WAIT_MS: u32 = 10;

/// Numbers of consumers, with the target of their rate as a multiple of one consumer's rate.
const CONSUMERS: [(u32, Option<f64>); 4] = [(1, None), (10, None), (100, Some(95.0)), (500, Some(450.0))];

/// Rate and CPU time. The upper bound of the rate is 100 messages/s for each consumer.
const COLUMNS: [Column; 3] =
    [path::COLUMNS[0], Column { key: "share_of_possible", title: "of the possible rate", digits: 3 }, path::COLUMNS[2]];

/// Measures each number of consumers `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32) -> Result<Findings> {
    let plugin = guests::puppet()?;
    let arm = |(consumers, _)| {
        // Four seconds' worth for each consumer.
        let load = Load { order: Order::WaitMs(WAIT_MS), ..Load::small(args.messages / 500 * u64::from(consumers)) };
        Arm { warm_up: u64::from(consumers) * 8, ..Arm::new(Subject::Host { consumers }, load, &plugin) }
    };
    let mut arms: Vec<Arm> = CONSUMERS.into_iter().map(arm).collect();
    arms.push(arms[0].again());
    let possible = |index: usize| f64::from(CONSUMERS.get(index).unwrap_or(&CONSUMERS[0]).0) * 1e3 / f64::from(WAIT_MS);
    let values = |index: usize, measured: &Measured| {
        [measured.messages_per_second, measured.messages_per_second / possible(index), measured.process_us]
    };
    let mut table = Table::new(&COLUMNS, arms.iter().map(|arm| arm.name.clone()));
    run::take_turns("waiting", rounds, &arms, |index, measured| table.add(index, &values(index, measured)))?;

    let ratios: Vec<f64> = (0..arms.len()).map(|index| table.ratio(index, path::COLUMNS[0].key)).collect();
    let mut findings = Findings::from(table);
    for ((consumers, target), ratio) in CONSUMERS.into_iter().zip(ratios) {
        if let Some(target) = target {
            let figure = format!("waiting plugin, {consumers} consumers");
            findings = findings.reaching(figure, ratio, "× one consumer", Target::AtLeast(target));
        }
    }
    Ok(findings)
}
