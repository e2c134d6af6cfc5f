//! `host demo`: a private Redis, a publisher and a host, all in one process, and the truth about them at the end.

use std::collections::HashSet;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use indicatif::HumanCount;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};
use uuid::Uuid;

use super::publish::{self, Generator, Load, Published, Source};
use super::{Exit, Failure, Flags, log, refuse, run::shutdown};
use crate::config::Config;
use crate::host::{self, Summary};
use crate::redis::census::{self, Progress};
use crate::redis::connection::{Connection, Connector};
use crate::redis::embedded::Embedded;
use crate::redis::publisher::Publisher;
use crate::reload::Control;

/// Every so many of a hundred messages repeat an earlier id, so that there is something to drop.
const DUPLICATES_PERCENT: u8 = 5;

/// Messages in a pipeline at most.
const BATCH: usize = 1_000;

/// How long the end waits until everything that was published has been processed.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);

/// An empty inbox in which nothing has moved for so long stays empty.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// Time between two looks at what has become of something.
const POLL: Duration = Duration::from_millis(50);

/// Arguments of `host demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(long_about = "\
See a host at work, with nothing to set up but a redis-server or valkey-server on PATH.

Starts a private Redis, a host with ten consumers and a publisher at a steady rate, some of whose messages repeat an \
earlier id. Ctrl-C, or the end of the time, ends it with a summary of what the private Redis then holds. The exit code \
is 1 if a message was lost or processed twice.")]
pub(super) struct DemoArgs {
    /// End after this time; Ctrl-C ends it sooner. The private Redis keeps everything in memory, 2 GB an hour or more
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
    time: Duration,

    /// Messages per second
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    /// The plugin: a file with a Wasm component
    #[arg(long, value_name = "FILE", default_value = "plugins/dist/enrich.wasm")]
    plugin: PathBuf,

    /// Consumers of the host
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    consumers: u32,
}

pub(super) fn execute(before: &Flags, args: DemoArgs) -> Result<(), Failure> {
    refuse(before, "demo")?;
    if !args.plugin.is_file() {
        let error = anyhow::anyhow!(
            "there is no plugin {}; build the examples with `just plugins`, or name another one with --plugin FILE",
            args.plugin.display()
        );
        return Err(Failure { exit: Exit::Plugin, error });
    }
    let redis = Embedded::start()?;
    let mut config = Config { plugin: Some(args.plugin.clone()), consumers: args.consumers, ..Config::default() };
    config.redis.url = redis.url();
    log::start(&config)?;
    introduce(&args, redis.port());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(demonstrate(&args, config));
    runtime.shutdown_background();
    drop(redis);
    result
}

fn introduce(args: &DemoArgs, port: u16) {
    println!(
        "\
{} consumers with {}, {} messages a second, {DUPLICATES_PERCENT} % of them with an id used before.
The private Redis listens on port {port}. From another terminal:
  redis-cli -p {port} XREVRANGE messages:processed + - COUNT 2
  redis-cli -p {port} LRANGE consumer:ids 0 -1
  redis-cli -p {port} PUBLISH messages:published '{{\"message_id\":\"mine\",\"text\":\"hello\"}}'
Ctrl-C ends the demo with a summary; it ends by itself after {}.
",
        args.consumers,
        args.plugin.display(),
        HumanCount(args.rate.into()),
        humantime::format_duration(args.time),
    );
}

async fn demonstrate(args: &DemoArgs, config: Config) -> Result<(), Failure> {
    let connector = Connector::new(&config.redis).context("cannot use the private Redis")?;
    let (stop_host, host_stop) = oneshot::channel::<()>();
    let host = Box::pin(host::run(config.clone(), Control::fixed(config.clone()), async {
        let _ = host_stop.await;
    }));
    let load = async {
        let load = drive(args, &config, &connector).await;
        // The host may have ended by itself.
        let _ = stop_host.send(());
        load.map_err(Failure::from)
    };
    let (summary, (published, ids)) = tokio::try_join!(async { host.await.map_err(Failure::from) }, load)?;
    println!("\ncounting what Redis holds …");
    let mut connection = connector.connect().await.context("cannot count what Redis holds")?;
    let account = Account::take(&mut connection, &config, &ids).await.context("cannot count what Redis holds")?;
    account.print(&published, &summary);
    account.judge(&summary)
}

/// Publishes until it is time to end, and waits for what was published to be processed.
async fn drive(args: &DemoArgs, config: &Config, connector: &Connector) -> Result<(Published, Vec<Uuid>)> {
    let mut shutdown = pin!(shutdown()?);
    let mut connection = connector.connect().await.context("cannot watch the private Redis")?;
    tokio::select! {
        () = &mut shutdown => return Ok((Published::default(), Vec::new())),
        ready = subscribed(&mut connection, &config.keys.channel) => ready?,
    }
    let load = Load { count: None, duration: Some(args.time), rate: Some(args.rate), batch: BATCH };
    let (stop, stopped) = oneshot::channel();
    let mut publisher = start_publisher(load, connector.clone(), config.keys.channel.clone(), stopped);
    let result = tokio::select! {
        result = &mut publisher => result,
        () = shutdown => {
            // The publisher may have come to its end at the same moment.
            let _ = stop.send(());
            publisher.await
        }
    };
    let (published, ids) = result.context("the publisher broke off")??;
    settled(&mut connection, config, ids.len() as u64).await?;
    Ok((published, ids))
}

/// The publisher gets a thread of its own: in real life it is another program, and the host's thread has work to do.
fn start_publisher(
    load: Load,
    connector: Connector,
    channel: String,
    stopped: oneshot::Receiver<()>,
) -> JoinHandle<Result<(Published, Vec<Uuid>)>> {
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut source = Source::from(Generator::new(None, DUPLICATES_PERCENT).keeping_ids());
            let publisher = Publisher::connect(&connector, &channel).await.context("cannot start the publisher")?;
            let stop = async {
                let _ = stopped.await;
            };
            let published = publish::run(load, &mut source, publisher, stop, |_| {}).await?;
            Ok((published, source.into_ids()))
        })
    })
}

/// Waits until the host has subscribed. If it cannot, it ends, and this with it.
async fn subscribed(connection: &mut Connection, channel: &str) -> Result<()> {
    while census::subscribers(connection, channel).await.context("cannot look for the host's subscription")? == 0 {
        sleep(POLL).await;
    }
    Ok(())
}

/// Waits until as much has come out as went in, or nothing moves any more, or it has taken too long.
async fn settled(connection: &mut Connection, config: &Config, published: u64) -> Result<()> {
    let keys = std::sync::Arc::new(config.keys.clone());
    let deadline = Instant::now() + SETTLE_TIME_MAX;
    let mut last = (Progress::default(), Instant::now());
    let mut ticks = interval(POLL);
    while Instant::now() < deadline {
        ticks.tick().await;
        let now = census::progress(connection, &keys).await.context("cannot look at the host's progress")?;
        if now != last.0 {
            last = (now, Instant::now());
        }
        let complete = now.results + now.dead_letters >= published;
        if now.inbox == 0 && (complete || last.1.elapsed() >= QUIET_TIME) {
            break;
        }
    }
    Ok(())
}

/// What became of the messages, from what Redis holds at the end.
#[derive(Debug, Default)]
struct Account {
    /// Ids that were published.
    published: u64,
    /// Published ids with a result.
    processed: u64,
    /// Results beyond the first of an id.
    twice: u64,
    /// Published ids with a dead letter.
    dead: u64,
    /// Published ids with neither.
    missing: u64,
    /// Deliveries that nobody came to process.
    waiting: u64,
}

impl Account {
    async fn take(connection: &mut Connection, config: &Config, ids: &[Uuid]) -> Result<Account> {
        let keys = std::sync::Arc::new(config.keys.clone());
        let mut results = HashSet::new();
        let mut twice = 0;
        // Ids that are not ours were published by somebody who tried it by hand.
        census::message_ids(connection, &keys.output, |id| {
            if let Ok(id) = Uuid::parse_str(id) {
                twice += u64::from(!results.insert(id));
            }
        })
        .await?;
        let mut dead = HashSet::new();
        census::message_ids(connection, &keys.dead, |id| dead.extend(Uuid::parse_str(id))).await?;
        let count = |test: &dyn Fn(&Uuid) -> bool| ids.iter().filter(|id| test(id)).count() as u64;
        Ok(Account {
            published: ids.len() as u64,
            processed: count(&|id| results.contains(id)),
            twice,
            dead: count(&|id| dead.contains(id)),
            missing: count(&|id| !results.contains(id) && !dead.contains(id)),
            waiting: census::progress(connection, &keys).await?.inbox,
        })
    }

    /// Messages that vanished. Without a result are also those that the plugin dropped on purpose.
    fn lost(&self, summary: &Summary) -> u64 {
        if self.waiting > 0 { 0 } else { self.missing.saturating_sub(summary.dropped) }
    }

    fn print(&self, published: &Published, summary: &Summary) {
        let line = |what: &str, number: u64, note: &str| {
            let number = HumanCount(number).to_string();
            println!("{}", format!("{what:<16}{number:>12}  {note}").trim_end());
        };
        let ids = format!("messages, with {} different ids", HumanCount(self.published));
        line("published", published.received.messages, &ids);
        line("processed", self.processed, "ids with a result in messages:processed");
        line("duplicates", summary.duplicates, "messages dropped because their id had been used before");
        if summary.dropped > 0 {
            line("dropped", summary.dropped, "messages that the plugin dropped on purpose");
        }
        if self.dead > 0 {
            line("dead letters", self.dead, "ids in the stream of dead letters");
        }
        if self.waiting > 0 {
            line("waiting", self.missing, "ids not processed yet: more was published than the plugin can take");
        }
        line("processed twice", self.twice, "");
        line("lost", self.lost(summary), "");
    }

    fn judge(&self, summary: &Summary) -> Result<(), Failure> {
        let lost = self.lost(summary);
        if lost == 0 && self.twice == 0 {
            return Ok(());
        }
        Err(anyhow::anyhow!("{lost} messages were lost and {} were processed twice", self.twice).into())
    }
}
