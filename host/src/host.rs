//! A running host: the order in which the parts start, and the order in which they stop.
//! This file wires the parts together and does none of their work.

#[cfg(test)]
mod killed;
mod meet;
mod stop;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{error, info};

use crate::cases::Cases;
use crate::config::Config;
use crate::consumer::Workplace;
use crate::consumer::crew::Crew;
use crate::consumer::fetch::{Fetcher, Work};
use crate::consumer::queue::Queue;
use crate::group::Group;
use crate::http::{Http, HttpError};
use crate::intake::Intake;
use crate::output;
use crate::parts::supervisor::{Failed, Supervisor};
use crate::parts::{Parts, Rest};
use crate::plugin::{Engine, Failure, LoadError, Plugin};
use crate::redis::client::connector::{Connector, ConnectorError};
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::store::buffer_limit::BufferLimit;
use crate::redis::store::checks::{self, CheckError};
use crate::redis::store::group::Misfit;
use crate::redis::store::keys::Keys;
use crate::registry::Registry;
use crate::reload::fleet::Fleet;
use crate::reload::{self, Control, Reloader};
use crate::remote::distribute::{Distribution, Distributor};
use crate::remote::{self, RemoteError};
use crate::report;
use crate::retry::Forwarder;
use crate::service_manager::News;
use crate::time::millis;
use crate::traces::Traces;
use crate::traces::export::Exporter;
use crate::trimming;
use crate::version::Versions;
use crate::watchdog::Watchdog;
use meet::{advise, meet};

/// How long a stop may take beyond its drain: handing deliveries back, leaving the registry.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);

/// Turns after which a consumers' thread looks for news from the network and shows what it has done. With tokio's 61, consumers
/// that compute without end show a sign of life after 0.6 s of processor time. On a busy machine that is longer than a watchdog
/// waits.
const TURNS_PER_LOOK: u32 = 16;

/// Reason why a host did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No plugin was named.
    #[error(
        "no plugin is named: give the file of a Wasm component with --plugin FILE, or as plugin = \"FILE\" in the \
             configuration file"
    )]
    NoPlugin,
    /// The settings for the connection to Redis are wrong.
    #[error(transparent)]
    Connector(#[from] ConnectorError),
    /// Redis cannot be used.
    #[error(transparent)]
    Redis(#[from] CheckError),
    /// This host does not fit into the group of running hosts.
    #[error("cannot join the group: {0}")]
    Misfit(#[from] Misfit),
    /// The plugin cannot be used.
    #[error(transparent)]
    Plugin(#[from] LoadError),
    /// A consumer's instance of the plugin cannot be created.
    #[error("cannot start the consumers: {0}")]
    Consumers(#[from] Failure),
    /// The cases for new versions cannot be used.
    #[error("cannot use the cases of --reload-cases:\n  {}", .0.join("\n  "))]
    Cases(Vec<String>),
    /// The HTTP listener cannot start.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A setting for remote consumers cannot be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The system refuses to start threads.
    #[error("cannot start the host's threads: {0}")]
    Threads(#[from] io::Error),
    /// A part of the process has panicked, and could not be replaced. The process has stopped in order.
    #[error(transparent)]
    Part(#[from] Failed),
}

/// Totals of a host over its whole run.
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
    /// Messages that were received and are lost, because nobody could append them before the host ended.
    pub not_appended: u64,
}

/// Runs a host until `shutdown` resolves, then stops it in order.
///
/// Call this function on a runtime with one thread. The consumers run on separate threads, so that the heartbeat never
/// waits for a plugin.
///
/// # Errors
/// When the host cannot start, or when one of its parts has panicked and cannot be replaced. A running host continues through any
/// failure of Redis.
pub async fn run(config: Config, control: Control, shutdown: impl Future<Output = ()>) -> Result<Summary, RunError> {
    let mut shutdown = pin!(shutdown);
    let manager = control.manager.clone();
    let running = tokio::select! {
        running = start(config, control) => running?,
        // A start can take long: Redis may go away meanwhile, or a large plugin has to be compiled.
        () = &mut shutdown => {
            info!("stopped before the start was complete");
            manager.tell(&[News::Stopping]).await;
            return Ok(Summary::default());
        }
    };
    // On the heap: it is large.
    Box::pin(running.until(shutdown)).await
}

/// Checks the requirements of a host and starts the host. The future may be dropped at any moment.
async fn start(config: Config, control: Control) -> Result<Running, RunError> {
    let path = config.plugin.clone().ok_or(RunError::NoPlugin)?;
    if let Some(path) = &config.reload.cases {
        // Cases are read again for every new version. Reading them here reports a wrong file name at the start.
        Cases::read(path).map_err(RunError::Cases)?;
    }
    let connector = Connector::new(&config.redis)?;
    let keys: Keys = Arc::new(config.keys.clone());
    let checked = checks::check(&connector, &keys, &config.outputs, !config.allow.keyvalue.is_empty()).await?;
    let traces = Traces::new(&config.traces, &keys);
    let group = Arc::new(Group::new(connector, keys).measuring(config.http.address.is_some()).tracing(traces));
    let engine = reload::engine(&config)?;
    output::tell(&group.supervisor);
    engine.tell(&group.supervisor);
    let plugin = engine.load(&path, &config.plugin_config).await?;
    let (address, server) = (group.connector.address(), &checked.server);
    info!(redis = address, server, plugin = %path.display(), digest = plugin.digest(), "starting");
    advise(&config, &checked);
    Running::start(config, control, group, engine, plugin, checked.buffer_limit).await
}

/// All parts of a running host.
struct Running {
    drain_timeout: Duration,
    group: Arc<Group>,
    registry: Arc<Registry>,
    queue: Queue<Work>,
    intake: Intake,
    http: Option<Http>,
    /// Connection for a stop, independent of anything that the other connections wait for.
    farewell: Reconnecting,
    /// Heartbeat, retries and reports, on the caller's thread.
    tasks: JoinSet<()>,
    /// Fetching, on the threads of the consumers.
    fetching: JoinHandle<()>,
    crew: Crew,
    /// Hands deliveries to remote consumers, on the threads of the consumers.
    distribution: Option<Distribution>,
    /// Sends spans to a collector.
    exporter: Option<Exporter>,
    /// Applies changes of plugin and configuration.
    reloader: Reloader,
    /// What the service manager watches once the host is ready.
    parts: Parts,
    watchdog: Watchdog,
    /// Start of the process.
    started: Instant,
    /// Last field, because the threads must end after all other parts.
    _workers: Workers,
}

/// The threads of the consumers. A drop ends the threads without waiting for them, because a start that is cancelled
/// must not block.
pub(crate) struct Workers {
    pub(crate) handle: Handle,
    runtime: Option<Runtime>,
}

impl Workers {
    pub(crate) fn start(threads: usize) -> io::Result<Workers> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("consumer")
            .event_interval(TURNS_PER_LOOK)
            .enable_all()
            .build()?;
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

impl Running {
    async fn start(
        config: Config,
        control: Control,
        group: Arc<Group>,
        engine: Engine,
        plugin: Plugin,
        limit: BufferLimit,
    ) -> Result<Running, RunError> {
        let started = control.started;
        let fingerprint = reload::fingerprint(plugin.digest(), &config);
        let versions =
            Arc::new(Versions::new(plugin, fingerprint, config.consumers).breaking(config.retry.breaker_messages));
        let farewell: Reconnecting = group.connect("farewell");
        let registry = Arc::new(Registry::new(group.clone(), &config, versions.clone()));
        let (requests, requested) = reload::requests();
        let threads = available_parallelism()?.get();
        let workers = Workers::start(threads)?;
        let workplace = Arc::new(Workplace::new(&config, &group, &versions, &workers.handle));
        let remote = remote::of_host(&config, &workplace, &workers.handle)?;
        // Before the host joins: an address that is in use must not disturb the group.
        let http = Http::start(&config, &group, &versions, requests, |_| remote.clone()).await?;
        if let Some(http) = &http {
            http.show_workers(&workers.handle);
        }
        meet(&group, &farewell, &registry, &config).await?;

        let (fetcher, queue) = Fetcher::new(group.clone(), versions.clone(), config.registry.takeover_interval);
        let connections = (0..threads).map(|_| Arc::new(group.connect("consumers"))).collect();
        let (room, fetcher_room, handle) = (fetcher.room(), fetcher.room(), workers.handle.clone());
        let mut crew = Crew::new(workplace.clone(), connections, queue.clone(), room, registry.clone(), handle);
        crew.grow(config.consumers).await?;
        let intake = Intake::start(&config, &group, limit)?;

        let mut tasks = JoinSet::new();
        let supervisor = &group.supervisor;
        let heartbeat =
            tasks.spawn(kept(supervisor, "heartbeat", &registry, |registry| async move { registry.run().await }));
        // On the consumers' threads, so that the thread that receives a delivery also processes it.
        let fetcher = Arc::new(fetcher);
        let fetching =
            workers.handle.spawn(kept(supervisor, "fetching", &fetcher, |fetcher| async move { fetcher.run().await }));
        let fleet = Arc::new(Fleet::new(&group, &versions, &config.registry));
        tasks.spawn(kept(supervisor, "versions", &fleet, |fleet| async move { fleet.run().await }));
        let forwarder = Arc::new(Forwarder::new(group.clone(), config.delivery.clone()));
        let retries =
            tasks.spawn(kept(supervisor, "retries", &forwarder, |forwarder| async move { forwarder.run().await }));
        let (trimming, bounded) = (group.clone(), trimming::bounded(&config));
        tasks.spawn(supervisor.clone().keep("trimming", move || trimming::run(trimming.clone(), bounded.clone())));
        let time_max = config.plugin_limits.time_max;
        let distribution = remote.and_then(|remote| remote.remotes).map(|remotes| {
            tasks.spawn(kept(supervisor, "membership", &remotes, |remotes| remotes.run()));
            Distribution::start(Distributor::new(workplace, remotes, time_max), &queue, fetcher_room, &workers.handle)
        });
        let (reporting, told) = (group.clone(), versions.clone());
        let dead_length_warn = config.output.dead_length_warn;
        let report = move || {
            let (group, versions) = (reporting.clone(), told.clone());
            report::run(group, versions, config.report_interval, config.log_format, dead_length_warn)
        };
        tasks.spawn(supervisor.clone().keep("report", report));
        if group.connector.may_move() {
            tasks.spawn(kept(supervisor, "primary", &group, |group| async move { group.connector.follow().await }));
        }
        let parts = Parts::default()
            .with_threads("main", &Handle::current(), Rest::Allowed)
            .with_threads("intake", intake.runtime(), Rest::Never)
            .with_threads("consumers", &workers.handle, Rest::Allowed)
            .with_task("heartbeat", heartbeat)
            .with_task("fetching", fetching.abort_handle())
            .with_task("retries", retries);
        Ok(Running {
            exporter: Exporter::start(&config.traces, group.traces.as_ref(), &group.supervisor),
            parts,
            watchdog: Watchdog::new(control.manager.clone(), group.clone(), versions.clone()),
            drain_timeout: config.drain_timeout,
            reloader: Reloader::new((control, requested), config, engine, (versions, fleet), workers.handle.clone())
                .await,
            group,
            registry,
            queue,
            intake,
            http,
            farewell,
            tasks,
            fetching,
            crew,
            distribution,
            started,
            _workers: workers,
        })
    }

    /// Works until `shutdown` resolves or a part fails, and stops in order.
    async fn until(mut self, shutdown: impl Future<Output = ()>) -> Result<Summary, RunError> {
        let supervisor = self.group.supervisor.clone();
        tokio::select! {
            _ = supervisor.clone().once("control", self.work()) => {}
            () = supervisor.failed() => {}
            () = shutdown => {}
        }
        let failed = supervisor.failure();
        if let Some(failed) = &failed {
            error!(part = failed.part, "stopping, because a part of this host cannot be replaced");
        }
        let summary = self.stop().await;
        failed.map_or(Ok(summary), |failed| Err(failed.into()))
    }

    /// Receives and processes messages for ever, and applies changes of plugin and configuration.
    async fn work(&mut self) {
        self.intake.ready().await;
        let (host, consumers) = (self.group.identity.host_id(), self.crew.size());
        info!(%host, consumers, after_ms = millis(self.started.elapsed()), "ready");
        if let Some(http) = &self.http {
            http.ready(self.parts.clone());
        }
        self.watchdog.ready(std::mem::take(&mut self.parts), &mut self.tasks);
        tokio::select! {
            () = self.reloader.run() => {}
            () = self.crew.run() => {}
        }
    }
}

/// A part that shares this value with others, and is begun anew after a panic.
fn kept<T, F: Future<Output = ()>, R: Fn(Arc<T>) -> F>(
    supervisor: &Supervisor,
    part: &'static str,
    shared: &Arc<T>,
    run: R,
) -> impl Future<Output = ()> + use<T, F, R> {
    let shared = shared.clone();
    supervisor.clone().keep(part, move || run(shared.clone()))
}
