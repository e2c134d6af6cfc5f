//! The wasmtime engines, and the thread that advances their epoch. Components that need more than the fast engine has are
//! compiled for the full engine. This file knows no plugin and no message.

pub(super) mod tuning;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::Component;

use self::tuning::{Features, Memory, Tuning};
use super::apart::{Answer, Apart, Order, Report};
use super::cache::{Parents, Store};
use super::compiler::Haste;
use super::error::LoadError;
use super::limits::Usage;
use super::text::one_line;
use crate::config::{Buckets, Config as Settings, LoadConfig, PluginLimits};
use crate::parts::supervisor::{Supervisor, Watch};

/// Time between two ticks of the epoch. A busy guest holds a worker thread for at most two of them.
pub const TICK: Duration = Duration::from_millis(10);

/// The wasmtime engine, one per process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    /// Compiles what the cache does not have.
    apart: Apart,
}

struct Inner {
    /// Takes instances from slots that are reserved at the start. `None` if the system does not provide that much
    /// address space.
    pooled: Option<wasmtime::Engine>,
    /// Maps memory for each new instance: a slower start, but no bound on shape and number.
    on_demand: wasmtime::Engine,
    /// Created for the first component that needs it, so that a host without such a component pays nothing.
    full: Arc<OnceLock<wasmtime::Engine>>,
    tuning: Tuning,
    limits: PluginLimits,
    store: Store,
    /// Keeps compiled functions from one compilation to the next.
    functions: Option<PathBuf>,
    channel: Arc<str>,
    buckets: Arc<Buckets>,
    usage: Arc<Usage>,
    ticker: Ticker,
}

impl Engine {
    /// An engine for `instances` simultaneous instances, which compiles any component. Plugins see the default channel.
    ///
    /// # Errors
    /// When the system refuses memory or other resources.
    pub fn new(limits: &PluginLimits, instances: u32) -> Result<Engine, LoadError> {
        let settings = Settings { plugin_limits: limits.clone(), no_cache: true, ..Settings::default() };
        Engine::with(&settings, instances, None)
    }

    /// An engine for this configuration: with its limits and its channel, and with the user's cache of compiled plugins unless
    /// `no_cache` is set.
    ///
    /// # Errors
    /// When the system refuses memory or other resources. A cache that cannot be used only leads to a warning.
    pub fn configured(settings: &Settings, instances: u32) -> Result<Engine, LoadError> {
        Engine::with(settings, instances, None)
    }

    /// Like [`configured`](Engine::configured), for one instance, and compiles only functions that are not kept in this file
    /// yet.
    ///
    /// # Errors
    /// When the system refuses memory or other resources. A cache that cannot be used only leads to a warning.
    pub fn for_development(settings: &Settings, functions: PathBuf) -> Result<Engine, LoadError> {
        Engine::with(settings, 1, Some(functions))
    }

    fn with(settings: &Settings, instances: u32, functions: Option<PathBuf>) -> Result<Engine, LoadError> {
        let limits = settings.plugin_limits.clone();
        let parents = if settings.trust_cache_folder { Parents::Trusted } else { Parents::Checked };
        let store = Store::open(settings.no_cache, parents).map_err(LoadError::Engine)?;
        let cache = Some(store.cache.clone());
        let tuning = Tuning { stack_bytes_max: limits.stack_bytes_max, instances, cache, functions: None };
        let on_demand = tuning
            .runner(Features::Fast, Memory::OnDemand, &limits)
            .map_err(|error| LoadError::Engine(format!("{error:#}")))?;
        let pooled = tuning
            .runner(Features::Fast, Memory::Pooled, &limits)
            .inspect_err(|error| {
                tracing::warn!(
                    "cannot reserve memory for {instances} plugin instances, so each instance maps its own memory, which makes \
                     its start slower: {error:#}"
                );
            })
            .ok();
        let ticking = pooled.iter().chain([&on_demand]).cloned().collect();
        let full = Arc::new(OnceLock::new());
        let ticker = Ticker::start(ticking, Arc::clone(&full))
            .map_err(|error| LoadError::Engine(format!("cannot start its clock: {error}")))?;
        Ok(Engine {
            inner: Arc::new(Inner {
                pooled,
                on_demand,
                full,
                tuning,
                limits,
                store,
                functions,
                channel: settings.keys.channel.as_str().into(),
                buckets: Arc::new(settings.allow.keyvalue.clone()),
                usage: Arc::default(),
                ticker,
            }),
            apart: Apart::new(&settings.load),
        })
    }

    /// The thread that advances the epoch has this supervisor from now on. Without that thread no guest is ended.
    pub fn tell(&self, supervisor: &Supervisor) {
        self.inner.ticker.watch.tell(supervisor);
    }

    /// The same engine with other limits for loading.
    #[must_use]
    pub fn loading(self, limits: &LoadConfig) -> Engine {
        Engine { apart: Apart::new(limits), ..self }
    }

    /// Maximum length of a plugin's file.
    pub(super) fn plugin_bytes_max(&self) -> usize {
        self.apart.limits().plugin_bytes_max
    }

    /// Maximum number of instances, while as many old instances may still exist.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.inner.tuning.instances
    }

    /// The limits of every instance.
    #[must_use]
    pub fn limits(&self) -> &PluginLimits {
        &self.inner.limits
    }

    /// What the instances of this engine take.
    pub(super) fn usage(&self) -> &Arc<Usage> {
        &self.inner.usage
    }

    /// Number of ticks of the clock so far.
    pub(super) fn ticks(&self) -> u64 {
        self.inner.ticker.ticks.load(Ordering::Relaxed)
    }

    /// The channel from which the messages come.
    pub(super) fn channel(&self) -> &Arc<str> {
        &self.inner.channel
    }

    /// The granted buckets of state.
    pub(super) fn buckets(&self) -> &Arc<Buckets> {
        &self.inner.buckets
    }

    /// The compiled component, from the cache, or after another process has compiled it. With the report of that process, if
    /// there was one. This process has no compiler.
    pub(super) async fn compiled(
        &self,
        bytes: &Bytes,
        path: &Path,
        haste: Haste,
    ) -> Result<(Component, Option<Report>), LoadError> {
        let not_compiled = |reason: String| LoadError::NotCompiled { path: path.to_owned(), reason };
        let folder = &self.inner.store.cache.directory().display().to_string();
        let no_folder = |error: io::Error| not_compiled(format!("cannot use the folder {folder}: {error}"));
        let _in_use = self.inner.store.in_use().await.map_err(no_folder)?;
        if let Ok(component) = self.in_cache(bytes, path).await? {
            return Ok((component, None));
        }
        tracing::debug!("compiling the plugin in a process of its own");
        let order = self.inner.store.order().map_err(no_folder)?;
        let report = match self.apart.compile(self.order(order.path(), haste), bytes.clone()).await {
            Ok(Answer::Compiled(report)) => report,
            Ok(Answer::Refused(refusal)) => return Err(LoadError::refused(path, bytes, refusal)),
            Ok(Answer::Invalid(reason)) => return Err(LoadError::invalid(path, reason)),
            Err(reason) => return Err(not_compiled(reason)),
        };
        let (engine, code, is_full) = (self.clone(), bytes.clone(), report.is_full);
        let taken = off_the_data_path(path, move || Ok(engine.take(order.path(), &code, is_full)));
        taken
            .await?
            .map_err(|reason| not_compiled(format!("cannot take its code into the folder {folder}: {reason}")))?;
        match self.in_cache(bytes, path).await? {
            Ok(component) => Ok((component, Some(report))),
            Err(reason) => Err(LoadError::invalid(path, reason)),
        }
    }

    fn order(&self, folder: &Path, haste: Haste) -> Order {
        Order {
            folder: folder.to_owned(),
            functions: self.inner.functions.clone(),
            stack_bytes_max: self.inner.tuning.stack_bytes_max,
            instances: self.inner.tuning.instances,
            gives_way: haste == Haste::Background,
            memory_bytes_max: self.apart.limits().compile_memory_bytes_max,
        }
    }

    fn take(&self, order: &Path, bytes: &[u8], is_full: bool) -> Result<(), String> {
        let Inner { pooled, on_demand, store, .. } = &*self.inner;
        let taken = match is_full {
            true => store.take(order, std::iter::once(&self.full().map_err(|error| one_line(&error))?), bytes),
            false => store.take(order, pooled.iter().chain([on_demand]), bytes),
        };
        taken.map_err(|error| error.to_string())
    }

    /// The component as the cache has it, or why not, on a blocking thread.
    async fn in_cache(&self, bytes: &Bytes, path: &Path) -> Result<Result<Component, String>, LoadError> {
        let (engine, bytes) = (self.clone(), bytes.clone());
        off_the_data_path(path, move || Ok(engine.load_code(&bytes).map_err(|error| one_line(&error)))).await
    }

    /// Loads code for the pool, or for instances on demand if the component does not fit a slot (for example with a third
    /// memory), or for the full engine. An engine without a compiler only loads what the cache has.
    fn load_code(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        let Inner { pooled, on_demand, full, .. } = &*self.inner;
        for (engine, instances) in pooled.iter().map(|engine| (engine, "in slots")).chain([(on_demand, "on demand")]) {
            match Component::from_binary(engine, bytes) {
                Ok(component) => {
                    tracing::debug!("the plugin has its instances {instances}");
                    return Ok(component);
                }
                Err(error) => tracing::debug!("no instances {instances}: {error:#}"),
            }
        }
        let engine = self.full()?;
        let component = Component::from_binary(&engine, bytes)?;
        tracing::debug!("the plugin has its instances on demand, of the full engine");
        // From now on its clock goes.
        let kept = full.get_or_init(|| engine.clone());
        if wasmtime::Engine::same(kept, &engine) { Ok(component) } else { Component::from_binary(kept, bytes) }
    }

    /// The full engine, which only counts as created once a component needs it.
    fn full(&self) -> wasmtime::Result<wasmtime::Engine> {
        let Inner { full, tuning, limits, .. } = &*self.inner;
        full.get().map_or_else(|| tuning.runner(Features::Full, Memory::OnDemand, limits), |full| Ok(full.clone()))
    }

    /// Whether instances of this component are taken from slots.
    pub(super) fn has_slots_for(&self, component: &Component) -> bool {
        self.inner.pooled.as_ref().is_some_and(|pooled| wasmtime::Engine::same(pooled, component.engine()))
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("pooled", &self.inner.pooled.is_some()).finish_non_exhaustive()
    }
}

/// Runs what takes long, or waits for a disk, on a blocking thread.
pub(super) async fn off_the_data_path<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(LoadError::Invalid { path: path.to_owned(), reason: format!("loading it failed: {error}") })
    })
}

/// Advances the epoch of some engines. A drop stops it.
struct Ticker {
    /// A drop of the sender wakes and ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Number of ticks so far.
    ticks: Arc<AtomicU64>,
    watch: Arc<Watch>,
}

impl Ticker {
    /// `later` is an engine that may be created while the thread runs.
    fn start(engines: Vec<wasmtime::Engine>, later: Arc<OnceLock<wasmtime::Engine>>) -> io::Result<Ticker> {
        let (stop, stopped) = mpsc::channel::<()>();
        let ticks = Arc::<AtomicU64>::default();
        let (count, watch) = (Arc::clone(&ticks), Arc::<Watch>::default());
        let watching = Arc::clone(&watch);
        let mut tick = move || {
            while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                count.fetch_add(1, Ordering::Relaxed);
                engines.iter().chain(later.get()).for_each(wasmtime::Engine::increment_epoch);
            }
        };
        // A thread, not a task: the epoch must advance above all when guests keep every worker busy.
        let thread = std::thread::Builder::new().name("plugin-ticker".into());
        let thread = thread.spawn(move || watching.keep("plugin-ticker", &mut tick))?;
        Ok(Ticker { stop: Some(stop), thread: Some(thread), ticks, watch })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // An error means a panic, which the thread has already reported.
            let _ = thread.join();
        }
    }
}
