//! What a host knows about itself and its group at one moment, for whoever asks: the report line, and every other view of it. It
//! only reads.

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

/// What a host knows about itself and its group at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// When, RFC 3339. The log's JSON calls it the same.
    pub timestamp: String,
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
    /// What this host's intake is: active, standby, owing or deaf.
    pub intake: IntakeState,
    /// The host whose intake is active; `None` when this host knows of none.
    pub intake_active: Option<String>,
    /// Messages that this host has heard and that are not known to be in the inbox.
    pub position_lag: u64,
    /// Messages that this host received and had no room for.
    pub shed: u64,
    /// Connections that this host made again.
    pub reconnects: u64,
    /// Times that no host of the group was subscribed, counted by the host that found out.
    pub gaps: u64,
    /// Their length together, in milliseconds, from the last mark heard before to the first one after.
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

/// Takes snapshots. Rates and news are counted from one to the next.
pub struct Sampler {
    group: Arc<Group>,
    versions: Arc<Versions>,
    /// A connection that snapshots use alone, so that nothing else waits for them.
    connection: Option<LibraryConnection>,
    before: Before,
}

/// What the last snapshot knew.
struct Before {
    at: Instant,
    processed: u64,
    group: Option<(Instant, u64)>,
    plugin: Status,
}

impl Sampler {
    /// Rates of the first snapshot are counted from now.
    pub async fn start(group: Arc<Group>, versions: Arc<Versions>) -> Sampler {
        let before = Before {
            at: Instant::now(),
            processed: group.counters.processed.get(),
            group: None,
            plugin: versions.status(),
        };
        let mut sampler = Sampler { group, versions, connection: None, before };
        let stats = sampler.stats().await;
        sampler.before.group = stats.map(|stats| (Instant::now(), stats.results));
        sampler
    }

    /// A snapshot of this moment, and what Redis knows beside it.
    pub async fn take(&mut self) -> (Snapshot, Option<GroupStats>) {
        let stats = self.stats().await;
        (self.snapshot(stats), stats)
    }

    fn snapshot(&mut self, stats: Option<GroupStats>) -> Snapshot {
        let (counters, before) = (&self.group.counters, &mut self.before);
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
        let place = self.group.standing.place();
        let plugin = self.versions.status();
        let plugin_is_news = plugin != before.plugin;
        before.plugin = plugin.clone();
        Snapshot {
            timestamp: rfc3339(SystemTime::now()),
            host: self.group.identity.host_id().to_string(),
            messages_per_second,
            group_messages_per_second,
            processed,
            group_processed: stats.map(|stats| stats.results),
            duplicates: counters.duplicates.get(),
            dead_letters: counters.dead_letters.get(),
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
            generation: plugin.generation,
            plugin_digest: plugin.digest,
            plugin_state: plugin.state,
            swaps: plugin.swaps,
            refusals: plugin.refusals,
            rollbacks: plugin.rollbacks,
            plugin_is_news,
        }
    }

    /// Redis's part, unless it takes too long. A connection that was idle may have been cut, so a second one is tried.
    async fn stats(&mut self) -> Option<GroupStats> {
        let kept = self.connection.take();
        let (connector, keys) = (&self.group.connector, &self.group.keys);
        let read = async {
            if let Some(mut connection) = kept
                && let Ok(stats) = group_stats(&mut connection, keys).await
            {
                return Some((connection, stats));
            }
            let mut connection = connector.connect().await.ok()?;
            let stats = group_stats(&mut connection, keys).await.ok()?;
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
