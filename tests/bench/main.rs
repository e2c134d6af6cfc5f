//! `just bench`: what the host costs beside bare Redis, on the machine it runs on.
//!
//! The floor does what no implementation can leave out, and nothing else: it receives what is published, claims each
//! id with `SET … NX PX` and appends one entry with `XADD`. The host then does all of its work with one to ten
//! consumers. Floor and hosts take turns over several rounds, each with a Redis of its own, so that a machine that is
//! slower for a while is slower for all of them.

mod floor;
mod run;
mod table;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

use run::{Measured, Subject};

/// Measure the host against bare Redis.
#[derive(Debug, Parser)]
#[command(name = "just bench", bin_name = "just bench")]
struct Args {
    /// Messages in a burst
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    messages: u64,

    /// Rounds, of which the median is shown
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Numbers of consumers, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4,10")]
    consumers: Vec<u32>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,

    /// Be the floor for this Redis: port, and messages to come
    #[arg(long, hide = true, num_args = 2)]
    floor: Option<Vec<u64>>,

    /// `cargo bench` says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some([port, messages]) = args.floor.as_deref() {
        return floor::run(u16::try_from(*port)?, *messages);
    }
    let plugin = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/enrich.wasm"));
    ensure!(plugin.is_file(), "there is no {}; build it with `just plugins`", plugin.display());

    let machine = table::Machine::look()?;
    if !args.json {
        println!("{machine}");
        println!("{} messages in a burst, {} rounds\n", args.messages, args.rounds);
    }
    let subjects: Vec<Subject> =
        std::iter::once(Subject::Floor).chain(args.consumers.iter().map(|n| Subject::Host { consumers: *n })).collect();
    let mut measured: Vec<Vec<Measured>> = vec![Vec::new(); subjects.len()];
    let bar = progress_bar(u64::from(args.rounds) * subjects.len() as u64)?;
    for round in 1..=args.rounds {
        for (subject, results) in subjects.iter().zip(&mut measured) {
            bar.set_message(format!("round {round}, {subject}"));
            let result = run::measure(subject, args.messages, &plugin);
            results.push(result.with_context(|| format!("{subject}, round {round}"))?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();

    let lines = table::lines(&subjects, &measured);
    if args.json {
        println!("{}", table::json(&args, &machine, &lines)?);
    } else {
        print!("{}", table::text(&lines));
        println!("\n× floor: of its messages/s, and of its Redis CPU for both kinds of CPU time");
        println!("load at the end: {}", table::load().unwrap_or_else(|| "unknown".into()));
    }
    Ok(())
}

fn progress_bar(steps: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{wide_bar} {msg}, {eta} left")?;
    Ok(ProgressBar::new(steps).with_style(style))
}
