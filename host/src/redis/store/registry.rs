//! Heartbeats in Redis: the list of consumers alive, and the set of hosts alive.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, from_redis_value};

use super::keys::Keys;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::script::Source;

static BEAT: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/beat.lua")));

/// Kind of a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Register a new id.
    Join,
    /// Stay registered.
    Stay,
    /// Remove the id and its consumers.
    Leave,
}

/// Reply to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeatReply {
    /// The host is registered, or has left.
    Alive {
        /// Hosts alive.
        hosts: u64,
        /// Number of consumers alive in all hosts.
        consumers: u64,
        /// The server's time in ms since 1970.
        server_ms: u64,
    },
    /// The host counted as dead; its id must not be used again.
    TakenForDead,
}

/// A host's facts in a heartbeat.
#[derive(Clone, Copy, Debug)]
pub struct Presence<'a> {
    /// The host's id.
    pub host_id: &'a str,
    /// Number of consumers.
    pub consumers: u32,
    /// Status of the plugin, JSON text.
    pub status: &'a str,
    /// Validity of the heartbeat.
    pub ttl: Duration,
}

/// Sends one heartbeat.
///
/// # Errors
/// Errors of the network or the server.
pub async fn beat(
    connection: &mut LibraryConnection,
    keys: &Keys,
    presence: Presence<'_>,
    beat: Beat,
) -> Result<BeatReply, RedisError> {
    let Presence { host_id, consumers, status, ttl } = presence;
    let mut command = BEAT.command(&[&keys.consumer_ids, &keys.heartbeat, &keys.hosts, &keys.remote, &keys.sizes]);
    let mode = match beat {
        Beat::Join => "join",
        Beat::Stay => "beat",
        Beat::Leave => "leave",
    };
    command.arg(host_id).arg(consumers).arg(ttl.as_millis().to_string()).arg(mode).arg(status);
    let reply: Vec<u64> = from_redis_value(BEAT.run(connection, &command).await?)?;
    Ok(match reply.as_slice() {
        &[1, hosts, consumers, server_ms] => BeatReply::Alive { hosts, consumers, server_ms },
        _ => BeatReply::TakenForDead,
    })
}

/// Ids of the hosts with a valid heartbeat, by the server's clock.
///
/// # Errors
/// Errors of the network or the server.
pub async fn hosts_alive(connection: &mut LibraryConnection, keys: &Keys) -> Result<Vec<String>, RedisError> {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    let now_ms = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    redis::cmd("ZRANGE")
        .arg(&keys.heartbeat)
        .arg(format!("({now_ms}"))
        .arg("+inf")
        .arg("BYSCORE")
        .query_async(connection)
        .await
}

/// Status of each host, JSON text, by host id.
///
/// # Errors
/// Errors of the network or the server.
pub async fn statuses(connection: &mut LibraryConnection, keys: &Keys) -> Result<HashMap<String, String>, RedisError> {
    redis::cmd("HGETALL").arg(&keys.hosts).query_async(connection).await
}

#[cfg(test)]
mod tests;
