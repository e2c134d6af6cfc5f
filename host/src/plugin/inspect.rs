//! Facts about a component before it runs, including a component that is no plugin of this host. This file does not
//! judge; `loader` decides what is a problem.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload, ProducersSectionReader};

use super::compiled::Plugin;
use super::compiler::off_the_data_path;
use super::contract;
use super::engine::Engine;
use super::error::LoadError;
use super::imports::{self, Grant};
use super::loader::{self, Binary};
use super::shape;
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
    /// The tools that made the component, by the component's own account, without repetition.
    pub producers: Vec<Producer>,
    /// All imports, in the component's order.
    pub imports: Vec<Import>,
    /// Names of all exports, in the component's order.
    pub exports: Vec<String>,
    /// Time for compiling, or for reading from the cache if the engine has one.
    pub compile_time: Duration,
    /// What the component uses that only the full engine has; empty for a component of the fast engine.
    pub full_engine_for: Vec<&'static str>,
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

/// A line of the `producers` section of a component, or of a module in the component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// `language`, `processed-by` or `sdk`.
    pub role: String,
    /// Name of the language or tool.
    pub name: String,
    /// Version; may be empty.
    pub version: String,
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

/// Everything except the start. Blocks.
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
        contract: exports.iter().find(|name| contract::is_ours(name)).cloned(),
        producers: producers(&bytes),
        imports,
        exports,
        compile_time,
        full_engine_for: if engine.is_full(&component) { shape::needs(&bytes) } else { Vec::new() },
        pooled: engine.has_slots_for(&component),
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

/// Prefix of the names of modules that a tool added when it made a component of a core module. Such modules are WASI
/// adapters, written by other authors in another language.
const ADDED_MODULE: &str = "wit-component:";

/// The `producers` sections of the component and of its author's modules. Wasmtime has already accepted the bytes, so a
/// damaged section is ignored.
fn producers(bytes: &[u8]) -> Vec<Producer> {
    let mut producers: Vec<Producer> = Vec::new();
    // The open components and modules at this place, each with its producers, and whether they come from another
    // author.
    let mut open: Vec<(Vec<Producer>, bool)> = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::Version { .. }) => open.push((Vec::new(), false)),
            Ok(Payload::CustomSection(section)) => match (section.as_known(), open.last_mut()) {
                (KnownCustom::Producers(fields), Some((said, _))) => said.extend(listed(fields)),
                (KnownCustom::Name(names), Some((_, is_added))) => *is_added |= is_added_module(names),
                _ => {}
            },
            Ok(Payload::End(_)) => {
                let said = open.pop().filter(|(_, is_added)| !is_added).map(|(said, _)| said);
                for producer in said.unwrap_or_default() {
                    if !producers.contains(&producer) {
                        producers.push(producer);
                    }
                }
            }
            _ => {}
        }
    }
    producers
}

fn listed(fields: ProducersSectionReader<'_>) -> impl Iterator<Item = Producer> {
    fields.into_iter().flatten().flat_map(|field| {
        let role = field.name;
        field.values.into_iter().flatten().map(move |value| Producer {
            role: role.into(),
            name: value.name.into(),
            version: value.version.into(),
        })
    })
}

fn is_added_module(names: NameSectionReader<'_>) -> bool {
    names.into_iter().flatten().any(|name| matches!(name, Name::Module { name, .. } if name.starts_with(ADDED_MODULE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_authors_and_not_that_of_an_adapter() {
        let component = wat::parse_str(
            r#"(component
                (core module $main (@producers (language "Go" "1.27") (processed-by "Go cmd/compile" "1.27")))
                (core module $"wit-component:adapter:wasi_snapshot_preview1" (@producers (language "Rust" "2021")))
                (@producers (processed-by "wit-component" "0.254")))"#,
        );
        let found = producers(&component.unwrap());
        let found: Vec<(&str, &str)> = found.iter().map(|producer| (&*producer.role, &*producer.name)).collect();
        assert_eq!(found, [("language", "Go"), ("processed-by", "Go cmd/compile"), ("processed-by", "wit-component")]);
    }
}
