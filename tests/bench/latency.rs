//! Latency from PUBLISH until the result can be read from the output stream, at steady rates, beside a bare subscriber
//! that only appends. Publisher and reader are threads of this process, so they share a clock.

use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use redis::{Connection, cmd};

use crate::columns::{Column, Table};
use crate::findings::{Findings, Target};
use crate::ledger::{self, Entry};
use crate::load::{self, Load};
use crate::run::{self, Arm, Subject};
use crate::{Args, progress_bar};

/// Messages a second.
const RATES: [u64; 3] = [100, 5_000, 20_000];

/// The rate to which targets refer. This rate is measured twice.
const USUAL_RATE: u64 = 5_000;

/// Duration of a rate with 200,000 as `--messages`, and the part of it at the start that does not count, in
/// milliseconds.
const KEPT_UP_MS: u64 = 4_500;
const WARM_UP_MS: u64 = 500;

/// Longest wait for the next result.
const SILENCE_MS: u32 = 10_000;

const COLUMNS: [Column; 3] = [
    Column { key: "p50_us", title: "p50, µs", digits: 0 },
    Column { key: "p99_us", title: "p99, µs", digits: 0 },
    Column { key: "max_us", title: "max, µs", digits: 0 },
];

/// Measures each rate `rounds` times, the bare subscriber and the host in turn.
pub fn measure(args: &Args, rounds: u32, plugin: &Path) -> Result<Findings> {
    let (mut arms, mut bases) = (Vec::new(), Vec::new());
    for rate in RATES {
        let messages = rate * (args.messages * KEPT_UP_MS / 200_000).max(2 * WARM_UP_MS) / 1_000;
        let arm = |subject: Subject| {
            let name = format!("{rate}/s, {subject}");
            (rate, Arm::new(subject, Load::small(messages), plugin).called(name))
        };
        let bare = arms.len();
        arms.extend([arm(Subject::Bare), arm(Subject::Host { consumers: 10 })]);
        if rate == USUAL_RATE {
            arms.extend(arms.last().map(|(rate, arm): &(u64, Arm)| (*rate, arm.again())));
        }
        bases.resize(arms.len(), Some(bare));
    }
    let names = arms.iter().map(|(_, arm)| arm.name.clone());
    let mut table = Table::new(&COLUMNS, names).with_base("bare").compared_with(bases);
    let bar = progress_bar(u64::from(rounds) * arms.len() as u64)?;
    for round in 1..=rounds {
        for (index, (rate, arm)) in arms.iter().enumerate() {
            bar.set_message(format!("latency, round {round}, {}", arm.name));
            let values = one_stretch(arm, *rate).with_context(|| format!("latency: {}, round {round}", arm.name))?;
            table.add(index, &values);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let host = arms.iter().position(|(rate, arm)| *rate == USUAL_RATE && arm.subject != Subject::Bare);
    let host = host.context("the usual rate is among the rates")?;
    let ratio = |column| table.ratio(host, column);
    let (p50, p99) = (ratio("p50_us"), ratio("p99_us"));
    Ok(Findings::from(table)
        .reaching("latency p50 at 5,000/s", p50, "× bare subscriber", Target::AtMost(3.0))
        .reaching("latency p99 at 5,000/s", p99, "× bare subscriber", Target::AtMost(3.0)))
}

/// Median, 99th of a hundred and longest latency in microseconds.
fn one_stretch(arm: &Arm, rate: u64) -> Result<[f64; 3]> {
    let messages = arm.load.messages;
    let (server, mut redis) = run::redis_for(&arm.subject)?;
    let mut processes = run::start(arm, &server)?;
    run::wait_until_ready(&arm.subject, &mut redis, &mut processes[0].0)?;
    let reader = redis::Client::open(server.url())?.get_connection()?;
    let seen = thread::spawn(move || read_results(reader, messages));
    let published = publish(server.port(), arm.load, rate)?;
    let seen = seen.join().map_err(|_| anyhow!("the reader of results ended"))??;

    let counted_from = published[0] + Duration::from_millis(WARM_UP_MS);
    let mut latencies: Vec<f64> = published
        .iter()
        .zip(&seen)
        .filter(|(published, _)| **published >= counted_from)
        .map(|(published, seen)| seen.saturating_duration_since(*published).as_secs_f64() * 1e6)
        .collect();
    latencies.sort_by(f64::total_cmp);
    ledger::expect_each_once(&mut redis, messages, 0)?;
    if arm.subject != Subject::Bare {
        ledger::expect_in_order(&mut redis, messages)?;
    }
    let last = latencies.last().context("nothing was published after the warm-up")?;
    Ok([latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100], *last])
}

/// Publishes evenly at this rate. Returns the time at which each message was sent.
fn publish(port: u16, load: Load, rate: u64) -> Result<Vec<Instant>> {
    let mut redis = TcpStream::connect(("127.0.0.1", port)).context("the publisher cannot connect")?;
    redis.set_nodelay(true)?;
    let mut replies = redis.try_clone()?;
    let unheard = thread::spawn(move || load::unheard(&mut replies, load.messages, 1));
    let mut times = Vec::with_capacity(usize::try_from(load.messages)?);
    let mut commands = Vec::new();
    let start = Instant::now();
    let mut sent = 0;
    while sent < load.messages {
        let next = start + Duration::from_nanos(sent * 1_000_000_000 / rate);
        sleep(next.saturating_duration_since(Instant::now()));
        // After a delay more than one message is due.
        let elapsed_ns = u64::try_from(start.elapsed().as_nanos())?;
        let due = (elapsed_ns * rate / 1_000_000_000 + 1).min(load.messages);
        for number in sent..due {
            load::encode(&load.message(number), &mut commands);
        }
        times.resize(usize::try_from(due)?, Instant::now());
        redis.write_all(&commands)?;
        commands.clear();
        sent = due;
    }
    let unheard = unheard.join().map_err(|_| anyhow!("the publisher's reader ended"))??;
    ensure!(unheard == 0, "{unheard} messages were published when there was no subscriber");
    Ok(times)
}

/// Reads the output stream while it grows. Returns the time at which the result of each message was found.
fn read_results(mut redis: Connection, messages: u64) -> Result<Vec<Instant>> {
    let mut seen = vec![None; usize::try_from(messages)?];
    let (mut last, mut left) = (String::from("0"), messages);
    while left > 0 {
        let mut command = cmd("XREAD");
        command
            .arg("COUNT")
            .arg(1_000)
            .arg("BLOCK")
            .arg(SILENCE_MS)
            .arg("STREAMS")
            .arg("messages:processed")
            .arg(&last);
        let reply: Option<Vec<(String, Vec<Entry>)>> = command.query(&mut redis)?;
        let now = Instant::now();
        let streams = reply.with_context(|| format!("no result came for {SILENCE_MS} ms, and {left} are missing"))?;
        for (id, values) in streams.into_iter().flat_map(|(_, entries)| entries) {
            let number = ledger::number(&values).with_context(|| format!("a strange result: {values:?}"))?;
            let place = seen.get_mut(usize::try_from(number)?).context("a result that nobody published")?;
            ensure!(place.replace(now).is_none(), "message {number} has two results");
            left -= 1;
            last = id;
        }
    }
    seen.into_iter().collect::<Option<Vec<Instant>>>().context("a result is missing")
}
