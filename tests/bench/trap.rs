//! Recovery of a consumer after a trap: the call that traps, and the next call, which begins with a fresh instance,
//! beside an ordinary call. In one process, through the library, so that only the plugin is measured.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use host::config::Config;
use host::plugin::{Engine, Failure, Instance};

use crate::columns::{Column, Table};
use crate::{guests, progress_bar};

/// Number of traps in a round.
const TRAPS: usize = 1_000;

const GOOD: &str = r#"{"message_id":"good","do":"echo","total":12.5}"#;
const TRAPPING: &str = r#"{"message_id":"bad","do":"trap"}"#;

const COLUMNS: [Column; 2] = [
    Column { key: "p50_us", title: "median call, µs", digits: 1 },
    Column { key: "p99_us", title: "99th of 100 calls, µs", digits: 1 },
];

/// Measures `rounds` times a thousand traps.
pub fn measure(rounds: u32) -> Result<Table> {
    let plugin = guests::puppet()?;
    let subjects = ["ordinary call", "call that traps", "next call, fresh instance"];
    let mut table = Table::new(&COLUMNS, subjects.map(str::to_owned));
    let bar = progress_bar(u64::from(rounds))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config::default();
        let engine = Engine::new(&config.plugin_limits, 1)?;
        let mut instance = engine.load(&plugin, &config.plugin_config).await?.instantiate("bench/1".into()).await?;
        for round in 1..=rounds {
            bar.set_message(format!("trap, round {round}"));
            for (subject, mut times) in one_round(&mut instance).await?.into_iter().enumerate() {
                times.sort_by(f64::total_cmp);
                table.add(subject, &[times[times.len() / 2], times[times.len() * 99 / 100]]);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(table)
    })
}

/// Times in microseconds, in the order of the subjects.
async fn one_round(instance: &mut Instance) -> Result<[Vec<f64>; 3]> {
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..TRAPS {
        let start = Instant::now();
        let trapped = instance.process("bad", TRAPPING, 1, None).await;
        let after_trap = Instant::now();
        ensure!(matches!(trapped, Err(Failure::Trapped(_))), "the puppet did not trap: {trapped:?}");
        instance.process("good", GOOD, 1, None).await.context("the call after a trap failed")?;
        let after_next = Instant::now();
        instance.process("good", GOOD, 1, None).await.context("an ordinary call failed")?;
        let spans = [after_next.elapsed(), after_trap - start, after_next - after_trap];
        for (times, span) in times.iter_mut().zip(spans) {
            times.push(span.as_secs_f64() * 1e6);
        }
    }
    Ok(times)
}
