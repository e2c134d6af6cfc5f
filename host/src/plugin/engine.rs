//! The wasmtime engines, and the thread that advances their epoch. Components that need more than the fast engine has are
//! compiled for the full engine. This file knows no plugin and no message.

mod tuning;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::Component;

use self::tuning::{Features, Memory, Tuning};
use super::apart::{self, Apart};
use super::cache;
use super::compiler::Background;
use super::error::LoadError;
use super::functions::Functions;
use super::limits::Usage;
use super::shape::{self, Shape};
use crate::config::{Config as Settings, PluginLimits};

/// Time between two ticks of the epoch. A busy guest holds a worker thread for at most two of them.
const TICK: Duration = Duration::from_millis(10);

/// The wasmtime engine, one per process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
    /// Compiles large components that the cache does not have.
    apart: Option<Apart>,
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
    channel: Arc<str>,
    background: Background,
    usage: Arc<Usage>,
    _ticker: Ticker,
}

impl Engine {
    /// An engine for `instances` simultaneous instances, which compiles any component. Plugins see the default channel.
    ///
    /// # Errors
    /// When the system refuses memory or other resources.
    pub fn new(limits: &PluginLimits, instances: u32) -> Result<Engine, LoadError> {
        let tuning = Tuning { limits: limits.clone(), instances, cache: None, functions: None };
        Engine::with(tuning, &Settings::default().keys.channel)
    }

    /// An engine for this configuration: with its limits and its channel, and with the user's cache of compiled plugins unless
    /// `no_cache` is set.
    ///
    /// # Errors
    /// When the system refuses memory or other resources. A cache that cannot be used only leads to a warning.
    pub fn configured(settings: &Settings, instances: u32) -> Result<Engine, LoadError> {
        let tuning =
            Tuning { limits: settings.plugin_limits.clone(), instances, cache: cache(settings), functions: None };
        Engine::with(tuning, &settings.keys.channel)
    }

    /// Like [`configured`](Engine::configured), for one instance, and compiles only functions that are not kept yet.
    ///
    /// # Errors
    /// When the system refuses memory or other resources. A cache that cannot be used only leads to a warning.
    pub fn for_development(settings: &Settings, functions: Arc<Functions>) -> Result<Engine, LoadError> {
        let limits = settings.plugin_limits.clone();
        let tuning = Tuning { limits, instances: 1, cache: cache(settings), functions: Some(functions) };
        Engine::with(tuning, &settings.keys.channel)
    }

    fn with(tuning: Tuning, channel: &str) -> Result<Engine, LoadError> {
        let on_demand =
            tuning.start(Features::Fast, Memory::OnDemand).map_err(|error| LoadError::Engine(format!("{error:#}")))?;
        let pooled = tuning
            .start(Features::Fast, Memory::Pooled)
            .inspect_err(|error| {
                tracing::warn!(
                    "cannot reserve memory for {} plugin instances, so each instance maps its own memory, which makes its \
                     start slower: {error:#}",
                    tuning.instances
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
                channel: channel.into(),
                background: Background::default(),
                usage: Arc::default(),
                _ticker: ticker,
            }),
            apart: None,
        })
    }

    /// The same engine, but at the start of a host large components are compiled by this process. Without a cache there is
    /// no difference.
    #[must_use]
    pub fn compiling_apart(self, apart: Option<Apart>) -> Engine {
        Engine { apart, ..self }
    }

    /// Compiles a component for the cache: what the process of [`Apart`] is for. Blocks.
    ///
    /// # Errors
    /// When the component cannot be compiled.
    pub fn fill_cache(&self, bytes: &[u8]) -> Result<(), LoadError> {
        let invalid = |error| LoadError::Invalid { path: PathBuf::from("-"), reason: format!("{error:#}") };
        self.compile(bytes).map(drop).map_err(invalid)
    }

    /// Has another process compile a large component that the cache does not have, and then the cache has it. Whatever
    /// goes wrong there, this process compiles the component afterwards. Blocks.
    pub(super) fn compile_apart(&self, bytes: &[u8]) {
        let (Some(apart), Some(cache)) = (&self.apart, &self.inner.tuning.cache) else { return };
        if bytes.len() < apart::BYTES_MIN {
            return;
        }
        let full = if shape::looks_fast(bytes) { None } else { self.full().ok() };
        let mut engines = self.inner.pooled.iter().chain([&self.inner.on_demand]).chain(full);
        if engines.any(|engine| cache::has(cache, engine, bytes)) {
            return;
        }
        tracing::debug!("compiling the plugin in a process of its own");
        if let Err(error) = apart.compile(bytes) {
            tracing::debug!("the plugin was not compiled in a process of its own: {error}");
        }
    }

    /// Maximum number of instances, while as many old instances may still exist.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.inner.tuning.instances
    }

    /// The limits of every instance.
    #[must_use]
    pub fn limits(&self) -> &PluginLimits {
        &self.inner.tuning.limits
    }

    /// What the instances of this engine take.
    pub(super) fn usage(&self) -> &Arc<Usage> {
        &self.inner.usage
    }

    /// The channel from which the messages come.
    pub(super) fn channel(&self) -> &Arc<str> {
        &self.inner.channel
    }

    /// The threads that compile beside running consumers.
    pub(super) fn background(&self) -> &Background {
        &self.inner.background
    }

    /// Compiles a component for the fast engine, or for the full engine if the component needs it. Compiling takes up to seconds
    /// of processor time, so the right engine is chosen before.
    pub(super) fn compile(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        let needs_more = || !shape::needs(bytes).is_empty();
        if !shape::looks_fast(bytes) && needs_more() {
            return self.compile_full(bytes);
        }
        match self.compile_fast(bytes) {
            // A function can need more than the sections show. A broken component also comes here.
            Err(_) if needs_more() => self.compile_full(bytes),
            compiled => compiled,
        }
    }

    /// Compiles for the pool, or for instances on demand if the component does not fit a slot (for example with a third
    /// memory).
    fn compile_fast(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        if let Some(pooled) = &self.inner.pooled
            && Shape::of(bytes).fits_slot()
        {
            tracing::debug!("compiling the plugin for instances in slots");
            match Component::from_binary(pooled, bytes) {
                Ok(component) => return Ok(component),
                // A broken component also comes here; its error then comes from the second attempt.
                Err(error) => tracing::debug!("the plugin does not fit a pool slot: {error:#}"),
            }
        }
        tracing::debug!("compiling the plugin for instances on demand");
        Component::from_binary(&self.inner.on_demand, bytes)
    }

    fn compile_full(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
        tracing::debug!("compiling the plugin for the full engine");
        Component::from_binary(self.full()?, bytes)
    }

    fn full(&self) -> wasmtime::Result<&wasmtime::Engine> {
        if let Some(engine) = self.inner.full.get() {
            return Ok(engine);
        }
        let engine = self.inner.tuning.start(Features::Full, Memory::OnDemand)?;
        Ok(self.inner.full.get_or_init(|| engine))
    }

    /// Whether this component was compiled for the full engine.
    pub(super) fn is_full(&self, component: &Component) -> bool {
        self.inner.full.get().is_some_and(|full| wasmtime::Engine::same(full, component.engine()))
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

/// The user's cache of compiled plugins.
fn cache(settings: &Settings) -> Option<wasmtime::Cache> {
    if settings.no_cache { None } else { cache::open() }
}

/// Advances the epoch of some engines. A drop stops it.
struct Ticker {
    /// A drop of the sender wakes and ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// `later` is an engine that may be created while the thread runs.
    fn start(engines: Vec<wasmtime::Engine>, later: Arc<OnceLock<wasmtime::Engine>>) -> std::io::Result<Ticker> {
        let (stop, stopped) = mpsc::channel::<()>();
        // A thread, not a task: the epoch must advance above all when guests keep every worker busy.
        let thread = std::thread::Builder::new().name("plugin-ticker".into()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                engines.iter().chain(later.get()).for_each(wasmtime::Engine::increment_epoch);
            }
        })?;
        Ok(Ticker { stop: Some(stop), thread: Some(thread) })
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
