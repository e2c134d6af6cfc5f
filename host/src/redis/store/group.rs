//! The descriptor of a group: the facts on which all hosts of the group must agree. The first host writes the
//! descriptor, every heartbeat renews it, and it expires with the last host.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, Value, cmd, from_redis_value};

use super::entry::FORMAT;
use super::keys::Keys;
use crate::config::{Config, MessageConfig};
use crate::message::ID_PROPERTY;
use crate::printable::escaped;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::client::script::Source;
use crate::time::millis;

static JOIN: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/join.lua")));

/// A host's part of the descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The host's id.
    pub host_id: &'a str,
    /// Validity of the host's part; zero to leave the group.
    pub ttl: Duration,
    /// Dedup window of the host.
    pub dedup_window: Duration,
    /// Messages that the host has settled since it has this id.
    pub processed: u64,
    /// What the host receives.
    pub received: &'a Received,
    /// Named outputs of the host.
    pub outputs: &'a OutputKeys,
}

/// What a host receives. Its text is the field `channel` of the descriptor: the name of the channel, and behind that each
/// setting of messages that has another value than the default. So hosts of a version without such a setting are refused as
/// hosts with another channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The channel.
    pub channel: String,
    /// Flags of settings on which the group must agree, with their values. Those with the default are not there.
    pub settings: BTreeMap<String, String>,
}

/// Stands in the text in front of each setting.
const WITH: &str = ", --";

impl Received {
    /// As it is configured.
    #[must_use]
    pub fn configured(config: &Config) -> Received {
        let MessageConfig { id_property, deliver_at_property, deliver_after_property, .. } = &config.message;
        let settings = [
            ("id-property", Some(id_property).filter(|path| !path.is(ID_PROPERTY))),
            ("deliver-at-property", deliver_at_property.as_ref()),
            ("deliver-after-property", deliver_after_property.as_ref()),
        ];
        let settings = settings.into_iter().filter_map(|(flag, path)| Some((flag.to_owned(), path?.pointer())));
        Received { channel: config.keys.channel.clone(), settings: settings.collect() }
    }

    /// Reads the text.
    #[must_use]
    pub fn read(text: &str) -> Received {
        let mut parts = text.split(WITH);
        let channel = parts.next().unwrap_or_default().to_owned();
        let settings = parts.filter_map(|part| part.split_once(' '));
        Received { channel, settings: settings.map(|(flag, value)| (flag.to_owned(), value.to_owned())).collect() }
    }

    /// Why a process that receives this does not fit into a group that receives `theirs`, if it does not.
    fn misfit(&self, theirs: &Received, output: &str) -> Option<Misfit> {
        let output = output.to_owned();
        if theirs.channel != self.channel {
            return Some(Misfit::Channel { output, theirs: theirs.channel.clone(), ours: self.channel.clone() });
        }
        let flags: BTreeSet<&String> = theirs.settings.keys().chain(self.settings.keys()).collect();
        let flag = flags.into_iter().find(|flag| theirs.settings.get(*flag) != self.settings.get(*flag))?;
        let shown = |settings: &BTreeMap<String, String>| match settings.get(flag) {
            Some(value) => format!("--{flag} {}", escaped(value)),
            None => format!("the default of --{flag}"),
        };
        Some(Misfit::Setting { output, theirs: shown(&theirs.settings), ours: shown(&self.settings) })
    }
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.channel)?;
        self.settings.iter().try_for_each(|(flag, value)| write!(f, "{WITH}{flag} {value}"))
    }
}

/// Named outputs: the stream of each name.
pub type OutputKeys = BTreeMap<String, String>;

/// A host alive with other named outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The host's id.
    pub host_id: String,
    /// Its named outputs.
    pub outputs: OutputKeys,
}

impl Stranger {
    /// What differs, output by output, for a sentence.
    #[must_use]
    pub fn differences(&self, ours: &OutputKeys) -> String {
        let names: BTreeSet<&String> = ours.keys().chain(self.outputs.keys()).collect();
        let differences = names.into_iter().filter_map(|name| match (ours.get(name), self.outputs.get(name)) {
            (Some(here), Some(there)) if here == there => None,
            (Some(here), Some(there)) => Some(format!("{name} is {here} here and {there} there")),
            (Some(here), None) => Some(format!("{name} ({here}) is only here")),
            (None, there) => Some(format!("{name} ({}) is only there", there.map_or("", String::as_str))),
        });
        differences.collect::<Vec<_>>().join(", ")
    }
}

/// The facts on which the group agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The format that hosts write, which all of them can read.
    pub format: u32,
    /// The longest dedup window of the hosts alive.
    pub dedup_window: Duration,
    /// A host with other named outputs, if there is one: always the same one of several.
    pub stranger: Option<Stranger>,
}

/// Reason why a host cannot join the group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The group receives another channel.
    #[error(
        "the running hosts with the output stream {output} receive the channel {}, and this host is configured for the \
         channel {ours}; give this host the same --channel, or separate the groups with another --output-key",
        escaped(theirs)
    )]
    Channel {
        /// The output stream, which names the group.
        output: String,
        /// The channel of the group.
        theirs: String,
        /// The channel of this host.
        ours: String,
    },
    /// The group reads messages in another way.
    #[error(
        "the running hosts with the output stream {output} have {theirs}, and this process has {ours}; give both the same value, or \
         separate the groups with another --output-key"
    )]
    Setting {
        /// The output stream, which names the group.
        output: String,
        /// The setting of the group.
        theirs: String,
        /// The setting of this process.
        ours: String,
    },
    /// The group writes a format that this program cannot read.
    #[error(
        "the running hosts with the output stream {output} write format {theirs}, and this program reads up to format {FORMAT}; \
         start a newer version of host, or stop the newer hosts first"
    )]
    Format {
        /// The output stream, which names the group.
        output: String,
        /// The format that the group writes.
        theirs: u32,
    },
    /// Some hosts are too old to report their format, and would misread what this program writes.
    #[error(
        "these hosts on the list {list} have a version that does not work together with this one: {}; stop these hosts \
         first, or use another list with --consumer-ids-key if they belong to another group",
        .hosts.join(", ")
    )]
    Unversioned {
        /// The list of consumers.
        list: String,
        /// Ids of these hosts.
        hosts: Vec<String>,
    },
}

/// Joins the group, renews the membership, or leaves.
///
/// # Errors
/// Errors of the network or the server. The call may be repeated.
pub async fn join(
    connection: &mut LibraryConnection,
    keys: &Keys,
    member: Member<'_>,
) -> Result<Result<Agreement, Misfit>, RedisError> {
    let Member { host_id, ttl, dedup_window, processed, received, outputs } = member;
    // Serialisation cannot fail: texts by texts.
    let outputs = serde_json::to_string(outputs).unwrap_or_default();
    let mut command = JOIN.command(&[&keys.descriptor]);
    command.arg(host_id).arg(millis(ttl)).arg(received.to_string()).arg(FORMAT).arg(millis(dedup_window));
    command.arg(processed).arg(outputs);
    let reply: Vec<Value> = from_redis_value(JOIN.run(connection, &command).await?)?;
    let mut reply = reply.into_iter();
    let mut next = || reply.next().unwrap_or(Value::Nil);
    let (joined, format, window_ms): (u8, u32, u64) =
        (from_redis_value(next())?, from_redis_value(next())?, from_redis_value(next())?);
    if joined == 1 {
        let (host_id, outputs): (Option<String>, Option<String>) =
            (from_redis_value(next())?, from_redis_value(next())?);
        let outputs = outputs.and_then(|outputs| serde_json::from_str(&outputs).ok());
        let stranger = host_id.zip(outputs).map(|(host_id, outputs)| Stranger { host_id, outputs });
        return Ok(Ok(Agreement { format, dedup_window: Duration::from_millis(window_ms), stranger }));
    }
    let output = keys.output.clone();
    let theirs: String = from_redis_value(next())?;
    let misfit = received.misfit(&Received::read(&theirs), &output);
    Ok(Err(misfit.unwrap_or(Misfit::Format { output, theirs: format })))
}

/// Why a worker does not fit the running hosts, whatever channel they receive. `None` also when no host is alive, and when the
/// group cannot be asked.
pub async fn misfit_of_worker(connector: &Connector, keys: &Keys, ours: &Received) -> Option<Misfit> {
    let mut connection = connector.connect().await.ok()?;
    let asked = cmd("HGET").arg(&keys.descriptor).arg("channel").query_async(&mut connection).await;
    let theirs = Received::read(&asked.ok().flatten().unwrap_or_else(|| ours.to_string()));
    let ours = Received { channel: theirs.channel.clone(), ..ours.clone() };
    ours.misfit(&theirs, &keys.output)
}

/// Numbers of other databases on the same server in which a group receives the same channel: a database does not
/// separate Pub/Sub, so each of those groups also processes every message. Empty also when the user has no right to
/// look.
pub async fn in_other_databases(connector: &Connector, keys: &Keys) -> Vec<u32> {
    let own = connector.database();
    let found = async {
        // A separate connection, because another database stays selected on it.
        let mut connection = connector.connect().await?;
        let keyspace: String = cmd("INFO").arg("keyspace").query_async(&mut connection).await?;
        let numbers = keyspace.lines().filter_map(|line| line.strip_prefix("db")?.split(':').next()?.parse().ok());
        let mut found = Vec::new();
        for number in numbers.filter(|number| i64::from(*number) != own) {
            cmd("SELECT").arg(number).query_async::<()>(&mut connection).await?;
            let received: Option<String> =
                cmd("HGET").arg(&keys.descriptor).arg("channel").query_async(&mut connection).await?;
            if received.is_some_and(|text| Received::read(&text).channel == keys.channel) {
                found.push(number);
            }
        }
        Ok::<_, RedisError>(found)
    };
    found.await.unwrap_or_default()
}

/// Ids of hosts alive that do not report their formats.
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
    fn what_differs_between_named_outputs_is_named() {
        let outputs = |pairs: &[(&str, &str)]| -> OutputKeys {
            pairs.iter().map(|(name, key)| ((*name).to_owned(), (*key).to_owned())).collect()
        };
        let stranger = Stranger { host_id: "h".into(), outputs: outputs(&[("a", "s:a"), ("b", "s:x"), ("d", "s:d")]) };
        let ours = outputs(&[("a", "s:a"), ("b", "s:b"), ("c", "s:c")]);
        let expected = "b is s:b here and s:x there, c (s:c) is only here, d (s:d) is only there";
        assert_eq!(stranger.differences(&ours), expected);
    }

    fn received(channel: &str, settings: &[(&str, &str)]) -> Received {
        let settings = settings.iter().map(|(flag, value)| ((*flag).to_owned(), (*value).to_owned()));
        Received { channel: channel.into(), settings: settings.collect() }
    }

    #[test]
    fn what_a_host_receives_is_written_so_that_it_can_be_read_again() {
        for (received, text) in [
            (received("messages:published", &[]), "messages:published"),
            (received("a, b", &[("id-property", "/event id")]), "a, b, --id-property /event id"),
            (received("a", &[("b", "2"), ("c", "3")]), "a, --b 2, --c 3"),
        ] {
            assert_eq!(received.to_string(), text);
            assert_eq!(Received::read(text), received);
        }
        let mut config = Config::default();
        assert_eq!(Received::configured(&config), received("messages:published", &[]));
        config.message.id_property = crate::config::PropertyPath::read("event.id").unwrap();
        assert_eq!(Received::configured(&config), received("messages:published", &[("id-property", "/event/id")]));
    }

    #[test]
    fn a_misfit_names_the_setting_and_both_values() {
        let (usual, other) = (received("a", &[]), received("a", &[("id-property", "/id")]));
        assert_eq!(usual.misfit(&usual.clone(), "out"), None);
        let Some(Misfit::Setting { theirs, ours, .. }) = usual.misfit(&other, "out") else { panic!("they differ") };
        assert_eq!((theirs.as_str(), ours.as_str()), ("--id-property /id", "the default of --id-property"));
        assert!(matches!(received("b", &[]).misfit(&other, "out"), Some(Misfit::Channel { .. })));
    }

    #[test]
    fn only_a_host_that_lives_and_says_no_format_is_too_old() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let statuses = [("new", r#"{"format":1}"#), ("old", r#"{"generation":1}"#), ("dead", "{}")];
        let statuses = statuses.map(|(id, status)| (id.to_owned(), status.to_owned())).into();
        assert_eq!(unversioned(&ids(&["new", "old", "joining"]), &statuses), ids(&["old"]));
    }
}
