//! Throughput against consumers, length of messages and hosts: every number of consumers with every length, and two
//! hosts once for each length.

use std::path::Path;

use anyhow::Result;

use crate::Args;
use crate::findings::Findings;
use crate::load::{Load, SMALL_BYTES};
use crate::path;
use crate::run::{self, Arm, Subject};

/// Length of the messages, their percentage of `--messages`, and their name.
const LENGTHS: [(u32, u64, &str); 3] = [(SMALL_BYTES, 100, "54 B"), (1 << 10, 50, "1 KiB"), (64 << 10, 1, "64 KiB")];

/// Consumers of one host.
const CONSUMERS: [u32; 6] = [1, 2, 4, 10, 100, 1_000];

/// Consumers of each of two hosts, and of the single host that is measured twice.
const USUAL: u32 = 10;

/// Measures each combination `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32, plugin: &Path) -> Result<Findings> {
    let (mut arms, mut bases) = (Vec::new(), Vec::new());
    for (bytes, percent, length) in LENGTHS {
        let load = Load::of(args.messages * percent / 100, bytes);
        let floor = arms.len();
        let arm = |subject: Subject| {
            let name = format!("{length}, {subject}");
            Arm::new(subject, load, plugin).called(name)
        };
        arms.push(arm(Subject::Floor));
        arms.extend(CONSUMERS.map(|consumers| arm(Subject::Host { consumers })));
        arms.push(arm(Subject::Hosts { hosts: 2, consumers: USUAL }));
        if bytes == SMALL_BYTES {
            arms.push(arm(Subject::Host { consumers: USUAL }).again());
        }
        bases.resize(arms.len(), Some(floor));
    }
    let mut table = path::table(&arms).compared_with(bases);
    run::take_turns("throughput", rounds, &arms, |index, measured| table.add(index, &path::values(measured)))?;
    Ok(table.into())
}
