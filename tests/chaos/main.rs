//! The fault campaign: several hosts, a real Redis, publishers with a ledger of what `PUBLISH` answered, a schedule of
//! faults from a seed, and the outcome read from Redis alone. `just chaos --help` shows the options; with the tests it runs
//! for about 90 s from the same seed each time.

#![expect(unreachable_pub, reason = "a test target exports nothing")]

mod campaign;
mod clock;
mod ear;
mod faults;
mod judge;
mod ledger;
mod load;
mod member;
mod outcomes;
mod relay;
mod schedule;
mod setup;
mod skew;
mod soak;
mod world;

#[path = "../support/mod.rs"]
#[expect(unused, reason = "what the other tests need")]
mod support;

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use campaign::{Order, Report};

/// Faults of a campaign begin within this time; the rest of a minute and a half is the start and the quiet end.
const SHORT_SECONDS: u32 = 62;
const LONG_SECONDS: u32 = 70;

/// Seed of the run that belongs to the tests: with the same schedule each time, a failure comes from a change.
const USUAL_SEED: u64 = 400;

const SOAK_MINUTES: f64 = 60.0;

/// Campaigns side by side: most of the time a campaign waits.
const JOBS: usize = 3;

/// Let faults happen to hosts and Redis, and check that nothing is lost or twice
#[derive(Debug, Parser)]
#[command(name = "just chaos", bin_name = "just chaos")]
struct Args {
    /// Begin no campaign after so many minutes [default: one round of campaigns, about 90 s]
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,

    /// Seed of the first campaign; the next ones count up [default: a fresh one with --minutes or --fault, else always the same]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,

    /// Only this fault, again and again
    #[arg(long, value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(faults::FAULTS.iter().map(|fault| fault.name)))]
    fault: Option<String>,

    /// Without faults: an hour, or as many minutes, at half of what the machine can do
    #[arg(long, conflicts_with_all = ["fault", "seed"])]
    soak: bool,

    /// Messages a second of a soak [default: half of what the machine can do]
    #[arg(long, value_name = "N", requires = "soak", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    /// Name the faults there are
    #[arg(long)]
    list: bool,

    /// Time of a campaign in which faults begin [default: 62, or 70 with --minutes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,

    /// Campaigns side by side
    #[arg(long, value_name = "N", default_value_t = JOBS)]
    jobs: usize,

    /// Another build of the host
    #[arg(long, value_name = "FILE", env = "CHAOS_HOST", default_value = env!("CARGO_BIN_EXE_host"))]
    host: PathBuf,

    /// Show each campaign's schedule and figures
    #[arg(long, short)]
    verbose: bool,

    /// Names of tests, as `cargo test` gives them to every test
    #[arg(hide = true)]
    filters: Vec<String>,

    /// `cargo test` says this to every test
    #[arg(long, short, hide = true)]
    quiet: bool,

    #[arg(long, hide = true)]
    nocapture: bool,

    #[arg(long, hide = true)]
    exact: bool,

    #[arg(long, hide = true)]
    test_threads: Option<usize>,

    #[arg(long, hide = true)]
    skip: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        faults::FAULTS.iter().for_each(|fault| println!("{:20} {}", fault.name, fault.about));
        return ExitCode::SUCCESS;
    }
    // Somebody runs other tests.
    if !args.filters.is_empty() && !args.filters.iter().any(|filter| "chaos".contains(filter)) {
        return ExitCode::SUCCESS;
    }
    if args.soak { soak(&args) } else { run(&args) }
}

fn soak(args: &Args) -> ExitCode {
    let folder = tempfile::Builder::new().prefix("host-soak-").tempdir().expect("a temporary folder");
    let bar = progress();
    if soak::run(&args.host, args.minutes.unwrap_or(SOAK_MINUTES), args.rate, folder.path(), &bar) {
        return ExitCode::SUCCESS;
    }
    println!("logs: {}", folder.keep().display());
    ExitCode::FAILURE
}

fn run(args: &Args) -> ExitCode {
    let is_fresh = args.minutes.is_some() || args.fault.is_some();
    let seed = args.seed.unwrap_or_else(|| if is_fresh { rand::random_range(0..1_000_000) } else { USUAL_SEED });
    println!("chaos: seed {seed}");
    let only = args.fault.as_deref().and_then(faults::named);
    let end = Instant::now() + Duration::from_secs_f64(args.minutes.unwrap_or(0.0) * 60.0);
    let (next, failed) = (AtomicU64::new(seed), Mutex::new(Vec::new()));
    let bar = progress();
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    let long = args.minutes.is_some();
                    let seconds = args.seconds.unwrap_or(if long { LONG_SECONDS } else { SHORT_SECONDS });
                    let order = Order { seed, program: args.host.clone(), seconds, only, long };
                    if let Some(seed) = one(&order, args, &bar) {
                        failed.lock().expect("nobody panics with the lock").push(seed);
                    }
                    if Instant::now() >= end {
                        return;
                    }
                }
            });
        }
    });
    bar.finish_and_clear();
    let failed = failed.into_inner().expect("nobody panics with the lock");
    let count = next.into_inner() - seed;
    if failed.is_empty() {
        println!("chaos: {count} campaigns found nothing");
        return ExitCode::SUCCESS;
    }
    println!("chaos: {} of {count} campaigns found something, those of the seeds {failed:?}", failed.len());
    ExitCode::FAILURE
}

/// Runs a campaign; gives its seed if it found something.
fn one(order: &Order, args: &Args, bar: &ProgressBar) -> Option<u64> {
    let folder = tempfile::Builder::new().prefix("host-chaos-").tempdir().expect("a temporary folder");
    bar.set_message(format!("campaign {}", order.seed));
    let run = AssertUnwindSafe(|| campaign::run(order, folder.path()));
    let report = panic::catch_unwind(run).unwrap_or_else(|_| Report::of_a_panic(order.seed));
    let Report { seed, setup, figures, findings, text } = report;
    bar.inc(1);
    if args.verbose || !findings.is_empty() {
        bar.suspend(|| println!("\n{text}"));
    } else {
        bar.suspend(|| {
            println!("chaos: seed {seed}, {setup}: {} heard, {} faults", figures["heard"], figures["faults"])
        });
    }
    if findings.is_empty() {
        return None;
    }
    let kept = folder.keep();
    let fault = order.only.map(|fault| format!(" --fault {}", fault.name)).unwrap_or_default();
    let long = if order.long { " --minutes 0" } else { "" };
    let seconds = args.seconds.map(|seconds| format!(" --seconds {seconds}")).unwrap_or_default();
    bar.suspend(|| {
        println!("logs: {}\nrepeat: just chaos --seed {seed} --jobs 1{fault}{long}{seconds}", kept.display());
    });
    Some(seed)
}

fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}, {pos} done").expect("a template");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
