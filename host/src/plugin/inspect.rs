//! What a component is, for whoever asks before running it: also one that is no plugin of ours.
//! It decides nothing; what is a problem is decided in `loader`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmparser::{KnownCustom, Name, NameSectionReader, Parser, Payload, ProducersSectionReader};

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
    /// Whether its instances are taken from slots that a host reserves at its start. Otherwise each maps its own memory,
    /// which makes starting one slower.
    pub pooled: bool,
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

/// How the names of modules begin that were added when a component was made of a core module: adapters of WASI, written by
/// somebody else in another language.
const ADDED_MODULE: &str = "wit-component:";

/// What the `producers` sections say, of the component and of its author's modules. Wasmtime has accepted the
/// bytes before, and a section that is damaged all the same says nothing.
fn producers(bytes: &[u8]) -> Vec<Producer> {
    let mut producers: Vec<Producer> = Vec::new();
    // What the components and modules say that are open at this place, and whether their author is another.
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
