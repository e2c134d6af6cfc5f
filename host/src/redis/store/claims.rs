//! The claims: each gives a message id to one delivery and to no other, for the dedup window.

use std::sync::LazyLock;
use std::time::Duration;

use redis::RedisError;

use super::entries::Entries;
use super::entry::{Delivery, NOTE, opening};
use super::keys::Keys;
use crate::redis::client::resp::{Commands, Cursor, Head};
use crate::redis::client::script::{Source, without_comments};
use crate::redis::client::shared::SharedConnection;

static CLAIM: LazyLock<String> = LazyLock::new(|| without_comments(include_str!("scripts/claim.lua")));
static RENEW: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/renew.lua")));

/// How entries are appended with their claims.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The format of the entries.
    pub format: u32,
    /// How long the claims last, in ms.
    pub window_ms: &'a str,
}

/// Adds two commands for each delivery, a list of message id and payload in turn: one that appends it with a note about its
/// claims in front, and one that claims its messages.
pub fn write_deliveries(
    commands: &mut Commands,
    keys: &Keys,
    deliveries: &Entries,
    terms: Terms<'_>,
    mut token: impl FnMut() -> String,
) {
    for (values, count) in deliveries.iter().zip(deliveries.iter_sizes()) {
        let token = token();
        commands.begin(5 + count);
        for word in ["XADD", &keys.inbox, "*"] {
            commands.word(word);
        }
        commands.word(NOTE);
        commands.word(opening(terms.format, &token, terms.window_ms));
        for value in values.clone() {
            commands.word(value);
        }
        let messages = count / 2;
        commands.begin(6 + messages);
        commands.word("EVAL");
        commands.word(CLAIM.as_str());
        commands.number(1 + messages as u64);
        commands.word(&keys.inbox);
        for id in values.step_by(2) {
            commands.prefixed(&keys.claim_prefix, id);
        }
        commands.word(&token);
        commands.word(terms.window_ms);
    }
}

/// Claims the messages of a delivery that `wanted` names, each with its own token, and renews the claims that carry it
/// already. The answer says which messages are ours.
///
/// # Errors
/// Whatever the network or the server says; then any number of the claims may have been made, under their tokens.
pub async fn claim(
    connection: &SharedConnection,
    keys: &Keys,
    delivery: &Delivery,
    wanted: &[usize],
    window: Duration,
) -> Result<Vec<bool>, RedisError> {
    let commands = || {
        let mut commands = Commands::default();
        RENEW.begin(&mut commands, wanted.len(), 1 + wanted.len());
        for index in wanted {
            commands.prefixed(&keys.claim_prefix, &delivery.messages[*index].id);
        }
        commands.word(window.as_millis().to_string());
        for index in wanted {
            commands.word(delivery.token(&delivery.messages[*index]));
        }
        commands
    };
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let reply = RENEW.ask(connection, commands).await?;
    let mut reply = Cursor::new(&reply, 0);
    (0..reply.array()?).map(|_| Ok(reply.value()? == Head::Line(b":1"))).collect()
}
