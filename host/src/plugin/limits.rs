//! Limits of one instance: memory and tables, counted over the whole store. `instance` limits the time, where the calls
//! are made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

use crate::config::PluginLimits;

/// Number of memories of a component in the pool.
pub(super) const POOLED_MEMORIES_MAX: u32 = 2;
/// Number of tables of a component in the pool.
pub(super) const POOLED_TABLES_MAX: u32 = 4;
/// Number of elements of a table in the pool, 8 bytes each; large interpreters have 10,000 to 15,000.
pub(super) const POOLED_TABLE_ELEMENTS_MAX: usize = 20_000;
/// Maximum length of all results of a message together, as a multiple of the maximum length of one result.
const RESULTS_FACTOR: usize = 4;

/// Maximum number of memories in a store; all memories share the memory limit.
const MEMORIES_MAX: usize = 16;

/// Maximum number of bytes that a guest may pass or return in one call.
pub(super) fn hand_over_bytes_max(result_bytes_max: usize) -> usize {
    result_bytes_max.saturating_mul(RESULTS_FACTOR)
}

/// What all instances of an engine take together.
#[derive(Debug, Default)]
pub struct Usage {
    instances: AtomicU64,
    memory_bytes: AtomicU64,
}

impl Usage {
    /// Number of instances.
    #[must_use]
    pub fn instances(&self) -> u64 {
        self.instances.load(Ordering::Relaxed)
    }

    /// Size of all their memories, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes.load(Ordering::Relaxed)
    }
}

/// The limiter of one store.
#[derive(Debug)]
pub(super) struct StoreLimits {
    memory_bytes_max: usize,
    table_elements_max: usize,
    tables_max: usize,
    instances_max: usize,
    /// Size of all memories together.
    memory_bytes: usize,
    /// Size of all tables together.
    table_elements: usize,
    /// Size of the last granted growth of a memory, in case that growth then fails.
    granted_bytes: usize,
    /// Set when a growth was refused since the last `reset_refusal`.
    memory_refused: bool,
    /// Where this store counts.
    usage: Arc<Usage>,
}

impl StoreLimits {
    pub(super) fn new(limits: &PluginLimits, usage: Arc<Usage>) -> StoreLimits {
        usage.instances.fetch_add(1, Ordering::Relaxed);
        StoreLimits {
            memory_bytes_max: limits.memory_bytes_max,
            table_elements_max: limits.table_elements_max as usize,
            tables_max: limits.tables_max as usize,
            instances_max: limits.instances_max as usize,
            memory_bytes: 0,
            table_elements: 0,
            granted_bytes: 0,
            memory_refused: false,
            usage,
        }
    }

    /// Present size of all memories in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Forgets a refusal that the guest survived in an earlier call.
    pub(super) fn reset_refusal(&mut self) {
        self.memory_refused = false;
    }

    /// Whether the guest was refused memory in this call.
    pub(super) fn memory_refused(&self) -> bool {
        self.memory_refused
    }
}

impl Drop for StoreLimits {
    fn drop(&mut self) {
        self.usage.memory_bytes.fetch_sub(self.memory_bytes as u64, Ordering::Relaxed);
        self.usage.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ResourceLimiter for StoreLimits {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        let total = self.memory_bytes.saturating_add(growth);
        if total > self.memory_bytes_max {
            // Refused, not trapped: the guest may continue without the memory, like an interpreter that then collects
            // garbage.
            self.memory_refused = true;
            return Ok(false);
        }
        self.memory_bytes = total;
        self.granted_bytes = growth;
        self.usage.memory_bytes.fetch_add(growth as u64, Ordering::Relaxed);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let granted = std::mem::take(&mut self.granted_bytes);
        self.memory_bytes = self.memory_bytes.saturating_sub(granted);
        self.usage.memory_bytes.fetch_sub(granted as u64, Ordering::Relaxed);
        self.memory_refused = true;
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        if total > self.table_elements_max {
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.instances_max
    }

    fn tables(&self) -> usize {
        self.tables_max
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
