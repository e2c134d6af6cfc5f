//! `host dev`: builds and tests a plugin after every change of its sources. This command uses no Redis. A running host
//! swaps to the new version by itself, because the build replaces the file that the host watches.

mod build;
mod sources;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::ValueHint;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use self::build::Build;
use self::sources::Sources;
use super::new::{CONFIGURATION, quoted};
use super::test::{self, File, Report, duration};
use super::{Exit, Failure, Flags, PluginFlags, load, log, note, print_line, useless};
use crate::config::Config;
use crate::output;
use crate::plugin::Engine;

/// The command that builds a plugin, unless the command line names another one.
const BUILD: &str = "./build";

/// The file of cases in the folder of a plugin.
const CASES: &str = "cases.jsonl";

/// Names the configuration file when no flag does.
const CONFIG_VARIABLE: &str = "HOST_CONFIG";

/// Addition to the default log level.
const LESS_LOG: &str = ",host::plugin::loader=warn";

/// Maximum wait for lines on standard error before a line on standard output follows.
const FLUSH_TIME_MAX: Duration = Duration::from_millis(200);

/// Arguments of `host dev`.
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Build and test a plugin after every change of its sources, until Ctrl-C.

The build is the script `build` in the folder. Then the cases in cases.jsonl run as with `host test`. A line says that all \
is well; otherwise the output of the build, or the differences of the cases that failed, say what is not. The plugin's \
log lines go to standard error. A host that runs the built component takes every new version into use by itself.")]
#[command(after_long_help = "\
Examples:
  host dev hello
      Work on the plugin in the folder hello.
  host --plugin hello/hello.wasm --redis embedded
      In another terminal: a host that swaps to every new version.
  host dev --build 'cargo component build --release' --wasm target/wasm32-wasip1/release/hello.wasm
      Use another build tool.

Sources:
  Every file below the folder, except hidden files, *.wasm, the folders target, node_modules and __pycache__,
  Cargo.lock, temporary files of editors, and what the folder's .gitignore names. Several changes at once lead to
  one build; a change during a build leads to another one. After a change of the cases or of host.toml only the
  cases run.

Exit codes:
  0    ended by Ctrl-C or SIGTERM
  1    any other failure
  2    wrong usage or configuration")]
pub(super) struct DevArgs {
    /// Folder of the plugin
    #[arg(value_name = "FOLDER", default_value = ".", hide_default_value = true, value_hint = ValueHint::DirPath)]
    #[arg(help = "Folder of the plugin [default: the current folder]")]
    folder: PathBuf,

    /// Command that builds the plugin; a shell runs the command in the folder
    #[arg(long, value_name = "COMMAND", default_value = BUILD)]
    build: String,

    /// The component that the build makes, seen from the folder [default: the only *.wasm in the folder]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    wasm: Option<PathBuf>,

    #[command(flatten)]
    flags: PluginFlags,
}

pub(super) fn execute(before: &Flags, args: &DevArgs) -> Result<(), Failure> {
    let functions = tempfile::tempdir().context("cannot make a folder for compiled functions")?;
    let project = Project { args, before, functions };
    project.check()?;
    let mut config = project.config()?;
    if config.log_level == Config::default().log_level {
        // The plugin's own lines, but not two lines about the compilation of every version.
        config.log_level += LESS_LOG;
    }
    log::start(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // A build in progress ends when its future is dropped.
        tokio::select! {
            result = project.develop() => result,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    });
    runtime.shutdown_background();
    result
}

/// A plugin's folder, and how the command line wants it to be built and tested.
struct Project<'a> {
    args: &'a DevArgs,
    /// The flags in front of the command.
    before: &'a Flags,
    /// Where compiled functions of the versions before are kept.
    functions: TempDir,
}

/// Result of building and testing once.
struct Round {
    /// Whether the component belongs to the sources.
    built: bool,
    /// The component, if all cases passed.
    good: Option<PathBuf>,
}

impl Project<'_> {
    /// Refuses what no later change of a source can mend.
    fn check(&self) -> Result<(), Failure> {
        let usage = |problem: String| Failure { exit: Exit::Usage, error: anyhow!(problem) };
        let folder = &self.args.folder;
        let shown = folder.display();
        if !folder.is_dir() {
            return Err(usage(format!("there is no folder {shown}; `host new` makes one with a plugin to begin with")));
        }
        if self.args.build == BUILD && !folder.join(BUILD).is_file() {
            return Err(usage(format!("there is no script `build` in {shown}; name a build command with --build")));
        }
        Ok(())
    }

    /// The configuration, read anew for every round. A file `host.toml` in the folder counts unless another one is named.
    fn config(&self) -> Result<Config, Failure> {
        let mut given = self.args.flags.clone().under(self.before).map_err(|flag| useless(flag, "dev"))?;
        let named = given.file.is_some() || std::env::var_os(CONFIG_VARIABLE).is_some();
        given.file = given.file.or_else(|| self.configuration().filter(|_| !named));
        Ok(load(&given)?.into_triable()?)
    }

    fn configuration(&self) -> Option<PathBuf> {
        Some(self.args.folder.join(CONFIGURATION)).filter(|path| path.is_file())
    }

    /// Builds and tests, now and after every change.
    async fn develop(&self) -> Result<(), Failure> {
        let folder = &self.args.folder;
        let mut sources = Sources::watch(folder);
        let (mut built, mut told) = (false, false);
        loop {
            let round = self.round(!built).await?;
            if let Some(component) = round.good.filter(|_| !std::mem::replace(&mut told, true)) {
                self.tell(&component);
            }
            let changed = sources.changed().await;
            note(&format!("{} changed", shown(&changed)));
            // The build reads neither of these two.
            let only_tested = |path: &PathBuf| [CASES, CONFIGURATION].iter().any(|name| path == Path::new(name));
            built = round.built && changed.iter().all(only_tested);
        }
    }

    /// Builds, if that is needed, and tests.
    async fn round(&self, build: bool) -> Result<Round, Failure> {
        let mut times = String::new();
        if build {
            let Build { status, time } = build::run(&self.args.build, &self.args.folder).await?;
            if !status.success() {
                let command = &self.args.build;
                failed(&format!("{command}: {status}, after {}", duration(time)))?;
                return Ok(Round { built: false, good: None });
            }
            times = format!("; built in {}", duration(time));
        }
        let start = Instant::now();
        let good = match self.test(start, &times).await {
            Ok(component) => component,
            Err(failure) if failure.is_closed_output() => return Err(failure),
            Err(failure) => {
                failed(&failure.to_string())?;
                None
            }
        };
        Ok(Round { built: true, good })
    }

    /// Runs all cases. Returns the component if all of them passed.
    async fn test(&self, start: Instant, times: &str) -> Result<Option<PathBuf>, Failure> {
        let config = self.config()?;
        let component = self.component()?;
        let file = File::read(&self.args.folder.join(CASES), false)?;
        let engine = Engine::for_development(&config, self.functions.path().join("functions"))?;
        let mut bench = test::bench(&engine, &component, &config).await?;
        let loaded = duration(start.elapsed());
        let mut report = Report::of_failures(&config.plugin_limits);
        let failures = test::try_all(&mut bench, &file, &mut report).await?.len();
        let line = report.line(&format!("{times}, loaded in {loaded}"));
        before_stdout();
        print_line(&line)?;
        Ok(Some(component).filter(|_| failures == 0))
    }

    /// The component that the build has made.
    fn component(&self) -> anyhow::Result<PathBuf> {
        let folder = &self.args.folder;
        if let Some(path) = &self.args.wasm {
            return Ok(folder.join(path));
        }
        let shown = folder.display();
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.with_context(|| format!("cannot read {shown}"))?;
        let paths = entries.iter().map(|entry| folder.join(entry.file_name()));
        let mut found: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|end| end == "wasm")).collect();
        match (found.pop(), found.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(_), false) => Err(anyhow!("there are several *.wasm in {shown}; name one with --wasm")),
            (None, _) => Err(anyhow!("the build made no *.wasm in {shown}; name the component with --wasm")),
        }
    }

    /// Says how to see the plugin at work.
    fn tell(&self, component: &Path) {
        let word = |path: &Path| quoted(&path.strip_prefix(".").unwrap_or(path).to_string_lossy());
        let config = self.configuration().map(|path| format!(" --config {}", word(&path))).unwrap_or_default();
        note("watching the sources; Ctrl-C ends this");
        note("for a host that swaps to every new version, run this in another terminal:");
        note(&format!("  host --plugin {} --redis embedded{config}", word(component)));
    }
}

/// Prints a line about a failed build or test.
fn failed(problem: &str) -> Result<(), Failure> {
    before_stdout();
    print_line(&format!("{} {problem}", test::failed_word()))
}

/// Lets lines on standard error, such as the output of the build, appear first.
fn before_stdout() {
    output::stderr().flush(Instant::now() + FLUSH_TIME_MAX);
}

/// The names of a few changed files.
fn shown(changed: &[PathBuf]) -> String {
    match changed {
        [only] => only.display().to_string(),
        [first, others @ ..] => format!("{} and {} more", first.display(), others.len()),
        [] => String::new(),
    }
}
