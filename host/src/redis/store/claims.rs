//! Claims. A claim gives a message id to one delivery and to no other, for the dedup window.

use std::sync::LazyLock;
use std::time::Duration;

use redis::RedisError;

use super::entries::Entries;
use super::entry::{NOTE, opening};
use super::handed::Handed;
use super::keys::Keys;
use crate::redis::client::resp::{Commands, Cursor, Head};
use crate::redis::client::script::{Source, without_comments};
use crate::redis::client::shared::SharedConnection;

static CLAIM: LazyLock<String> = LazyLock::new(|| without_comments(include_str!("scripts/claim.lua")));
static RENEW: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/renew.lua")));

/// Facts for entries that are appended with claims.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The format of the entries.
    pub format: u32,
    /// Validity of the claims, in ms.
    pub window_ms: &'a str,
}

/// Adds two commands for each delivery, which is a list of message ids and payloads in turn. The first command appends
/// the delivery behind a note about its claims. The second command claims its messages.
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

/// Claims the messages of a delivery that `wanted` names, each with its own token, and renews claims that already carry
/// that token. The reply says which messages are claimed. `None`: the server does not have this delivery, and nothing was
/// claimed. There a claim would keep the message out of the inbox.
///
/// # Errors
/// Errors of the network or the server. Some of the claims may exist then, under their tokens.
pub async fn claim(
    connection: &SharedConnection,
    keys: &Keys,
    handed: Handed<'_>,
    wanted: &[usize],
    window: Duration,
) -> Result<Option<Vec<bool>>, RedisError> {
    let delivery = handed.delivery;
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
    if !handed.is_known_to(connection, keys).await? {
        return Ok(None);
    }
    if wanted.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let reply = RENEW.ask(connection, commands).await?;
    let mut reply = Cursor::new(&reply, 0);
    let ours = (0..reply.array()?).map(|_| Ok(reply.value()? == Head::Line(b":1")));
    ours.collect::<Result<_, RedisError>>().map(Some)
}
