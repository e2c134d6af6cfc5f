//! What the hosts of a group tell each other of versions of the plugin: a record for each version, by its fingerprint.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, Value, from_redis_value};
use serde::Deserialize;

use super::keys::Keys;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::script::Source;
use crate::time::millis;

static VERSIONS: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/versions.lua")));

/// Records that are kept, at most. Beyond that the oldest ones are forgotten.
const RECORDS_MAX: usize = 100;

/// Time after which a rollback, or the trust in a version, is forgotten.
const WORD_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// The version that a call is about, and the host that calls.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Identifies the plugin's bytes, configuration and limits.
    pub fingerprint: &'a str,
    /// SHA-256 of the bytes.
    pub digest: &'a str,
    /// The host's id.
    pub host_id: &'a str,
}

/// What a host wants.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// To see the record.
    Look,
    /// To become the canary for this long, unless there is a record.
    Claim(Duration),
    /// To stay the canary for this long.
    Keep(Duration),
    /// To forget a rollback.
    Forgive,
    /// To say that it rolled the version back, for this reason.
    RollBack(&'a str),
    /// To say that the probation of the version has ended well. A rollback by a host stays.
    Prove,
    /// To say that somebody trusts the version.
    Trust,
}

/// What a record says.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Word {
    /// One host tries the version first.
    Canary,
    /// The version has passed a probation, or somebody trusts it.
    Trusted,
    /// A host has rolled the version back.
    RolledBack,
}

/// A record.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Record {
    /// What it says.
    pub state: Word,
    /// The host that wrote it.
    pub host: String,
    /// When it was written, by the server's clock, in ms since 1970.
    pub at_ms: f64,
    /// When it is forgotten.
    pub expires_ms: f64,
    /// Reason of a rollback.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What the group knows of a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Whether this host is the canary.
    pub is_canary: bool,
    /// Whether there was a record that cannot be read. It counts as none.
    pub was_unreadable: bool,
    /// The record; after a change the new one, and for [`Wanted::Forgive`] the one that is forgotten.
    pub record: Option<Record>,
}

/// Asks for the record of a version, or changes it.
///
/// # Errors
/// Errors of the network or the server, and a key of another type. The call may be repeated.
pub async fn exchange(
    connection: &mut LibraryConnection,
    keys: &Keys,
    subject: Subject<'_>,
    wanted: Wanted<'_>,
) -> Result<Known, RedisError> {
    let Subject { fingerprint, digest, host_id } = subject;
    let (word, ttl, reason) = match wanted {
        Wanted::Look => ("look", Duration::ZERO, ""),
        Wanted::Claim(ttl) => ("claim", ttl, ""),
        Wanted::Keep(ttl) => ("keep", ttl, ""),
        Wanted::Forgive => ("forgive", Duration::ZERO, ""),
        Wanted::RollBack(reason) => ("roll-back", WORD_TTL, reason),
        Wanted::Prove => ("prove", WORD_TTL, ""),
        Wanted::Trust => ("trust", WORD_TTL, ""),
    };
    let mut command = VERSIONS.command(&[&keys.versions]);
    command.arg(word).arg(fingerprint).arg(digest).arg(host_id).arg(millis(ttl)).arg(RECORDS_MAX).arg(reason);
    let reply: Vec<Value> = from_redis_value(VERSIONS.run(connection, &command).await?)?;
    let mut reply = reply.into_iter();
    let mut next = || reply.next().unwrap_or(Value::Nil);
    let (is_canary, was_unreadable): (bool, bool) = (from_redis_value(next())?, from_redis_value(next())?);
    let text: Option<String> = from_redis_value(next())?;
    let record = text.and_then(|text| serde_json::from_str(&text).ok());
    Ok(Known { is_canary, was_unreadable, record })
}
