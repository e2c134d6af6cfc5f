//! Facts about a component before it runs, including a component that is no plugin of this host. This file does not
//! judge; `loader` decides what is a problem.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::Component;

use super::compiled::Plugin;
use super::compiler::Haste;
use super::contract;
use super::engine::{Engine, off_the_data_path};
use super::error::LoadError;
use super::imports::{self, Grant};
use super::loader::{self, Binary};
use super::shape::{NEEDS, Need};
use super::toolchain::{Origin, Producer, Toolchain};
use crate::config::PluginConfig;

/// Facts about a component: contents, requirements and cost.
#[derive(Debug)]
pub struct Inspection {
    /// Length of the file in bytes.
    pub bytes: usize,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub digest: String,
    /// The exported plugin interface with its version: `host:plugin/processor@1.0.0`.
    pub contract: Option<String>,
    /// The toolchain of the author's code; `None` if it is unknown.
    pub toolchain: Option<Toolchain>,
    /// The tools that made the component, by the component's own account, without repetition.
    pub producers: Vec<Producer>,
    /// What does not keep a host from using the plugin, but will surprise its author.
    pub warnings: Vec<&'static str>,
    /// All imports, in the component's order.
    pub imports: Vec<Import>,
    /// Names of all exports, in the component's order.
    pub exports: Vec<String>,
    /// Time for compiling, or for reading from the cache if the engine has one.
    pub compile_time: Duration,
    /// What the component uses that only the full engine has; empty for a component of the fast engine.
    pub full_engine_for: Vec<&'static str>,
    /// How its toolchain makes a component for the fast engine, as far as there is a way.
    pub fast_engine_advice: Vec<&'static str>,
    /// Whether its instances use slots that a host reserves at its start. Otherwise each instance maps its own memory, which
    /// makes its start slower.
    pub pooled: bool,
    /// Time for starting one instance; `None` if no instance could be started.
    pub start_time: Option<Duration>,
    /// Memory of that instance after the start, in bytes.
    pub memory_bytes: Option<usize>,
    /// All reasons why the component cannot be used; empty for a good plugin.
    pub problems: Vec<LoadError>,
    /// The plugin, ready for use; `None` if there are problems.
    pub plugin: Option<Plugin>,
}

/// An import of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Name with its version: `wasi:clocks/monotonic-clock@0.2.6`.
    pub name: String,
    /// What the host provides for the import.
    pub grant: Grant,
}

impl Engine {
    /// Compiles the component at `path`, starts it once with these limits and this configuration, and returns all
    /// facts.
    ///
    /// # Errors
    /// When the file is not a component, or cannot be compiled. A component that only does not fit the contract is no
    /// error; its problems are among the facts.
    pub async fn inspect(&self, path: &Path, configuration: &PluginConfig) -> Result<Inspection, LoadError> {
        let binary = Binary::read(path, self.plugin_bytes_max()).await?;
        loader::is_component(path, &binary.bytes)?;
        let start = Instant::now();
        let (component, report) = self.compiled(&binary.bytes, path, Haste::Now).await?;
        let needs = report.as_ref().map(|report| report.needs.clone()).unwrap_or_default();
        let compiled = Compiled {
            component,
            needs: needs.iter().filter_map(|need| NEEDS.get(*need)).collect(),
            time: report.map_or_else(|| start.elapsed(), |report| report.time),
        };
        let (engine, configuration) = (self.clone(), Arc::new(configuration.clone()));
        let inspected = off_the_data_path(path, move || inspect(&engine, binary, compiled, configuration)).await;
        let mut inspection = inspected?;
        if let Some(plugin) = &inspection.plugin {
            let start = Instant::now();
            match plugin.instantiate("check".into()).await {
                Ok(instance) => {
                    inspection.start_time = Some(start.elapsed());
                    inspection.memory_bytes = Some(instance.memory_bytes());
                }
                Err(reason) => {
                    inspection.problems.push(LoadError::DoesNotStart { path: path.to_owned(), reason });
                    inspection.plugin = None;
                }
            }
        }
        Ok(inspection)
    }
}

/// A component, and what its compilation has told.
struct Compiled {
    component: Component,
    needs: Vec<&'static Need>,
    time: Duration,
}

/// Everything except compiling and the start. Blocks.
fn inspect(
    engine: &Engine,
    binary: Binary,
    Compiled { component, needs, time: compile_time }: Compiled,
    configuration: Arc<PluginConfig>,
) -> Result<Inspection, LoadError> {
    let Binary { path, bytes, digest } = binary;
    let exports = loader::exports(&component);
    let imports = loader::import_names(&component)
        .into_iter()
        .map(|name| Import { grant: imports::grant(&name, engine.buckets()), name })
        .collect::<Vec<_>>();
    let problems = loader::misfits(&component, &bytes, &path);
    let Origin { toolchain, producers } = Origin::of(&bytes);
    let advice = |need: &&Need| toolchain.and_then(|made| made.without(need.features));
    let mut inspection = Inspection {
        bytes: bytes.len(),
        digest: digest.clone(),
        contract: exports.iter().find(|name| contract::is_ours(name)).cloned(),
        toolchain,
        producers,
        warnings: warnings(toolchain, &imports),
        imports,
        exports,
        compile_time,
        full_engine_for: needs.iter().map(|need| need.what).collect(),
        fast_engine_advice: needs.iter().filter_map(advice).collect(),
        pooled: engine.has_slots_for(&component),
        start_time: None,
        memory_bytes: None,
        problems,
        plugin: None,
    };
    if inspection.problems.is_empty() {
        match loader::resolve(&component, &bytes, &path) {
            Ok(ready) => inspection.plugin = Some(Plugin::new(ready, digest, configuration, engine.clone())),
            Err(problem) => inspection.problems.push(problem),
        }
    }
    Ok(inspection)
}

/// QuickJS seeds its generator while the component is built.
const FROZEN_RANDOM: &str = "Math.random() gives the same numbers in every instance: its state is part of the component, \
    which does not import wasi:random/random; import it in the world, and take the numbers from there, as plugins of \
    `host new --lang typescript` do";

fn warnings(toolchain: Option<Toolchain>, imports: &[Import]) -> Vec<&'static str> {
    let has_random = imports.iter().any(|import| import.name.starts_with("wasi:random/random@"));
    if toolchain == Some(Toolchain::QuickJs) && !has_random { vec![FROZEN_RANDOM] } else { Vec::new() }
}
