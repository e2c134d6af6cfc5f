//! Messages that are tried again: where they wait, and their way back into the inbox.
//! It knows nothing of why or when a message is tried again.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, from_redis_value};

use super::entry::{FORMAT, History, retry_member};
use super::keys::Keys;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::resp::Commands;
use crate::redis::client::script::Source;

static FORWARD: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/forward.lua")));

/// Messages moved by one call.
const FORWARD_MESSAGES_MAX: usize = 256;

/// Bytes after which one call stops; a single message may be longer.
const FORWARD_BYTES_MAX: usize = 1 << 20;

/// Messages of one delivery that are to be tried again.
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
    /// Adds a message in this format, whose next attempt is due after `delay`.
    pub fn push(&mut self, format: u32, message_id: &str, body: &str, history: History, delay: Duration) {
        let member = retry_member(format, message_id, body, &history);
        self.0.push(Retry { message_id: message_id.into(), token: history.token, member, delay });
    }

    /// Messages added.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Ids of the messages, whose claims `settle.lua` keeps alive.
    pub(super) fn message_ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|retry| retry.message_id.as_str())
    }

    /// How many arguments [`Retries::write_to`] adds.
    pub(super) fn arguments(&self) -> usize {
        4 * self.0.len()
    }

    /// Adds them to the arguments of `settle.lua`. A claim lasts for the whole window after the message is due.
    pub(super) fn write_to(&self, commands: &mut Commands, dedup_window: Duration) {
        for Retry { token, member, delay, .. } in &self.0 {
            commands.word(delay.as_millis().to_string());
            commands.word(member);
            commands.word(token);
            commands.word((*delay + dedup_window).as_millis().to_string());
        }
    }
}

/// When the forwarder should look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Messages moved.
    pub moved: usize,
    /// Time until the next one is due, unless none waits.
    pub next_due: Option<Duration>,
    /// Messages that are due and of a format that this program cannot read. They wait for a host that can.
    pub newer: usize,
}

/// Moves messages that are due into the inbox, a bounded number at once, in deliveries of so many messages and of this
/// format.
///
/// # Errors
/// Whatever the network or the server says; then any number may have been moved, and calling again does no harm.
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
