//! Settles a delivery: acknowledges the delivery and writes its results, retries and dead letters, in one step. A delivery is
//! split in the same step: the messages that nobody has processed go back into the inbox as entries of their own.
//!
//! There are two ways. The script checks the delivery itself and can do everything. A transaction of native commands
//! settles many deliveries whose results all go to the main output, without retries and dead letters: a script would
//! copy each value of each result into Lua and out again. The transaction's fence is the host's permit, a watched key. A
//! host that takes over deliveries of this host deletes the permit (`take_over.lua`), and this host makes a new permit
//! after a connection has failed. In both cases Redis discards transactions that are under way.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use redis::RedisError;

use super::entries::Entries;
use super::fence::Fence;
use super::handed::Handed;
use super::in_hand::Waiting;
use super::keys::{GROUP, Keys};
use super::results::Results;
use super::retries::Retries;
use super::state;
use crate::config::{KeysConfig, OutputConfig, Outputs};
use crate::counters::Trimmed;
use crate::effects::Effect;
use crate::redis::client::connection::Connection;
use crate::redis::client::resp::{Commands, Cursor, Head, malformed, server_error};
use crate::redis::client::script::{Source, without_comments};
use crate::redis::client::shared::SharedConnection;

static SETTLE: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("scripts/settle.lua")));
static ACKNOWLEDGE: LazyLock<String> = LazyLock::new(|| without_comments(include_str!("scripts/acknowledge.lua")));

/// Lifetime of a permit that no host deletes, in ms. An expired permit is made anew.
const PERMIT_TTL_MS: &str = "3600000";

/// What is written when a delivery or a message is settled.
#[derive(Clone, Copy, Debug)]
pub struct Writes<'a> {
    /// Entries for the outputs.
    pub results: &'a Results,
    /// Entries for the dead letters.
    pub dead_letters: &'a Entries,
    /// Messages to try again.
    pub retries: &'a Retries,
    /// Entries for the inbox: messages of the delivery that nobody has processed.
    pub rest: &'a Entries,
    /// What the messages have read of the plugin's state, and change.
    pub effects: &'a [Effect],
}

/// Streams to which a delivery is settled, and their bounds.
#[derive(Clone, Copy, Debug)]
pub struct Streams<'a> {
    /// The names of all keys.
    pub keys: &'a Keys,
    /// Settings of the main output and of the dead letters.
    pub output: &'a OutputConfig,
    /// The named outputs.
    pub outputs: &'a Outputs,
    /// Counts what the bounds remove.
    pub trimmed: &'a Trimmed,
}

/// What came of settling a delivery by script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settling {
    /// The delivery is settled.
    Done,
    /// The plugin's state is not as the messages have read it, and nothing was written.
    Conflict,
    /// Another host had already settled the delivery, and nothing was written.
    Outrun,
    /// The delivery was handed out by another server, this one does not have it, and nothing was written.
    Unknown,
}

/// Settles a delivery.
///
/// # Errors
/// Errors of the network or the server. The delivery may be settled or not, and the call may be repeated.
pub async fn settle(
    connection: &SharedConnection,
    streams: Streams<'_>,
    dedup_window: Duration,
    handed: Handed<'_>,
    writes: Writes<'_>,
) -> Result<Settling, RedisError> {
    if !handed.is_known_to(connection, streams.keys).await? {
        return Ok(Settling::Unknown);
    }
    let fence = Fenced { key: &streams.keys.inbox, group: GROUP, name: handed.delivery.entry_id.as_bytes() };
    let has_rest = !writes.rest.is_empty();
    run(connection, || settlement(streams, dedup_window, fence, writes), has_rest, streams.trimmed).await
}

/// Settles a message that waits among the retries while it is processed over HTTP: removes the message from the set and writes what came of it, or does nothing at all.
///
/// # Errors
/// Errors of the network or the server. The message may be settled or not, and the call may be repeated.
pub async fn settle_waiting(
    connection: &SharedConnection,
    streams: Streams<'_>,
    dedup_window: Duration,
    waiting: &Waiting,
    writes: Writes<'_>,
) -> Result<Settling, RedisError> {
    let fence = Fenced { key: &streams.keys.retry, group: "", name: waiting.member() };
    run(connection, || settlement(streams, dedup_window, fence, writes), false, streams.trimmed).await
}

async fn run(
    connection: &SharedConnection,
    commands: impl Fn() -> Commands,
    has_rest: bool,
    trimmed: &Trimmed,
) -> Result<Settling, RedisError> {
    let reply = SETTLE.ask(connection, commands).await?;
    let mut replies = Cursor::new(&reply, 0);
    let streams = match replies.value()? {
        Head::Array(streams) => streams,
        Head::Line(b"+CONFLICT") => return Ok(Settling::Conflict),
        _ => return Ok(Settling::Outrun),
    };
    for stream in 1..=streams {
        let removed = replies.value()?.number()?;
        // The dead letters are the last stream, before the inbox if there is a rest.
        if stream == streams - usize::from(has_rest) { &trimmed.dead_letters } else { &trimmed.results }.add(removed);
    }
    Ok(Settling::Done)
}

/// What is settled by whoever removes it first: an entry of the inbox, or a member of the waiting retries, without a group.
#[derive(Clone, Copy)]
struct Fenced<'a> {
    key: &'a str,
    group: &'a str,
    name: &'a [u8],
}

/// The encoded call of the script that settles a delivery. Only the named outputs with a result are named, and the inbox only
/// for a rest.
fn settlement(streams: Streams<'_>, dedup_window: Duration, fence: Fenced<'_>, writes: Writes<'_>) -> Commands {
    let Streams { keys, output, outputs, .. } = streams;
    let Writes { results, dead_letters, retries, rest, effects } = writes;
    let named = results.named().filter_map(|(number, entries)| Some((outputs.get(number)?, entries)));
    let named = named.map(|(output, entries)| (&output.key, output.length_max, entries));
    let main = (&keys.output, output.length_max, &results.main);
    let dead = (&keys.dead, output.dead_length_max, dead_letters);
    let rest = (!rest.is_empty()).then_some((&keys.inbox, 0, rest));
    let streams: Vec<(&String, u64, &Entries)> = [main].into_iter().chain(named).chain([dead]).chain(rest).collect();

    let mut commands = Commands::default();
    let waiting_keys = if retries.is_empty() { 0 } else { 1 + retries.len() };
    let arguments: usize = streams.iter().map(|(_, _, entries)| 1 + entries.arguments()).sum();
    SETTLE.begin(
        &mut commands,
        1 + streams.len() + waiting_keys + effects.len(),
        4 + arguments + retries.arguments() + state::arguments(effects),
    );
    commands.word(fence.key);
    for (key, _, _) in &streams {
        commands.word(key);
    }
    if !retries.is_empty() {
        commands.word(&keys.retry);
        for id in retries.message_ids() {
            commands.prefixed(&keys.claim_prefix, id);
        }
    }
    state::write_keys(&mut commands, keys, effects);
    commands.word(fence.group);
    commands.word(fence.name);
    commands.number(streams.len() as u64);
    commands.number(effects.len() as u64);
    for (_, length_max, entries) in streams {
        commands.number(length_max);
        entries.write_to(&mut commands);
    }
    retries.write_to(&mut commands, dedup_window);
    state::write_to(&mut commands, effects);
    commands
}

/// Provenance of a delivery.
#[derive(Clone, Debug)]
pub struct Held {
    /// Host id under which the delivery was fetched.
    pub host_id: Arc<str>,
    /// Value of the host's permit before the fetch, on the server that handed the delivery out; `None` also for a delivery
    /// that another host may have owned.
    pub permit: Option<Arc<str>>,
    /// Identity of that server.
    pub server: Arc<str>,
    /// The history of the data before the fetch, as far as this host knew; a server may be given another history.
    pub history: u64,
}

/// A host's permit to settle by transaction, while a connection watches the permit.
#[derive(Debug)]
pub struct Permit {
    /// Id of the permit's host.
    pub host_id: Arc<str>,
    fence: Fence,
    /// On which server the permit is watched.
    server: Arc<str>,
}

impl Permit {
    /// Makes a new permit and watches it, on a connection that may watch an older permit. Every other connection with a
    /// watch on the permit sees a change. `None`: Redis is full.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub async fn make(
        connection: &mut Connection,
        keys: &KeysConfig,
        host_id: Arc<str>,
        server: Arc<str>,
    ) -> Result<Option<Permit>, RedisError> {
        let key = format!("{}{host_id}", keys.permit_prefix);
        let fence = Fence { key, value: format!("{:08x}", rand::random::<u32>()) };
        let mut commands = Commands::default();
        commands.command(&[b"UNWATCH"]);
        // Redis never refuses this command, however full it is.
        commands.command(&["DEL", &fence.key].map(str::as_bytes));
        commands.command(&["SET", &fence.key, &fence.value, "PX", PERMIT_TTL_MS].map(str::as_bytes));
        fence.watch(&mut commands);
        let replies = connection.ask(&commands, Duration::ZERO).await?;
        let mut replies = Cursor::new(&replies, 0);
        replies.value()?;
        replies.value()?;
        match replies.value() {
            Err(error) if error.code() == Some("OOM") => return Ok(None),
            set => set?,
        };
        let permit = Permit { host_id, fence, server };
        Ok(permit.fence.is_held(&mut replies)?.then_some(permit))
    }

    /// Whether only the holder of the permit can have settled this delivery: the permit was there when the delivery was
    /// fetched, and on the same server. After a failover, one connection of a host may still be at the old primary, which
    /// has the same permit.
    #[must_use]
    pub fn covers(&self, held: &Held) -> bool {
        self.host_id == held.host_id && self.server == held.server && held.permit.as_deref() == Some(&*self.fence.value)
    }

    /// Sends the transaction and watches the permit again. Returns how many results were trimmed if the deliveries are settled,
    /// and the permit if it still exists.
    ///
    /// # Errors
    /// Errors of the network or the protocol. The deliveries may be settled or not then.
    pub async fn settle(
        self,
        connection: &mut Connection,
        mut transaction: Commands,
    ) -> Result<(Option<usize>, Option<Permit>), RedisError> {
        let queued = transaction.len() - 1;
        self.fence.watch(&mut transaction);
        let replies = connection.ask(&transaction, Duration::ZERO).await?;
        let mut replies = Cursor::new(&replies, 0);
        let settled = read_settled(&mut replies, queued)?;
        Ok((settled, self.fence.is_held(&mut replies)?.then_some(self)))
    }
}

/// The commands that append these entries to the output stream.
#[must_use]
pub fn appends(keys: &KeysConfig, results: &Entries, length_max: u64) -> Commands {
    let mut commands = Commands::default();
    results.write_appends(&mut commands, &keys.output, length_max);
    commands
}

/// The encoded transaction that appends results and acknowledges their deliveries. With a bound on the output, two commands more
/// tell how much was trimmed.
pub fn transaction<'a>(
    keys: &KeysConfig,
    length_max: u64,
    appends: impl Iterator<Item = &'a Commands> + Clone,
    entry_ids: impl Iterator<Item = &'a str> + Clone,
) -> Commands {
    let mut commands = Commands::default();
    let measure = ["XLEN", &keys.output].map(str::as_bytes);
    commands.command(&[b"MULTI"]);
    if length_max > 0 {
        commands.command(&measure);
    }
    for appends in appends {
        commands.append(appends);
    }
    if length_max > 0 {
        commands.command(&measure);
    }
    commands.begin(6 + entry_ids.clone().count());
    for word in ["EVAL", &ACKNOWLEDGE, "2", &keys.inbox, &keys.output, GROUP] {
        commands.word(word);
    }
    for entry_id in entry_ids {
        commands.word(entry_id);
    }
    commands.command(&[b"EXEC"]);
    commands
}

/// Whether the transaction with this number of queued commands has settled its deliveries, and then the number of results that were
/// trimmed. If not, nothing was written: the transaction was discarded or refused as a whole, or the output is not a stream.
fn read_settled(replies: &mut Cursor<'_>, mut queued: usize) -> Result<Option<usize>, RedisError> {
    while queued > 0 {
        match replies.head()? {
            // The server is a replica now: another one takes writes, and this connection does not lead to it.
            Some(Head::Line(line)) if line.starts_with(b"-READONLY") => return Err(server_error(line)),
            Some(_) => queued -= 1,
            None => return Err(malformed()),
        }
    }
    match replies.head()? {
        Some(Head::Nil | Head::Line([b'-', ..])) => Ok(None),
        Some(Head::Array(results @ 1..)) => {
            // Only the lengths around the appends are numbers, and the reply to the acknowledgement.
            let (mut before, mut after) = (None, None);
            for result in 1..results {
                if let Some(number @ Head::Line([b':', ..])) = replies.head()? {
                    *if result == 1 { &mut before } else { &mut after } = Some(number.number()?);
                }
            }
            let trimmed = before.zip(after).map_or(0, |(before, after)| (before + results - 3).saturating_sub(after));
            Ok(matches!(replies.head()?, Some(Head::Line([b':', ..]))).then_some(trimmed))
        }
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod of_state;
#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(replies: &[u8]) -> Option<Option<usize>> {
        read_settled(&mut Cursor::new(replies, 0), 3).ok()
    }

    #[test]
    fn only_an_acknowledgement_says_that_deliveries_are_settled() {
        let begin = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n";
        let after = |end: &[u8]| settled(&[begin, end].concat());
        assert_eq!(after(b"*2\r\n$3\r\n1-0\r\n:1\r\n"), Some(Some(0)));
        assert_eq!(after(b"*1\r\n:1\r\n"), Some(Some(0)));
        assert_eq!(after(b"*5\r\n:9\r\n$3\r\n1-0\r\n$3\r\n1-1\r\n:4\r\n:1\r\n"), Some(Some(7)));
        assert_eq!(after(b"*3\r\n:9\r\n:9\r\n:1\r\n"), Some(Some(0)));
        assert_eq!(after(b"*-1\r\n"), Some(None));
        assert_eq!(after(b"-EXECABORT Transaction discarded because of previous errors.\r\n"), Some(None));
        assert_eq!(after(b"*2\r\n-WRONGTYPE a\r\n-WRONGTYPE b\r\n"), Some(None));
        assert_eq!(after(b"$1\r\n1\r\n"), None);
        assert_eq!(settled(b"+OK\r\n-READONLY a replica\r\n-READONLY a replica\r\n-EXECABORT discarded\r\n"), None);
        assert_eq!(settled(b"+OK\r\n-OOM full\r\n-OOM full\r\n-EXECABORT discarded\r\n"), Some(None));
    }

    #[test]
    fn a_permit_covers_what_its_host_fetched_while_it_was_there() {
        let fence = Fence { key: String::new(), value: "p".to_owned() };
        let permit = Permit { host_id: "a".into(), fence, server: "s".into() };
        let covers = |host_id: &str, permit_then: Option<&str>, server: &str| {
            permit.covers(&Held {
                host_id: host_id.into(),
                permit: permit_then.map(Arc::from),
                server: server.into(),
                history: 1,
            })
        };
        assert!(covers("a", Some("p"), "s"));
        assert!(!covers("a", Some("an earlier one"), "s"));
        assert!(!covers("a", None, "s"));
        assert!(!covers("b", Some("p"), "s"));
        assert!(!covers("a", Some("p"), "another one"));
    }

    #[test]
    fn a_transaction_appends_and_acknowledges_in_one() {
        let keys = crate::config::Config::default().keys;
        let mut results = Entries::default();
        results.field("message_id", "m");
        results.finish();
        let appends = [appends(&keys, &results, 0), Commands::default()];
        let commands = transaction(&keys, 0, appends.iter(), ["1-0", "2-0"].into_iter());
        let text = String::from_utf8_lossy(commands.bytes());
        let places = ["MULTI", "XADD", "EVAL", "1-0", "2-0", "EXEC"].map(|word| text.find(word));
        assert!(places.is_sorted() && places[0].is_some(), "{text}");
        assert_eq!(commands.len(), 4);
        assert_eq!(transaction(&keys, 5, appends.iter(), ["1-0"].into_iter()).len(), 6, "the length before and after");
    }
}
