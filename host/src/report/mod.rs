//! The report: one line every interval on standard output, as text or JSON. A host without traffic reports zeros.
//! The figures come from a `snapshot`; this module only prints them.

pub mod snapshot;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::config::LogFormat;
use crate::group::Group;
use crate::redis::store::stats::GroupStats;
use crate::standing::State;
use crate::version::Versions;
use snapshot::{Sampler, Snapshot};

/// Share of Redis's memory limit above which the host warns.
const MEMORY_WARN_PERCENT: u64 = 80;

/// Reports for ever, and warns when there are more than `dead_max` dead letters with a message id, unless that is 0.
pub async fn run(group: Arc<Group>, versions: Arc<Versions>, every: Duration, format: LogFormat, dead_max: u64) {
    let output = group.keys.output.clone();
    let mut sampler = Sampler::start(group, versions).await;
    let (mut memory_warned, mut letters_warned) = (false, false);
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await; // the first is immediate
    loop {
        ticks.tick().await;
        let (snapshot, stats) = sampler.take().await;
        let line = line(&snapshot, format);
        crate::output::stdout().line(&line);
        if let Some(stats) = stats {
            warn_about_memory(stats, &output, &mut memory_warned);
            // One host of the group says it.
            if snapshot.intake == State::Active {
                warn_about_letters(stats.dead_with_id, dead_max, &mut letters_warned);
            }
        }
    }
}

/// The report line in this format.
fn line(snapshot: &Snapshot, format: LogFormat) -> String {
    match format {
        LogFormat::Json => serde_json::to_string(snapshot).unwrap_or_default(),
        LogFormat::Text => text(snapshot),
    }
}

fn text(snapshot: &Snapshot) -> String {
    let number = |number: Option<u64>| number.map_or("?".to_string(), |number| number.to_string());
    let rate = |rate: Option<f64>| rate.map_or("?".to_string(), |rate| format!("{rate:.0}"));
    let mut line = format!(
        "{} {:.0} messages/s (group {}) | processed {} (group {}) | duplicates {} | dead letters {} | inbox {} | retries waiting {} | intake {} | position lag {} | shed {} | reconnects {}",
        snapshot.timestamp,
        snapshot.messages_per_second,
        rate(snapshot.group_messages_per_second),
        snapshot.processed,
        number(snapshot.group_processed),
        snapshot.duplicates,
        snapshot.dead_letters,
        number(snapshot.inbox),
        number(snapshot.retries_waiting),
        intake(snapshot),
        snapshot.position_lag,
        snapshot.shed,
        snapshot.reconnects,
    );
    if snapshot.retries > 0 {
        line += &format!(" | retries {}", snapshot.retries);
    }
    if snapshot.gaps > 0 {
        line += &format!(" | gaps {} ({} ms)", snapshot.gaps, snapshot.gap_ms);
    }
    if snapshot.taken_over > 0 {
        line += &format!(" | taken over {}", snapshot.taken_over);
    }
    if snapshot.state_conflicts > 0 {
        line += &format!(" | state conflicts {}", snapshot.state_conflicts);
    }
    if snapshot.dead_letters_trimmed > 0 {
        line += &format!(" | dead letters trimmed {}", snapshot.dead_letters_trimmed);
    }
    if snapshot.results_trimmed > 0 {
        line += &format!(" | results trimmed {}", snapshot.results_trimmed);
    }
    if snapshot.spans_lost > 0 {
        line += &format!(" | spans lost {}", snapshot.spans_lost);
    }
    if snapshot.paused {
        line += " | paused";
    }
    let (slow, leaking) = snapshot.plugin_warnings;
    if let (true, Some(percent)) = (slow, snapshot.plugin_time_percent) {
        line += &format!(" | takes {percent} % of the time of the version before");
    }
    if let (true, Some(bytes)) = (leaking, snapshot.plugin_growth_bytes) {
        line += &format!(" | memory grows by {bytes} bytes a message");
    }
    if snapshot.plugin_is_news {
        let Snapshot { generation, plugin_digest, plugin_state, refusals, rollbacks, .. } = snapshot;
        let digest = plugin_digest.get(..12).unwrap_or(plugin_digest);
        line += &format!(" | plugin {generation} ({digest}, {plugin_state})");
        line += &format!(" | refused {refusals} | rolled back {rollbacks}");
    }
    line
}

/// The intake's state, and for a standby who is active in its place.
fn intake(snapshot: &Snapshot) -> String {
    match (snapshot.intake, &snapshot.intake_active) {
        (State::Standby, Some(active)) => format!("{} ({active} is active)", State::Standby),
        (state, _) => state.to_string(),
    }
}

/// Warns once when Redis comes close to its limit, and again only after it had been clear of it.
fn warn_about_memory(stats: GroupStats, output: &str, warned: &mut bool) {
    let GroupStats { memory_bytes, memory_bytes_max, .. } = stats;
    let close = memory_bytes_max > 0 && memory_bytes > memory_bytes_max / 100 * MEMORY_WARN_PERCENT;
    if close && !*warned {
        warn!(
            memory_bytes,
            memory_bytes_max,
            "Redis uses more than {MEMORY_WARN_PERCENT} % of its maxmemory; trim the stream {output}, or set --max-output-length"
        );
    }
    *warned = close;
}

/// Warns once when there are many dead letters, and again only after there were fewer.
fn warn_about_letters(dead_letters: u64, dead_max: u64, warned: &mut bool) {
    let many = dead_max > 0 && dead_letters > dead_max;
    if many && !*warned {
        warn!(
            dead_letters,
            "more than {dead_max} dead letters with a message id are kept, and none is ever removed; replay or purge them \
             (host dead), or set --max-dead-length; --warn-dead-length sets this number"
        );
    }
    *warned = many;
}
