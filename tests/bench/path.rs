//! The cost of the host beside bare Redis.
//!
//! The floor does the minimum of any implementation: it receives published messages, claims each id with `SET … NX PX`
//! and appends one entry with `XADD`. The host does all of its work with one to ten consumers. Floor and hosts take
//! turns over several rounds, each with its own Redis, so that a slow phase of the machine affects all of them.

use std::path::Path;

use anyhow::Result;

use crate::Args;
use crate::columns::{Column, Table};
use crate::findings::{Findings, Target};
use crate::load::Load;
use crate::run::{self, Arm, Measured, Subject};

/// The number of consumers to which targets refer.
const USUAL: u32 = 10;

/// Rate and CPU time, as ratios to the floor's.
pub const COLUMNS: [Column; 3] = [
    Column { key: "messages_per_second", title: "messages/s", digits: 0 },
    Column { key: "redis_us_per_message", title: "Redis CPU, µs/message", digits: 2 },
    Column { key: "process_us_per_message", title: "its own CPU, µs/message", digits: 2 },
];

/// The columns of a measurement.
pub fn values(measured: &Measured) -> [f64; 3] {
    [measured.messages_per_second, measured.redis_us, measured.process_us]
}

/// An empty table of arms. The CPU time of a process is also shown as a ratio to the CPU time of the floor's Redis,
/// which is the minimal cost of a message.
pub fn table(arms: &[Arm]) -> Table {
    Table::new(&COLUMNS, arms.iter().map(|arm| arm.name.clone()))
        .with_base("floor")
        .column_compared_with("process_us_per_message", "redis_us_per_message")
}

/// Measures each subject `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32, plugin: &Path) -> Result<Findings> {
    let load = Load::small(args.messages);
    let mut arms = vec![Arm::new(Subject::Floor, load, plugin)];
    arms.extend(args.consumers.iter().map(|n| Arm::new(Subject::Host { consumers: *n }, load, plugin)));
    arms.extend(arms.last().map(Arm::again));
    let mut table = table(&arms);
    run::take_turns("path", rounds, &arms, |index, measured| table.add(index, &values(measured)))?;

    let usual = arms.iter().position(|arm| arm.subject == Subject::Host { consumers: USUAL });
    let Some(usual) = usual else { return Ok(table.into()) };
    let ratio = |column| table.ratio(usual, column);
    let (rate, redis, own) =
        (ratio("messages_per_second"), ratio("redis_us_per_message"), ratio("process_us_per_message"));
    let absolute = table.median(usual, "messages_per_second");
    Ok(Findings::from(table)
        .reaching("Redis CPU per message, 10 consumers", redis, "× floor", Target::AtMost(1.4))
        .reaching("host CPU per message, 10 consumers", own, "× floor's Redis CPU", Target::AtMost(0.9))
        .reaching("throughput, 10 consumers", rate, "× floor", Target::AtLeast(0.65))
        .reaching("throughput, 10 consumers", absolute, "messages/s", Target::AtLeast(150_000.0)))
}
