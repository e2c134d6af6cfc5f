//! Messages that wait among the retries while they are processed over HTTP. Whoever removes such a message from the set settles
//! it. A message that nobody settles becomes due and goes to the inbox, like every retry.

use std::sync::LazyLock;
use std::time::Duration;

use redis::RedisError;

use super::entry::{History, retry_member};
use super::keys::Keys;
use crate::redis::client::resp::{Commands, Cursor, Head};
use crate::redis::client::script::Source;
use crate::redis::client::shared::SharedConnection;
use crate::time::millis;

static HOLD: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/hold.lua")));
static EXTEND: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/extend.lua")));

/// A member of the set: the one name of a waiting message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting(Vec<u8>);

impl Waiting {
    /// The waiting message with this history, as it was written in this format.
    #[must_use]
    pub fn new(format: u32, message_id: &str, body: &str, history: &History) -> Waiting {
        Waiting(retry_member(format, message_id, body, history))
    }

    pub(super) fn member(&self) -> &[u8] {
        &self.0
    }
}

/// What came of taking a message in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// The message is claimed with this token, and waits.
    Claimed(String),
    /// Its id was claimed before.
    Duplicate,
    /// It was taken in so long ago that it is due: it goes to the inbox.
    Due,
}

/// How a message is taken in.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The format of entries.
    pub format: u32,
    /// End of the token, which no other message has. The same one in a repeated call.
    pub token_end: &'a str,
    /// How long the claim lasts once the message is due.
    pub dedup_window: Duration,
    /// Time until the message is due.
    pub due_in: Duration,
}

/// Claims a message that was not published, and lets it wait.
///
/// # Errors
/// Errors of the network or the server. The call may be repeated with the same terms.
pub async fn hold(
    connection: &SharedConnection,
    keys: &Keys,
    (message_id, body): (&str, &str),
    terms: Terms<'_>,
) -> Result<Held, RedisError> {
    let commands = || {
        let mut commands = Commands::default();
        HOLD.begin(&mut commands, 2, 6);
        commands.prefixed(&keys.claim_prefix, message_id);
        commands.word(&keys.retry);
        commands.word(terms.token_end);
        commands.number(millis(terms.dedup_window + terms.due_in));
        commands.number(millis(terms.due_in));
        commands.number(terms.format.into());
        commands.word(message_id);
        commands.word(body);
        commands
    };
    let reply = HOLD.ask(connection, commands).await?;
    let mut reply = Cursor::new(&reply, 0);
    reply.array()?;
    Ok(match reply.value()? {
        Head::Line(b":1") => Held::Claimed(String::from_utf8_lossy(reply.bulk()?).into_owned()),
        Head::Line(b":0") => Held::Duplicate,
        _ => Held::Due,
    })
}

/// Lets messages wait until `due_in` from now, as far as they wait.
///
/// # Errors
/// Errors of the network or the server.
pub async fn extend(
    connection: &SharedConnection,
    keys: &Keys,
    messages: &[Waiting],
    due_in: Duration,
) -> Result<(), RedisError> {
    let commands = || {
        let mut commands = Commands::default();
        EXTEND.begin(&mut commands, 1, 1 + messages.len());
        commands.word(&keys.retry);
        commands.number(millis(due_in));
        for Waiting(member) in messages {
            commands.word(member);
        }
        commands
    };
    let reply = EXTEND.ask(connection, commands).await?;
    Cursor::new(&reply, 0).value().map(drop)
}
