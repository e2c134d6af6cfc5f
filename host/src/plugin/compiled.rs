//! A plugin that is ready for use: compiled, with resolved imports and exports. This file knows no file and no
//! instance.

use std::fmt;
use std::sync::Arc;

use super::bindings::PluginPre;
use super::engine::Engine;
use super::imports::Store;
use super::journal::LogBudget;
use crate::config::{PluginConfig, PluginLimits};

/// Generation of the first version of a host.
const FIRST_GENERATION: u64 = 1;

/// One compiled and checked version of a plugin. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    /// Resolved imports, and type-checked exports: everything that is done once for all instances.
    ready: PluginPre<Store>,
    digest: String,
    /// The configuration that instances read through `wasi:config`.
    configuration: Arc<PluginConfig>,
    log_budget: Arc<LogBudget>,
    /// Keeps the epoch clock running, which limits the instances' time.
    engine: Engine,
}

impl Plugin {
    pub(super) fn new(
        ready: PluginPre<Store>,
        digest: String,
        configuration: Arc<PluginConfig>,
        engine: Engine,
    ) -> Plugin {
        let log_budget = Arc::new(LogBudget::new(engine.limits(), FIRST_GENERATION));
        Plugin { inner: Arc::new(Inner { ready, digest, configuration, log_budget, engine }) }
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

    /// Dropped log lines of all instances together.
    pub fn log_lines_dropped(&self) -> u64 {
        self.inner.log_budget.dropped()
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

    pub(super) fn ready(&self) -> &PluginPre<Store> {
        &self.inner.ready
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("digest", &self.short_digest()).finish_non_exhaustive()
    }
}
