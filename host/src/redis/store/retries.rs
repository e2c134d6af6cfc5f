//! Retries: the set in which they wait, and their way back into the inbox. This file does not decide why or when a
//! message is tried again.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, from_redis_value};

use super::entry::{FORMAT, History, retry_member};
use super::keys::Keys;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::resp::Commands;
use crate::redis::client::script::Source;

static FORWARD: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/forward.lua")));

/// Maximum number of messages moved by one call.
const FORWARD_MESSAGES_MAX: usize = 256;

/// Number of bytes after which one call stops; a single message may be longer.
const FORWARD_BYTES_MAX: usize = 1 << 20;

/// Retries of one delivery.
#[derive(Debug, Default)]
pub struct Retries(Vec<Retry>);

#[derive(Debug)]
struct Retry {
    message_id: String,
    token: String,
    member: Vec<u8>,
    delay: Duration,
}

impl Retries {
    /// Adds a message in this format. Its next attempt is due after `delay`.
    pub fn push(&mut self, format: u32, message_id: &str, body: &str, history: History, delay: Duration) {
        let member = retry_member(format, message_id, body, &history);
        self.0.push(Retry { message_id: message_id.into(), token: history.token, member, delay });
    }

    /// Number of retries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no retries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes all retries.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Ids of the messages. `settle.lua` renews their claims.
    pub(super) fn message_ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|retry| retry.message_id.as_str())
    }

    /// Number of arguments that [`Retries::write_to`] adds.
    pub(super) fn arguments(&self) -> usize {
        4 * self.0.len()
    }

    /// Adds the retries to the arguments of `settle.lua`. A claim lasts for the whole window after its message is due.
    pub(super) fn write_to(&self, commands: &mut Commands, dedup_window: Duration) {
        for Retry { token, member, delay, .. } in &self.0 {
            commands.word(delay.as_millis().to_string());
            commands.word(member);
            commands.word(token);
            commands.word((*delay + dedup_window).as_millis().to_string());
        }
    }
}

/// Result of moving due messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Number of moved messages.
    pub moved: usize,
    /// Time until the next message is due, if any message waits.
    pub next_due: Option<Duration>,
    /// Due messages in a format that this program cannot read. They wait for a newer host.
    pub newer: usize,
}

/// Moves due messages into the inbox, a bounded number at once, in deliveries with this number of messages and in this
/// format.
///
/// # Errors
/// Errors of the network or the server. Some messages may be moved then, and the call may be repeated.
pub async fn forward(
    connection: &mut LibraryConnection,
    keys: &Keys,
    delivery_messages: usize,
    delivery_bytes: usize,
    format: u32,
) -> Result<Forwarded, RedisError> {
    let mut command = FORWARD.command(&[&keys.retry, &keys.inbox]);
    command.arg(FORWARD_MESSAGES_MAX).arg(FORWARD_BYTES_MAX).arg(delivery_messages).arg(delivery_bytes);
    command.arg(format).arg(FORMAT);
    let (moved, next_due_ms, newer): (usize, i64, usize) = from_redis_value(FORWARD.run(connection, &command).await?)?;
    Ok(Forwarded { moved, next_due: u64::try_from(next_due_ms).ok().map(Duration::from_millis), newer })
}
