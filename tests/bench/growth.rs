//! The cost of a message with more of everything: consumers, hosts, entries in the output, bytes, and messages in the
//! inbox. None of these should raise the cost much.

use std::path::Path;

use anyhow::Result;

use crate::columns::{Column, Table};
use crate::findings::{Findings, Target};
use crate::load::Load;
use crate::run::{self, Arm, Subject};
use crate::{Args, backlog, path};

/// Numbers of consumers. Other figures are compared with the usual number.
const CONSUMERS: [u32; 4] = [1, 10, 100, 1_000];

/// Hosts of ten consumers each.
const HOSTS: [u32; 2] = [2, 4];

/// Lengths of longer messages and their share of `--messages` in percent.
const LENGTHS: [(u32, u64, &str); 2] = [(1 << 10, 50, "1 KiB"), (64 << 10, 1, "64 KiB")];

/// Waiting messages, as shares of `--messages` in percent.
const BACKLOGS: [u64; 3] = [5, 50, 500];

/// A smaller backlog is processed before it can be observed.
const BACKLOG_MIN: u64 = 10_000;

/// Entries in the output stream, as a share of `--messages` in percent.
const FILLED: u64 = 500;

/// CPU time of both sides.
const COLUMNS: [Column; 2] = [path::COLUMNS[1], path::COLUMNS[2]];

/// Measures all of it `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32, plugin: &Path) -> Result<Findings> {
    let (usual, arms, bases) = arms(args, plugin);
    let names = arms.iter().map(|arm| arm.name.clone());
    let mut table = Table::new(&COLUMNS, names)
        .with_base("floor")
        .column_compared_with(COLUMNS[1].key, COLUMNS[0].key)
        .compared_with(bases);
    run::take_turns("growth", rounds, &arms, |index, measured| {
        table.add(index, &[measured.redis_us, measured.process_us]);
    })?;
    let many = arms.iter().position(|arm| arm.subject == Subject::Host { consumers: 1_000 });
    let consumers = many.map_or(f64::NAN, |many| both(&table, many) / both(&table, usual));

    let backlogs = backlogs(args);
    let waiting = backlog::measure(rounds, &backlogs, &COLUMNS, plugin)?;
    let backlog = both(&waiting, BACKLOGS.len() - 1) / both(&waiting, 0);
    let figure = format!("CPU per message, backlog of {} against {}", backlogs[BACKLOGS.len() - 1], backlogs[0]);
    let mut findings = Findings::from(table);
    findings.tables.push(("backlog".into(), waiting));
    Ok(findings.reaching("CPU per message, 1000 consumers against 10", consumers, "×", Target::AtMost(1.25)).reaching(
        figure,
        backlog,
        "×",
        Target::AtMost(1.1),
    ))
}

/// Number of waiting messages.
fn backlogs(args: &Args) -> [u64; BACKLOGS.len()] {
    BACKLOGS.map(|percent| (args.messages * percent / 100).max(BACKLOG_MIN))
}

/// CPU time of Redis and of the host together.
fn both(table: &Table, subject: usize) -> f64 {
    COLUMNS.iter().map(|column| table.median(subject, column.key)).sum()
}

/// The arms, the index of the usual one, and the floor of each arm.
fn arms(args: &Args, plugin: &Path) -> (usize, Vec<Arm>, Vec<Option<usize>>) {
    let small = Load::small(args.messages / 2);
    let host = |consumers| Arm::new(Subject::Host { consumers }, small, plugin);
    let mut arms = vec![Arm::new(Subject::Floor, small, plugin)];
    arms.extend(CONSUMERS.map(host));
    let usual = 1 + CONSUMERS.iter().position(|consumers| *consumers == 10).unwrap_or(0);
    arms.push(arms[usual].again());
    arms.extend(HOSTS.map(|hosts| Arm::new(Subject::Hosts { hosts, consumers: 10 }, small, plugin)));
    let filled = args.messages * FILLED / 100;
    arms.push(Arm { filled, ..host(10).called(format!("host, 10 consumers, {filled} entries before")) });
    let mut bases = vec![Some(0); arms.len()];
    for (bytes, percent, length) in LENGTHS {
        let load = Load::of(args.messages * percent / 100, bytes);
        bases.extend([Some(arms.len()); 2]);
        for subject in [Subject::Floor, Subject::Host { consumers: 10 }] {
            let name = format!("{subject}, messages of {length}");
            arms.push(Arm::new(subject, load, plugin).called(name));
        }
    }
    // The part of a backlog's growth that is Redis's own: the same numbers of messages through the floor.
    let few = arms.len();
    for messages in [backlogs(args)[0], backlogs(args)[BACKLOGS.len() - 1]] {
        bases.push(Some(few));
        let floor = Arm::new(Subject::Floor, Load::small(messages), plugin);
        arms.push(floor.called(format!("floor, {messages} messages")));
    }
    (usual, arms, bases)
}
