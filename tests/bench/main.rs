//! `just bench`: figures of the host on this machine. Each part is a module. Subjects take turns over several rounds. A
//! table shows the median of the rounds with the lowest and the highest value, and the ratio to another subject, which
//! means more than the figure itself. Where a subject is measured twice, the difference is noise. Dedup, fences and
//! bounds are in force for every subject, and a measurement with wrong books is an error.

mod backlog;
mod burst;
mod busy;
mod chart;
mod columns;
mod fairness;
mod findings;
mod floor;
mod growth;
mod guests;
mod languages;
mod latency;
mod ledger;
mod load;
mod looping;
mod machine;
mod memory;
mod micro;
mod path;
mod run;
mod start;
mod swap;
mod tax;
mod throughput;
mod trap;
mod waiting;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, json};

use findings::{Findings, Reached};
use machine::Machine;

/// Measure the host
#[derive(Debug, Parser)]
#[command(name = "just bench", bin_name = "just bench")]
struct Args {
    /// Parts to measure; all parts but `languages` if none is named
    parts: Vec<Part>,

    /// Messages in a burst; the parts take this or a fixed share or multiple of it
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    messages: u64,

    /// Rounds, of which the median is shown
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Numbers of consumers on the path, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,4,10")]
    consumers: Vec<u32>,

    /// Print one JSON object instead of tables
    #[arg(long, conflicts_with = "markdown")]
    json: bool,

    /// Print Markdown for a document: medians and ratios, and the figures that have a target
    #[arg(long)]
    markdown: bool,

    /// Also draw the part `path` as a chart, an SVG file
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,

    /// Be the floor for this Redis: port, and messages to come
    #[arg(long, hide = true, num_args = 2)]
    floor: Option<Vec<u64>>,

    /// As the floor, claim nothing
    #[arg(long, hide = true, requires = "floor")]
    bare: bool,

    /// Be a publisher: the numbers of its load
    #[arg(long, hide = true, num_args = 8)]
    publish: Option<Vec<u64>>,

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
    /// A burst against consumers, length of messages and hosts
    Throughput,
    /// The host beside the same host with the plugin's function compiled into it
    Tax,
    /// A plugin that waits 10 ms, with 1 to 500 consumers
    Waiting,
    /// A plugin that computes 1 ms, with 1 and 2 consumers
    Busy,
    /// Slow messages after quick ones, slow ones among quick ones, and a second host
    Fairness,
    /// Bursts as fast as can be published, under Redis's shipped limit for subscribers
    Burst,
    /// From PUBLISH until the result can be read, beside a bare subscriber
    Latency,
    /// CPU time of a message with more consumers, hosts, bytes, results and waiting messages
    Growth,
    /// The next message of a consumer whose plugin has trapped
    Trap,
    /// Ten consumers while messages loop until the time limit
    Loop,
    /// From the start of the process until it receives, with and without a compiled plugin at hand; memory
    Start,
    /// Latency over a swap of the plugin, and how soon a new version is in use
    Swap,
    /// The parts of the host's own work, each alone
    Micro,
    /// The same plugin in Rust, TypeScript, Python, Go, C and Zig
    Languages,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Part::Path => "path",
            Part::Throughput => "throughput",
            Part::Tax => "tax",
            Part::Waiting => "waiting",
            Part::Busy => "busy",
            Part::Fairness => "fairness",
            Part::Burst => "burst",
            Part::Latency => "latency",
            Part::Growth => "growth",
            Part::Trap => "trap",
            Part::Loop => "loop",
            Part::Start => "start",
            Part::Swap => "swap",
            Part::Micro => "micro",
            Part::Languages => "languages",
        }
    }

    /// What the figures mean, under the table.
    fn note(self) -> &'static str {
        match self {
            Part::Path => "× floor: of its messages/s, and of its Redis CPU for both kinds of CPU time",
            Part::Throughput => "each length beside its own floor",
            Part::Tax => {
                "native: the same host and plugin, but messages are given to the plugin's function compiled into it"
            }
            Part::Waiting => "each call waits 10 ms; after a warm-up of 8 messages a consumer",
            Part::Busy => {
                "each call computes what takes 1 ms on a core of its own; after a warm-up of 64 messages a consumer"
            }
            Part::Fairness => {
                "10 consumers in each host, after 20,000 quick messages; a slow message waits 200 ms; ideal: the waits divided by \
                 the consumers"
            }
            Part::Burst => "10 consumers; lost: published and without a result, whoever dropped it",
            Part::Latency => {
                "the publisher, the reader and what is measured share the machine; the first half second is left out"
            }
            Part::Growth => {
                "the last floor is compared with the one before; backlog: without receiving and appending, the second and third fifth"
            }
            Part::Trap => "a thousand traps in each round",
            Part::Loop => "10 consumers; a loop ends after 100 ms, and the next one follows at once",
            Part::Start => "10 consumers; warm: the second start with the same cache of compiled plugins",
            Part::Swap => {
                "10 consumers, 5,000 messages/s; latency: from PUBLISH until the result can be read; around the swap: a second; \
                 the rest includes the 250 ms for which a file must stay unchanged"
            }
            Part::Micro => "deliveries of 128 small messages, in one thread, without Redis",
            Part::Languages => {
                "`enrich` as in plugins/; a call that parses and writes: with the language's own JSON library; ready: with 10 \
                 consumers; memory: after the messages, without the pages of the program; after compiling: by a host that had \
                 to compile the plugin"
            }
        }
    }

    fn measure(self, args: &Args) -> Result<Findings> {
        let enrich = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/dist/enrich.wasm"));
        ensure!(enrich.is_file(), "there is no {}; `just bench` builds it first", enrich.display());
        Ok(match self {
            Part::Path => path::measure(args, args.rounds, &enrich)?,
            Part::Throughput => throughput::measure(args, args.rounds, &enrich)?,
            Part::Tax => tax::measure(args, args.rounds, &enrich)?,
            Part::Waiting => waiting::measure(args, args.rounds)?,
            Part::Busy => busy::measure(args, args.rounds)?,
            Part::Fairness => fairness::measure(args.rounds)?,
            Part::Burst => burst::measure(args, args.rounds, &enrich)?,
            Part::Latency => latency::measure(args, args.rounds, &enrich)?,
            Part::Growth => growth::measure(args, args.rounds, &enrich)?,
            Part::Trap => trap::measure(args.rounds)?.into(),
            Part::Loop => looping::measure(args, args.rounds)?.into(),
            Part::Start => memory::measure(args, args.rounds, &enrich, start::measure(args.rounds, &enrich)?)?,
            Part::Swap => swap::measure(args.rounds, &enrich)?,
            Part::Micro => micro::measure(args.rounds, &enrich)?.into(),
            Part::Languages => languages::measure(args, args.rounds, &enrich)?,
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
        return floor::run(u16::try_from(*port)?, *messages, !args.bare);
    }
    if let Some(numbers) = &args.publish {
        return load::run(numbers);
    }
    if args.burn {
        looping::burn();
    }
    // `languages` brings tools of other languages, which nobody needs who measures the host.
    let wanted = |part: &Part| match &*args.parts {
        [] => *part != Part::Languages,
        named => named.contains(part),
    };
    let parts: Vec<Part> = Part::value_variants().iter().copied().filter(wanted).collect();
    ensure!(args.chart.is_none() || parts.contains(&Part::Path), "--chart draws the part path; name it too");
    measure(&args, &parts)
}

/// Measures the parts and prints the findings: in a terminal each part at once, otherwise all of them together.
fn measure(args: &Args, parts: &[Part]) -> Result<()> {
    let machine = Machine::look()?;
    let conditions = format!("{} messages in a burst, {} rounds", args.messages, args.rounds);
    if args.markdown {
        println!("`just bench {}`\n\n{machine}; {conditions}", args.as_given());
    } else if !args.json {
        println!("{machine}\n{conditions}");
    }
    let (mut results, mut reached, mut failed) = (Map::new(), Vec::new(), Vec::new());
    for part in parts {
        let findings = match part.measure(args) {
            Ok(findings) => findings,
            Err(error) => {
                // Loud, but without wasting the minutes of the other parts.
                eprintln!("\n{} FAILED: {error:#}", part.name());
                failed.push(part.name().to_owned());
                continue;
            }
        };
        if let (Part::Path, Some(file)) = (part, &args.chart) {
            let svg = chart::svg(&findings.tables[0].1, &format!("{machine}; {conditions}"));
            // Cargo runs this in the folder of the package, but a user names a file relative to the repository.
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
            fs::write(&file, svg).with_context(|| format!("cannot write the chart {}", file.display()))?;
        }
        if args.markdown {
            print_markdown(*part, &findings);
        } else if !args.json {
            print_text(*part, &findings);
        }
        results.insert(part.name().to_owned(), findings.json());
        reached.extend(findings.reached);
        failed.extend(findings.wrong);
    }
    let load = machine::load();
    if args.json {
        let Args { messages, rounds, .. } = args;
        let all = json!({
            "machine": machine.json(), "load_at_the_end": load, "messages": messages, "rounds": rounds, "results": results,
        });
        println!("{all}");
    }
    if args.markdown && !reached.is_empty() {
        println!("\n| figure | measured | target |\n| --- | --- | --- |");
        for (figure, value, target) in reached.iter().map(Reached::cells) {
            println!("| {figure} | {value} | {target} |");
        }
    }
    if !args.json {
        println!("\nload at the end: {load}");
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

fn print_text(part: Part, findings: &Findings) {
    println!("\n{}", part.name());
    for (title, table) in &findings.tables {
        println!("{}{}\n{}", if title.is_empty() { "" } else { "\n" }, title, table.text().trim_end());
    }
    println!("\n{}", part.note());
    for reached in &findings.reached {
        println!("{reached}");
    }
}

fn print_markdown(part: Part, findings: &Findings) {
    for (title, table) in &findings.tables {
        let title = if title.is_empty() { String::new() } else { format!(", {title}") };
        println!("\n**{}{title}.** {}.\n\n{}", part.name(), part.note(), table.markdown().trim_end());
    }
}

impl Args {
    /// The arguments that a reader would type to repeat the measurement.
    fn as_given(&self) -> String {
        let given = std::env::args().skip(1).filter(|argument| argument != "--bench");
        given.collect::<Vec<_>>().join(" ")
    }
}
