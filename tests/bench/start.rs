//! Time from the start of the process until it receives messages: with a plugin that was never compiled, and again. A
//! plugin with as much code as an interpreter represents plugins in Python and JavaScript.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use host::redis::embedded::Embedded;

use crate::columns::{Column, Table};
use crate::findings::{Findings, Target};
use crate::run::{Ended, HOST};
use crate::{guests, progress_bar};

/// Log line of a host that receives messages.
const READY: &str = r#""message":"ready""#;

const COLUMNS: [Column; 1] = [Column { key: "ready_ms", title: "ready after, ms", digits: 0 }];

/// Measures each plugin `rounds` times, cold and warm.
pub fn measure(rounds: u32, enrich: &Path) -> Result<Findings> {
    let large = guests::large()?;
    let plugins = [("enrich", enrich), ("large", &large)];
    let mut subjects = Vec::new();
    for (name, path) in plugins {
        let kib = path.metadata().with_context(|| format!("there is no {}", path.display()))?.len() >> 10;
        subjects.extend([format!("{name}, {kib} KiB, cold"), format!("{name}, {kib} KiB, warm")]);
    }
    let mut table = Table::new(&COLUMNS, subjects).with_base("cold").compared_with([0, 0, 2, 2].map(Some));
    let server = Embedded::start_on_loopback()?;
    let bar = progress_bar(u64::from(rounds) * plugins.len() as u64)?;
    for round in 1..=rounds {
        for (index, (name, path)) in plugins.into_iter().enumerate() {
            let cache = tempfile::tempdir()?;
            bar.set_message(format!("start, round {round}, {name}"));
            let ready = cold_and_warm(&server, path, cache.path()).with_context(|| format!("{name}, round {round}"))?;
            for (offset, ms) in ready.into_iter().enumerate() {
                table.add(2 * index + offset, &[ms]);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    let warm = plugins.map(|(name, _)| name).into_iter().zip([1, 3].map(|row| table.median(row, "ready_ms")));
    let mut findings = Findings::from(table);
    for (name, ms) in warm {
        findings = findings.reaching(format!("ready with a warm cache, {name}"), ms, "ms", Target::AtMost(150.0));
    }
    Ok(findings)
}

/// Milliseconds until a host is ready that finds an empty cache, and until one is ready that finds the compiled plugin.
pub fn cold_and_warm(server: &Embedded, plugin: &Path, cache: &Path) -> Result<[f64; 2]> {
    let cold = ready_ms(server, plugin, cache).context("cold")?;
    Ok([cold, ready_ms(server, plugin, cache).context("warm")?])
}

/// Milliseconds until a host with the default number of consumers receives messages.
fn ready_ms(server: &Embedded, plugin: &Path, cache: &Path) -> Result<f64> {
    let mut redis = redis::Client::open(server.url())?.get_connection()?;
    let () = redis::cmd("FLUSHALL").query(&mut redis)?;
    let mut command = Command::new(HOST);
    command.arg("--plugin").arg(plugin);
    command.args(["--redis", &server.url(), "--log-format", "json", "--log-level", "info"]);
    command.env_clear().env("XDG_CACHE_HOME", cache);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let mut process = Ended(command.spawn().context("cannot start the host")?);
    let log = process.0.stderr.take().context("the log is piped")?;
    let mut said = String::new();
    for line in BufReader::new(log).lines() {
        let line = line?;
        if line.contains(READY) {
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
        said = said + &line + "\n";
    }
    bail!("it ended while it was starting:\n{said}")
}
