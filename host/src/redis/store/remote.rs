//! Remote consumers in Redis: the host of each of them, and their places on the list of consumers.

use std::collections::HashMap;
use std::sync::LazyLock;

use redis::{RedisError, from_redis_value};

use super::keys::Keys;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::script::Source;

static MEMBERSHIP: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/membership.lua")));

/// What came of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The consumer is on the list.
    Done,
    /// The group has as many consumers as it may have.
    Full,
    /// The host is not registered itself, because its heartbeat came too late.
    HostUnknown,
}

/// Puts a remote consumer on the list, as one of this host.
///
/// # Errors
/// Errors of the network or the server. The call may be repeated.
pub async fn register(
    connection: &mut LibraryConnection,
    keys: &Keys,
    host_id: &str,
    consumer_id: &str,
    group_size_max: u32,
) -> Result<Registered, RedisError> {
    Ok(match change(connection, keys, "register", (consumer_id, host_id), group_size_max).await? {
        1 => Registered::Done,
        0 => Registered::Full,
        _ => Registered::HostUnknown,
    })
}

/// Removes a remote consumer from the list, whatever its host.
///
/// # Errors
/// Errors of the network or the server. The call may be repeated.
pub async fn unregister(connection: &mut LibraryConnection, keys: &Keys, consumer_id: &str) -> Result<(), RedisError> {
    change(connection, keys, "unregister", (consumer_id, ""), 0).await.map(drop)
}

async fn change(
    connection: &mut LibraryConnection,
    keys: &Keys,
    how: &str,
    (consumer_id, host_id): (&str, &str),
    group_size_max: u32,
) -> Result<i64, RedisError> {
    let mut command = MEMBERSHIP.command(&[&keys.consumer_ids, &keys.remote, &keys.heartbeat, &keys.sizes]);
    command.arg(how).arg(consumer_id).arg(host_id).arg(group_size_max);
    Ok(from_redis_value(MEMBERSHIP.run(connection, &command).await?)?)
}

/// The host of each remote consumer.
///
/// # Errors
/// Errors of the network or the server.
pub async fn remotes(connection: &mut LibraryConnection, keys: &Keys) -> Result<HashMap<String, String>, RedisError> {
    redis::cmd("HGETALL").arg(&keys.remote).query_async(connection).await
}
