//! Records that a test reads from Redis: output, dead letters, inbox, registry.

use std::collections::{HashMap, HashSet};

use redis::cmd;

use super::{BOUND, Redis, wait_for, wait_until};

pub const CHANNEL: &str = "messages:published";
pub const OUTPUT: &str = "messages:processed";
pub const DEAD: &str = "{messages:processed}:dead";
pub const INBOX: &str = "{messages:processed}:inbox";
pub const RETRY: &str = "{messages:processed}:retry";
pub const LEASE: &str = "{messages:processed}:intake";
pub const MARKS: &str = "{messages:processed}:marks";
pub const COVERED: &str = "{messages:processed}:covered";
pub const IDS: &str = "consumer:ids";
pub const HEARTBEAT: &str = "{consumer:ids}:heartbeat";
pub const HOSTS: &str = "{consumer:ids}:hosts";
pub const GROUP: &str = "host";

/// Entries read at once: the reply of a long stream must not be one huge value.
const PAGE: usize = 10_000;

/// Names and values in order; values may be any bytes.
type Fields = Vec<(String, Vec<u8>)>;

/// One entry of a stream.
#[derive(Clone, Debug)]
pub struct Entry {
    id: String,
    pub fields: Fields,
}

impl Entry {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The value of a field, if the entry has it.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_slice())
    }

    /// The value of a field that must be there, as text.
    pub fn text(&self, name: &str) -> &str {
        let value = self.bytes(name).unwrap_or_else(|| panic!("no field `{name}` in {self:?}"));
        std::str::from_utf8(value).expect("the field is text")
    }

    /// Names of the fields in order.
    pub fn names(&self) -> Vec<&str> {
        self.fields.iter().map(|(name, _)| name.as_str()).collect()
    }
}

impl Redis {
    /// The whole output stream.
    pub fn output(&self) -> Vec<Entry> {
        self.stream(OUTPUT)
    }

    /// All dead letters.
    pub fn dead_letters(&self) -> Vec<Entry> {
        self.stream(DEAD)
    }

    /// The whole inbox.
    pub fn inbox(&self) -> Vec<Entry> {
        self.stream(INBOX)
    }

    /// Output entries with this message id.
    pub fn results_of(&self, id: &str) -> Vec<Entry> {
        self.output().into_iter().filter(|entry| entry.text("message_id") == id).collect()
    }

    /// Waits for the one result of a message.
    pub fn result_of(&self, id: &str) -> Entry {
        wait_for(&format!("the result of {id:?}"), BOUND, || {
            let mut results = self.results_of(id);
            assert!(results.len() < 2, "{id:?} has several results: {results:?}");
            results.pop().ok_or_else(|| format!("no result; dead letters: {:?}", self.dead_letters()))
        })
    }

    /// Waits for the one dead letter of a message.
    pub fn dead_letter_of(&self, id: &str) -> Entry {
        wait_for(&format!("the dead letter of {id:?}"), BOUND, || {
            let is_it = |entry: &Entry| entry.bytes("message_id") == Some(id.as_bytes());
            let mut letters: Vec<Entry> = self.dead_letters().into_iter().filter(is_it).collect();
            assert!(letters.len() < 2, "{id:?} has several dead letters: {letters:?}");
            letters.pop().ok_or_else(|| format!("none; results: {:?}", self.results_of(id)))
        })
    }

    /// Length of a stream, 0 if it does not exist.
    pub fn length(&self, stream: &str) -> usize {
        self.run(cmd("XLEN").arg(stream))
    }

    /// Waits until each of these messages is in the inbox or has its result: from then on the promise holds
    /// whatever happens.
    pub fn wait_until_received(&self, ids: &[String]) {
        wait_for("all messages in the inbox or in the output", BOUND, || {
            // In this order: a message moves from the inbox to the output in one step.
            let waiting = self.stream(INBOX).into_iter().flat_map(|entry| entry.fields).map(|(name, _)| name);
            let mut known: HashSet<String> = waiting.collect();
            known.extend(self.output().iter().map(|entry| entry.text("message_id").to_owned()));
            match ids.iter().find(|id| !known.contains(*id)) {
                None => Ok(()),
                Some(missing) => Err(format!("{missing} and perhaps others have not arrived")),
            }
        });
    }

    /// Waits until each of these messages is claimed: from then on copies are told from it.
    pub fn wait_until_known(&self, ids: &[String]) {
        wait_for("claims of all messages", BOUND, || {
            let mut command = cmd("EXISTS");
            for id in ids {
                command.arg(format!("{{messages:processed}}:claim:{id}"));
            }
            match self.run::<usize>(&command) {
                claimed if claimed == ids.len() => Ok(()),
                claimed => Err(format!("{claimed} of {}", ids.len())),
            }
        });
    }

    /// Waits until this message has been handed to a host and is not settled.
    pub fn wait_until_in_work(&self, id: &str) {
        wait_until(&format!("{id} in work"), || {
            type Pending = Vec<(String, String, u64, u64)>;
            let inbox = self.inbox();
            let Some(entry) = inbox.iter().find(|entry| entry.names().contains(&id)) else { return false };
            let range = [entry.id(), entry.id(), "1"];
            let pending: Pending = self.run(cmd("XPENDING").arg(INBOX).arg(GROUP).arg(&range));
            !pending.is_empty()
        });
    }

    /// Waits until there are deliveries and all of them have been handed to a host. What a host fetches while it stops it hands back,
    /// and that looks like work that is not settled.
    pub fn wait_until_all_is_in_work(&self) {
        wait_until("all deliveries in work", || {
            let in_work = self.pending().values().sum::<usize>();
            in_work > 0 && in_work == self.length(INBOX)
        });
    }

    /// Waits until every delivery has been settled.
    pub fn wait_for_an_empty_inbox(&self) {
        wait_for("an empty inbox", BOUND, || match self.length(INBOX) {
            0 => Ok(()),
            length => Err(format!("{length} deliveries in the inbox")),
        });
    }

    /// Waits until the output and the dead letters hold at least so many entries together.
    pub fn wait_for_settled(&self, count: usize) {
        wait_for(&format!("{count} settled messages"), 2 * BOUND, || {
            let (output, dead, inbox) = (self.length(OUTPUT), self.length(DEAD), self.length(INBOX));
            if output + dead >= count && inbox == 0 {
                return Ok(());
            }
            Err(format!("{output} results, {dead} dead letters, {inbox} deliveries in the inbox"))
        });
    }

    /// Ids of the consumers alive, in the order of the list.
    pub fn consumer_ids(&self) -> Vec<String> {
        self.run(cmd("LRANGE").arg(IDS).arg(0).arg(-1))
    }

    /// Waits until so many consumers are registered.
    pub fn wait_for_consumers(&self, count: usize) -> Vec<String> {
        wait_for(&format!("{count} consumers in {IDS}"), BOUND, || {
            let ids = self.consumer_ids();
            if ids.len() == count { Ok(ids) } else { Err(format!("{ids:?}")) }
        })
    }

    /// Connections subscribed to the channel.
    pub fn subscribers(&self) -> usize {
        let (_, count): (String, usize) = self.run(cmd("PUBSUB").arg("NUMSUB").arg(CHANNEL));
        count
    }

    /// Waits until so many hosts receive what is published.
    pub fn wait_for_subscribers(&self, count: usize) {
        wait_for(&format!("{count} subscribers"), BOUND, || match self.subscribers() {
            subscribers if subscribers == count => Ok(()),
            subscribers => Err(format!("{subscribers} subscribers")),
        });
    }

    /// Holder of the lease of the active intake.
    pub fn lease(&self) -> Option<String> {
        self.run(cmd("GET").arg(LEASE))
    }

    /// Waits until an intake is active, and gives the lease's value.
    pub fn wait_for_a_lease(&self) -> String {
        wait_for("an active intake", BOUND, || self.lease().ok_or_else(|| "no lease".into()))
    }

    /// Messages handed out and not yet settled, by name in the Redis group.
    pub fn pending(&self) -> HashMap<String, usize> {
        type Summary = (usize, Option<String>, Option<String>, Option<Vec<(String, String)>>);
        let reply: redis::RedisResult<Summary> = cmd("XPENDING").arg(INBOX).arg(GROUP).query(&mut self.connect());
        match reply {
            Ok((_, _, _, names)) => {
                let names = names.unwrap_or_default();
                names.into_iter().map(|(name, count)| (name, count.parse().expect("a count"))).collect()
            }
            // Before the first delivery there is no group.
            Err(error) if error.code() == Some("NOGROUP") => HashMap::new(),
            Err(error) => panic!("XPENDING: {error}"),
        }
    }

    /// A whole stream.
    pub fn stream(&self, key: &str) -> Vec<Entry> {
        let mut connection = self.connect();
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let start = entries.last().map_or("-".into(), |last| format!("({}", last.id));
            let page: Vec<(String, Fields)> = cmd("XRANGE")
                .arg(key)
                .arg(start)
                .arg("+")
                .arg("COUNT")
                .arg(PAGE)
                .query(&mut connection)
                .expect("XRANGE");
            let is_last = page.len() < PAGE;
            entries.extend(page.into_iter().map(|(id, fields)| Entry { id, fields }));
            if is_last {
                return entries;
            }
        }
    }
}

/// Waits until everything is settled, then requires exactly one result for each of these ids, no other
/// result, and no dead letter.
pub fn expect_each_once(redis: &Redis, ids: impl IntoIterator<Item = String>) {
    let mut counts: HashMap<String, usize> = ids.into_iter().map(|id| (id, 0)).collect();
    redis.wait_for_settled(counts.len());
    let mut unexpected = Vec::new();
    for entry in redis.output() {
        match counts.get_mut(entry.text("message_id")) {
            Some(count) => *count += 1,
            None => unexpected.push(entry),
        }
    }
    let with = |wrong: fn(usize) -> bool| -> Vec<&str> {
        counts.iter().filter(|(_, count)| wrong(**count)).map(|(id, _)| id.as_str()).collect()
    };
    let (lost, twice) = (with(|count| count == 0), with(|count| count > 1));
    let dead = redis.dead_letters();
    assert!(
        lost.is_empty() && twice.is_empty() && unexpected.is_empty() && dead.is_empty(),
        "of {} messages {} are lost (such as {:?}), {} were written several times (such as {:?}), \
         {} results are of other messages (such as {:?}), {} are dead letters (such as {:?})",
        counts.len(),
        lost.len(),
        &lost[..lost.len().min(5)],
        twice.len(),
        &twice[..twice.len().min(5)],
        unexpected.len(),
        unexpected.first(),
        dead.len(),
        dead.first(),
    );
}
