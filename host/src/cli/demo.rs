//! `host demo`: a private Redis, a publisher and a host, all in one process, and the truth about them at the end.

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
is 1 if a message was lost or processed twice.

With --swap the plugin is a copy of the example. After a third of the time a later version of it is dropped in, and after \
two thirds a broken one, which the host takes back by itself. The demo tells what happens, goes on until both have \
happened, and counts in the end what each version has processed. The exit code is 1 as well if one of the two did not \
happen or if there is a dead letter.")]
pub(super) struct DemoArgs {
    /// End after this time; with --swap the default is 30s. Ctrl-C ends it sooner. The private Redis keeps everything in
    /// memory, 2 GB an hour or more
    #[arg(long = "for", value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration,
          default_value_if("swap", ArgPredicate::IsPresent, "30s"))]
    time: Duration,

    /// Messages per second; with --swap 100 or more
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    /// The plugin: a file with a Wasm component
    #[arg(long, value_name = "FILE", default_value = "plugins/dist/enrich.wasm")]
    plugin: PathBuf,

    /// Consumers of the host
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    consumers: u32,

    /// Show a swap of the plugin, and a rollback
    #[arg(long, conflicts_with = "plugin")]
    swap: bool,
}

pub(super) fn execute(before: &Flags, args: DemoArgs) -> Result<(), Failure> {
    refuse(before, "demo")?;
    require(&args.plugin, if args.swap { "" } else { ", or name another one with --plugin FILE" })?;
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

/// Fails if a plugin is not there, and says what to do about it.
fn require(plugin: &Path, or_what: &str) -> Result<(), Failure> {
    if plugin.is_file() {
        return Ok(());
    }
    let plugin = plugin.display();
    let error = anyhow!("there is no plugin {plugin}; build the examples with `just plugins`{or_what}");
    Err(Failure { exit: Exit::Plugin, error })
}

fn introduce(args: &DemoArgs, socket: &str) {
    output::stdout().line(&format!(
        "\
{} consumers with {}, {} messages a second, {DUPLICATES_PERCENT} % of them with an id used before.
The private Redis listens on the Unix socket {socket}. From another terminal:
  redis-cli -s {socket} XREVRANGE messages:processed + - COUNT 2
  redis-cli -s {socket} LRANGE consumer:ids 0 -1
  redis-cli -s {socket} HGETALL '{{consumer:ids}}:hosts'
  redis-cli -s {socket} PUBLISH messages:published '{{\"message_id\":\"mine\",\"text\":\"hello\"}}'
Ctrl-C ends the demo with a summary; it ends by itself after {}.
",
        args.consumers,
        args.plugin.display(),
        HumanCount(args.rate.into()),
        humantime::format_duration(args.time),
    ));
    if args.swap {
        output::stdout().line("Lines with == tell what happens to the plugin.\n");
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
        // The host may have ended by itself.
        let _ = stop_host.send(());
        load.map_err(Failure::from)
    };
    let (summary, driven) = tokio::try_join!(async { host.await.map_err(Failure::from) }, load)?;
    output::stdout().line("\ncounting what Redis holds …");
    let mut connection = connector.connect().await.context("cannot count what Redis holds")?;
    let account =
        Account::take(&mut connection, &config, &driven.ids).await.context("cannot count what Redis holds")?;
    account.print(&driven.published, &summary);
    if let Some(swap) = swap {
        swap.print(&account);
    }
    account.judge(&summary)?;
    driven.played?;
    swap.map_or(Ok(()), |swap| swap.judge(&account))
}

/// What was done to the host.
struct Driven {
    published: Published,
    ids: Vec<Uuid>,
    /// Whether everything that was to be shown has happened. What was not due yet counts as shown.
    played: Result<()>,
}

/// Publishes until it is time to end, and waits for what was published to be processed.
async fn drive(args: &DemoArgs, config: &Config, connector: &Connector, swap: Option<&Swap>) -> Result<Driven> {
    let mut shutdown = pin!(shutdown()?);
    let mut connection = connector.connect().await.context("cannot watch the private Redis")?;
    tokio::select! {
        () = &mut shutdown => return Ok(Driven { published: Published::default(), ids: Vec::new(), played: Ok(()) }),
        ready = subscribed(&mut connection, &config.keys.channel) => ready?,
    }
    let (stop, stopped) = oneshot::channel();
    let mut publisher = start_publisher(args.rate, connector.clone(), config.keys.channel.clone(), stopped);
    let end = async {
        tokio::select! {
            played = play(args.time, config, &mut connection, swap) => played,
            () = shutdown => Ok(()),
            () = reader_gone() => Ok(()),
        }
    };
    let (result, played) = tokio::select! {
        // By itself it ends only when it fails.
        result = &mut publisher => (result, Ok(())),
        played = end => {
            // It may have failed at the same moment.
            let _ = stop.send(());
            (publisher.await, played)
        }
    };
    let (published, ids) = result.context("the publisher broke off")??;
    settled(&mut connection, config, ids.len() as u64).await?;
    Ok(Driven { published, ids, played })
}

/// What happens while messages flow: nothing but that, or a swap. Takes this time, or longer if the host does.
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

/// Waits until nobody can read what the demo tells.
async fn reader_gone() {
    while !output::stdout().is_closed() {
        sleep(POLL).await;
    }
}

/// The publisher gets a thread of its own: in real life it is another program, and the host's thread has work to do.
fn start_publisher(
    rate: u32,
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
            let load = Load { count: None, duration: None, rate: Some(rate), batch: BATCH };
            let published = publish::run(load, &mut source, publisher, stop, |_| {}).await?;
            Ok((published, source.into_ids()))
        })
    })
}

/// Waits until the host has subscribed. If it cannot, it ends, and this with it.
async fn subscribed(connection: &mut LibraryConnection, channel: &str) -> Result<()> {
    while census::subscribers(connection, channel).await.context("cannot look for the host's subscription")? == 0 {
        sleep(POLL).await;
    }
    Ok(())
}

/// Waits until as much has come out as went in, or nothing moves any more, or it has taken too long.
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
