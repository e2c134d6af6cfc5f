//! The check of the books after a measurement: every message has one result, no message was given up, nothing is left
//! over, and the claims exist. A figure without these guarantees does not count.

use anyhow::{Context as _, Result, ensure};
use redis::{Connection, Value, cmd};

use crate::load;

/// Number of entries in one read.
const PAGE: usize = 5_000;

/// The default limit of Redis in the form of its reply: a subscriber is disconnected at 32 MB, or with 8 MB for a
/// minute.
const SHIPPED_LIMIT: &str = "pubsub 33554432 8388608 60";

/// An entry in Redis's reply: id, then fields and values in turn.
pub type Entry = (String, Vec<Value>);

/// Checks that Redis has no configuration that makes a burst easier.
pub fn expect_shipped_limit(redis: &mut Connection) -> Result<()> {
    let (_, limits): (String, String) = cmd("CONFIG").arg("GET").arg("client-output-buffer-limit").query(redis)?;
    ensure!(limits.contains(SHIPPED_LIMIT), "this Redis does not have its shipped limit for subscribers: {limits}");
    Ok(())
}

/// Every message of `0..messages` has exactly one entry, beside this number of other entries.
pub fn expect_each_once(redis: &mut Connection, messages: u64, others: u64) -> Result<()> {
    let lost = lost(redis, messages, others)?;
    ensure!(lost == 0, "{lost} of {messages} messages have no result");
    Ok(())
}

/// Number of messages of `0..messages` without an entry. No message may have two entries. There is this number of other
/// entries.
pub fn lost(redis: &mut Connection, messages: u64, others: u64) -> Result<u64> {
    let mut seen = vec![false; usize::try_from(messages)?];
    let mut rest = 0;
    let mut start = String::from("-");
    loop {
        let page: Vec<Entry> =
            cmd("XRANGE").arg("messages:processed").arg(&start).arg("+").arg("COUNT").arg(PAGE).query(redis)?;
        for (_, values) in &page {
            match number(values).and_then(|number| seen.get_mut(usize::try_from(number).ok()?)) {
                Some(seen) => ensure!(!std::mem::replace(seen, true), "a message has two results: {values:?}"),
                None => rest += 1,
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => start = format!("({last}"),
            _ => break,
        }
    }
    ensure!(rest == others, "{rest} entries are from elsewhere, {others} should be");
    Ok(seen.iter().filter(|seen| !**seen).count() as u64)
}

/// The number of the message of an entry.
pub fn number(values: &[Value]) -> Option<u64> {
    match values {
        [Value::BulkString(name), Value::BulkString(id), ..] if name == b"message_id" => load::number(id),
        _ => None,
    }
}

/// The state after a host has processed everything, with all parts of the promise in force.
pub fn expect_in_order(redis: &mut Connection, messages: u64) -> Result<()> {
    let mut length = |key: &str| -> Result<u64> { Ok(cmd("XLEN").arg(key).query(redis)?) };
    let (dead, inbox) = (length("{messages:processed}:dead")?, length("{messages:processed}:inbox")?);
    ensure!(dead == 0, "{dead} messages became dead letters");
    ensure!(inbox == 0, "{inbox} deliveries are left in the inbox");
    let keys: u64 = cmd("DBSIZE").query(redis)?;
    ensure!(keys >= messages, "{keys} keys for {messages} messages: their claims are not there");
    // The fences of appending and settling.
    let info: String = cmd("INFO").arg("commandstats").query(redis)?;
    for command in ["watch", "xack"] {
        let line = info.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
        line.with_context(|| format!("no host has used {command}, one of its fences"))?;
    }
    Ok(())
}
