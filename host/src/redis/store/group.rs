//! The descriptor of a group: what all its hosts must agree on. The first host writes it, every heartbeat keeps it alive, and it
//! is gone with the last host.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, Value, cmd, from_redis_value};

use super::entry::FORMAT;
use super::keys::Keys;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::client::script::Source;
use crate::time::millis;

static JOIN: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/join.lua")));

/// What a host brings into its group.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The host's id.
    pub host_id: &'a str,
    /// How long this is valid; nothing to leave.
    pub ttl: Duration,
    /// How long the host remembers message ids.
    pub dedup_window: Duration,
}

/// What the group has agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The format that hosts write, which all of them read.
    pub format: u32,
    /// The longest dedup window of the hosts alive.
    pub dedup_window: Duration,
}

/// Why a host cannot be in the group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The others take in another channel.
    #[error(
        "the hosts that run with the output stream {output} take in the channel {theirs}, and this host is set to take in {ours}; \
         give this host the same --channel, or a group of its own with another --output-key"
    )]
    Channel {
        /// The stream that names the group.
        output: String,
        /// The channel of the group.
        theirs: String,
        /// The channel of this host.
        ours: String,
    },
    /// The others write what this program cannot read.
    #[error(
        "the hosts that run with the output stream {output} write format {theirs}, and this program reads up to format {FORMAT}; \
         start a newer version of host, or stop the newer hosts first"
    )]
    Format {
        /// The stream that names the group.
        output: String,
        /// The format that the group writes.
        theirs: u32,
    },
    /// Some hosts are so old that they say nothing about their format, and would misread what this program writes.
    #[error(
        "these hosts on the list {list} are of a version that does not mix with this one: {}; stop them before you start this \
         host, or give hosts that have nothing to do with each other different lists with --consumer-ids-key",
        .hosts.join(", ")
    )]
    Unversioned {
        /// The list of consumers.
        list: String,
        /// Their ids.
        hosts: Vec<String>,
    },
}

/// Joins the group, stays in it, or leaves it.
///
/// # Errors
/// Whatever the network or the server says; saying it again does no harm.
pub async fn join(
    connection: &mut LibraryConnection,
    keys: &Keys,
    member: Member<'_>,
) -> Result<Result<Agreement, Misfit>, RedisError> {
    let Member { host_id, ttl, dedup_window } = member;
    let mut command = JOIN.command(&[&keys.descriptor]);
    command.arg(host_id).arg(millis(ttl)).arg(&keys.channel).arg(FORMAT).arg(millis(dedup_window));
    let reply: Vec<Value> = from_redis_value(JOIN.run(connection, &command).await?)?;
    let mut reply = reply.into_iter();
    let mut next = || reply.next().unwrap_or(Value::Nil);
    let (joined, format, window_ms): (u8, u32, u64) =
        (from_redis_value(next())?, from_redis_value(next())?, from_redis_value(next())?);
    if joined == 1 {
        return Ok(Ok(Agreement { format, dedup_window: Duration::from_millis(window_ms) }));
    }
    let output = keys.output.clone();
    let theirs: String = from_redis_value(next())?;
    Ok(Err(if theirs == keys.channel {
        Misfit::Format { output, theirs: format }
    } else {
        Misfit::Channel { output, theirs, ours: keys.channel.clone() }
    }))
}

/// Numbers of other databases of the same server in which a group takes in the same channel: a database does not separate
/// Pub/Sub, so each of those groups processes every message as well. Empty also when the user may not look.
pub async fn in_other_databases(connector: &Connector, keys: &Keys) -> Vec<u32> {
    let own = connector.database();
    let found = async {
        // A connection of its own: it is left in another database.
        let mut connection = connector.connect().await?;
        let keyspace: String = cmd("INFO").arg("keyspace").query_async(&mut connection).await?;
        let numbers = keyspace.lines().filter_map(|line| line.strip_prefix("db")?.split(':').next()?.parse().ok());
        let mut found = Vec::new();
        for number in numbers.filter(|number| i64::from(*number) != own) {
            cmd("SELECT").arg(number).query_async::<()>(&mut connection).await?;
            let channel: Option<String> =
                cmd("HGET").arg(&keys.descriptor).arg("channel").query_async(&mut connection).await?;
            if channel.as_deref() == Some(keys.channel.as_str()) {
                found.push(number);
            }
        }
        Ok::<_, RedisError>(found)
    };
    found.await.unwrap_or_default()
}

/// Ids of hosts alive that do not say which formats they read.
#[must_use]
pub fn unversioned(alive: &[String], statuses: &HashMap<String, String>) -> Vec<String> {
    let says_none = |status: &String| {
        serde_json::from_str::<serde_json::Value>(status).is_ok_and(|status| status.get("format").is_none())
    };
    alive.iter().filter(|id| statuses.get(*id).is_some_and(says_none)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_lives_and_says_no_format_is_too_old() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let statuses = [("new", r#"{"format":1}"#), ("old", r#"{"generation":1}"#), ("dead", "{}")];
        let statuses = statuses.map(|(id, status)| (id.to_owned(), status.to_owned())).into();
        assert_eq!(unversioned(&ids(&["new", "old", "joining"]), &statuses), ids(&["old"]));
    }
}
