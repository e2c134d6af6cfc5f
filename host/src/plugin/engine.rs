//! The wasmtime engine: all of its tuning, and the thread that advances its epoch. This file knows no plugin and no
//! message.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::component::Component;
use wasmtime::{Cache, Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::compiler::Background;
use super::error::LoadError;
use super::functions::Functions;
use super::shape::Shape;
use super::{cache, limits};
use crate::config::{Config as Settings, PluginLimits};

/// Time between two ticks of the epoch. A busy guest holds a worker thread for at most two of them.
const TICK: Duration = Duration::from_millis(10);

/// Number of stacks beyond one for each instance, for the time when old and new instances exist side by side.
const SPARE_STACKS_MAX: u32 = 1_000;

/// Stack for the host's own work in a call, beyond the guest's stack. This is wasmtime's default margin.
const HOST_STACK_BYTES: usize = 1_536 << 10;

/// Maximum number of instances whose initial memory is mapped instead of copied. Every mapped image costs an instance
/// two more of the 65,530 memory mappings that Linux allows a process (vm.max_map_count): 10,000 instances of a small
/// Rust plugin have 62,000 mappings with images, and 42,000 without.
const MAPPED_IMAGES_MAX: u32 = 4_000;

/// The wasmtime engine, one per process. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    /// Takes instances from slots that are reserved at the start. `None` if the system does not provide that much
    /// address space.
    pooled: Option<wasmtime::Engine>,
    /// Maps memory for each new instance: a slower start, but no bound on shape and number.
    on_demand: wasmtime::Engine,
    limits: PluginLimits,
    channel: Arc<str>,
    instances: u32,
    background: Background,
    _ticker: Ticker,
}

impl Engine {
    /// An engine for `instances` simultaneous instances, which compiles any component. Plugins see the default channel.
    ///
    /// # Errors
    /// When the system refuses memory or other resources.
    pub fn new(limits: &PluginLimits, instances: u32) -> Result<Engine, LoadError> {
        Engine::with(limits, &Settings::default().keys.channel, instances, None, None)
    }

    /// An engine for this configuration: with its limits and its channel, and with the user's cache of compiled plugins unless
    /// `no_cache` is set.
    ///
    /// # Errors
    /// When the system refuses memory or other resources. A cache that cannot be used only leads to a warning.
    pub fn configured(settings: &Settings, instances: u32) -> Result<Engine, LoadError> {
        let cache = if settings.no_cache { None } else { cache::open() };
        Engine::with(&settings.plugin_limits, &settings.keys.channel, instances, cache, None)
    }

    /// Like [`configured`](Engine::configured), for one instance, and compiles only functions that are not kept yet.
    ///
    /// # Errors
    /// When the system refuses memory or other resources. A cache that cannot be used only leads to a warning.
    pub fn for_development(settings: &Settings, functions: Arc<Functions>) -> Result<Engine, LoadError> {
        let cache = if settings.no_cache { None } else { cache::open() };
        Engine::with(&settings.plugin_limits, &settings.keys.channel, 1, cache, Some(functions))
    }

    fn with(
        limits: &PluginLimits,
        channel: &str,
        instances: u32,
        cache: Option<Cache>,
        functions: Option<Arc<Functions>>,
    ) -> Result<Engine, LoadError> {
        let incremental = |config: &mut Config| -> wasmtime::Result<()> {
            if let Some(functions) = &functions {
                config.enable_incremental_compilation(functions.clone())?;
            }
            Ok(())
        };
        let configure = |pool| {
            let mut config = configure(pool, limits, instances);
            config.cache(cache.clone());
            // Without them everything is compiled, as elsewhere.
            if let Err(error) = incremental(&mut config) {
                tracing::debug!("cannot keep compiled functions: {error:#}");
            }
            config
        };
        let on_demand =
            wasmtime::Engine::new(&configure(None)).map_err(|error| LoadError::Engine(format!("{error:#}")))?;
        let pooled = wasmtime::Engine::new(&configure(Some(pool(limits, instances))))
            .inspect_err(|error| {
                tracing::warn!(
                    "cannot reserve memory for {instances} plugin instances, so each instance maps its own memory, which \
                     makes its start slower: {error:#}"
                );
            })
            .ok();
        let ticking = pooled.iter().chain([&on_demand]).cloned().collect();
        let ticker =
            Ticker::start(ticking).map_err(|error| LoadError::Engine(format!("cannot start its clock: {error}")))?;
        let limits = limits.clone();
        Ok(Engine {
            inner: Arc::new(Inner {
                pooled,
                on_demand,
                limits,
                channel: channel.into(),
                instances,
                background: Background::default(),
                _ticker: ticker,
            }),
        })
    }

    /// Maximum number of instances, while as many old instances may still exist.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.inner.instances
    }

    /// The limits of every instance.
    #[must_use]
    pub fn limits(&self) -> &PluginLimits {
        &self.inner.limits
    }

    /// The channel from which the messages come.
    pub(super) fn channel(&self) -> &Arc<str> {
        &self.inner.channel
    }

    /// The threads that compile beside running consumers.
    pub(super) fn background(&self) -> &Background {
        &self.inner.background
    }

    /// Compiles a component: for the pool, or for instances on demand if the component does not fit a slot (for example
    /// with a third memory). Compiling takes up to seconds of processor time, so the right engine is chosen before.
    pub(super) fn compile(&self, bytes: &[u8]) -> wasmtime::Result<Component> {
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

/// All tuning of wasmtime, with the reason at every knob.
fn configure(pool: Option<PoolingAllocationConfig>, limits: &PluginLimits, instances: u32) -> Config {
    let mut config = Config::new();

    // Calls run one at a time in a store. The support for concurrent calls, on by default in some builds, doubles the
    // cost of a call (2.1 µs instead of 1.1).
    config.concurrency_support(false);

    // Guests check a counter at every loop and function entry, so that a busy guest gives way to other tasks and can be
    // ended. Epochs are cheaper than fuel, which counts every instruction.
    config.epoch_interruption(true);

    // Proposals that no language's components need today, and that would have to be trusted: threads, and garbage
    // collection with everything that depends on it.
    config.wasm_gc(false);
    config.wasm_function_references(false);
    config.wasm_exceptions(false);
    config.gc_support(false);
    config.wasm_threads(false);

    // The host's functions run on the guest's stack, below the guest's own part.
    config.max_wasm_stack(limits.stack_bytes_max);
    config.async_stack_size(limits.stack_bytes_max.saturating_add(HOST_STACK_BYTES));

    // A plugin is compiled once and called millions of times.
    config.cranelift_opt_level(OptLevel::Speed);

    // A fresh instance maps its initial memory and copies a page on the first write: the memory of a Python plugin has
    // tens of megabytes, and most of it is never written.
    config.memory_init_cow(instances <= MAPPED_IMAGES_MAX);

    if let Some(pool) = pool {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    config
}

/// Slots for twice the instances, because old and new generations of a plugin exist side by side while consumers
/// switch, and a few slots for probes.
fn pool(limits: &PluginLimits, instances: u32) -> PoolingAllocationConfig {
    let slots = instances.saturating_mul(2).saturating_add(8);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots);

    // These limits are only counters and reserve nothing. A Rust component has 3 or 4 core instances, a component from
    // a linked Python interpreter some tens.
    pool.max_core_instances_per_component(limits.instances_max);
    pool.total_core_instances(slots.saturating_mul(limits.instances_max));

    // Two memories, because every component of QuickJS has two, in one module or in two. A component with more memories
    // is compiled for the on-demand engine. Each memory takes 4 GiB of address space, and most of that is never backed.
    // As many instances as there are stacks (below), with two memories each, reserve 86 of the 128 TiB that x86-64 has
    // for 10,000 instances. A slot lets a memory grow to the whole limit.
    let stacks = slots.min(instances.saturating_add(SPARE_STACKS_MAX));
    pool.max_memories_per_component(limits::POOLED_MEMORIES_MAX);
    pool.max_memories_per_module(limits::POOLED_MEMORIES_MAX);
    pool.total_memories(stacks.saturating_mul(limits::POOLED_MEMORIES_MAX));
    pool.max_memory_size(limits.memory_bytes_max.min(4 << 30));

    // Reserves 160 KB of address space for each table. Two or three are usual.
    pool.max_tables_per_component(limits::POOLED_TABLES_MAX);
    pool.max_tables_per_module(limits::POOLED_TABLES_MAX);
    pool.total_tables(slots.saturating_mul(limits::POOLED_TABLES_MAX));
    pool.table_elements(limits::POOLED_TABLE_ELEMENTS_MAX);

    // A store keeps its stack between calls. A stack and its guard page are two memory mappings from the start, used or
    // not: stacks for twice 10,000 instances would leave too few mappings.
    pool.total_stacks(stacks);
    pool
}

/// Advances the epoch of some engines. A drop stops it.
struct Ticker {
    /// A drop of the sender wakes and ends the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engines: Vec<wasmtime::Engine>) -> std::io::Result<Ticker> {
        let (stop, stopped) = mpsc::channel::<()>();
        // A thread, not a task: the epoch must advance above all when guests keep every worker busy.
        let thread = std::thread::Builder::new().name("plugin-ticker".into()).spawn(move || {
            while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                engines.iter().for_each(wasmtime::Engine::increment_epoch);
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
