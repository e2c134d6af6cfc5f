//! Settles deliveries that came to nothing but results, many in one transaction of native commands: appended by a script, each
//! of their values would be copied into Lua and out of it again. It knows keys and commands, and nothing of why something is written.
//!
//! The fence is the host's permit, a key that the transaction watches. Whoever takes deliveries of this host over deletes
//! it (`take_over.lua`), and the settler itself makes it anew when a connection breaks; either way Redis discards what was
//! under way, however late its bytes arrive. A permit covers what this host was the first to have and fetched after the
//! permit was made: as long as the permit is untouched nobody else can have settled that. Everything else is settled by
//! `settle.lua`, which looks at the delivery itself.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use redis::RedisError;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::backoff::Backoff;
use super::connection::Connector;
use super::entries::Entries;
use super::keys::Keys;
use super::resp::{Commands, Cursor, Head, malformed};
use super::script::without_comments;
use super::wire::Wire;
use crate::config::{KeysConfig, OutputConfig};
use crate::monitor::counters::Counters;

static ACKNOWLEDGE: LazyLock<String> = LazyLock::new(|| without_comments(include_str!("scripts/acknowledge.lua")));

/// Commands and bytes past which a transaction takes no further deliveries: a millisecond or two of Redis's time.
const COMMANDS_MAX: usize = 1_024;
const BYTES_MAX: usize = 2 << 20;

/// How long a permit is there when nobody deletes it, in ms. One that has expired is made anew.
const PERMIT_TTL_MS: &str = "3600000";

/// How a delivery came to this host that nobody had before.
#[derive(Clone, Debug)]
pub struct Held {
    /// Under which host id it was fetched.
    pub host_id: Arc<str>,
    /// A moment at which it was not fetched yet.
    pub asked: Instant,
}

/// Settles deliveries for the consumers of a host. Ends with the last of its clones.
#[derive(Clone, Debug)]
pub struct Settler {
    keys: Keys,
    length_max: u64,
    /// Bounded by the consumers: each waits for its answer.
    requests: mpsc::UnboundedSender<Request>,
}

#[derive(Debug)]
struct Request {
    entry_id: String,
    held: Held,
    appends: Commands,
    answer: oneshot::Sender<bool>,
}

impl Settler {
    /// A settler with a connection of its own, because `WATCH` belongs to the connection. It runs beside the consumers.
    #[must_use]
    pub fn start(
        workers: &Handle,
        connector: Connector,
        keys: Keys,
        output: &OutputConfig,
        host_id: Arc<str>,
        counters: Arc<Counters>,
    ) -> Settler {
        let (requests, receiver) = mpsc::unbounded_channel();
        let clerk = Clerk { connector, keys: keys.clone(), counters, host_id, unanswered: Vec::new() };
        workers.spawn(clerk.run(receiver));
        Settler { keys, length_max: output.length_max, requests }
    }

    /// Settles a delivery that came to these entries for the output, or to nothing. `false`: this has written nothing and
    /// never will; it is for the script.
    pub async fn settle(&self, entry_id: &str, held: &Held, results: &Entries) -> bool {
        let appends = appends(&self.keys, results, self.length_max);
        let (answer, answered) = oneshot::channel();
        let request = Request { entry_id: entry_id.to_owned(), held: held.clone(), appends, answer };
        // Both fail only when the runtime ends.
        self.requests.send(request).is_ok() && answered.await.unwrap_or(false)
    }
}

/// Does what the settler is asked for.
struct Clerk {
    connector: Connector,
    keys: Keys,
    counters: Arc<Counters>,
    /// Whose deliveries are settled now.
    host_id: Arc<str>,
    /// What was sent and has no answer yet.
    unanswered: Vec<Request>,
}

/// A permit, as long as its connection watches it.
struct Permit {
    host_id: Arc<str>,
    key: String,
    value: String,
    /// When it was there.
    since: Instant,
}

impl Permit {
    /// Whether nobody but its holder can have settled this delivery.
    fn covers(&self, held: &Held) -> bool {
        self.host_id == held.host_id && self.since <= held.asked
    }

    fn watch(&self, commands: &mut Commands) {
        commands.command(&["WATCH", &self.key].map(str::as_bytes));
        commands.command(&["GET", &self.key].map(str::as_bytes));
    }

    /// Whether it was there when the watch began, by the replies to [`Permit::watch`].
    fn is_watched(&self, replies: &mut Cursor<'_>) -> Result<bool, RedisError> {
        replies.value()?;
        Ok(replies.value()? == Head::Bulk(self.value.as_bytes()))
    }
}

impl Clerk {
    /// Ends when nobody can ask any more.
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let mut backoff = Backoff::default();
        while let Err(error) = self.try_run(&mut requests, &mut backoff).await {
            let wait = backoff.next_wait();
            if backoff.attempts() > 1 {
                warn!(attempts = backoff.attempts(), "could not settle deliveries, trying again: {error}");
            }
            tokio::time::sleep(wait).await;
            self.counters.reconnects.add(1);
        }
    }

    async fn try_run(
        &mut self,
        requests: &mut mpsc::UnboundedReceiver<Request>,
        backoff: &mut Backoff,
    ) -> Result<(), RedisError> {
        let mut wire = Wire::open(&self.connector).await?;
        let mut permit = self.permit(&mut wire).await?;
        // Now whatever the connection before has not done is off.
        self.answer(false);
        backoff.reset();
        while let Some(batch) = collect(requests).await {
            // A host that was taken for dead goes on under a new id.
            if let Some(newest) = batch.last() {
                self.host_id.clone_from(&newest.held.host_id);
            }
            let good = match permit.take().filter(|permit| permit.host_id == self.host_id) {
                Some(permit) => permit,
                None => match self.permit(&mut wire).await? {
                    Some(permit) => permit,
                    None => {
                        batch.into_iter().for_each(|request| request.answer(false));
                        continue;
                    }
                },
            };
            let (covered, others) = batch.into_iter().partition(|request| good.covers(&request.held));
            self.unanswered = covered;
            others.into_iter().for_each(|request: Request| request.answer(false));
            if self.unanswered.is_empty() {
                permit = Some(good);
                continue;
            }
            let appends = || self.unanswered.iter().map(|request| &request.appends);
            let entry_ids = || self.unanswered.iter().map(|request| &*request.entry_id);
            let mut commands = transaction(&self.keys, appends(), entry_ids());
            let queued = commands.len() - 1;
            good.watch(&mut commands);
            let replies = wire.ask(&commands, Duration::ZERO).await?;
            let mut replies = Cursor::new(&replies, 0);
            let settled = is_settled(&mut replies, queued)?;
            permit = good.is_watched(&mut replies)?.then_some(good);
            self.answer(settled);
        }
        Ok(())
    }

    /// Makes the permit anew and watches it, on a connection that may watch an earlier one. Whoever else watches it will
    /// find it changed. `None`: Redis is full.
    async fn permit(&self, wire: &mut Wire) -> Result<Option<Permit>, RedisError> {
        let key = format!("{}{}", self.keys.permit_prefix, self.host_id);
        let value = format!("{:08x}", rand::random::<u32>());
        let mut permit = Permit { host_id: self.host_id.clone(), key, value, since: Instant::now() };
        let mut commands = Commands::default();
        commands.command(&[b"UNWATCH"]);
        // Redis never refuses this, however full it is.
        commands.command(&["DEL", &permit.key].map(str::as_bytes));
        commands.command(&["SET", &permit.key, &permit.value, "PX", PERMIT_TTL_MS].map(str::as_bytes));
        permit.watch(&mut commands);
        let replies = wire.ask(&commands, Duration::ZERO).await?;
        let mut replies = Cursor::new(&replies, 0);
        replies.value()?;
        replies.value()?;
        match replies.value() {
            Err(error) if error.code() == Some("OOM") => return Ok(None),
            set => set?,
        };
        permit.since = Instant::now();
        Ok(permit.is_watched(&mut replies)?.then_some(permit))
    }

    fn answer(&mut self, settled: bool) {
        self.unanswered.drain(..).for_each(|request| request.answer(settled));
    }
}

impl Request {
    fn answer(self, settled: bool) {
        // The consumer may have been ended.
        let _ = self.answer.send(settled);
    }
}

/// Waits for a request and takes those that wait behind it; `None` when nobody can ask any more.
async fn collect(requests: &mut mpsc::UnboundedReceiver<Request>) -> Option<Vec<Request>> {
    let first = requests.recv().await?;
    let (mut commands, mut bytes) = (first.appends.len(), first.appends.bytes().len());
    let mut batch = vec![first];
    while commands < COMMANDS_MAX
        && bytes < BYTES_MAX
        && batch.len() < COMMANDS_MAX
        && let Ok(request) = requests.try_recv()
    {
        commands += request.appends.len();
        bytes += request.appends.bytes().len();
        batch.push(request);
    }
    Some(batch)
}

/// The commands that append these entries to the output.
#[must_use]
pub fn appends(keys: &KeysConfig, results: &Entries, length_max: u64) -> Commands {
    let mut commands = Commands::default();
    results.write_appends(&mut commands, &keys.output, length_max);
    commands
}

/// The transaction that appends results and acknowledges the deliveries that they come from, as it is sent.
pub fn transaction<'a>(
    keys: &KeysConfig,
    appends: impl Iterator<Item = &'a Commands> + Clone,
    entry_ids: impl Iterator<Item = &'a str> + Clone,
) -> Commands {
    let mut commands = Commands::default();
    commands.command(&[b"MULTI"]);
    for appends in appends {
        commands.append(appends);
    }
    commands.begin(6 + entry_ids.clone().count());
    for word in ["EVAL", &ACKNOWLEDGE, "2", &keys.inbox, &keys.output, &keys.group] {
        commands.word(word);
    }
    for entry_id in entry_ids {
        commands.word(entry_id);
    }
    commands.command(&[b"EXEC"]);
    commands
}

/// Whether the transaction, in which so many commands were queued, has settled its deliveries. If not it has written nothing:
/// it was discarded, refused as a whole, or the output is no stream.
fn is_settled(replies: &mut Cursor<'_>, mut queued: usize) -> Result<bool, RedisError> {
    replies.skip(&mut queued)?;
    match replies.head()? {
        Some(Head::Nil | Head::Line([b'-', ..])) => Ok(false),
        Some(Head::Array(results @ 1..)) => {
            replies.skip(&mut (results - 1))?;
            Ok(matches!(replies.head()?, Some(Head::Line([b':', ..]))))
        }
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(replies: &[u8]) -> Option<bool> {
        is_settled(&mut Cursor::new(replies, 0), 3).ok()
    }

    #[test]
    fn only_an_acknowledgement_says_that_deliveries_are_settled() {
        let begin = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n";
        let after = |end: &[u8]| settled(&[begin, end].concat());
        assert_eq!(after(b"*2\r\n$3\r\n1-0\r\n:1\r\n"), Some(true));
        assert_eq!(after(b"*1\r\n:1\r\n"), Some(true));
        assert_eq!(after(b"*-1\r\n"), Some(false));
        assert_eq!(after(b"-EXECABORT Transaction discarded because of previous errors.\r\n"), Some(false));
        assert_eq!(after(b"*2\r\n-WRONGTYPE a\r\n-WRONGTYPE b\r\n"), Some(false));
        assert_eq!(after(b"$1\r\n1\r\n"), None);
        assert_eq!(settled(b"+OK\r\n-OOM full\r\n-OOM full\r\n-EXECABORT discarded\r\n"), Some(false));
    }

    #[test]
    fn a_permit_covers_what_its_host_fetched_after_it_was_made() {
        let (before, since) = (Instant::now(), Instant::now() + Duration::from_millis(1));
        let permit = Permit { host_id: "a".into(), key: String::new(), value: String::new(), since };
        let covers = |host_id: &str, asked| permit.covers(&Held { host_id: host_id.into(), asked });
        assert!(covers("a", since));
        assert!(!covers("a", before));
        assert!(!covers("b", since));
    }

    #[test]
    fn a_transaction_appends_and_acknowledges_in_one() {
        let keys = crate::config::Config::default().keys;
        let mut results = Entries::default();
        results.field("message_id", "m");
        results.finish();
        let appends = [appends(&keys, &results, 0), Commands::default()];
        let commands = transaction(&keys, appends.iter(), ["1-0", "2-0"].into_iter());
        let text = String::from_utf8_lossy(commands.bytes());
        let places = ["MULTI", "XADD", "EVAL", "1-0", "2-0", "EXEC"].map(|word| text.find(word));
        assert!(places.is_sorted() && places[0].is_some(), "{text}");
        assert_eq!(commands.len(), 4);
    }
}
