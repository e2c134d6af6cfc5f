//! The state of a group as Redis shows it, for somebody who is no member of the group: `host status`, `host top`, and every
//! other view of a whole group. Only reads. What the hosts know beyond the keys, they announce with their heartbeats.

pub mod choice;
mod health;
mod reasons;
pub mod status;
pub mod tail;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, SystemTime};

use redis::RedisError;
use serde::Deserialize;

use self::reasons::Tallied;
use self::status::{
    Consumer, DeadLetterCounts, GroupFacts, GroupStatus, Host, Inbox, Output, OutputName, Plugin, RedisFacts, Retries,
    Totals,
};
use crate::config::Outputs;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::store::figures::Figures;
use crate::redis::store::keys::Keys;
use crate::redis::store::look::{Look, Stream, look, prepare, streams};
use crate::time::{rfc3339, stamp_ms};

/// Looks at a group again and again, over one connection that is opened on demand.
#[expect(missing_debug_implementations, reason = "a connection has none")]
pub struct Observer {
    connector: Connector,
    keys: Keys,
    /// Named outputs that the caller knows, beside those that hosts announce.
    outputs: BTreeSet<(String, String)>,
    connection: Option<LibraryConnection>,
    reasons: Tallied,
}

/// A host's status in Redis, as far as it is read here. An older host may lack any of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    #[serde(flatten)]
    plugin: Option<Plugin>,
    figures: Option<Figures>,
}

impl Observer {
    /// An observer of the group with these keys. Named outputs are those that the hosts announce, and these, which older
    /// hosts do not announce. This call opens no connection.
    #[must_use]
    pub fn new(connector: Connector, keys: Keys, outputs: &Outputs) -> Observer {
        Observer { connector, keys, outputs: named(outputs), connection: None, reasons: Tallied::default() }
    }

    /// Host and port of Redis, or its path, without credentials.
    #[must_use]
    pub fn address(&self) -> &str {
        self.connector.address()
    }

    /// The state of the group at this moment. After an error, the next call opens another connection.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn look(&mut self) -> Result<GroupStatus, RedisError> {
        let (mut connection, is_kept) = match self.connection.take() {
            Some(connection) => (connection, true),
            None => (self.connect().await?, false),
        };
        match self.look_through(&mut connection).await {
            Ok(status) => {
                self.connection = Some(connection);
                Ok(status)
            }
            // An idle connection may have been cut, and a restarted server has forgotten the scripts.
            Err(_) if is_kept => {
                let mut connection = self.connect().await?;
                let status = self.look_through(&mut connection).await?;
                self.connection = Some(connection);
                Ok(status)
            }
            Err(error) => Err(error),
        }
    }

    async fn connect(&self) -> Result<LibraryConnection, RedisError> {
        let mut connection = self.connector.connect().await?;
        prepare(&mut connection).await?;
        Ok(connection)
    }

    async fn look_through(&mut self, connection: &mut LibraryConnection) -> Result<GroupStatus, RedisError> {
        let seen = look(connection, &self.keys).await?;
        self.reasons.update(connection, &self.keys, &seen.dead).await?;
        let outputs = output_streams(&self.keys, self.outputs.union(&seen.outputs));
        let output_keys: Vec<&str> = outputs.iter().map(|(_, key)| key.as_str()).collect();
        let streams = streams(connection, &output_keys).await?;
        let outputs = outputs.iter().zip(&streams).map(output).collect();
        Ok(self.status(&seen, outputs))
    }

    fn status(&self, seen: &Look, outputs: Vec<Output>) -> GroupStatus {
        let hosts = hosts(seen);
        let consumers = consumers(seen, &hosts);
        let mut status = GroupStatus {
            timestamp: rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(seen.now_ms)),
            healthy: true,
            problems: Vec::new(),
            warnings: Vec::new(),
            redis: RedisFacts {
                address: self.connector.address().to_owned(),
                server: seen.server.clone(),
                memory_bytes: seen.memory_bytes,
                memory_bytes_max: seen.memory_bytes_max,
            },
            group: GroupFacts {
                output: self.keys.output.clone(),
                channel: seen.channel.clone(),
                format: seen.format,
                active_intake: seen.active.clone(),
            },
            totals: totals(&hosts, &consumers),
            inbox: inbox(seen),
            retries: retries(seen),
            dead_letters: DeadLetterCounts {
                without_id: seen.dead_without_id,
                ..self.reasons.counts(seen.dead.length)
            },
            outputs,
            hosts: hosts.into_iter().map(|(host, _)| host).collect(),
            consumers,
        };
        health::judge(&mut status);
        status
    }
}

/// Names and streams of the named outputs in a configuration.
fn named(outputs: &Outputs) -> BTreeSet<(String, String)> {
    outputs.iter().map(|output| (output.name.clone(), output.key.clone())).collect()
}

/// The output streams of a group: first the main one.
fn output_streams<'a>(keys: &Keys, named: impl Iterator<Item = &'a (String, String)>) -> Vec<(OutputName, String)> {
    let named = named.map(|(name, key)| (OutputName::Named(name.clone()), key.clone()));
    [(OutputName::Main, keys.output.clone())].into_iter().chain(named).collect()
}

/// The hosts alive in the order of their ids, each with what it has said of its consumers.
fn hosts(seen: &Look) -> Vec<(Host, Option<Figures>)> {
    let listed = listed(seen);
    let mut hosts: Vec<_> = seen.hosts.iter().map(|(id, expiry)| host(seen, id, *expiry, &listed)).collect();
    hosts.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
    hosts
}

fn host(seen: &Look, id: &str, expiry_ms: u64, listed: &HashMap<&str, Listed>) -> (Host, Option<Figures>) {
    let said = seen.statuses.get(id).and_then(|status| serde_json::from_str(status).ok());
    let Said { plugin, figures } = said.unwrap_or_default();
    let known = figures.as_ref();
    // The lease is the truth about who is active; the host said it with its last heartbeat.
    let is_active = seen.active.as_deref() == Some(id);
    let intake = match known.map(|figures| figures.intake.as_str()) {
        _ if is_active => Some("active"),
        Some("active") => Some("standby"),
        said => said,
    };
    let intake = intake.map(str::to_owned);
    let age = |figures: &Figures| (seen.now_ms + figures.beat_ttl_ms).saturating_sub(expiry_ms);
    let host = Host {
        id: id.to_owned(),
        host_name: host_name(id).to_owned(),
        version: known.map(|figures| figures.version.clone()),
        started: known.map(|figures| figures.started.clone()),
        heartbeat_age_ms: known.map(age),
        heartbeat_left_ms: expiry_ms.saturating_sub(seen.now_ms),
        consumers: listed.get(id).map_or(0, |listed| listed.own),
        remote_consumers: listed.get(id).map_or(0, |listed| listed.remote),
        intake,
        position_lag: known.map(|figures| figures.position_lag),
        messages_per_second: known.map(|figures| figures.messages_per_second),
        processed: known.map(|figures| figures.processed),
        duplicates: known.map(|figures| figures.duplicates),
        dead_letters: known.map(|figures| figures.dead_letters),
        dead_letters_trimmed: known.map(|figures| figures.dead_letters_trimmed),
        results_trimmed: known.map(|figures| figures.results_trimmed),
        retries: known.map(|figures| figures.retries),
        shed: known.map(|figures| figures.shed),
        gaps: known.map(|figures| figures.gaps),
        gap_ms: known.map(|figures| figures.gap_ms),
        reconnects: known.map(|figures| figures.reconnects),
        taken_over: known.map(|figures| figures.taken_over),
        paused: known.map(|figures| figures.paused),
        plugin,
    };
    (host, figures)
}

/// Consumers of a host on the list.
#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    own: u64,
    remote: u64,
}

/// Number of consumers on the list, by host id.
fn listed(seen: &Look) -> HashMap<&str, Listed> {
    let mut listed: HashMap<&str, Listed> = HashMap::new();
    for id in &seen.consumer_ids {
        if let Some(host) = seen.remotes.get(id) {
            listed.entry(host).or_default().remote += 1;
        } else if let Some((host, _)) = id.rsplit_once('/') {
            listed.entry(host).or_default().own += 1;
        }
    }
    listed
}

/// The consumers of hosts alive: host by host, in the order of their numbers, and then those elsewhere in the order of their ids.
fn consumers(seen: &Look, hosts: &[(Host, Option<Figures>)]) -> Vec<Consumer> {
    let figures: HashMap<&str, (usize, Option<&Figures>)> =
        hosts.iter().enumerate().map(|(at, (host, figures))| (host.id.as_str(), (at, figures.as_ref()))).collect();
    let mut known = HashSet::new();
    let mut consumers: Vec<((usize, usize), Consumer)> = Vec::new();
    for id in &seen.consumer_ids {
        let remote = seen.remotes.get(id);
        let own = || id.rsplit_once('/').and_then(|(host, number)| Some((host, number.parse().ok()?)));
        let Some((host, number)) = remote.map(|host| (host.as_str(), usize::MAX)).or_else(own) else { continue };
        let Some((at, figures)) = figures.get(host) else { continue };
        if number == 0 || !known.insert(id) {
            continue;
        }
        let consumer = Consumer {
            id: id.clone(),
            host: host.to_owned(),
            remote: remote.is_some(),
            messages_per_second: figures.and_then(|figures| figures.consumers_per_second.get(number - 1).copied()),
            processed: figures.and_then(|figures| figures.consumers_processed.get(number - 1).copied()),
        };
        consumers.push(((*at, number), consumer));
    }
    consumers.sort_by(|(place, one), (other, another)| place.cmp(other).then_with(|| one.id.cmp(&another.id)));
    consumers.into_iter().map(|(_, consumer)| consumer).collect()
}

/// The first part of a host's id; behind it are the number of its process and a random part.
fn host_name(id: &str) -> &str {
    id.rsplitn(3, '-').nth(2).unwrap_or(id)
}

fn totals(hosts: &[(Host, Option<Figures>)], consumers: &[Consumer]) -> Totals {
    let figures: Vec<&Figures> = hosts.iter().filter_map(|(_, figures)| figures.as_ref()).collect();
    // Of hosts that say nothing, nothing can be added up.
    let sum = |value: fn(&Figures) -> u64| {
        (figures.len() == hosts.len()).then(|| figures.iter().map(|figures| value(figures)).sum())
    };
    let messages_per_second = (figures.len() == hosts.len()).then(|| {
        let sum: f64 = figures.iter().map(|figures| figures.messages_per_second).sum();
        (sum * 10.0).round() / 10.0
    });
    Totals {
        hosts: hosts.len() as u64,
        consumers: consumers.len() as u64,
        remote_consumers: consumers.iter().filter(|consumer| consumer.remote).count() as u64,
        messages_per_second,
        // Standbys hear the same messages as the active intake.
        position_lag: figures.iter().map(|figures| figures.position_lag).max(),
        shed: sum(|figures| figures.shed),
        dead_letters_trimmed: sum(|figures| figures.dead_letters_trimmed),
        results_trimmed: sum(|figures| figures.results_trimmed),
        gaps: sum(|figures| figures.gaps),
        gap_ms: sum(|figures| figures.gap_ms),
    }
}

fn inbox(seen: &Look) -> Inbox {
    let Stream { length, first, .. } = &seen.inbox;
    let oldest_age_ms = first.as_deref().and_then(stamp_ms).map(|stamp| seen.now_ms.saturating_sub(stamp));
    // Both numbers come from different commands, and a delivery may be settled between them.
    let in_progress = seen.pending.min(*length);
    Inbox { length: *length, in_progress, waiting: length - in_progress, oldest_age_ms }
}

fn retries(seen: &Look) -> Retries {
    let next = seen.waiting.next.first();
    Retries {
        waiting: seen.waiting.count,
        next_due_in_ms: next.map(|retry| retry.due_ms.saturating_sub(seen.now_ms)),
        next_due: next.map(|retry| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(retry.due_ms))),
    }
}

fn output(((name, key), stream): (&(OutputName, String), &Stream)) -> Output {
    Output { name: name.clone(), key: key.clone(), length: stream.length, added: stream.added }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Look {
        let status = |version: &str| {
            let figures = Figures {
                version: version.to_owned(),
                beat_ttl_ms: 7_000,
                intake: "standby".to_owned(),
                consumers_processed: vec![5, 6],
                consumers_per_second: vec![0.5, 0.6],
                ..Figures::default()
            };
            serde_json::json!({"generation": 2, "digest": "d", "state": "steady", "figures": figures}).to_string()
        };
        Look {
            now_ms: 100_000,
            hosts: vec![("b-1-x".to_owned(), 105_000), ("a-host-2-y".to_owned(), 106_500)],
            statuses: [("b-1-x".to_owned(), "{}".to_owned()), ("a-host-2-y".to_owned(), status("1.2.3"))].into(),
            consumer_ids: "b-1-x/1 gone-3-z/1 b:9 b:8 a-host-2-y/2 a-host-2-y/1 a-host-2-y/1 odd gone:1"
                .split(' ')
                .map(str::to_owned)
                .collect(),
            remotes: [("b:8", "b-1-x"), ("b:9", "b-1-x"), ("gone:1", "gone-3-z"), ("never-listed:1", "b-1-x")]
                .map(|(id, host)| (id.to_owned(), host.to_owned()))
                .into(),
            active: Some("b-1-x".to_owned()),
            pending: 7,
            inbox: Stream { length: 5, added: 9, first: Some("99000-0".to_owned()), last: "99900-0".to_owned() },
            ..Look::default()
        }
    }

    #[test]
    fn an_older_host_is_shown_with_what_the_keys_say_of_it() {
        let found = hosts(&seen());
        let [(new, _), (old, _)] = found.as_slice() else { panic!("two hosts") };
        assert_eq!((new.id.as_str(), new.host_name.as_str()), ("a-host-2-y", "a-host"));
        assert_eq!((new.heartbeat_age_ms, new.consumers), (Some(500), 3));
        assert_eq!(new.plugin.as_ref().map(|plugin| plugin.generation), Some(2));
        assert_eq!((old.version.as_ref(), old.heartbeat_age_ms, old.heartbeat_left_ms), (None, None, 5_000));
        assert_eq!((old.intake.as_deref(), old.consumers, old.plugin.is_none()), (Some("active"), 1, true));
        assert_eq!((new.remote_consumers, old.remote_consumers), (0, 2));
    }

    #[test]
    fn consumers_are_in_order_and_those_of_dead_hosts_are_left_out() {
        let seen = seen();
        let consumers = consumers(&seen, &hosts(&seen));
        let ids: Vec<&str> = consumers.iter().map(|consumer| consumer.id.as_str()).collect();
        assert_eq!(ids, ["a-host-2-y/1", "a-host-2-y/2", "b-1-x/1", "b:8", "b:9"]);
        let processed: Vec<Option<u64>> = consumers.iter().map(|consumer| consumer.processed).collect();
        assert_eq!(processed, [Some(5), Some(6), None, None, None]);
        assert!(consumers.iter().all(|consumer| consumer.remote == consumer.id.contains(':')));
        assert_eq!(totals(&[], &consumers).remote_consumers, 2);
    }

    #[test]
    fn the_inbox_has_never_more_in_progress_than_entries() {
        let inbox = inbox(&seen());
        assert_eq!((inbox.in_progress, inbox.waiting, inbox.oldest_age_ms), (5, 0, Some(1_000)));
    }
}
