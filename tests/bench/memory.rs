//! Memory of a host with few and with many consumers: when the host is ready, and when every instance has been used.

use std::path::Path;

use anyhow::Result;

use crate::Args;
use crate::columns::{Column, Table};
use crate::findings::{Findings, Target};
use crate::load::Load;
use crate::run::{self, Arm, Subject};

/// Numbers of consumers, with the target of their memory in MB.
const CONSUMERS: [(u32, f64); 2] = [(10, 60.0), (1_000, 250.0)];

const COLUMNS: [Column; 2] = [
    Column { key: "ready_mib", title: "memory when ready, MiB", digits: 0 },
    Column { key: "loaded_mib", title: "memory after the messages, MiB", digits: 0 },
];

/// Measures each number of consumers `rounds` times, in turn, and adds the table.
pub fn measure(args: &Args, rounds: u32, plugin: &Path, mut findings: Findings) -> Result<Findings> {
    let load = Load::small(args.messages / 2);
    let arms = CONSUMERS.map(|(consumers, _)| Arm::new(Subject::Host { consumers }, load, plugin));
    let mut table = Table::new(&COLUMNS, arms.iter().map(|arm| arm.name.clone()));
    run::take_turns("start", rounds, &arms, |index, measured| {
        table.add(index, &[measured.ready_mib, measured.loaded_mib]);
    })?;
    for (index, (consumers, target)) in CONSUMERS.into_iter().enumerate() {
        let memory_mb = table.median(index, "loaded_mib") * 1.048_576;
        let figure = format!("memory with {consumers} consumers, after {} messages", load.messages);
        findings = findings.reaching(figure, memory_mb, "MB", Target::AtMost(target));
    }
    findings.tables.push(("memory".into(), table));
    Ok(findings)
}
