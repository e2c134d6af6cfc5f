//! A running host: what is started in which order, and stopped in which.
//! It wires the parts together and does none of their work.

use std::pin::pin;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use crate::config::Config;
use crate::consumer::fetch::{Fetcher, Queue};
use crate::consumer::forward::Forwarder;
use crate::consumer::{self, Consumer};
use crate::intake::Intake;
use crate::intake::pace::Pace;
use crate::monitor::counters::Counters;
use crate::monitor::report::Reporter;
use crate::plugin::{Engine, Failure, LoadError, Plugin};
use crate::redis::checks::{self, CheckError};
use crate::redis::connection::{Connector, ConnectorError, Link};
use crate::redis::deliveries::{ensure_group, hand_back};
use crate::redis::keys::Keys;
use crate::registry::{Identity, Registry};

/// How long a stop may take beyond its drain: appending what was received, leaving the registry.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a host did not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No plugin was named.
    #[error("no plugin is given; name a Wasm component with --plugin FILE or plugin = \"FILE\" in the configuration")]
    NoPlugin,
    /// The connection to Redis cannot be described.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] CheckError),
    /// The plugin cannot be used.
    #[error(transparent)]
    Plugin(#[from] LoadError),
    /// A consumer's instance of the plugin cannot be made.
    #[error("cannot start the consumers: {0}")]
    Consumers(#[from] Failure),
    /// The system gives no threads.
    #[error("cannot start the host's threads: {0}")]
    Threads(#[from] std::io::Error),
}

/// What a host did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Messages settled.
    pub processed: u64,
    /// Messages that the plugin dropped on purpose.
    pub dropped: u64,
    /// Messages whose id had been claimed before.
    pub duplicates: u64,
    /// Dead letters written.
    pub dead_letters: u64,
    /// Messages that found the intake's buffer full.
    pub shed: u64,
}

/// Runs a host until `shutdown` resolves, then stops it in order.
///
/// To be called on a runtime with one thread: the consumers get threads of their own, so that fetching and
/// beating never wait for a plugin.
///
/// # Errors
/// When it cannot start. Once it runs it goes on whatever happens to Redis.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<Summary, RunError> {
    let mut shutdown = pin!(shutdown);
    let mut running = tokio::select! {
        running = start(config) => running?,
        // Redis may go away in the middle of a start, and a large plugin takes long to compile.
        () = &mut shutdown => {
            info!("stopped before the start was complete");
            return Ok(Summary::default());
        }
    };
    tokio::select! {
        () = running.ready() => shutdown.await,
        () = &mut shutdown => {}
    }
    Ok(running.stop().await)
}

/// Checks what a host needs and starts it. May be dropped at any moment.
async fn start(config: Config) -> Result<Running, RunError> {
    let path = config.plugin.clone().ok_or(RunError::NoPlugin)?;
    let connector = Connector::new(&config.redis)?;
    let keys: Keys = Arc::new(config.keys.clone());
    let checked = checks::check(&connector, &keys).await?;
    let engine = Engine::configured(&config, config.consumers)?;
    let plugin = engine.load(&path, &config.plugin_config).await?;
    info!(redis = connector.address(), server = checked.server, plugin = %path.display(), digest = plugin.digest(), "starting");
    advise(&config, &checked);
    Running::start(config, connector, keys, plugin).await
}

/// What an operator should know before anything is lost.
fn advise(config: &Config, checked: &checks::Checked) {
    if config.output.length_max == 0 {
        info!(
            "no result is ever trimmed from {}; whoever reads it should trim it, or bound it with --max-output-length N",
            config.keys.output
        );
    }
    if let Some(policy) = &checked.evicting_policy {
        warn!(
            policy,
            "Redis may evict claims under this maxmemory-policy, and then a message can be processed twice; use noeviction"
        );
    }
}

/// All parts of a running host.
struct Running {
    started: Instant,
    config: Config,
    identity: Identity,
    counters: Arc<Counters>,
    registry: Arc<Registry>,
    queue: Queue,
    intake: Intake,
    /// Says what is left to say at a stop, apart from whatever the other connections wait for.
    farewell: Link,
    keys: Keys,
    /// Heartbeat, fetching, retries and reports: everything on the caller's thread.
    tasks: JoinSet<()>,
    fetching: AbortHandle,
    consumers: JoinSet<()>,
    workers: Runtime,
}

impl Running {
    async fn start(config: Config, connector: Connector, keys: Keys, plugin: Plugin) -> Result<Running, RunError> {
        let started = Instant::now();
        let counters = Arc::new(Counters::default());
        let pace = Arc::new(Pace::default());
        let identity = Identity::fresh();
        let link = |name| Link::new(name, connector.clone(), counters.clone());
        let control = link("control");
        let names = &keys;
        control
            .repeat("create the inbox", move |mut connection| async move { ensure_group(&mut connection, names).await })
            .await;

        let takeover_interval = config.registry.takeover_interval;
        let (fetcher, queue) = Fetcher::new(
            link("fetch"),
            keys.clone(),
            identity.clone(),
            counters.clone(),
            takeover_interval,
            config.consumers,
        );
        let shared = Arc::new(consumer::Shared {
            keys: keys.clone(),
            output: config.output.clone(),
            retry: config.retry.clone(),
            dedup_window: config.dedup_window,
            identity: identity.clone(),
            plugin,
            pace: pace.clone(),
            counters: counters.clone(),
            trial: tokio::sync::Mutex::default(),
        });
        let threads = available_parallelism()?.get();
        let links: Vec<Arc<Link>> = (0..threads).map(|_| Arc::new(link("consumers"))).collect();
        let mut ready = Vec::new();
        for number in 1..=config.consumers {
            let link = links[number as usize % links.len()].clone();
            ready.push(Consumer::start(number, shared.clone(), link).await?);
        }
        let registry = Arc::new(Registry {
            link: control,
            keys: keys.clone(),
            config: config.registry.clone(),
            consumers: config.consumers,
            identity: identity.clone(),
            pace: pace.clone(),
        });
        registry.join().await;
        // From here on nothing is waited for: a start that is given up must not leave threads behind.
        let workers =
            Builder::new_multi_thread().worker_threads(threads).thread_name("consumer").enable_all().build()?;
        let mut consumers = JoinSet::new();
        for consumer in ready {
            consumers.spawn_on(consumer.run(queue.clone()), workers.handle());
        }
        let intake = Intake::start(&config, &connector, &keys, &identity, &pace, &counters)?;

        let mut tasks = JoinSet::new();
        let beating = registry.clone();
        tasks.spawn(async move { beating.run().await });
        let fetching = tasks.spawn(async move { fetcher.run().await });
        let forwarder = Forwarder::new(link("retries"), keys.clone(), config.delivery.clone(), pace.clone());
        tasks.spawn(async move { forwarder.run().await });
        let (every, format) = (config.report_interval, config.log_format);
        let farewell = link("farewell");
        let reporter = Reporter {
            connector,
            keys: keys.clone(),
            identity: identity.clone(),
            counters: counters.clone(),
            every,
            format,
        };
        tasks.spawn(async move { reporter.run().await });
        Ok(Running {
            started,
            config,
            identity,
            counters,
            registry,
            queue,
            intake,
            farewell,
            keys,
            tasks,
            fetching,
            consumers,
            workers,
        })
    }

    /// Returns when messages are received.
    async fn ready(&mut self) {
        self.intake.ready().await;
        let (host, consumers) = (self.identity.host_id(), self.config.consumers);
        info!(%host, consumers, after_ms = self.started.elapsed().as_millis(), "ready");
    }

    /// What no consumer has begun need not wait for what is in work here: other hosts take it over now.
    async fn hand_back_unbegun(&self) {
        let unbegun = self.queue.close();
        if unbegun.is_empty() {
            return;
        }
        let host_id = self.identity.host_id();
        let (keys, host_id, entries) = (&self.keys, &*host_id, &unbegun);
        let handed_back = self.farewell.repeat("hand deliveries back", move |mut connection| async move {
            hand_back(&mut connection, keys, host_id, entries).await
        });
        match tokio::time::timeout(FAREWELL_TIMEOUT, handed_back).await {
            Ok(()) => info!(deliveries = unbegun.len(), "handed back deliveries that no consumer had begun"),
            Err(_) => warn!(
                deliveries = unbegun.len(),
                "could not hand deliveries back; others find them once this host is dead"
            ),
        }
    }

    /// Stops fetching, finishes what is in work, hands the intake over, takes the ids off the list.
    async fn stop(mut self) -> Summary {
        self.fetching.abort();
        self.hand_back_unbegun().await;
        let drained = tokio::time::timeout(self.config.drain_timeout, async {
            while self.consumers.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            let consumers = self.consumers.len();
            warn!(
                consumers,
                "not finished within the drain timeout of {:?}; their deliveries are handed back",
                self.config.drain_timeout
            );
            self.consumers.abort_all();
        }
        if tokio::time::timeout(FAREWELL_TIMEOUT, self.intake.stop()).await.is_err() {
            warn!("could not append everything that was received: Redis does not take it");
        }
        // The heartbeat must not join again what leaves here.
        self.tasks.shutdown().await;
        self.registry.leave(FAREWELL_TIMEOUT).await;
        self.workers.shutdown_background();
        let counters = &self.counters;
        let summary = Summary {
            processed: counters.processed.get(),
            dropped: counters.dropped.get(),
            duplicates: counters.duplicates.get(),
            dead_letters: counters.dead_letters.get(),
            shed: counters.shed.get(),
        };
        let Summary { processed, dropped, duplicates, dead_letters, shed } = summary;
        info!(processed, dropped, duplicates, dead_letters, shed, "stopped");
        summary
    }
}
