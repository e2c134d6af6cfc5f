//! The cost of a message when many messages wait in the inbox before the host starts. The host's own code appends these
//! messages, in deliveries of the size that the intake makes when many messages wait. So receiving and appending are
//! not part of these figures.

use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use host::config::Config;
use host::redis::client::connection;
use host::redis::client::connector::Connector;
use host::redis::store::append::{Appender, Batch, Times};
use host::redis::store::entries::Entries;
use host::redis::store::entry::FORMAT;
use host::redis::store::inbox::ensure_group;
use host::redis::store::keys::Keys;
use host::redis::store::marks::marks_channel;
use redis::Connection;

use crate::columns::{Column, Table};
use crate::load::{self, Load};
use crate::machine::CpuTime;
use crate::run::{self, Arm, Ended, Subject, ask};
use crate::{ledger, progress_bar};

/// Maximum number of messages that the intake appends in one transaction.
const ROUND_MESSAGES: usize = 8_192;

/// Time between two looks: the smallest backlog is processed in a tenth of a second.
const LOOK: Duration = Duration::from_millis(1);

/// The fifths of the messages from which the figures come. Not the first fifth, while the host still starts, and not
/// the last one: at both ends the same number of messages must be in progress, which have cost time and have no result
/// yet.
const COUNTED_FIFTHS: [u64; 2] = [1, 3];

/// Measures each backlog `rounds` times, in turn.
pub fn measure(rounds: u32, backlogs: &[u64], columns: &[Column], plugin: &Path) -> Result<Table> {
    let names = backlogs.iter().map(|messages| format!("{messages} waiting, 10 consumers"));
    let mut table = Table::new(columns, names);
    let bar = progress_bar(u64::from(rounds) * backlogs.len() as u64)?;
    for round in 1..=rounds {
        for (index, messages) in backlogs.iter().enumerate() {
            bar.set_message(format!("growth, round {round}, {messages} waiting"));
            table.add(index, &drain(*messages, plugin)?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(table)
}

/// Microseconds of Redis and of the host for a message.
fn drain(messages: u64, plugin: &Path) -> Result<[f64; 2]> {
    let arm = Arm::new(Subject::Host { consumers: 10 }, Load::small(messages), plugin);
    let (server, mut redis) = run::redis_for(&arm.subject)?;
    append(arm.load, server.url())?;
    let processes = run::start(&arm, &server)?;
    let [from, to] = COUNTED_FIFTHS.map(|fifths| messages * fifths / 5);
    let (first, processes_before, redis_before) = once_there_are(from, &mut redis, &processes)?;
    let (last, processes_after, redis_after) = once_there_are(to, &mut redis, &processes)?;
    once_there_are(messages, &mut redis, &processes)?;
    ensure!(last > first, "{messages} messages were too few to be seen in work; raise --messages");
    ledger::expect_each_once(&mut redis, messages, 0)?;
    ledger::expect_in_order(&mut redis, messages)?;
    let us = |seconds: f64| seconds * 1e6 / (last - first) as f64;
    Ok([us(redis_after - redis_before), us(run::cpu_between(processes_before, processes_after))])
}

/// Waits for this number of results. Returns the number, and the CPU times of the host and of Redis.
fn once_there_are(
    wanted: u64,
    redis: &mut Connection,
    processes: &[Ended],
) -> Result<(u64, Option<Vec<CpuTime>>, f64)> {
    let mut last = (0, Instant::now());
    loop {
        let results: u64 = ask(redis, &["XLEN", "messages:processed"])?;
        if results >= wanted {
            return Ok((results, run::cpu_times(processes), run::redis_seconds(redis)?));
        }
        if results > last.0 {
            last = (results, Instant::now());
        }
        ensure!(last.1.elapsed() < run::WAIT_MAX, "only {results} of {wanted} were processed; then nothing moved");
        sleep(LOOK);
    }
}

/// Appends the messages to the inbox, like an intake that stops afterwards.
fn append(load: Load, url: String) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Config { mut redis, keys, output, delivery, intake, dedup_window, .. } = Config::default();
        redis.url = url;
        let (connector, keys) = (Connector::new(&redis)?, Keys::new(keys));
        ensure_group(&mut connector.connect().await?, &keys).await?;
        let connection = connection::Connection::open(&connector).await?;
        let times = Times { lease_ttl: intake.lease_ttl, dedup_window };
        let marks_channel = marks_channel(&connector, &keys);
        let mut appender = Appender::new(connection, keys, marks_channel, output, times, Arc::default());
        let covered = appender.watch().await?;
        let (mut deliveries, none) = (Entries::default(), Entries::default());
        let numbers: Vec<u64> = (0..load.messages).collect();
        for round in numbers.chunks(ROUND_MESSAGES) {
            deliveries.clear();
            for delivered in round.chunks(delivery.messages_max as usize) {
                for number in delivered {
                    let message = load.message(*number);
                    deliveries.field(&load::id(&message), &message);
                }
                deliveries.finish();
            }
            let batch = Batch {
                deliveries: &deliveries,
                dead_letters: &none,
                format: FORMAT,
                covered: &covered,
                tells_claimed: false,
            };
            ensure!(appender.append(batch).await?.0.is_some(), "another host appends while the backlog is made");
        }
        Ok(())
    })
}
