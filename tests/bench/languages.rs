//! `enrich` in several languages: the time of a call, throughput, start, size and memory. Only the plugins differ, so
//! the ratios to Rust are those of the languages and their runtimes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use host::config::Config;
use host::plugin::{Engine, Instance};
use host::redis::embedded::Embedded;
use host::redis::store::entry::Delivery;
use serde_json::Value;
use tempfile::TempDir;

use crate::Args;
use crate::columns::{Column, Table};
use crate::findings::{Findings, Target};
use crate::load::Load;
use crate::run::{self, Arm, Measured, Subject};
use crate::{guests, micro, progress_bar, start};

/// A language: its name, the folder of its example, and the file of a function that parses, as in `parsing/`.
struct Language {
    name: &'static str,
    example: &'static str,
    parsing: Option<&'static str>,
}

/// The first one is what the others are compared with. Its example parses; those in C and Zig share functions on the text.
const LANGUAGES: [Language; 6] = [
    Language { name: "Rust", example: "enrich", parsing: None },
    Language { name: "TypeScript", example: "enrich-typescript", parsing: Some("src/plugin.ts") },
    Language { name: "Python", example: "enrich-python", parsing: Some("plugin.py") },
    Language { name: "Go", example: "enrich-go", parsing: Some("enrich.go") },
    Language { name: "C", example: "enrich-c", parsing: None },
    Language { name: "Zig", example: "enrich-zig", parsing: None },
];

/// Numbers of consumers.
const CONSUMERS: [u32; 3] = [1, 10, 100];

const CALLS: [Column; 2] = [
    Column { key: "call_us", title: "a call, µs", digits: 2 },
    Column { key: "parsing_call_us", title: "a call that parses and writes, µs", digits: 2 },
];

const TRAFFIC: [Column; 3] = [
    Column { key: "messages_per_second_1", title: "messages/s, 1 consumer", digits: 0 },
    Column { key: "messages_per_second_10", title: "10 consumers", digits: 0 },
    Column { key: "messages_per_second_100", title: "100 consumers", digits: 0 },
];

const MEMORY: [Column; 5] = [
    Column { key: "own_mb_1", title: "memory, MB, 1 consumer", digits: 1 },
    Column { key: "own_mb_10", title: "10 consumers", digits: 1 },
    Column { key: "own_mb_100", title: "100 consumers", digits: 1 },
    Column { key: "own_mb_instance", title: "one more instance", digits: 2 },
    Column { key: "own_mb_100_compiled", title: "100 consumers, after compiling", digits: 1 },
];

const START: [Column; 3] = [
    Column { key: "component_kb", title: "component, kB", digits: 0 },
    Column { key: "cold_ms", title: "ready after, ms, cold", digits: 0 },
    Column { key: "warm_ms", title: "warm", digits: 0 },
];

/// Targets: the plugin, and what it may take.
const PARSING_CALL_US_MAX: (&str, f64) = ("TypeScript", 10.0);
const MEMORY_MB_MAX: [(&str, f64); 2] = [("TypeScript", 60.0), ("Python", 200.0)];

/// A language's plugins, and the folder of compiled plugins in which a start has left the first of them.
struct Guest {
    name: &'static str,
    plugin: PathBuf,
    parsing: Option<PathBuf>,
    cache: TempDir,
}

/// Measures each language `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32, enrich: &Path) -> Result<Findings> {
    let mut guests = build(enrich)?;
    let start = starts(rounds, &mut guests)?;
    let calls = calls(rounds, &guests)?;
    let (traffic, memory) = bursts(args, rounds, &guests)?;

    let row =
        |wanted: &str| guests.iter().position(|guest| guest.name == wanted).context("a target without a language");
    let (name, most) = PARSING_CALL_US_MAX;
    let call = calls.median(row(name)?, "parsing_call_us");
    let mut findings = Findings { tables: Vec::new(), reached: Vec::new(), wrong: Vec::new() };
    findings = findings.reaching(format!("a call in {name} that parses and writes"), call, "µs", Target::AtMost(most));
    for (name, most) in MEMORY_MB_MAX {
        for (column, state) in [("own_mb_100", ""), ("own_mb_100_compiled", ", after compiling")] {
            let figure = format!("memory with 100 consumers in {name}{state}");
            findings = findings.reaching(figure, memory.median(row(name)?, column), "MB", Target::AtMost(most));
        }
    }
    let titles = ["calls", "throughput", "memory", "start"].map(str::to_owned);
    findings.tables.extend(titles.into_iter().zip([calls, traffic, memory, start]));
    Ok(findings)
}

/// The plugins of all languages, the first language's from the caller.
fn build(enrich: &Path) -> Result<Vec<Guest>> {
    let [first, others @ ..] = &LANGUAGES;
    let mut plugins = vec![enrich.to_owned()];
    plugins.extend(guests::examples(&others.each_ref().map(|language| language.example))?);
    let guest = |(language, plugin): (&Language, PathBuf)| -> Result<Guest> {
        let Language { name, example, parsing } = language;
        let parsing = match parsing {
            Some(function) => Some(guests::with_function(name, example, function)?),
            None if *name == first.name => Some(plugin.clone()),
            None => None,
        };
        Ok(Guest { name, plugin, parsing, cache: tempfile::tempdir()? })
    };
    LANGUAGES.iter().zip(plugins).map(guest).collect()
}

fn table(columns: &[Column], guests: &[Guest]) -> Table {
    Table::new(columns, guests.iter().map(|guest| guest.name.to_owned())).with_base(LANGUAGES[0].name)
}

/// Size of the component, and time until a host is ready. Leaves the compiled plugin in the guest's folder.
fn starts(rounds: u32, guests: &mut [Guest]) -> Result<Table> {
    let mut table = table(&START, guests);
    let server = Embedded::start_on_loopback()?;
    let bar = progress_bar(u64::from(rounds) * guests.len() as u64)?;
    for round in 1..=rounds {
        for (index, guest) in guests.iter_mut().enumerate() {
            bar.set_message(format!("languages, start, round {round}, {}", guest.name));
            guest.cache = tempfile::tempdir()?;
            let kb = guest.plugin.metadata()?.len() as f64 / 1e3;
            let [cold, warm] = start::cold_and_warm(&server, &guest.plugin, guest.cache.path())
                .with_context(|| format!("start, {}, round {round}", guest.name))?;
            table.add(index, &[kb, cold, warm]);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(table)
}

/// Time of a call in this process, one after the other.
fn calls(rounds: u32, guests: &[Guest]) -> Result<Table> {
    let mut table = table(&CALLS, guests);
    let bar = progress_bar(u64::from(rounds) * guests.len() as u64)?;
    bar.set_message("languages, calls, compiling");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config::default();
        let engine = Engine::new(&config.plugin_limits, 2 * u32::try_from(guests.len())?)?;
        let start = async |plugin: &Path| -> Result<Instance> {
            let plugin = engine.load(plugin, &config.plugin_config).await?;
            Ok(plugin.instantiate(Arc::from("bench/1")).await?)
        };
        let delivery = micro::delivery();
        let mut instances = Vec::new();
        for guest in guests {
            let mut both = [Some(start(&guest.plugin).await?), None];
            if let Some(parsing) = &guest.parsing {
                both[1] = Some(start(parsing).await?);
            }
            for instance in both.iter_mut().flatten() {
                // The first calls of an interpreter allocate.
                micro::call(instance, &delivery).await.with_context(|| guest.name)?;
            }
            instances.push(both);
        }
        for round in 1..=rounds {
            for (index, both) in instances.iter_mut().enumerate() {
                bar.set_message(format!("languages, calls, round {round}, {}", guests[index].name));
                let mut times = [f64::NAN; 2];
                for (time, instance) in
                    times.iter_mut().zip(both).filter_map(|(time, instance)| Some((time, instance.as_mut()?)))
                {
                    let (ns, results) = micro::call(instance, &delivery).await.with_context(|| guests[index].name)?;
                    expect_enriched(&delivery, &results).with_context(|| guests[index].name)?;
                    *time = ns / 1e3;
                }
                table.add(index, &times);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(table)
    })
}

/// Every message has one result: itself, with one more property.
fn expect_enriched(delivery: &Delivery, results: &[String]) -> Result<()> {
    ensure!(results.len() == delivery.messages.len(), "{} results of {}", results.len(), delivery.messages.len());
    for (message, result) in delivery.messages.iter().zip(results) {
        let (mut expected, result): (Value, Value) =
            (serde_json::from_str(&message.body)?, serde_json::from_str(result)?);
        let random = result["random_property"].as_str().with_context(|| format!("not enriched: {result}"))?;
        expected["random_property"] = random.into();
        ensure!(random.len() == 16 && result == expected, "wrong: {result}");
    }
    Ok(())
}

/// Throughput and memory with each number of consumers: with a compiled plugin at hand, and once more by a host that
/// has to compile.
fn bursts(args: &Args, rounds: u32, guests: &[Guest]) -> Result<(Table, Table)> {
    let load = Load::small(args.messages / 2);
    let [few, .., most] = CONSUMERS;
    let (mut traffic, mut memory) = (table(&TRAFFIC, guests), table(&MEMORY, guests));
    let bar = progress_bar(u64::from(rounds) * guests.len() as u64)?;
    for round in 1..=rounds {
        for (index, guest) in guests.iter().enumerate() {
            bar.set_message(format!("languages, bursts, round {round}, {}", guest.name));
            let measure = |consumers, cache: &Path| -> Result<Measured> {
                let arm = Arm::new(Subject::Host { consumers }, load, &guest.plugin).with_cache(cache);
                run::measure(&arm).with_context(|| format!("{}, {}, round {round}", guest.name, arm.name))
            };
            let (mut per_second, mut own_mb) = (Vec::new(), Vec::new());
            for consumers in CONSUMERS {
                let Measured { messages_per_second, own_mb: mb, .. } = measure(consumers, guest.cache.path())?;
                per_second.push(messages_per_second);
                own_mb.push(mb);
            }
            own_mb.push((own_mb[CONSUMERS.len() - 1] - own_mb[0]) / f64::from(most - few));
            own_mb.push(measure(most, tempfile::tempdir()?.path())?.own_mb);
            traffic.add(index, &per_second);
            memory.add(index, &own_mb);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok((traffic, memory))
}
