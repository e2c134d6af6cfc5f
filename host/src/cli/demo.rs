//! `host demo`: a private Redis, a publisher and a host in one process, with a check of the results at the end.

mod account;
mod swap;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::builder::ArgPredicate;
use indicatif::HumanCount;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};
use uuid::Uuid;

use self::account::Account;
use self::swap::Swap;
use super::publish::{self, Generator, Load, Published, Source};
use super::{Exit, Failure, Flags, log, refuse, signals::shutdown};
use crate::config::Config;
use crate::host;
use crate::output;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::client::publisher::Publisher;
use crate::redis::embedded::Embedded;
use crate::redis::store::census::{self, Progress};
use crate::reload::Control;

/// Percentage of messages that repeat an earlier id, so that the host has duplicates to drop.
const DUPLICATES_PERCENT: u8 = 5;

/// Maximum number of messages in a pipeline.
const BATCH: usize = 1_000;

/// Maximum wait at the end until all published messages are processed.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(10);

/// An inbox that stays empty for this time counts as done.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// Time between two polls of Redis.
const POLL: Duration = Duration::from_millis(50);

/// Arguments of `host demo`.
#[derive(Clone, Debug, clap::Args)]
#[command(long_about = "\
Run a demonstration. The only requirement is a redis-server or valkey-server on PATH.

Starts a private Redis, a host with ten consumers, and a publisher with a steady rate. Some messages repeat an earlier \
id. Ctrl-C, or the end of the time, ends the demo with a summary of the results in the private Redis. The exit code is 1 \
if a message was lost or processed twice.

With --swap the plugin is a copy of the example. After a third of the time a later version of the plugin replaces that \
copy. After two thirds of the time a broken version follows, which the host rolls back by itself. The demo explains each \
step, continues until both steps have happened, and finally counts the results of each version. The exit code is also 1 \
if one of the two steps did not happen or if there is a dead letter.")]
pub(super) struct DemoArgs {
    /// End after this time; with --swap the default is 30s. Ctrl-C ends the demo earlier. The private Redis keeps all
    /// results in memory, 2 GB an hour or more
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration,
          default_value_if("swap", ArgPredicate::IsPresent, "30s"))]
    time: Duration,

    /// Messages per second; with --swap 100 or more
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    /// The plugin: a file with a Wasm component
    #[arg(long, value_name = "FILE", default_value = "plugins/dist/enrich.wasm")]
    plugin: PathBuf,

    /// Number of consumers of the host
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    consumers: u32,

    /// Show a swap and a rollback of the plugin
    #[arg(long, conflicts_with = "plugin")]
    swap: bool,
}

pub(super) fn execute(before: &Flags, args: DemoArgs) -> Result<(), Failure> {
    refuse(before, "demo")?;
    require(&args.plugin, if args.swap { "" } else { ", or choose another plugin with --plugin FILE" })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut config = Config { plugin: Some(args.plugin.clone()), consumers: args.consumers, ..Config::default() };
    let swap = if args.swap { Some(runtime.block_on(Swap::prepare(&args.plugin, args.rate))?) } else { None };
    if let Some(swap) = &swap {
        swap.configure(&mut config, args.time);
    }
    let redis = Embedded::start()?;
    config.redis.url = redis.url();
    log::start(&config)?;
    introduce(&args, &redis.socket_in_shell());
    let result = runtime.block_on(demonstrate(&args, config, swap.as_ref()));
    runtime.shutdown_background();
    drop(redis);
    result
}

/// Fails if the plugin does not exist, with advice.
fn require(plugin: &Path, or_what: &str) -> Result<(), Failure> {
    if plugin.is_file() {
        return Ok(());
    }
    let plugin = plugin.display();
    let error = anyhow!("there is no plugin {plugin}; `just demo`, with the same options, builds it first{or_what}");
    Err(Failure { exit: Exit::Plugin, error })
}

fn introduce(args: &DemoArgs, socket: &str) {
    output::stdout().line(&format!(
        "\
{} consumers with {}, {} messages a second; {DUPLICATES_PERCENT} % of the messages repeat an earlier id.
The private Redis listens on the Unix socket {socket}. From another terminal:
  redis-cli -s {socket} XREVRANGE messages:processed + - COUNT 2
  redis-cli -s {socket} LRANGE consumer:ids 0 -1
  redis-cli -s {socket} HGETALL '{{consumer:ids}}:hosts'
  redis-cli -s {socket} PUBLISH messages:published '{{\"message_id\":\"mine\",\"text\":\"hello\"}}'
Ctrl-C ends the demo with a summary; the demo ends by itself after {}.
",
        args.consumers,
        args.plugin.display(),
        HumanCount(args.rate.into()),
        humantime::format_duration(args.time),
    ));
    if args.swap {
        output::stdout().line("Lines with == describe the steps of the swap.\n");
    }
}

async fn demonstrate(args: &DemoArgs, config: Config, swap: Option<&Swap>) -> Result<(), Failure> {
    let connector = Connector::new(&config.redis).context("cannot use the private Redis")?;
    let (stop_host, host_stop) = oneshot::channel::<()>();
    let host = Box::pin(host::run(config.clone(), Control::fixed(config.clone()), async {
        let _ = host_stop.await;
    }));
    let load = async {
        let load = drive(args, &config, &connector, swap).await;
        // Sending fails if the host has already ended.
        let _ = stop_host.send(());
        load.map_err(Failure::from)
    };
    let (summary, driven) = tokio::try_join!(async { host.await.map_err(Failure::from) }, load)?;
    output::stdout().line("\ncounting the results in Redis …");
    let mut connection = connector.connect().await.context("cannot count the results in Redis")?;
    let account =
        Account::take(&mut connection, &config, &driven.ids).await.context("cannot count the results in Redis")?;
    account.print(&driven.published, &summary);
    if let Some(swap) = swap {
        swap.print(&account);
    }
    account.judge(&summary)?;
    driven.played?;
    swap.map_or(Ok(()), |swap| swap.judge(&account))
}

/// The load that the host received.
struct Driven {
    published: Published,
    ids: Vec<Uuid>,
    /// Whether all steps of the swap have happened. A step that was not due yet counts as happened.
    played: Result<()>,
}

/// Publishes until the demo ends, and then waits until the published messages are processed.
async fn drive(args: &DemoArgs, config: &Config, connector: &Connector, swap: Option<&Swap>) -> Result<Driven> {
    let mut shutdown = pin!(shutdown()?);
    let mut connection = connector.connect().await.context("cannot watch the private Redis")?;
    tokio::select! {
        () = &mut shutdown => return Ok(Driven { published: Published::default(), ids: Vec::new(), played: Ok(()) }),
        ready = subscribed(&mut connection, &config.keys.channel) => ready?,
    }
    let (stop, stopped) = oneshot::channel();
    let mut publisher = start_publisher(args.rate, connector.clone(), config, stopped);
    let end = async {
        tokio::select! {
            played = play(args.time, config, &mut connection, swap) => played,
            () = shutdown => Ok(()),
            () = reader_gone() => Ok(()),
        }
    };
    let (result, played) = tokio::select! {
        // The publisher ends by itself only on an error.
        result = &mut publisher => (result, Ok(())),
        played = end => {
            // Sending fails if the publisher has ended at the same moment.
            let _ = stop.send(());
            (publisher.await, played)
        }
    };
    let (published, ids) = result.context("the publisher broke off")??;
    settled(&mut connection, config, ids.len() as u64).await?;
    Ok(Driven { published, ids, played })
}

/// Lets the time pass, and plays the swap if there is one. Takes longer than the time if the host needs longer.
async fn play(time: Duration, config: &Config, connection: &mut LibraryConnection, swap: Option<&Swap>) -> Result<()> {
    let time_passes = async {
        sleep(time).await;
        Ok(())
    };
    match swap {
        Some(swap) => tokio::try_join!(time_passes, swap.play(connection, config, time)).map(|_| ()),
        None => time_passes.await,
    }
}

/// Waits until standard output is closed.
async fn reader_gone() {
    while !output::stdout().is_closed() {
        sleep(POLL).await;
    }
}

/// Starts the publisher on a separate thread: a real publisher is another program, and the host's thread is busy.
fn start_publisher(
    rate: u32,
    connector: Connector,
    config: &Config,
    stopped: oneshot::Receiver<()>,
) -> JoinHandle<Result<(Published, Vec<Uuid>)>> {
    let (channel, id_property) = (config.keys.channel.clone(), config.message.id_property.clone());
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut source = Source::from(Generator::new(&id_property, None, DUPLICATES_PERCENT).keeping_ids());
            let publisher = Publisher::connect(&connector, &channel).await.context("cannot start the publisher")?;
            let stop = async {
                let _ = stopped.await;
            };
            let load = Load { count: None, duration: None, rate: Some(rate), batch: BATCH };
            let published = publish::run(load, &mut source, publisher, stop, |_| {}).await?;
            Ok((published, source.into_ids()))
        })
    })
}

/// Waits until the host has subscribed. If the host fails to subscribe, the host ends, and the demo with it.
async fn subscribed(connection: &mut LibraryConnection, channel: &str) -> Result<()> {
    while census::subscribers(connection, channel).await.context("cannot look for the host's subscription")? == 0 {
        sleep(POLL).await;
    }
    Ok(())
}

/// Waits until all published ids have an outcome, or nothing changes any more, or the maximum wait has passed.
async fn settled(connection: &mut LibraryConnection, config: &Config, published: u64) -> Result<()> {
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
