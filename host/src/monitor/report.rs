//! The report: one line every interval on standard output, as text or JSON. A host without traffic reports 0, not silence.
//! It only reads.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::counters::Counters;
use crate::config::LogFormat;
use crate::redis::connection::Connection;
use crate::redis::connection::Connector;
use crate::redis::keys::Keys;
use crate::redis::stats::{GroupStats, group_stats};
use crate::registry::Identity;
use crate::reload::versions::{State, Status, Versions};

/// Longest wait for Redis's part of a report.
const STATS_TIMEOUT: Duration = Duration::from_secs(1);

/// Share of Redis's memory limit past which the host warns.
const MEMORY_WARN_PERCENT: u64 = 80;

/// One line.
#[derive(Debug, Serialize)]
pub struct Report {
    /// When, RFC 3339.
    pub time: String,
    /// The host's id.
    pub host: String,
    /// Messages that this host has settled, a second, over the last interval.
    pub messages_per_second: f64,
    /// Results that the whole group has written, a second, over the last interval; `None` without Redis.
    pub group_messages_per_second: Option<f64>,
    /// Messages that this host has settled since it started.
    pub processed: u64,
    /// Results ever written to the output stream; `None` without Redis.
    pub group_processed: Option<u64>,
    /// Messages of this host whose id had been claimed before.
    pub duplicates: u64,
    /// Dead letters written by this host.
    pub dead_letters: u64,
    /// Deliveries waiting or in work; `None` without Redis.
    pub inbox: Option<u64>,
    /// Times that this host put a message off for another attempt.
    pub retries: u64,
    /// Messages waiting for another attempt; `None` without Redis.
    pub retries_waiting: Option<u64>,
    /// Messages that this host received and had no room for.
    pub shed: u64,
    /// Connections that this host made again.
    pub reconnects: u64,
    /// Times that this host had no subscription.
    pub gaps: u64,
    /// Their length together, in milliseconds.
    pub gap_ms: u64,
    /// Deliveries that this host took over from dead ones.
    pub taken_over: u64,
    /// Number of the plugin version in use.
    pub generation: u64,
    /// SHA-256 of its bytes.
    pub plugin_digest: String,
    /// Whether it is trusted.
    pub plugin_state: State,
    /// Times that another version came into use, rollbacks included.
    pub swaps: u64,
    /// Versions and configurations that were refused.
    pub refusals: u64,
    /// Times that the host went back to the version before.
    pub rollbacks: u64,
    /// Whether the last report said something else about the plugin.
    #[serde(skip)]
    pub plugin_is_news: bool,
}

impl Report {
    /// The line in the wanted form.
    #[must_use]
    pub fn line(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Json => serde_json::to_string(self).unwrap_or_default(),
            LogFormat::Text => self.text(),
        }
    }

    fn text(&self) -> String {
        let number = |number: Option<u64>| number.map_or("?".to_string(), |number| number.to_string());
        let rate = |rate: Option<f64>| rate.map_or("?".to_string(), |rate| format!("{rate:.0}"));
        let mut line = format!(
            "{} {:.0} messages/s (group {}) | processed {} (group {}) | duplicates {} | dead letters {} | inbox {} | retries waiting {} | shed {} | reconnects {}",
            self.time,
            self.messages_per_second,
            rate(self.group_messages_per_second),
            self.processed,
            number(self.group_processed),
            self.duplicates,
            self.dead_letters,
            number(self.inbox),
            number(self.retries_waiting),
            self.shed,
            self.reconnects,
        );
        if self.retries > 0 {
            line += &format!(" | retries {}", self.retries);
        }
        if self.gaps > 0 {
            line += &format!(" | gaps {} ({} ms)", self.gaps, self.gap_ms);
        }
        if self.taken_over > 0 {
            line += &format!(" | taken over {}", self.taken_over);
        }
        if self.plugin_is_news {
            let Report { generation, plugin_digest, plugin_state, refusals, rollbacks, .. } = self;
            let digest = plugin_digest.get(..12).unwrap_or(plugin_digest);
            line += &format!(" | plugin {generation} ({digest}, {plugin_state})");
            line += &format!(" | refused {refusals} | rolled back {rollbacks}");
        }
        line
    }
}

/// Makes the reports of a running host.
pub struct Reporter {
    /// Makes the connection that the reports use alone, so that nothing else waits for them.
    pub connector: Connector,
    /// Names in Redis.
    pub keys: Keys,
    /// Under which id the host is known.
    pub identity: Identity,
    /// What the host counts.
    pub counters: Arc<Counters>,
    /// Which version of the plugin is in use.
    pub versions: Arc<Versions>,
    /// Time between two reports.
    pub every: Duration,
    /// Text or JSON.
    pub format: LogFormat,
}

/// What the last report knew.
struct Before {
    at: Instant,
    processed: u64,
    group: Option<(Instant, u64)>,
    plugin: Status,
}

impl Reporter {
    /// Reports for ever.
    pub async fn run(&self) {
        let mut connection: Option<Connection> = None;
        let mut memory_warned = false;
        let first = self.stats(&mut connection).await;
        let mut before = Before {
            at: Instant::now(),
            processed: self.counters.processed.get(),
            group: first.map(|stats| (Instant::now(), stats.results)),
            plugin: self.versions.status(),
        };
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await; // the first is immediate
        loop {
            ticks.tick().await;
            let stats = self.stats(&mut connection).await;
            let report = self.report(&mut before, stats);
            crate::output::stdout().line(&report.line(self.format));
            if let Some(stats) = stats {
                warn_about_memory(stats, &mut memory_warned);
            }
        }
    }

    fn report(&self, before: &mut Before, stats: Option<GroupStats>) -> Report {
        let counters = &self.counters;
        let now = Instant::now();
        let processed = counters.processed.get();
        let messages_per_second = rate(processed - before.processed, now - before.at);
        let group_messages_per_second = stats.zip(before.group).map(|(stats, (at, results))| {
            // Fewer than before: the stream was deleted meanwhile.
            rate(stats.results.saturating_sub(results), now - at)
        });
        before.at = now;
        before.processed = processed;
        if let Some(stats) = stats {
            before.group = Some((now, stats.results));
        }
        let plugin = self.versions.status();
        let plugin_is_news = plugin != before.plugin;
        before.plugin = plugin.clone();
        Report {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            host: self.identity.host_id().to_string(),
            messages_per_second,
            group_messages_per_second,
            processed,
            group_processed: stats.map(|stats| stats.results),
            duplicates: counters.duplicates.get(),
            dead_letters: counters.dead_letters.get(),
            inbox: stats.map(|stats| stats.inbox),
            retries: counters.retries.get(),
            retries_waiting: stats.map(|stats| stats.retries_waiting),
            shed: counters.shed.get(),
            reconnects: counters.reconnects.get(),
            gaps: counters.gaps.get(),
            gap_ms: counters.gap_ms.get(),
            taken_over: counters.taken_over.get(),
            generation: plugin.generation,
            plugin_digest: plugin.digest,
            plugin_state: plugin.state,
            swaps: plugin.swaps,
            refusals: plugin.refusals,
            rollbacks: plugin.rollbacks,
            plugin_is_news,
        }
    }

    /// Redis's part, unless it takes too long.
    async fn stats(&self, connection: &mut Option<Connection>) -> Option<GroupStats> {
        let read = async {
            let mut current = match connection.take() {
                Some(current) => current,
                None => self.connector.connect().await.ok()?,
            };
            let stats = group_stats(&mut current, &self.keys).await.ok()?;
            *connection = Some(current);
            Some(stats)
        };
        tokio::time::timeout(STATS_TIMEOUT, read).await.ok().flatten()
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    let rate = count as f64 / time.as_secs_f64().max(f64::EPSILON);
    (rate * 10.0).round() / 10.0
}

/// Warns once when Redis comes close to its limit, and again only after it had been clear of it.
fn warn_about_memory(stats: GroupStats, warned: &mut bool) {
    let GroupStats { memory_bytes, memory_bytes_max, .. } = stats;
    let close = memory_bytes_max > 0 && memory_bytes > memory_bytes_max / 100 * MEMORY_WARN_PERCENT;
    if close && !*warned {
        warn!(
            memory_bytes,
            memory_bytes_max,
            "Redis uses more than {MEMORY_WARN_PERCENT} % of its maxmemory; read and trim messages:processed, or bound it with --max-output-length"
        );
    }
    *warned = close;
}
