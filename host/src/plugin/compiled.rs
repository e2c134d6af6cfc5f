//! A plugin that is ready for use: compiled, with resolved imports and exports. This file knows no file and no
//! instance.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::contract::Ready;
use super::engine::Engine;
use super::journal::LogBudget;
use super::limits::Usage;
use crate::config::{Buckets, PluginConfig, PluginLimits};

/// Generation of the first version of a host.
const FIRST_GENERATION: u64 = 1;

/// One compiled and checked version of a plugin. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

/// What a plugin asks for that costs something for each message.
#[derive(Clone, Copy)]
pub(super) struct Asks {
    /// For facts about the message.
    pub(super) for_context: bool,
    /// For state.
    pub(super) for_state: bool,
}

#[derive(Clone)]
struct Inner {
    ready: Ready,
    asks: Asks,
    digest: String,
    /// The configuration that instances read through `wasi:config`.
    configuration: Arc<PluginConfig>,
    log_budget: Arc<LogBudget>,
    /// Whether the growth of its memory has been told.
    growth_told: Arc<AtomicBool>,
    /// Keeps the epoch clock running, which limits the instances' time.
    engine: Engine,
}

impl Plugin {
    pub(super) fn new(
        (ready, asks): (Ready, Asks),
        digest: String,
        configuration: Arc<PluginConfig>,
        engine: Engine,
    ) -> Plugin {
        let log_budget = Arc::new(LogBudget::new(engine.limits(), FIRST_GENERATION));
        let growth_told = Arc::default();
        let inner = Inner { ready, asks, digest, configuration, log_budget, growth_told, engine };
        Plugin { inner: Arc::new(inner) }
    }

    /// The same plugin with another generation.
    #[must_use]
    pub fn with_generation(&self, generation: u64) -> Plugin {
        let log_budget = Arc::new(LogBudget::new(self.limits(), generation));
        Plugin { inner: Arc::new(Inner { log_budget, ..Inner::clone(&self.inner) }) }
    }

    /// SHA-256 of the plugin's bytes, 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.inner.digest
    }

    /// The first 12 digits of the digest, enough to tell versions apart in a log line.
    pub fn short_digest(&self) -> &str {
        &self.inner.digest[..12]
    }

    /// Number of the version in use, counted from 1.
    pub fn generation(&self) -> u64 {
        self.inner.log_budget.generation()
    }

    /// Maximum number of instances.
    pub fn instances_max(&self) -> u32 {
        self.inner.engine.instances()
    }

    /// What the instances of all versions take together.
    pub fn usage(&self) -> &Arc<Usage> {
        self.inner.engine.usage()
    }

    /// Dropped log lines of all instances together.
    pub fn log_lines_dropped(&self) -> u64 {
        self.inner.log_budget.dropped()
    }

    /// Number of ticks of the clock that limits the instances' time, one every [`TICK`](super::engine::TICK): a look at it costs
    /// less than a look at the time.
    pub fn ticks(&self) -> u64 {
        self.inner.engine.ticks()
    }

    pub(super) fn limits(&self) -> &PluginLimits {
        self.inner.engine.limits()
    }

    pub(super) fn configuration(&self) -> &Arc<PluginConfig> {
        &self.inner.configuration
    }

    pub(super) fn log_budget(&self) -> &Arc<LogBudget> {
        &self.inner.log_budget
    }

    /// Whether nobody has told yet that the memory of this plugin grows. From now on somebody has.
    pub(super) fn growth_is_new(&self) -> bool {
        !self.inner.growth_told.swap(true, Ordering::Relaxed)
    }

    pub(super) fn channel(&self) -> &Arc<str> {
        self.inner.engine.channel()
    }

    /// Whether the plugin imports `host:plugin/context`.
    pub(super) fn asks_for_context(&self) -> bool {
        self.inner.asks.for_context
    }

    /// Whether the plugin imports `wasi:keyvalue`, and buckets are granted.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.inner.asks.for_state && !self.buckets().is_empty()
    }

    /// The granted buckets.
    #[must_use]
    pub fn buckets(&self) -> &Arc<Buckets> {
        self.inner.engine.buckets()
    }

    pub(super) fn ready(&self) -> &Ready {
        &self.inner.ready
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("digest", &self.short_digest()).finish_non_exhaustive()
    }
}
