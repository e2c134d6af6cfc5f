//! All tuning of wasmtime, with the reason at every knob.

use std::sync::Arc;

use wasmtime::{Cache, Collector, Config, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::super::functions::Functions;
use super::super::limits;
use crate::config::PluginLimits;

/// Number of stacks beyond one for each instance, for the time when old and new instances exist side by side.
const SPARE_STACKS_MAX: u32 = 1_000;

/// Stack for the host's own work in a call, beyond the guest's stack. This is wasmtime's default margin.
const HOST_STACK_BYTES: usize = 1_536 << 10;

/// Maximum number of instances whose initial memory is mapped instead of copied. Every mapped image costs an instance
/// two more of the 65,530 memory mappings that Linux allows a process (vm.max_map_count): 10,000 instances of a small
/// Rust plugin have 62,000 mappings with images, and 42,000 without.
const MAPPED_IMAGES_MAX: u32 = 4_000;

/// What an engine can run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Features {
    /// What the components of most toolchains need.
    Fast,
    /// Also async functions, exceptions and garbage collection.
    Full,
}

/// Where the memory of an instance comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// From slots that are reserved at the start.
    Pooled,
    /// Mapped for each new instance: a slower start, but no bound on shape and number.
    OnDemand,
}

/// What the engines of a process share that decides about compiled code.
pub(in super::super) struct Tuning {
    /// Stack size of an instance.
    pub(in super::super) stack_bytes_max: usize,
    /// Maximum number of instances, while as many old instances may still exist.
    pub(in super::super) instances: u32,
    /// Compiled plugins.
    pub(in super::super) cache: Option<Cache>,
    /// Compiled functions of earlier versions.
    pub(in super::super) functions: Option<Arc<Functions>>,
}

impl Tuning {
    /// An engine that compiles, for the process that does nothing else.
    pub(in super::super) fn compiler(&self, features: Features) -> wasmtime::Result<wasmtime::Engine> {
        let mut config = self.configure(features);
        if let Some(functions) = &self.functions {
            config.enable_incremental_compilation(functions.clone())?;
        }
        wasmtime::Engine::new(&config)
    }

    /// An engine that runs what the cache has. It has no compiler: nothing that a file contains makes this process compile.
    pub(super) fn runner(
        &self,
        features: Features,
        memory: Memory,
        limits: &PluginLimits,
    ) -> wasmtime::Result<wasmtime::Engine> {
        let mut config = self.configure(features);
        if memory == Memory::Pooled {
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits, self.instances)));
        }
        config.enable_compiler(false);
        wasmtime::Engine::new(&config)
    }

    fn configure(&self, features: Features) -> Config {
        let mut config = configure(features, self.stack_bytes_max, self.instances);
        config.cache(self.cache.clone());
        config
    }
}

fn configure(features: Features, stack_bytes_max: usize, instances: u32) -> Config {
    let mut config = Config::new();
    let is_full = features == Features::Full;

    // Calls run one at a time in a store. An async function may run several tasks in one call; the support for that
    // doubles the cost of a call (2.1 µs instead of 1.1).
    config.concurrency_support(is_full);

    // Guests check a counter at every loop and function entry, so that a busy guest gives way to other tasks and can be
    // ended. Epochs are cheaper than fuel, which counts every instruction.
    config.epoch_interruption(true);

    // Proposals that most languages' components do not need, and that would have to be trusted: garbage collection with
    // everything that depends on it. An exception is an object of the collected heap. The heap counts as a memory of the
    // store, under the same limit.
    config.wasm_gc(is_full);
    config.wasm_function_references(is_full);
    config.wasm_exceptions(is_full);
    config.gc_support(is_full);
    if is_full {
        config.collector(Collector::Copying);
    }

    // A host runs many instances in parallel, so no instance needs threads of its own.
    config.wasm_threads(false);

    // The host's functions run on the guest's stack, below the guest's own part.
    config.max_wasm_stack(stack_bytes_max);
    config.async_stack_size(stack_bytes_max.saturating_add(HOST_STACK_BYTES));

    // A plugin is compiled once and called millions of times.
    config.cranelift_opt_level(OptLevel::Speed);

    // A fresh instance maps its initial memory and copies a page on the first write: the memory of a Python plugin has
    // tens of megabytes, and most of it is never written.
    config.memory_init_cow(instances <= MAPPED_IMAGES_MAX);
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
