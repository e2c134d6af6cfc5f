//! What became of the messages, read from Redis alone.

use redis::{Connection, RedisResult, cmd};

use crate::clock::wait;
use crate::ledger::number;
use crate::support::records::{DEAD, GROUP, INBOX, OUTPUT, RETRY};
use crate::world::World;

/// Entries read at a time; each may have 1 MiB.
const PAGE: usize = 200;

/// Longest wait for the last outcome.
const SETTLED_MS_MAX: u32 = 60_000;

/// How often the streams must be found unchanged.
const LOOKS: u32 = 3;

/// Entries of a stream, as Redis gives them.
pub type Entries = Vec<(String, Vec<(String, Vec<u8>)>)>;

/// The id of the message that an entry with these fields is about.
pub fn message_of(fields: &[(String, Vec<u8>)]) -> &[u8] {
    fields.iter().find(|(name, _)| name == "message_id").map_or(b"", |(_, id)| id)
}

/// Outcomes by the number of the message.
pub struct Outcomes {
    /// Results of each message.
    pub results: Vec<u8>,
    /// Dead letters of each message.
    pub dead: Vec<u8>,
    /// Ids that nobody published.
    pub strangers: Vec<String>,
}

/// Waits until nothing waits or is in work, and says what does otherwise.
pub fn settle(world: &World) {
    let until = world.clock.now() + SETTLED_MS_MAX;
    let (mut last, mut looks) = (None, 0);
    while looks < LOOKS {
        let state = state(world).map_err(|error| error.to_string());
        looks = match &state {
            Ok(now @ (0, 0, 0, _, _)) if last == Some(*now) => looks + 1,
            _ => 0,
        };
        last = state.as_ref().ok().copied();
        if world.clock.now() > until {
            let text = match state {
                Ok((inbox, pending, retries, _, _)) => {
                    format!("{inbox} deliveries in the inbox, {pending} pending, {retries} retries")
                }
                Err(error) => error,
            };
            world.find(format!("not settled {} s after the last fault: {text}", SETTLED_MS_MAX / 1_000));
            return;
        }
        wait(300);
    }
}

/// Deliveries in the inbox, pending ones, waiting retries, results, dead letters.
fn state(world: &World) -> RedisResult<(usize, usize, usize, usize, usize)> {
    let mut redis = world.connect()?;
    let length = |redis: &mut Connection, key: &str| cmd("XLEN").arg(key).query(redis);
    let inbox = length(&mut redis, INBOX)?;
    let retries = cmd("ZCARD").arg(RETRY).query(&mut redis)?;
    let pending: RedisResult<(usize, redis::Value, redis::Value, redis::Value)> =
        cmd("XPENDING").arg(INBOX).arg(GROUP).query(&mut redis);
    // Before the first delivery there is neither.
    let pending = pending.map_or(0, |(count, ..)| count);
    Ok((inbox, pending, retries, length(&mut redis, OUTPUT)?, length(&mut redis, DEAD)?))
}

impl Outcomes {
    /// Reads both streams.
    pub fn read(world: &World) -> RedisResult<Outcomes> {
        let count = world.ledger.len();
        let mut outcomes = Outcomes { results: vec![0; count], dead: vec![0; count], strangers: Vec::new() };
        each_entry(world, |key, _, fields| outcomes.count(key, message_of(fields)))?;
        Ok(outcomes)
    }

    fn count(&mut self, key: &str, id: &[u8]) {
        let counts = if key == OUTPUT { &mut self.results } else { &mut self.dead };
        match number(id).and_then(|number| counts.get_mut(number as usize)) {
            Some(count) => *count = count.saturating_add(1),
            None => self.strangers.push(String::from_utf8_lossy(id).into_owned()),
        }
    }

    /// Outcomes of this message.
    pub fn of(&self, message: usize) -> u8 {
        self.results[message].saturating_add(self.dead[message])
    }
}

/// The entries about one message, for people.
pub fn entries_about(world: &World, message: usize) -> Vec<String> {
    let mut found = Vec::new();
    let read = each_entry(world, |key, id, fields| {
        if number(message_of(fields)).is_some_and(|number| number as usize == message) {
            let consumer = fields.iter().find(|(name, _)| name == "consumer_id");
            let consumer = consumer.map(|(_, id)| String::from_utf8_lossy(id).into_owned());
            found.push(format!("{id} in {key} by {}", consumer.unwrap_or_default()));
        }
    });
    found.extend(read.err().map(|error| error.to_string()));
    found
}

fn each_entry(world: &World, mut see: impl FnMut(&str, &str, &[(String, Vec<u8>)])) -> RedisResult<()> {
    let mut redis = world.connect()?;
    for key in [OUTPUT, DEAD] {
        let mut start = String::from("-");
        loop {
            let page: Entries = cmd("XRANGE").arg(key).arg(&start).arg("+").arg("COUNT").arg(PAGE).query(&mut redis)?;
            let Some((last, _)) = page.last() else { break };
            start = format!("({last}");
            page.iter().for_each(|(id, fields)| see(key, id, fields));
        }
    }
    Ok(())
}
