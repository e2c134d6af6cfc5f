//! The cost of a swap for a reader of results: latency from `PUBLISH` until the result can be read, at a steady rate,
//! in quiet times, while the new version is compiled, and in the second around its first result. And the time from a
//! finished file to that first result, without compiling.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use host::redis::embedded::Embedded;
use serde_json::Value;

use crate::columns::{Column, Table};
use crate::findings::Findings;
use crate::run::{self, Ended, POLL, Subject};
use crate::{guests, progress_bar};

/// Pace of the publisher.
const PER_SECOND: u64 = 5_000;

/// Time between two of its batches.
const TICK: Duration = Duration::from_millis(1);

/// Consumers of the host.
const CONSUMERS: u32 = 10;

/// Time before the swap that counts as quiet, and the time on each side of the swap that counts as around it.
const QUIET: Duration = Duration::from_secs(2);
const AROUND: Duration = Duration::from_millis(500);

/// Longest wait for the results of a new version.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Log line of a host after a swap.
const IN_USE: &str = "a new version of the plugin is in use";

const LATENCY: [Column; 3] = [
    Column { key: "p50_ms", title: "median latency, ms", digits: 2 },
    Column { key: "p99_ms", title: "99th of 100 latencies, ms", digits: 2 },
    Column { key: "max_ms", title: "longest latency, ms", digits: 2 },
];

const TIMES: [Column; 2] = [
    Column { key: "load_ms", title: "compiled and tried, ms", digits: 0 },
    Column { key: "rest_ms", title: "the rest until its first result, ms", digits: 0 },
];

const PHASES: [&str; 3] = ["quiet", "while it is compiled", "around the swap"];

/// A result: when its message was published, how long it took, and whether the new version made it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    sent: Duration,
    latency: Duration,
    is_new: bool,
}

/// The figures of one swap.
struct Swap {
    /// Latencies in milliseconds, as the columns, in each phase.
    phases: [[f64; 3]; 3],
    load_ms: f64,
    rest_ms: f64,
}

/// Measures a swap of each plugin `rounds` times.
pub fn measure(rounds: u32, enrich: &Path) -> Result<Findings> {
    let plugins = [("enrich", enrich.to_owned()), ("large", guests::large()?)];
    let mut names = Vec::new();
    for (name, path) in &plugins {
        let kib = path.metadata().with_context(|| format!("there is no {}", path.display()))?.len() >> 10;
        names.push(format!("{name}, {kib} KiB"));
    }
    let of_phases = |name: &String| PHASES.map(|phase| format!("{name}, {phase}"));
    // Each plugin is compared with its own quiet time.
    let quiet = (0..plugins.len() * PHASES.len()).map(|row| Some(row - row % PHASES.len()));
    let mut latencies = Table::new(&LATENCY, names.iter().flat_map(of_phases)).with_base("quiet").compared_with(quiet);
    let mut times = Table::new(&TIMES, names.clone()).compared_with(plugins.each_ref().map(|_| None));
    let bar = progress_bar(u64::from(rounds) * plugins.len() as u64)?;
    for round in 1..=rounds {
        for (index, (name, path)) in plugins.iter().enumerate() {
            bar.set_message(format!("swap, round {round}, {name}"));
            let swap = one_swap(path).with_context(|| format!("{name}, round {round}"))?;
            for (phase, values) in swap.phases.iter().enumerate() {
                latencies.add(index * PHASES.len() + phase, values);
            }
            times.add(index, &[swap.load_ms, swap.rest_ms]);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let mut findings = Findings::from(latencies);
    findings.tables.push(("times".into(), times));
    Ok(findings)
}

fn one_swap(plugin: &Path) -> Result<Swap> {
    let server = Embedded::start_on_loopback()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("plugin.wasm");
    let component = std::fs::read(plugin)?;
    std::fs::write(&file, &component)?;
    let mut command = run::host(CONSUMERS, &server, &file);
    command.args(["--output-plugin-digest", "--log-format", "json"]).env("HOST_LOG_LEVEL", "info");
    let mut process = Ended(command.stderr(Stdio::piped()).spawn().context("cannot start the host")?);
    let log = process.0.stderr.take().context("the log is piped")?;
    let subject = Subject::Host { consumers: CONSUMERS };
    let mut redis = redis::Client::open(server.url())?.get_connection()?;
    run::wait_until_ready(&subject, &mut redis, &mut process.0)?;

    let traffic = Traffic { start: Instant::now(), published: AtomicU64::new(0), stop: AtomicBool::new(false) };
    let url = server.url();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| traffic.publish(&url));
        let reader = scope.spawn(|| traffic.read(&url));
        let load = scope.spawn(|| load_ms(log));
        let written = (|| {
            // The same time before, in which the host learns the rate.
            sleep(2 * QUIET);
            let new = write_new(&folder.path().join("new"), component)?;
            let written = traffic.start.elapsed();
            std::fs::rename(new, &file)?;
            traffic.wait_for_another_digest(&mut redis)?;
            sleep(2 * AROUND);
            anyhow::Ok(written)
        })();
        traffic.stop.store(true, Ordering::Relaxed);
        let ended = |_| anyhow!("a thread of the benchmark ended");
        publisher.join().map_err(ended)??;
        let samples = reader.join().map_err(ended)??;
        // The log ends with the process.
        drop(process);
        let load_ms = load.join().map_err(ended)??.context("the host logged no swap")?;
        evaluate(&samples, written?, load_ms)
    })
}

/// The same component with other bytes in a section that is never read, so that no cache knows it.
fn write_new(path: &Path, mut component: Vec<u8>) -> Result<PathBuf> {
    component.extend([0, 5, 4, b'n', b'o', b't', b'e']);
    std::fs::write(path, component)?;
    Ok(path.to_owned())
}

/// Messages at a steady rate, each with the time at which it was published.
struct Traffic {
    start: Instant,
    published: AtomicU64,
    stop: AtomicBool,
}

impl Traffic {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Publishes until stopped.
    fn publish(&self, url: &str) -> Result<()> {
        let mut redis = redis::Client::open(url)?.get_connection()?;
        let mut published = 0;
        while !self.is_stopped() {
            let now = self.start.elapsed();
            let due = u64::try_from(now.as_micros())? * PER_SECOND / 1_000_000;
            let mut batch = redis::pipe();
            for number in published..due {
                let sent = now.as_micros();
                let message = format!(r#"{{"message_id":"m-{number}","sent_us":{sent},"random_number":12345}}"#);
                batch.cmd("PUBLISH").arg("messages:published").arg(message).ignore();
            }
            let () = batch.query(&mut redis)?;
            published = due;
            self.published.store(published, Ordering::Relaxed);
            sleep(TICK);
        }
        Ok(())
    }

    /// Reads results as they come, until stopped and all results have come.
    fn read(&self, url: &str) -> Result<Vec<Sample>> {
        type Entries = Vec<(String, HashMap<String, String>)>;
        let mut redis = redis::Client::open(url)?.get_connection()?;
        let (mut samples, mut last, mut first_digest) = (Vec::new(), "0-0".to_owned(), None);
        let mut stopped_at = None;
        while !self.is_stopped() || (samples.len() as u64) < self.published.load(Ordering::Relaxed) {
            if self.is_stopped() {
                let waited = stopped_at.get_or_insert_with(Instant::now).elapsed();
                ensure!(waited < WAIT_MAX, "{} results and no more", samples.len());
            }
            let words = ["BLOCK", "100", "COUNT", "1000", "STREAMS", "messages:processed", &last];
            let reply: Option<Vec<(String, Entries)>> = redis::cmd("XREAD").arg(&words).query(&mut redis)?;
            let now = self.start.elapsed();
            let Some((_, entries)) = reply.into_iter().flatten().next() else { continue };
            for (id, mut fields) in entries {
                let sent = Duration::from_micros(fields.get("sent_us").context("a result without its time")?.parse()?);
                let digest = fields.remove("plugin_digest").context("a result without its version")?;
                let is_new = *first_digest.get_or_insert_with(|| digest.clone()) != digest;
                samples.push(Sample { sent, latency: now.saturating_sub(sent), is_new });
                last = id;
            }
        }
        ensure!(samples.len() as u64 == self.published.load(Ordering::Relaxed), "more results than messages");
        Ok(samples)
    }

    /// Waits until the newest result comes from another version than the oldest.
    fn wait_for_another_digest(&self, redis: &mut redis::Connection) -> Result<()> {
        let mut digest = |command: &str, start: &str, end: &str| -> Result<Option<String>> {
            let words = ["messages:processed", start, end, "COUNT", "1"];
            let entries: Vec<(String, HashMap<String, String>)> = redis::cmd(command).arg(&words).query(redis)?;
            Ok(entries.into_iter().next().and_then(|(_, mut fields)| fields.remove("plugin_digest")))
        };
        let first = digest("XRANGE", "-", "+")?;
        let deadline = Instant::now() + WAIT_MAX;
        while digest("XREVRANGE", "+", "-")? == first {
            ensure!(Instant::now() < deadline, "the new version was not used within {WAIT_MAX:?}");
            sleep(POLL);
        }
        Ok(())
    }
}

/// Time of the host for loading the new version, from its log, which is read to its end.
fn load_ms(log: ChildStderr) -> Result<Option<f64>> {
    let mut found = None;
    for line in BufReader::new(log).lines() {
        let line: Value = serde_json::from_str(&line?).unwrap_or_default();
        if line["message"] == IN_USE {
            found = line["load_ms"].to_string().trim_matches('"').parse().ok();
        }
    }
    Ok(found)
}

/// Latencies by phase, and the time from `written` to the first result of the new version.
fn evaluate(samples: &[Sample], written: Duration, load_ms: f64) -> Result<Swap> {
    let visible = |sample: &Sample| sample.sent + sample.latency;
    let swapped = samples.iter().filter(|sample| sample.is_new).map(visible).min().context("no result is new")?;
    let phase = |from: Duration, to: Duration| -> Result<[f64; 3]> {
        let sent_then = samples.iter().filter(|sample| (from..to).contains(&sample.sent));
        let mut latencies: Vec<f64> = sent_then.map(|sample| sample.latency.as_secs_f64() * 1e3).collect();
        latencies.sort_by(f64::total_cmp);
        let longest = *latencies.last().context("a phase without messages")?;
        Ok([latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100], longest])
    };
    Ok(Swap {
        phases: [
            phase(written - QUIET, written)?,
            phase(written, swapped)?,
            phase(swapped - AROUND, swapped + AROUND)?,
        ],
        load_ms,
        rest_ms: (swapped - written).as_secs_f64() * 1e3 - load_ms,
    })
}
