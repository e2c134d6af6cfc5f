//! The parts of the host's work on a message, each alone, in this process: shows where time goes, and the effect of a
//! change in one part.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use host::config::{Config, MessageConfig, OutputFormat};
use host::message::read_id;
use host::plugin::{Engine, Instance, Outcome};
use host::redis::client::resp::Commands;
use host::redis::store::claims::{Terms, write_deliveries};
use host::redis::store::entries::Entries;
use host::redis::store::entry::{Delivery, FORMAT, Message};
use host::redis::store::keys::Keys;
use host::redis::store::output::{Own, write_result};
use host::redis::store::settle::{appends, transaction};

use crate::columns::{Column, Table};
use crate::load::{self, Load};
use crate::progress_bar;

/// Messages of a delivery when many wait.
const DELIVERY: u64 = 128;

/// Number of times that each part processes a delivery in a round.
const REPEATS: u32 = 200;

const CONSUMER_ID: &str = "a-host-name-12345-0123abcd/1";
const ENTRY_ID: &str = "1700000000000-0";

const COLUMNS: [Column; 1] = [Column { key: "ns_per_message", title: "ns/message", digits: 0 }];

const PARTS: [&str; 6] = [
    "parse a message",
    "encode the append",
    "call the plugin",
    "flatten the result",
    "encode the settling",
    "all of these",
];

/// Measures each part `rounds` times, in turn.
pub fn measure(rounds: u32, plugin: &Path) -> Result<Table> {
    let mut table = Table::new(&COLUMNS, PARTS.map(str::to_owned))
        .with_base("all")
        .compared_with([Some(PARTS.len() - 1); PARTS.len()]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config::default();
        let engine = Engine::new(&config.plugin_limits, 1)?;
        let plugin = engine.load(plugin, &config.plugin_config).await?;
        let mut work = Work::new(plugin.instantiate(Arc::from(CONSUMER_ID)).await?, config);
        let bar = progress_bar(u64::from(rounds))?;
        work.round().await?;
        for round in 1..=rounds {
            bar.set_message(format!("micro, round {round}"));
            let times = work.round().await?;
            let sum = times.iter().sum();
            for (part, time) in times.into_iter().chain([sum]).enumerate() {
                table.add(part, &[time]);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(table)
    })
}

/// A delivery, and the state for processing it.
struct Work {
    instance: Instance,
    keys: Keys,
    config: Config,
    delivery: Delivery,
}

impl Work {
    fn new(instance: Instance, config: Config) -> Work {
        Work { instance, keys: Keys::new(config.keys.clone()), config, delivery: delivery() }
    }

    /// Nanoseconds a message, in the order of the parts.
    async fn round(&mut self) -> Result<[f64; 5]> {
        let Work { instance, keys, config, delivery } = self;
        let Config { output, message: limits, .. } = config;
        let mut received = Entries::default();
        delivery.messages.iter().for_each(|message| received.field(&message.id, &message.body));
        received.finish();

        let parse = timed(|| delivery.messages.iter().try_for_each(|message| parse(message, limits)))?;
        let append = timed(|| {
            let mut commands = Commands::default();
            let terms = Terms { format: FORMAT, window_ms: "300000" };
            write_deliveries(&mut commands, keys, &received, terms, || ENTRY_ID.to_owned());
            black_box(commands.bytes());
            Ok(())
        })?;
        let (call, results) = call(instance, delivery).await?;
        let mut entries = Entries::default();
        let flatten = timed(|| flatten(&mut entries, delivery, &results))?;
        let settle = timed(|| {
            let appends = appends(keys, &entries, output.length_max);
            black_box(transaction(keys, 0, [&appends].into_iter(), [ENTRY_ID].into_iter()).bytes());
            Ok(())
        })?;
        Ok([parse, append, call, flatten, settle])
    }
}

/// A delivery of small messages.
pub fn delivery() -> Delivery {
    let load = Load::small(DELIVERY);
    let message = |number| {
        let body = load.message(number);
        Message { id: load::id(&body), body: String::from_utf8_lossy(&body).into_owned(), history: None }
    };
    Delivery::new(ENTRY_ID.into(), (0..DELIVERY).map(message).collect())
}

/// Nanoseconds a message for `work` on a delivery.
fn timed(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    for _ in 0..REPEATS {
        work()?;
    }
    Ok(per_message(start.elapsed()))
}

fn per_message(elapsed: Duration) -> f64 {
    elapsed.as_secs_f64() * 1e9 / (f64::from(REPEATS) * DELIVERY as f64)
}

fn parse(message: &Message, limits: &MessageConfig) -> Result<()> {
    let id = read_id(black_box(message.body.as_bytes()), limits)?;
    ensure!(id == message.id, "the id was read as {id}");
    Ok(())
}

/// Nanoseconds a message for calls of the plugin, and the results of a delivery.
pub async fn call(instance: &mut Instance, delivery: &Delivery) -> Result<(f64, Vec<String>)> {
    let mut results = Vec::with_capacity(delivery.messages.len());
    let start = Instant::now();
    for _ in 0..REPEATS {
        results.clear();
        for Message { id, body, .. } in &delivery.messages {
            match instance.process(id, body, 1, None).await.context("a call failed")? {
                Outcome::Emit(result) => results.push(result),
                other => anyhow::bail!("the plugin answered {other:?}"),
            }
        }
    }
    Ok((per_message(start.elapsed()), results))
}

fn flatten(entries: &mut Entries, delivery: &Delivery, results: &[String]) -> Result<()> {
    entries.clear();
    for (message, result) in delivery.messages.iter().zip(results) {
        let own = Own { message_id: &message.id, consumer_id: CONSUMER_ID, plugin_digest: None };
        write_result(entries, own, result, OutputFormat::Fields).map_err(anyhow::Error::msg)?;
    }
    Ok(())
}
