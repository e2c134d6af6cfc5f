//! `just bench`: what the host does, in figures, on the machine it runs on. Each part is a module. Subjects take turns
//! over several rounds; the median of the rounds is shown with the lowest and the highest, and its ratio to the first
//! subject's, which means more than the figure does.

mod columns;
mod floor;
mod guests;
mod looping;
mod path;
mod run;
mod start;
mod swap;
mod table;
mod trap;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use columns::Table;

/// Measure the host
#[derive(Debug, Parser)]
#[command(name = "just bench", bin_name = "just bench")]
struct Args {
    /// What to measure; all of it if nothing is named
    parts: Vec<Part>,

    /// Messages in a burst
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    messages: u64,

    /// Rounds, of which the median is shown
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Numbers of consumers on the path, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4,10")]
    consumers: Vec<u32>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,

    /// Be the floor for this Redis: port, and messages to come
    #[arg(long, hide = true, num_args = 2)]
    floor: Option<Vec<u64>>,

    /// Be a process that takes a core
    #[arg(long, hide = true)]
    burn: bool,

    /// `cargo bench` says this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A burst through the host beside bare Redis
    Path,
    /// The next message of a consumer whose plugin has trapped
    Trap,
    /// Ten consumers while messages loop until the time limit
    Loop,
    /// From the start of the process until it receives, with and without a compiled plugin at hand
    Start,
    /// Latency over a swap of the plugin, and how soon a new version is in use
    Swap,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Path => "path",
            Part::Trap => "trap",
            Part::Loop => "loop",
            Part::Start => "start",
            Part::Swap => "swap",
        }
    }

    /// What the figures mean, under the table.
    fn note(self) -> &'static str {
        match self {
            Part::Path => "× floor: of its messages/s, and of its Redis CPU for both kinds of CPU time",
            Part::Trap => "a thousand traps in each round",
            Part::Loop => "10 consumers; a loop ends after 100 ms, and the next one follows at once",
            Part::Start => "10 consumers; warm: the second start with the same cache of compiled plugins",
            Part::Swap => {
                "10 consumers, 5,000 messages/s; latency: from PUBLISH until the result can be read; around the swap: a second; \
                 the rest includes the 250 ms for which a file must stay unchanged"
            }
        }
    }

    /// The figures for people and for programs.
    fn measure(self, args: &Args) -> Result<(String, Value)> {
        let enrich = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/enrich.wasm"));
        ensure!(enrich.is_file(), "there is no {}; build it with `just plugins`", enrich.display());
        let both = |table: Table| (table.text(), table.json());
        Ok(match self {
            Part::Path => {
                let lines = path::measure(args, args.rounds, &enrich)?;
                (table::text(&lines), table::json(&lines))
            }
            Part::Trap => both(trap::measure(args.rounds)?),
            Part::Loop => both(looping::measure(args, args.rounds)?),
            Part::Start => both(start::measure(args.rounds, &enrich)?),
            Part::Swap => swap::measure(args.rounds, &enrich)?,
        })
    }
}

fn progress_bar(steps: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{wide_bar} {msg}, {eta} left")?;
    Ok(ProgressBar::new(steps).with_style(style))
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some([port, messages]) = args.floor.as_deref() {
        return floor::run(u16::try_from(*port)?, *messages);
    }
    if args.burn {
        looping::burn();
    }
    let machine = table::Machine::look()?;
    if !args.json {
        println!("{machine}");
        println!("{} messages in a burst, {} rounds", args.messages, args.rounds);
    }
    let mut results = Map::new();
    for part in Part::value_variants().iter().filter(|part| args.parts.is_empty() || args.parts.contains(part)) {
        let (text, json) = part.measure(&args)?;
        if !args.json {
            println!("\n{}\n\n{text}\n{}", part.name(), part.note());
        }
        results.insert(part.name().to_owned(), json);
    }
    let load = table::load();
    if args.json {
        let Args { messages, rounds, .. } = args;
        let all = json!({
            "machine": machine.json(), "load_at_the_end": load, "messages": messages, "rounds": rounds, "results": results,
        });
        println!("{all}");
    } else {
        println!("\nload at the end: {}", load.unwrap_or_else(|| "unknown".into()));
    }
    Ok(())
}
