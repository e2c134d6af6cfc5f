//! A running host: what is started in which order, and stopped in which.
//! It wires the parts together and does none of their work.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{info, warn};

use crate::cases::Cases;
use crate::config::Config;
use crate::consumer;
use crate::consumer::crew::Crew;
use crate::consumer::fetch::{Fetcher, Work};
use crate::consumer::forward::Forwarder;
use crate::consumer::queue::Queue;
use crate::intake::Intake;
use crate::intake::pace::Pace;
use crate::monitor::counters::Counters;
use crate::monitor::millis;
use crate::monitor::report::Reporter;
use crate::plugin::{Engine, Failure, LoadError, Plugin};
use crate::redis::checks::{self, CheckError};
use crate::redis::clock::ServerClock;
use crate::redis::connection::{Connect, Connector, ConnectorError, Link};
use crate::redis::deliveries::{ensure_group, hand_back};
use crate::redis::keys::Keys;
use crate::redis::settler::Settler;
use crate::registry::{Identity, Registry};
use crate::reload::versions::Versions;
use crate::reload::{self, Control, Reloader};

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
    /// The cases for new versions cannot be used.
    #[error("cannot use the cases of --reload-cases:\n  {}", .0.join("\n  "))]
    Cases(Vec<String>),
    /// The system gives no threads.
    #[error("cannot start the host's threads: {0}")]
    Threads(#[from] io::Error),
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
/// To be called on a runtime with one thread: the consumers get threads of their own, so that beating never
/// waits for a plugin.
///
/// # Errors
/// When it cannot start. Once it runs it goes on whatever happens to Redis.
pub async fn run(config: Config, control: Control, shutdown: impl Future<Output = ()>) -> Result<Summary, RunError> {
    let mut shutdown = pin!(shutdown);
    let mut running = tokio::select! {
        running = start(config, control) => running?,
        // Redis may go away in the middle of a start, and a large plugin takes long to compile.
        () = &mut shutdown => {
            info!("stopped before the start was complete");
            return Ok(Summary::default());
        }
    };
    tokio::select! {
        () = running.work() => {}
        () = &mut shutdown => {}
    }
    Ok(running.stop().await)
}

/// Checks what a host needs and starts it. May be dropped at any moment.
async fn start(config: Config, control: Control) -> Result<Running, RunError> {
    let path = config.plugin.clone().ok_or(RunError::NoPlugin)?;
    if let Some(path) = &config.reload.cases {
        // They are read again for every new version. A mistake in the name should not wait that long.
        Cases::read(path).map_err(RunError::Cases)?;
    }
    let connector = Connector::new(&config.redis)?;
    let keys: Keys = Arc::new(config.keys.clone());
    let checked = checks::check(&connector, &keys).await?;
    let engine = reload::engine(&config)?;
    let plugin = engine.load(&path, &config.plugin_config).await?;
    info!(redis = connector.address(), server = checked.server, plugin = %path.display(), digest = plugin.digest(), "starting");
    advise(&config, &checked);
    Running::start(config, control, connector, keys, engine, plugin).await
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
    drain_timeout: Duration,
    shared: Shared,
    registry: Arc<Registry>,
    queue: Queue<Work>,
    intake: Intake,
    /// Says what is left to say at a stop, apart from whatever the other connections wait for.
    farewell: Link,
    /// Heartbeat, retries and reports, on the caller's thread.
    tasks: JoinSet<()>,
    /// On the threads of the consumers.
    fetching: JoinHandle<()>,
    /// Puts changes into effect; has the consumers.
    reloader: Reloader,
    /// Ends when everything else has.
    _workers: Workers,
}

/// The threads of the consumers. When they are dropped they end without being waited for, as nothing else may be done
/// in a start that is given up.
struct Workers {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Workers {
    fn start(threads: usize) -> io::Result<Workers> {
        let runtime =
            Builder::new_multi_thread().worker_threads(threads).thread_name("consumer").enable_all().build()?;
        Ok(Workers { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What the parts of a host share.
struct Shared {
    connector: Connector,
    keys: Keys,
    identity: Identity,
    counters: Arc<Counters>,
    pace: Arc<Pace>,
    clock: Arc<ServerClock>,
    versions: Arc<Versions>,
}

impl Shared {
    fn link<C: Connect>(&self, name: &'static str) -> Link<C> {
        Link::new(name, self.connector.clone(), self.counters.clone())
    }

    fn registry(&self, config: &Config, link: Link) -> Registry {
        Registry {
            link,
            keys: self.keys.clone(),
            config: config.registry.clone(),
            consumers: AtomicU32::new(0),
            versions: self.versions.clone(),
            identity: self.identity.clone(),
            pace: self.pace.clone(),
            clock: self.clock.clone(),
        }
    }

    fn fetcher(&self, config: &Config) -> (Fetcher, Queue<Work>) {
        let (keys, identity) = (self.keys.clone(), self.identity.clone());
        let (connector, counters) = (self.connector.clone(), self.counters.clone());
        Fetcher::new(
            self.link("fetch"),
            connector,
            keys,
            identity,
            counters,
            config.registry.takeover_interval,
            self.pace.clone(),
        )
    }

    fn settler(&self, config: &Config, workers: &Handle) -> Settler {
        let (connector, keys, counters) = (self.connector.clone(), self.keys.clone(), self.counters.clone());
        Settler::start(workers, connector, keys, &config.output, self.identity.host_id(), counters)
    }

    fn forwarder(&self, config: &Config) -> Forwarder {
        Forwarder::new(self.link("retries"), self.keys.clone(), config.delivery.clone(), self.pace.clone())
    }

    fn reporter(&self, config: &Config) -> Reporter {
        Reporter {
            connector: self.connector.clone(),
            keys: self.keys.clone(),
            identity: self.identity.clone(),
            counters: self.counters.clone(),
            versions: self.versions.clone(),
            every: config.report_interval,
            format: config.log_format,
        }
    }

    fn consumers(&self, config: &Config, settler: Settler) -> consumer::Shared {
        consumer::Shared {
            keys: self.keys.clone(),
            output: config.output.clone(),
            retry: config.retry.clone(),
            dedup_window: config.dedup_window,
            identity: self.identity.clone(),
            versions: self.versions.clone(),
            pace: self.pace.clone(),
            clock: self.clock.clone(),
            counters: self.counters.clone(),
            settler,
            trial: tokio::sync::Mutex::default(),
        }
    }
}

impl Running {
    async fn start(
        config: Config,
        control: Control,
        connector: Connector,
        keys: Keys,
        engine: Engine,
        plugin: Plugin,
    ) -> Result<Running, RunError> {
        let started = Instant::now();
        let fingerprint = reload::fingerprint(plugin.digest(), &config);
        let shared = Shared {
            connector,
            keys,
            identity: Identity::fresh(),
            counters: Arc::default(),
            pace: Arc::default(),
            clock: Arc::default(),
            versions: Arc::new(Versions::new(plugin, fingerprint, config.consumers)),
        };
        let control_link: Link = shared.link("control");
        let names = &shared.keys;
        control_link
            .repeat("create the inbox", move |mut connection| async move { ensure_group(&mut connection, names).await })
            .await;

        let registry = Arc::new(shared.registry(&config, control_link));
        let (fetcher, queue) = shared.fetcher(&config);
        let threads = available_parallelism()?.get();
        let lanes = (0..threads).map(|_| Arc::new(shared.link("consumers"))).collect();
        let workers = Workers::start(threads)?;
        let settler = shared.settler(&config, &workers.handle);
        let (consumers, room) = (Arc::new(shared.consumers(&config, settler)), fetcher.room());
        let mut crew = Crew::new(consumers, lanes, queue.clone(), room, registry.clone(), workers.handle.clone());
        crew.grow(config.consumers).await?;
        let Shared { connector, keys, identity, counters, pace, clock, .. } = &shared;
        let intake = Intake::start(&config, connector, keys, identity, pace, clock, counters)?;

        let mut tasks = JoinSet::new();
        let beating = registry.clone();
        tasks.spawn(async move { beating.run().await });
        // What it fetches is worked on by the thread that has just heard of it.
        let fetching = workers.handle.spawn(async move { fetcher.run().await });
        let forwarder = shared.forwarder(&config);
        tasks.spawn(async move { forwarder.run().await });
        let reporter = shared.reporter(&config);
        tasks.spawn(async move { reporter.run().await });
        Ok(Running {
            started,
            drain_timeout: config.drain_timeout,
            farewell: shared.link("farewell"),
            reloader: Reloader::new(control, config, engine, shared.versions.clone(), crew).await,
            shared,
            registry,
            queue,
            intake,
            tasks,
            fetching,
            _workers: workers,
        })
    }

    /// Receives and processes messages for ever, and reloads what changes.
    async fn work(&mut self) {
        self.intake.ready().await;
        let (host, consumers) = (self.shared.identity.host_id(), self.reloader.crew().size());
        info!(%host, consumers, after_ms = millis(self.started.elapsed()), "ready");
        self.reloader.run().await;
    }

    /// What no consumer has begun need not wait for what is in work here: other hosts take it over now.
    async fn hand_back_unbegun(&self) {
        let unbegun: Vec<String> = self.queue.close().iter().map(|work| work.delivery.entry_id.clone()).collect();
        if unbegun.is_empty() {
            return;
        }
        let host_id = self.shared.identity.host_id();
        let (keys, host_id, entries) = (&self.shared.keys, &*host_id, &unbegun);
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
        // What it is just about to hand over is handed back as well.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, &mut self.fetching).await;
        self.hand_back_unbegun().await;
        let crew = self.reloader.crew();
        if tokio::time::timeout(self.drain_timeout, crew.ended()).await.is_err() {
            let consumers = crew.abort();
            warn!(
                consumers,
                "not finished within the drain timeout of {:?}; their deliveries are handed back", self.drain_timeout
            );
        }
        if tokio::time::timeout(FAREWELL_TIMEOUT, self.intake.stop()).await.is_err() {
            warn!("could not append everything that was received: Redis does not take it");
        }
        // The heartbeat must not join again what leaves here.
        self.tasks.shutdown().await;
        self.registry.leave(FAREWELL_TIMEOUT).await;
        let counters = &self.shared.counters;
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
