//! The state of plugins in Redis: a string for each key of a bucket. This file reads; changes are written by the script that
//! settles a delivery, and by `host state`.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::RedisError;

use crate::config::KeysConfig;
use crate::effects::{Change, Effect, Expected};
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::resp::{Commands, Cursor, Head, malformed};
use crate::redis::client::script::Source;
use crate::redis::client::shared::SharedConnection;

static PAGE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/state_page.lua")));

/// Number of keys of the server that one page looks at.
const PAGE_LOOKS: &str = "1000";

/// Number of arguments for each effect.
const ARGUMENTS: usize = 5;

/// The values of these names, in their order. A key that is no string counts as none.
///
/// # Errors
/// Errors of the network or the server.
pub async fn read(
    connection: &SharedConnection,
    keys: &KeysConfig,
    names: &[String],
) -> Result<Vec<Option<Bytes>>, RedisError> {
    let mut commands = Commands::default();
    commands.begin(1 + names.len());
    commands.word("MGET");
    for name in names {
        commands.prefixed(&keys.state_prefix, name);
    }
    let reply = connection.ask(commands).await?;
    let mut cursor = Cursor::new(&reply, 0);
    let values = (0..cursor.array()?).map(|_| match cursor.value()? {
        Head::Bulk(value) => Ok(Some(Bytes::copy_from_slice(value))),
        Head::Nil => Ok(None),
        _ => Err(malformed()),
    });
    values.collect()
}

/// A page of the keys in a bucket from this cursor on, and the cursor of the next page. A key may occur twice, and a page may be empty.
///
/// # Errors
/// Errors of the network or the server.
pub async fn page(
    connection: &SharedConnection,
    keys: &KeysConfig,
    bucket: &str,
    cursor: u64,
) -> Result<(Vec<String>, Option<u64>), RedisError> {
    let prefix = format!("{}{bucket}:", keys.state_prefix);
    let commands = || {
        let mut commands = Commands::default();
        PAGE.begin(&mut commands, 1, 3);
        commands.word(&prefix);
        commands.number(cursor);
        commands.word(pattern(&prefix));
        commands.word(PAGE_LOOKS);
        commands
    };
    let reply = PAGE.ask(connection, commands).await?;
    let mut reply = Cursor::new(&reply, 0);
    reply.array()?;
    let next: u64 = std::str::from_utf8(reply.bulk()?).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
    let mut found = Vec::new();
    for _ in 0..reply.array()? {
        // Keys of a plugin are text; what is none was written by somebody else.
        if let Some(key) =
            reply.bulk()?.strip_prefix(prefix.as_bytes()).and_then(|key| String::from_utf8(key.to_vec()).ok())
        {
            found.push(key);
        }
    }
    Ok((found, (next != 0).then_some(next)))
}

/// A pattern for all names with this prefix.
fn pattern(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if "*?[]\\^-".contains(character) {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern + "*"
}

/// Number of arguments of these effects.
pub(super) fn arguments(effects: &[Effect]) -> usize {
    ARGUMENTS * effects.len()
}

/// Writes the keys of these effects.
pub(super) fn write_keys(commands: &mut Commands, keys: &KeysConfig, effects: &[Effect]) {
    for effect in effects {
        commands.prefixed(&keys.state_prefix, &effect.name);
    }
}

/// Writes the arguments of these effects.
pub(super) fn write_to(commands: &mut Commands, effects: &[Effect]) {
    for Effect { expected, change, ttl_ms, .. } in effects {
        let (kind, value): (&str, &[u8]) = match expected {
            Expected::Anything => ("", b""),
            Expected::Absent => ("absent", b""),
            Expected::Value(value) => ("value", value),
        };
        commands.word(kind);
        commands.word(value);
        match change {
            None => ["", ""].iter().for_each(|word| commands.word(word)),
            Some(Change::Set(value)) => {
                commands.word("set");
                commands.word(value);
            }
            Some(Change::Delete) => ["delete", ""].iter().for_each(|word| commands.word(word)),
            Some(Change::Add(delta)) => {
                commands.word("add");
                commands.word(delta.to_string());
            }
        }
        commands.number(ttl_ms.unwrap_or(0));
    }
}

/// A value, and how many ms it lives on; `None` for ever.
#[derive(Debug)]
pub struct Kept {
    /// The value.
    pub value: Vec<u8>,
    /// Its lifetime.
    pub ttl_ms: Option<u64>,
}

/// The value of a key.
///
/// # Errors
/// Errors of the network or the server.
pub async fn get(
    connection: &mut LibraryConnection,
    keys: &KeysConfig,
    name: &str,
) -> Result<Option<Kept>, RedisError> {
    let key = format!("{}{name}", keys.state_prefix);
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
    let (value, ttl_ms): (Option<Vec<u8>>, i64) = pipeline.query_async(connection).await?;
    Ok(value.map(|value| Kept { value, ttl_ms: u64::try_from(ttl_ms).ok() }))
}

/// A page of the keys in a bucket, as [`page`].
///
/// # Errors
/// Errors of the network or the server.
pub async fn keys(
    connection: &mut LibraryConnection,
    keys: &KeysConfig,
    bucket: &str,
    cursor: u64,
) -> Result<(Vec<String>, Option<u64>), RedisError> {
    let prefix = format!("{}{bucket}:", keys.state_prefix);
    let mut command = redis::cmd("SCAN");
    command.arg(cursor).arg("MATCH").arg(pattern(&prefix)).arg("COUNT").arg(PAGE_LOOKS).arg("TYPE").arg("string");
    let (next, names): (u64, Vec<Vec<u8>>) = command.query_async(connection).await?;
    let key = |name: &Vec<u8>| String::from_utf8(name.strip_prefix(prefix.as_bytes())?.to_vec()).ok();
    Ok((names.iter().filter_map(key).collect(), (next != 0).then_some(next)))
}

/// Sets the value of a key, for this number of ms.
///
/// # Errors
/// Errors of the network or the server.
pub async fn set(
    connection: &mut LibraryConnection,
    keys: &KeysConfig,
    name: &str,
    value: &[u8],
    ttl_ms: Option<u64>,
) -> Result<(), RedisError> {
    let mut command = redis::cmd("SET");
    command.arg(format!("{}{name}", keys.state_prefix)).arg(value);
    if let Some(ttl_ms) = ttl_ms {
        command.arg("PX").arg(ttl_ms);
    }
    command.query_async(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_nothing_but_its_prefix() {
        assert_eq!(pattern("{a*b}:state:x-y:"), "{a\\*b}:state:x\\-y:*");
    }
}
