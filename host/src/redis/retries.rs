//! Messages that are tried again: what travels with them, where they wait, and their way back into the inbox.
//! It knows the shape of what lies in Redis and nothing of why or when a message is tried again.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{RedisError, from_redis_value};

use super::connection::Connection;
use super::keys::Keys;
use super::resp::Commands;
use super::script::Source;

static FORWARD: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/forward.lua")));

/// Messages moved by one call.
const FORWARD_MESSAGES_MAX: usize = 256;

/// Bytes after which one call stops; a single message may be longer.
const FORWARD_BYTES_MAX: usize = 1 << 20;

/// The name of what is no message in an inbox entry: in front of a message its [`History`], or in front of all the token of
/// the claims that were made when the entry was appended. No message id is empty.
pub(super) const HISTORY_FIELD: &[u8] = b"";

/// What is known of a message that is not in the hands of the consumers for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Which attempt comes next; 1 is the first.
    pub attempt: u32,
    /// Token of the message's claim, which begins with the time when the message was appended first, in ms since 1970.
    pub token: String,
    /// Hosts that died with the message in hand, as far as they were counted.
    pub crashes: u32,
}

impl History {
    /// Reads what [`History::header`] has written; `None` when it is anything else.
    #[must_use]
    pub fn read(header: &[u8]) -> Option<History> {
        let mut words = std::str::from_utf8(header).ok()?.split(' ');
        let (attempt, token, crashes) = (words.next()?, words.next()?, words.next()?);
        let history = History { attempt: attempt.parse().ok()?, token: token.into(), crashes: crashes.parse().ok()? };
        (words.next().is_none() && !token.is_empty()).then_some(history)
    }

    /// The form in which it lies in front of its message. The scripts read and write it too.
    #[must_use]
    pub fn header(&self) -> String {
        format!("{} {} {}", self.attempt, self.token, self.crashes)
    }
}

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
    /// Adds a message, whose next attempt is due after `delay`.
    pub fn push(&mut self, message_id: &str, body: &str, history: History, delay: Duration) {
        let mut member = format!("{} {}\n", history.header(), message_id.len()).into_bytes();
        member.extend_from_slice(message_id.as_bytes());
        member.extend_from_slice(body.as_bytes());
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
}

/// Moves messages that are due into the inbox, a bounded number at once, in deliveries of so many messages.
///
/// # Errors
/// Whatever the network or the server says; then any number may have been moved, and calling again does no harm.
pub async fn forward(
    connection: &mut Connection,
    keys: &Keys,
    delivery_messages: usize,
    delivery_bytes: usize,
) -> Result<Forwarded, RedisError> {
    let mut command = FORWARD.command(&[&keys.retry, &keys.inbox]);
    command.arg(FORWARD_MESSAGES_MAX).arg(FORWARD_BYTES_MAX).arg(delivery_messages).arg(delivery_bytes);
    let (moved, next_due_ms): (usize, i64) = from_redis_value(FORWARD.run(connection, &command).await?)?;
    Ok(Forwarded { moved, next_due: u64::try_from(next_due_ms).ok().map(Duration::from_millis) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_written_and_nothing_else_is() {
        let history = History { attempt: 3, token: "1700000000000-7".into(), crashes: 2 };
        assert_eq!(history.header(), "3 1700000000000-7 2");
        assert_eq!(History::read(history.header().as_bytes()), Some(history));
        for wrong in ["", "3", "3 a", "x a 0", "3 a x", "3  0", "3 a 0 0", "-1 a 0", "4294967296 a 0"] {
            assert_eq!(History::read(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(History::read(b"3 \xff 0"), None);
    }

    #[test]
    fn a_member_says_where_the_id_ends() {
        let mut retries = Retries::default();
        let history = History { attempt: 2, token: "5-0".into(), crashes: 0 };
        retries.push("a\n1 é", "{\n}", history, Duration::from_secs(1));
        assert_eq!(retries.0[0].member, "2 5-0 0 6\na\n1 é{\n}".as_bytes());
    }
}
