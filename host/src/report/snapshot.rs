//! The state of a host and its group at one moment, for the report line and every other view. This file only reads.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::group::Group;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::store::stats::{GroupStats, group_stats};
use crate::standing::State as IntakeState;
use crate::time::rfc3339;
use crate::version::{State, Status, Versions};

/// Longest wait for Redis's part of a snapshot.
const STATS_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of a host and its group at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Time of the snapshot, RFC 3339. The JSON log uses the same key.
    pub timestamp: String,
    /// The host's id.
    pub host: String,
    /// Messages a second that this host settled in the last interval.
    pub messages_per_second: f64,
    /// Messages a second that the whole group settled in the last interval, wherever the results went; `None` without Redis.
    pub group_messages_per_second: Option<f64>,
    /// Messages that this host has settled since its start.
    pub processed: u64,
    /// Messages that the group has settled since the first of its hosts started; `None` without Redis.
    pub group_processed: Option<u64>,
    /// Messages that this host dropped, because their id was already claimed.
    pub duplicates: u64,
    /// Dead letters written by this host.
    pub dead_letters: u64,
    /// Dead letters that this host has trimmed.
    pub dead_letters_trimmed: u64,
    /// Results that this host has trimmed.
    pub results_trimmed: u64,
    /// Deliveries in the inbox, waiting or in progress; `None` without Redis.
    pub inbox: Option<u64>,
    /// Retries that this host has scheduled.
    pub retries: u64,
    /// Retries that wait in the group; `None` without Redis.
    pub retries_waiting: Option<u64>,
    /// What this host's intake is: active, standby, owing or deaf.
    pub intake: IntakeState,
    /// The host whose intake is active; `None` when this host knows of none.
    pub intake_active: Option<String>,
    /// Messages that this host has heard and that are not known to be in the inbox.
    pub position_lag: u64,
    /// Messages that this host received and had no room for.
    pub shed: u64,
    /// Connections that this host established again.
    pub reconnects: u64,
    /// Times that no host of the group was subscribed, counted by the host that found out.
    pub gaps: u64,
    /// Their length together, in milliseconds, from the last mark heard before to the first one after.
    pub gap_ms: u64,
    /// Deliveries that this host took over from dead hosts.
    pub taken_over: u64,
    /// Deliveries that this host processed again, because the plugin's state had changed.
    pub state_conflicts: u64,
    /// Spans of traces that did not reach the collector.
    pub spans_lost: u64,
    /// Whether a command has paused this host.
    pub paused: bool,
    /// Number of the plugin version in use.
    pub generation: u64,
    /// SHA-256 of the plugin's bytes.
    pub plugin_digest: String,
    /// Steady, on probation or rolled back.
    pub plugin_state: State,
    /// Number of changes of the version in use, including rollbacks.
    pub swaps: u64,
    /// Versions and configurations that were refused.
    pub refusals: u64,
    /// Number of rollbacks.
    pub rollbacks: u64,
    /// Time that the version takes for a message, in percent of the version before; `None` until both are known.
    pub plugin_time_percent: Option<u64>,
    /// Bytes that the memory of instances grows by with each message; `None` until it is compared with the version before.
    pub plugin_growth_bytes: Option<u64>,
    /// Whether the plugin's status has changed since the last report.
    #[serde(skip)]
    pub plugin_is_news: bool,
    /// Whether the version is much slower than the version before, and whether its memory grows much faster.
    #[serde(skip)]
    pub plugin_warnings: (bool, bool),
}

/// Takes snapshots. Rates and changes are relative to the previous snapshot.
pub struct Sampler {
    group: Arc<Group>,
    versions: Arc<Versions>,
    /// A separate connection for snapshots, so that nothing else waits for them.
    connection: Option<LibraryConnection>,
    before: Before,
}

/// Figures of the previous snapshot.
struct Before {
    at: Instant,
    processed: u64,
    group: Option<(Instant, u64)>,
    plugin: Status,
}

impl Sampler {
    /// A sampler. The rates of the first snapshot count from now.
    pub async fn start(group: Arc<Group>, versions: Arc<Versions>) -> Sampler {
        let before = Before {
            at: Instant::now(),
            processed: group.counters.processed.get(),
            group: None,
            plugin: versions.status(),
        };
        let mut sampler = Sampler { group, versions, connection: None, before };
        let stats = sampler.stats().await;
        sampler.before.group = stats.map(|stats| (Instant::now(), stats.processed));
        sampler
    }

    /// A snapshot of this moment, and the figures from Redis.
    pub async fn take(&mut self) -> (Snapshot, Option<GroupStats>) {
        let stats = self.stats().await;
        (self.snapshot(stats), stats)
    }

    fn snapshot(&mut self, stats: Option<GroupStats>) -> Snapshot {
        let (counters, before) = (&self.group.counters, &mut self.before);
        let now = Instant::now();
        let processed = counters.processed.get();
        let messages_per_second = rate(processed - before.processed, now - before.at);
        let group_messages_per_second = stats.zip(before.group).map(|(stats, (at, processed))| {
            // Fewer messages than before: Redis was emptied meanwhile.
            rate(stats.processed.saturating_sub(processed), now - at)
        });
        before.at = now;
        before.processed = processed;
        if let Some(stats) = stats {
            before.group = Some((now, stats.processed));
        }
        let place = self.group.standing.place();
        let plugin = self.versions.status();
        // A comparison goes on all the time.
        let plugin_is_news =
            Status { compared: None, ..plugin.clone() } != Status { compared: None, ..before.plugin.clone() };
        before.plugin = plugin.clone();
        Snapshot {
            timestamp: rfc3339(SystemTime::now()),
            host: self.group.identity.host_id().to_string(),
            messages_per_second,
            group_messages_per_second,
            processed,
            group_processed: stats.map(|stats| stats.processed),
            duplicates: counters.duplicates.get(),
            dead_letters: counters.dead_letters.get(),
            dead_letters_trimmed: counters.trimmed.dead_letters.get(),
            results_trimmed: counters.trimmed.results.get(),
            inbox: stats.map(|stats| stats.inbox),
            retries: counters.retries.get(),
            retries_waiting: stats.map(|stats| stats.retries_waiting),
            intake: place.state,
            intake_active: place.active.map(|host| host.to_string()),
            position_lag: self.group.standing.lag(),
            shed: counters.shed.get(),
            reconnects: counters.reconnects.get(),
            gaps: counters.gaps.get(),
            gap_ms: counters.gap_ms.get(),
            taken_over: counters.taken_over.get(),
            state_conflicts: counters.state_conflicts.get(),
            spans_lost: self.group.traces.as_ref().map_or(0, |traces| traces.lost.get()),
            paused: self.group.pause.is_on(),
            generation: plugin.generation,
            plugin_digest: plugin.digest,
            plugin_state: plugin.state,
            swaps: plugin.swaps,
            refusals: plugin.refusals,
            rollbacks: plugin.rollbacks,
            plugin_time_percent: plugin.compared.as_ref().map(|compared| compared.time_percent),
            plugin_growth_bytes: plugin.compared.as_ref().map(|compared| compared.growth_bytes),
            plugin_is_news,
            plugin_warnings: plugin.compared.map(|compared| (compared.slow, compared.leaking)).unwrap_or_default(),
        }
    }

    /// The figures from Redis, or `None` after a timeout. An idle connection may have been cut, so a failure is
    /// followed by one attempt on a new connection.
    async fn stats(&mut self) -> Option<GroupStats> {
        let kept = self.connection.take();
        let (connector, keys) = (&self.group.connector, &self.group.keys);
        let (host_id, processed) = (&*self.group.identity.host_id(), self.group.counters.processed_with_id());
        let read = async {
            if let Some(mut connection) = kept
                && let Ok(stats) = group_stats(&mut connection, keys, host_id, processed).await
            {
                return Some((connection, stats));
            }
            let mut connection = connector.connect().await.ok()?;
            let stats = group_stats(&mut connection, keys, host_id, processed).await.ok()?;
            Some((connection, stats))
        };
        let (connection, stats) = tokio::time::timeout(STATS_TIMEOUT, read).await.ok().flatten()?;
        self.connection = Some(connection);
        Some(stats)
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate needs no more than 52 bits")]
    let rate = count as f64 / time.as_secs_f64().max(f64::EPSILON);
    (rate * 10.0).round() / 10.0
}
