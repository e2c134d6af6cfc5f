//! `host test`: runs a plugin on messages as a running host would, and compares what becomes of them with what is
//! expected. It speaks to no Redis.

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
use crate::config::PluginLimits;
use crate::plugin::Engine;
pub(super) use report::duration;
use report::{Report, Verdict};

/// How the standard input is named on the command line.
const STDIN: &str = "-";

/// Arguments of `host test`.
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Try a plugin on cases from a file, without Redis.

The plugin runs in the same sandbox and under the same limits as in a running host: one instance works on all messages \
and is replaced after a trap or a passed limit. Its log lines go to standard error.")]
#[command(after_long_help = "\
Cases:
  One JSON object a line: what is published, and what should become of it.

    {\"message\": {\"message_id\": \"1\", \"total\": 5}, \"emit\": {\"total\": 5, \"vat\": 0.95}}
    {\"name\": \"no total\", \"message\": {\"message_id\": \"2\"}, \"reject\": \"no total\"}

  message      what is published, byte for byte as it stands; or
  raw          a string that is published, for what is no JSON
  name         optional, for the report
  attempt      optional, the number of the attempt, from 1

  And one of these:

  emit         the result; an array of results if there are several
  emit-subset  the same, but the results may have other properties beside these
  drop         true
  retry        true, or the delay in milliseconds
  reject       true, or a part of the plugin's reason
  fail         true, or a part of the error that the plugin returns
  trap, timeout, memory
               true, or a part of the sentence: the plugin broke down or passed a limit
  bad-result   true, or a part of the sentence: the result is no JSON object, or too long
  no-message   true, or a part of the reason: the host takes the payload for no message and asks no plugin

  Results are compared as JSON, numbers by their text: 1.0 is not 1. message_id and consumer_id take no part,
  because the host writes its own.

Exit codes:
  0    all cases passed; --message: the plugin decided
  1    some failed; --message: it broke down, or the host refused message or result
  2    wrong usage, configuration or cases
  4    plugin: missing, not a component, wrong world, does not start")]
pub(super) struct TestArgs {
    /// The plugin: a file with a Wasm component
    #[arg(value_name = "PLUGIN")]
    plugin: PathBuf,

    /// The cases, one JSON object a line (`host test --help` explains them); - is the standard input
    #[arg(value_name = "CASES", required_unless_present = "message")]
    cases: Option<PathBuf>,

    /// Print what becomes of this one message, in the words of a case
    #[arg(long, value_name = "JSON", conflicts_with_all = ["cases", "bless"])]
    message: Option<String>,

    /// Write what came into the file, where it is not what was expected
    #[arg(long)]
    bless: bool,

    #[command(flatten)]
    flags: PluginFlags,
}

pub(super) fn execute(before: &super::Flags, args: TestArgs) -> Result<(), Failure> {
    let config = load_for_plugin(before, args.flags, "test")?;
    // A typing error in the cases is told before a large plugin is compiled.
    let job = match (args.message, args.cases) {
        (Some(message), _) => Job::Message(message),
        (None, Some(path)) => Job::Cases(File::read(&path, args.bless)?),
        (None, None) => return Err(usage("name a file of cases, or give a --message")),
    };
    log::start(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let plugin = Engine::configured(&config, 1)?.load(&args.plugin, &config.plugin_config).await?;
        let started = Bench::start(&plugin, &config).await;
        let mut bench = started.map_err(|failure| Failure { exit: Exit::Plugin, error: failure.into() })?;
        match job {
            Job::Message(message) => try_one(&mut bench, message).await,
            Job::Cases(file) => try_all(&mut bench, &config.plugin_limits, &file).await,
        }
    });
    runtime.shutdown_background();
    result
}

fn usage(problem: impl Into<String>) -> Failure {
    Failure { exit: Exit::Usage, error: anyhow!(problem.into()) }
}

enum Job {
    Message(String),
    Cases(File),
}

/// A file of cases.
struct File {
    path: PathBuf,
    text: Vec<u8>,
    cases: Vec<Case>,
    /// Whether it is to be written again.
    bless: bool,
}

impl File {
    fn read(path: &Path, bless: bool) -> Result<File, Failure> {
        let mut text = Vec::new();
        let shown = if path == Path::new(STDIN) {
            if bless {
                return Err(usage("--bless writes into a file of cases, and cannot write into the standard input"));
            }
            io::stdin().lock().read_to_end(&mut text).context("cannot read the cases from the standard input")?;
            "standard input".to_owned()
        } else {
            let shown = path.display().to_string();
            text = fs::read(path).map_err(|error| usage(format!("cannot read the cases in {shown}: {error}")))?;
            shown
        };
        let cases = case::read(&text, &shown, bless)
            .map_err(|problems| usage(format!("cannot use the cases:\n  {}", problems.join("\n  "))))?;
        Ok(File { path: path.to_owned(), text, cases, bless })
    }

    /// Writes the file again with what came for some of its cases, in one step.
    fn write(&self, blessed: &[(&Case, Came)]) -> anyhow::Result<()> {
        let text = str::from_utf8(&self.text)?;
        let blessed: Vec<(&Case, &Came)> = blessed.iter().map(|(case, came)| (*case, came)).collect();
        // The file itself, not a link to it, and with its own permissions.
        let path = self.path.canonicalize()?;
        let folder = path.parent().context("it lies in no folder")?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        new.write_all(case::bless(text, &blessed).as_bytes())?;
        fs::set_permissions(new.path(), fs::metadata(&path)?.permissions())?;
        new.persist(&path)?;
        Ok(())
    }
}

/// Prints what becomes of a message.
async fn try_one(bench: &mut Bench, message: String) -> Result<(), Failure> {
    let Tried { came, time, memory_bytes } = bench.process(&message, 1).await;
    let (word, value) = came.as_property();
    print(format!("{{\"{word}\": {value}}}\n").as_bytes())?;
    if let Some(time) = time {
        let memory = BinaryBytes(memory_bytes as u64);
        // A closed standard error leaves nobody to tell.
        let _ = writeln!(io::stderr(), "in {}, with {memory} of memory afterwards", duration(time));
    }
    if came.is_decision() { Ok(()) } else { Err(anyhow!("the message came to no result: {word}").into()) }
}

/// Runs all cases in their order and reports them.
async fn try_all(bench: &mut Bench, limits: &PluginLimits, file: &File) -> Result<(), Failure> {
    let mut report = Report::new(limits);
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
