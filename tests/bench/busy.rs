//! Plugins that compute: each call works for about a millisecond on a core of its own. The amount of work is fixed and
//! not the time, so that two consumers on the same core show a difference.

use std::path::Path;

use anyhow::{Context as _, Result};
use host::config::Config;
use host::plugin::Engine;

use crate::columns::Table;
use crate::findings::{Findings, Target};
use crate::load::{Load, Order};
use crate::machine::CpuTime;
use crate::path;
use crate::run::{self, Arm, Subject};
use crate::{Args, guests};

/// Target time of a call.
const BUSY_MS: f64 = 1.0;

/// Steps of the calls that measure the time of a step, in thousands.
const TRIAL_THOUSANDS: u32 = 10_000;

/// Number of trial calls. The fastest one counts, because no disturbance makes a call faster.
const TRIALS: u32 = 5;

/// Measures one and two consumers `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32) -> Result<Findings> {
    let plugin = guests::puppet()?;
    let thousands = thousands_for(BUSY_MS, &plugin)?;
    let arm = |consumers: u32| {
        // Two seconds' worth for each consumer.
        let load = Load { order: Order::Count(thousands), ..Load::small(args.messages / 100 * u64::from(consumers)) };
        Arm { warm_up: u64::from(consumers) * 64, ..Arm::new(Subject::Host { consumers }, load, &plugin) }
    };
    let arms = [arm(1), arm(2), arm(1).again()];
    let mut table = Table::new(&path::COLUMNS, arms.iter().map(|arm| arm.name.clone()));
    run::take_turns("busy", rounds, &arms, |index, measured| table.add(index, &path::values(measured)))?;
    let ratio = table.ratio(1, path::COLUMNS[0].key);
    Ok(Findings::from(table).reaching("busy plugin, 2 consumers", ratio, "× one consumer", Target::AtLeast(1.8)))
}

/// Number of steps, in thousands, that take this many milliseconds on a core of their own.
fn thousands_for(ms: f64, plugin: &Path) -> Result<u32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config::default();
        let engine = Engine::new(&config.plugin_limits, 1)?;
        let mut instance = engine.load(plugin, &config.plugin_config).await?.instantiate("bench/1".into()).await?;
        let body = Load { order: Order::Count(TRIAL_THOUSANDS), ..Load::small(1) }.message(0);
        let body = String::from_utf8(body)?;
        // CPU time, because the processor may have other things to do meanwhile.
        let now = || CpuTime::of(std::process::id()).context("the system does not tell CPU times");
        let mut quickest_ms = f64::INFINITY;
        for _ in 0..TRIALS {
            let before = now()?;
            instance.process("trial", &body, 1, None).await.context("a trial of the busy plugin failed")?;
            quickest_ms = quickest_ms.min(now()?.since(&before) * 1e3);
        }
        #[expect(clippy::cast_possible_truncation, reason = "a few thousands at most")]
        Ok((f64::from(TRIAL_THOUSANDS) * ms / quickest_ms).round() as u32)
    })
}
