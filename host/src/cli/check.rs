//! `host check`: inspects a plugin, and checks whether a host with this configuration can use the plugin.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use indicatif::BinaryBytes;
use serde::Serialize;

use super::test::duration;
use super::{Exit, Failure, Flags, PluginFlags, load_for_plugin, log, print};
use crate::config::Config;
use crate::plugin::{Engine, Grant, Import, Inspection, LoadError, Producer, Toolchain};
use crate::printable::escaped;

/// What is said of a component that does not fit a slot.
const ON_DEMAND: &str = "on demand, each with memory of its own: it does not fit a slot, and starts more slowly";
/// What is said of a component of the full engine.
const NO_SLOTS: &str =
    "on demand, each with memory of its own: the full engine has no slots, so they start more slowly";

/// Arguments of `host check`.
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Inspect a plugin, and check whether a host can use the plugin.

Shows size, digest, contract and toolchain of the component, all imports and what the host provides for each, and the \
cost of compiling and starting the plugin under the limits of this configuration. The command needs no Redis.")]
#[command(after_long_help = "\
Imports:
  granted  the host provides the import
  empty    the host provides an import without content, so that the plugin starts: no files, no network
  MISSING  the host does not provide the import, and so cannot use the plugin

Exit codes:
  0    a host can use the plugin
  2    wrong usage or configuration
  4    a host cannot use the plugin; standard error says why and what to do")]
pub(super) struct CheckArgs {
    /// The plugin: a file with a Wasm component
    #[arg(value_name = "PLUGIN")]
    plugin: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    flags: PluginFlags,
}

pub(super) fn execute(before: &Flags, args: CheckArgs) -> Result<(), Failure> {
    let config = load_for_plugin(before, args.flags, "check")?;
    log::start(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Without the cache, because the report contains the cost of compiling.
    let inspected = runtime.block_on(async {
        let engine = Engine::configured(&Config { no_cache: true, ..config.clone() }, 1)?;
        engine.inspect(&args.plugin, &config.plugin_config).await
    });
    runtime.shutdown_background();

    let memory_limit_bytes = config.plugin_limits.memory_bytes_max;
    let report = Report { path: &args.plugin, memory_limit_bytes, inspected: &inspected };
    if args.json {
        let json = serde_json::to_string(&report.as_json()).context("cannot write the report")?;
        print(format!("{json}\n").as_bytes())?;
    } else if let Ok(inspection) = &inspected {
        print(report.as_text(inspection).as_bytes())?;
    }
    let problems = match inspected {
        Ok(inspection) => inspection.problems,
        Err(error) => vec![error],
    };
    verdict(problems)
}

fn verdict(mut problems: Vec<LoadError>) -> Result<(), Failure> {
    match problems.len() {
        0 => Ok(()),
        1 => Err(problems.remove(0).into()),
        _ => {
            let problems: Vec<String> = problems.iter().map(LoadError::to_string).collect();
            let error = anyhow!("the plugin has more than one problem:\n  {}", problems.join("\n  "));
            Err(Failure { exit: Exit::Plugin, error })
        }
    }
}

/// The findings about a plugin.
struct Report<'a> {
    path: &'a Path,
    memory_limit_bytes: usize,
    inspected: &'a Result<Inspection, LoadError>,
}

impl Report<'_> {
    fn as_text(&self, inspection: &Inspection) -> String {
        let usable = if inspection.problems.is_empty() { "a host can use it" } else { "a host cannot use it" };
        let mut text = format!("{}: {usable}\n\n", self.path.display());
        let mut line = |name: &str, value: &str| text += &format!("  {name:<10} {value}\n");
        line("size", &format!("{} ({} bytes)", BinaryBytes(inspection.bytes as u64), inspection.bytes));
        line("digest", &inspection.digest);
        line("contract", inspection.contract.as_deref().unwrap_or("none: it exports no host:plugin/processor"));
        if let Some(toolchain) = inspection.toolchain {
            line("language", toolchain.language());
        }
        let made = makers(inspection);
        if !made.is_empty() {
            line("made by", &made.join(", "));
        }
        line("compiled", &format!("in {}", duration(inspection.compile_time)));
        let uses = &inspection.full_engine_for;
        if !uses.is_empty() {
            let price = "a call costs more than in the fast one";
            line("engine", &format!("the full one, for {}; {price}", uses.join(", ")));
            for advice in &inspection.fast_engine_advice {
                line("", &format!("for the fast one, {advice}"));
            }
        }
        let instances = match inspection.pooled {
            true => "in slots that a host reserves at its start",
            false if uses.is_empty() => ON_DEMAND,
            false => NO_SLOTS,
        };
        line("instances", instances);
        if let (Some(time), Some(bytes)) = (inspection.start_time, inspection.memory_bytes) {
            let (bytes, limit) = (BinaryBytes(bytes as u64), BinaryBytes(self.memory_limit_bytes as u64));
            line("started", &format!("in {}, with {bytes} of memory; the limit is {limit}", duration(time)));
        }
        for warning in &inspection.warnings {
            line("warning", warning);
        }
        text += "\n  imports\n";
        let width = inspection.imports.iter().map(|import| import.name.len()).max().unwrap_or_default();
        for Import { name, grant } in &inspection.imports {
            let grant = match grant {
                Grant::Granted => "granted".to_owned(),
                Grant::Empty(finds) => format!("empty: {finds}"),
                Grant::Missing { version: None } => "MISSING".to_owned(),
                Grant::Missing { version: Some(version) } => format!("MISSING: the host has version {version}"),
            };
            text += &format!("    {name:<width$}  {grant}\n");
        }
        if inspection.imports.is_empty() {
            text += "    nothing\n";
        }
        text
    }

    fn as_json(&self) -> Facts<'_> {
        let found = self.inspected.as_ref().ok();
        let problems = match self.inspected {
            Ok(inspection) => inspection.problems.iter().map(LoadError::to_string).collect(),
            Err(error) => vec![error.to_string()],
        };
        Facts {
            path: self.path.to_string_lossy().into_owned(),
            usable: problems.is_empty(),
            bytes: found.map(|found| found.bytes),
            digest: found.map(|found| found.digest.as_str()),
            contract: found.and_then(|found| found.contract.as_deref()),
            language: found.and_then(|found| found.toolchain).map(Toolchain::language),
            toolchain: found.and_then(|found| found.toolchain).map(Toolchain::tool),
            producers: found.map(|found| found.producers.iter().map(ProducerFacts::from).collect()),
            imports: found.map(|found| found.imports.iter().map(ImportFacts::from).collect()),
            exports: found.map(|found| found.exports.as_slice()),
            compile_ms: found.map(|found| milliseconds(found.compile_time)),
            engine: found.map(|found| if found.full_engine_for.is_empty() { "fast" } else { "full" }),
            full_engine_for: found.map(|found| found.full_engine_for.as_slice()),
            fast_engine_advice: found.map(|found| found.fast_engine_advice.as_slice()),
            pooled: found.map(|found| found.pooled),
            start_ms: found.and_then(|found| found.start_time).map(milliseconds),
            memory_bytes: found.and_then(|found| found.memory_bytes),
            memory_limit_bytes: self.memory_limit_bytes,
            warnings: found.map(|found| found.warnings.as_slice()).unwrap_or_default(),
            problems,
        }
    }
}

/// The JSON of `--json`. A fact that could not be determined is null.
#[derive(Serialize)]
struct Facts<'a> {
    path: String,
    usable: bool,
    bytes: Option<usize>,
    digest: Option<&'a str>,
    contract: Option<&'a str>,
    language: Option<&'static str>,
    toolchain: Option<&'static str>,
    producers: Option<Vec<ProducerFacts<'a>>>,
    imports: Option<Vec<ImportFacts<'a>>>,
    exports: Option<&'a [String]>,
    compile_ms: Option<f64>,
    /// `fast` or `full`.
    engine: Option<&'static str>,
    full_engine_for: Option<&'a [&'static str]>,
    fast_engine_advice: Option<&'a [&'static str]>,
    pooled: Option<bool>,
    start_ms: Option<f64>,
    memory_bytes: Option<usize>,
    memory_limit_bytes: usize,
    warnings: &'a [&'static str],
    problems: Vec<String>,
}

#[derive(Serialize)]
struct ProducerFacts<'a> {
    role: &'a str,
    name: &'a str,
    version: &'a str,
}

impl<'a> From<&'a Producer> for ProducerFacts<'a> {
    fn from(producer: &'a Producer) -> ProducerFacts<'a> {
        ProducerFacts { role: &producer.role, name: &producer.name, version: &producer.version }
    }
}

#[derive(Serialize)]
struct ImportFacts<'a> {
    name: &'a str,
    /// `granted`, `empty` or `missing`.
    grant: &'static str,
    /// What the plugin finds behind an empty import.
    finds: Option<&'static str>,
}

impl<'a> From<&'a Import> for ImportFacts<'a> {
    fn from(import: &'a Import) -> ImportFacts<'a> {
        let (grant, finds) = match &import.grant {
            Grant::Granted => ("granted", None),
            Grant::Empty(finds) => ("empty", Some(*finds)),
            Grant::Missing { .. } => ("missing", None),
        };
        ImportFacts { name: &import.name, grant, finds }
    }
}

fn milliseconds(time: Duration) -> f64 {
    // The measurement is not more precise than a microsecond.
    time.as_micros() as f64 / 1e3
}

/// The tools that made a plugin: first the one that its language is known by, which may not have said so.
fn makers(inspection: &Inspection) -> Vec<String> {
    let said = || inspection.producers.iter().filter(|producer| producer.role != "language");
    let silent = inspection.toolchain.map(Toolchain::tool).filter(|tool| said().all(|producer| producer.name != *tool));
    silent.map(str::to_owned).into_iter().chain(said().map(maker)).collect()
}

/// Name and version of a tool that made a plugin. The text comes from the plugin.
fn maker(Producer { name, version, .. }: &Producer) -> String {
    escaped(format!("{name} {version}").trim())
}
