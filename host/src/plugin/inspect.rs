//! What a component is, for whoever asks before running it: also one that is no plugin of ours.
//! It decides nothing; what is a problem is decided in `loader`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmparser::{KnownCustom, Parser, Payload};

use super::compiled::Plugin;
use super::compiler::off_the_data_path;
use super::engine::Engine;
use super::error::LoadError;
use super::imports::{self, Grant};
use super::loader::{self, Binary};
use crate::config::PluginConfig;

/// What a component is, asks for and costs.
#[derive(Debug)]
pub struct Inspection {
    /// Length of the file in bytes.
    pub bytes: usize,
    /// SHA-256 of the file, 64 hexadecimal digits.
    pub digest: String,
    /// The interface of ours that it exports, with its version: `host:plugin/processor@0.1.0`.
    pub contract: Option<String>,
    /// What made it, by its own account and without repetition.
    pub producers: Vec<Producer>,
    /// Everything it imports, in its own order.
    pub imports: Vec<Import>,
    /// Names of everything it exports, in its own order.
    pub exports: Vec<String>,
    /// Time for compiling it (or for reading it from the cache, on an engine that has one).
    pub compile_time: Duration,
    /// Time for starting one instance; `None` if none could be started.
    pub start_time: Option<Duration>,
    /// Memory of that instance after its start, in bytes.
    pub memory_bytes: Option<usize>,
    /// Everything for which it cannot be used; empty for a good plugin.
    pub problems: Vec<LoadError>,
    /// The plugin, ready for use; `None` if there are problems.
    pub plugin: Option<Plugin>,
}

/// A line of the `producers` section of a component or of a module in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub role: String,
    /// Name of the language or tool.
    pub name: String,
    /// Its version; may be empty.
    pub version: String,
}

/// Something that a component imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// Name with its version: `wasi:clocks/monotonic-clock@0.2.6`.
    pub name: String,
    /// What it gets.
    pub grant: Grant,
}

impl Engine {
    /// Compiles the component at `path` and starts it once, under the limits and with this configuration, and tells
    /// everything about it.
    ///
    /// # Errors
    /// When it is no component at all, or one that cannot be compiled. A component that only does not fit the
    /// contract is told about, with its problems.
    pub async fn inspect(&self, path: &Path, configuration: &PluginConfig) -> Result<Inspection, LoadError> {
        let engine = self.clone();
        let owned_path = path.to_owned();
        let configuration = Arc::new(configuration.clone());
        let inspected = off_the_data_path(path, move || inspect(&engine, &owned_path, configuration)).await;
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

/// Everything short of starting it. Blocks.
fn inspect(engine: &Engine, path: &Path, configuration: Arc<PluginConfig>) -> Result<Inspection, LoadError> {
    let Binary { bytes, digest, .. } = loader::read(path.to_owned())?;
    let start = Instant::now();
    let component = loader::compile(engine, &bytes, path)?;
    let compile_time = start.elapsed();

    let exports = loader::exports(&component);
    let imports = loader::import_names(&component)
        .into_iter()
        .map(|name| Import { grant: imports::grant(&name), name })
        .collect();
    let problems = loader::misfits(&component, path);
    let mut inspection = Inspection {
        bytes: bytes.len(),
        digest: digest.clone(),
        contract: exports.iter().find(|name| loader::is_ours(name)).cloned(),
        producers: producers(&bytes),
        imports,
        exports,
        compile_time,
        start_time: None,
        memory_bytes: None,
        problems,
        plugin: None,
    };
    if inspection.problems.is_empty() {
        match loader::resolve(&component, path) {
            Ok(ready) => inspection.plugin = Some(Plugin::new(ready, digest, configuration, engine.clone())),
            Err(problem) => inspection.problems.push(problem),
        }
    }
    Ok(inspection)
}

/// What the `producers` sections say, of the component and of the modules in it. Wasmtime has accepted the
/// bytes before, and a section that is damaged all the same says nothing.
fn producers(bytes: &[u8]) -> Vec<Producer> {
    let mut producers = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let Ok(Payload::CustomSection(section)) = payload else { continue };
        let KnownCustom::Producers(fields) = section.as_known() else { continue };
        for field in fields.into_iter().flatten() {
            for value in field.values.into_iter().flatten() {
                let producer =
                    Producer { role: field.name.into(), name: value.name.into(), version: value.version.into() };
                if !producers.contains(&producer) {
                    producers.push(producer);
                }
            }
        }
    }
    producers
}
