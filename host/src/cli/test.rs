//! `host test`: runs a plugin on messages like a running host, and compares the outcomes with the expected outcomes.
//! This command uses no Redis.

mod report;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use indicatif::BinaryBytes;

use super::{Exit, Failure, PluginFlags, load_for_plugin, log, print};
use crate::cases::case::{self, Case};
use crate::cases::outcome::Came;
use crate::cases::{Bench, Tried};
use crate::config::{Config, PluginLimits};
use crate::plugin::Engine;
use report::Verdict;
pub(super) use report::{Report, duration, failed_word};

/// Name of standard input on the command line.
const STDIN: &str = "-";

/// Arguments of `host test`.
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Test a plugin with cases from a file, without Redis.

The plugin runs in the same sandbox and under the same limits as in a running host. One instance processes all messages; \
after a trap or an exceeded limit a new instance takes over. The plugin's log lines go to standard error.")]
#[command(after_long_help = "\
Cases:
  One JSON object a line: a message, and the expected outcome.

    {\"message\": {\"message_id\": \"1\", \"total\": 5}, \"emit\": {\"total\": 5, \"vat\": 0.95}}
    {\"name\": \"no total\", \"message\": {\"message_id\": \"2\"}, \"reject\": \"no total\"}

  message      the published payload as JSON, byte for byte; or
  raw          the published payload as a string, for a payload that is not JSON
  name         optional: a name for the report
  attempt      optional: the number of the attempt, from 1

  And one expected outcome:

  emit         the result, or an array of results
  emit-subset  the same, but the results may have more properties
  drop         true
  retry        true, or the delay in milliseconds
  reject       true, or a part of the plugin's reason
  fail         true, or a part of the error that the plugin returns
  trap, timeout, memory
               true, or a part of the error: the plugin trapped or exceeded a limit
  bad-result   true, or a part of the error: the result is not a JSON object, or is too long
  no-message   true, or a part of the error: the payload is not a valid message, and the host does not call
               the plugin

  Results are compared as JSON, numbers by their text: 1.0 is not 1. message_id and consumer_id are ignored,
  because the host writes these properties.

Exit codes:
  0    all cases passed; with --message: the plugin returned emit, drop, retry or reject
  1    a case failed; with --message: the plugin failed, or message or result is not valid
  2    wrong usage, configuration or cases
  4    plugin: missing, not a component, wrong world, does not start")]
pub(super) struct TestArgs {
    /// The plugin: a file with a Wasm component
    #[arg(value_name = "PLUGIN")]
    plugin: PathBuf,

    /// The file of cases, one JSON object a line (described below by `host test --help`); - is standard input
    #[arg(value_name = "CASES", required_unless_present = "message")]
    cases: Option<PathBuf>,

    /// Print the outcome of this one message, in the form of a case
    #[arg(long, value_name = "JSON", conflicts_with_all = ["cases", "bless"])]
    message: Option<String>,

    /// Write the actual outcome into the file for each case that does not pass
    #[arg(long)]
    bless: bool,

    #[command(flatten)]
    flags: PluginFlags,
}

pub(super) fn execute(before: &super::Flags, args: TestArgs) -> Result<(), Failure> {
    let config = load_for_plugin(before, args.flags, "test")?;
    // Read before a large plugin is compiled, so that a typing error in the cases is reported at once.
    let job = match (args.message, args.cases) {
        (Some(message), _) => Job::Message(message),
        (None, Some(path)) => Job::Cases(File::read(&path, args.bless)?),
        (None, None) => return Err(usage("give a file of cases, or a message with --message")),
    };
    log::start(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut bench = bench(&Engine::configured(&config, 1)?, &args.plugin, &config).await?;
        match job {
            Job::Message(message) => try_one(&mut bench, message).await,
            Job::Cases(file) => test_all(&mut bench, &config.plugin_limits, &file).await,
        }
    });
    runtime.shutdown_background();
    result
}

/// An instance of the plugin for cases.
pub(super) async fn bench(engine: &Engine, plugin: &Path, config: &Config) -> Result<Bench, Failure> {
    let plugin = engine.load(plugin, &config.plugin_config).await?;
    let started = Bench::start(&plugin, config).await;
    started.map_err(|failure| Failure { exit: Exit::Plugin, error: failure.into() })
}

fn usage(problem: impl Into<String>) -> Failure {
    Failure { exit: Exit::Usage, error: anyhow!(problem.into()) }
}

enum Job {
    Message(String),
    Cases(File),
}

/// A file of cases.
pub(super) struct File {
    path: PathBuf,
    text: Vec<u8>,
    cases: Vec<Case>,
    /// Whether actual outcomes are written into the file.
    bless: bool,
}

impl File {
    pub(super) fn read(path: &Path, bless: bool) -> Result<File, Failure> {
        let mut text = Vec::new();
        let shown = if path == Path::new(STDIN) {
            if bless {
                return Err(usage(
                    "--bless writes into the file of cases, so the cases cannot come from standard input",
                ));
            }
            io::stdin().lock().read_to_end(&mut text).context("cannot read the cases from standard input")?;
            "standard input".to_owned()
        } else {
            let shown = path.display().to_string();
            text = fs::read(path).map_err(|error| usage(format!("cannot read the cases in {shown}: {error}")))?;
            shown
        };
        let cases = case::read(&text, &shown, bless)
            .map_err(|problems| usage(format!("the cases are not valid:\n  {}", problems.join("\n  "))))?;
        Ok(File { path: path.to_owned(), text, cases, bless })
    }

    /// Replaces the file atomically, with the actual outcomes of some of its cases.
    fn write(&self, blessed: &[(&Case, Came)]) -> anyhow::Result<()> {
        let text = str::from_utf8(&self.text)?;
        let blessed: Vec<(&Case, &Came)> = blessed.iter().map(|(case, came)| (*case, came)).collect();
        // Replace the target of a symbolic link, not the link, and keep the permissions.
        let path = self.path.canonicalize()?;
        let folder = path.parent().context("the file has no parent folder")?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(case::bless(text, &blessed).as_bytes())?;
        fs::set_permissions(new.path(), fs::metadata(&path)?.permissions())?;
        new.persist(&path)?;
        Ok(())
    }
}

/// Prints the outcome of a message.
async fn try_one(bench: &mut Bench, message: String) -> Result<(), Failure> {
    let Tried { came, time, memory_bytes } = bench.process(&message, 1).await;
    let (word, value) = came.as_property();
    print(format!("{{\"{word}\": {value}}}\n").as_bytes())?;
    if let Some(time) = time {
        let memory = BinaryBytes(memory_bytes as u64);
        // If standard error is closed, nobody can read a report of that.
        let _ = writeln!(io::stderr(), "processed in {}; memory of the instance: {memory}", duration(time));
    }
    if came.is_decision() { Ok(()) } else { Err(anyhow!("the message failed: {word}").into()) }
}

/// Runs and reports all cases in order. Returns those that did not pass, with what came instead.
pub(super) async fn try_all<'a>(
    bench: &mut Bench,
    file: &'a File,
    report: &mut Report,
) -> Result<Vec<(&'a Case, Came)>, Failure> {
    let mut differing = Vec::new();
    for case in &file.cases {
        let tried = bench.process(&case.payload, case.attempt).await;
        let differences = case.expected.as_ref().map(|expected| expected.differences(&tried.came));
        let verdict = match &differences {
            Some(differences) if differences.is_empty() => Verdict::Passed,
            Some(differences) if !file.bless => Verdict::Failed(differences),
            differences => Verdict::Blessed(differences.as_deref().unwrap_or_default()),
        };
        let passed = matches!(verdict, Verdict::Passed);
        report.case(case, &tried, &verdict)?;
        if !passed {
            differing.push((case, tried.came));
        }
    }
    Ok(differing)
}

/// Runs all cases, and writes those that are to be blessed.
async fn test_all(bench: &mut Bench, limits: &PluginLimits, file: &File) -> Result<(), Failure> {
    let mut report = Report::new(limits);
    let differing = try_all(bench, file, &mut report).await?;
    report.summary(&file.cases)?;
    if differing.is_empty() {
        return Ok(());
    }
    if file.bless {
        let path = file.path.display();
        file.write(&differing).with_context(|| format!("cannot write the blessed cases to {path}"))?;
        return Ok(());
    }
    Err(anyhow!("{} of {} cases failed", differing.len(), file.cases.len()).into())
}
