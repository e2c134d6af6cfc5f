//! From a file to a tested plugin: read, digest, compile, check the contract, probe. This file does not know when and
//! why a plugin is loaded.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};

use super::compiled::Plugin;
use super::compiler::{Haste, off_the_data_path};
use super::contract::{self, Contract, Ready};
use super::engine::Engine;
use super::error::LoadError;
use super::imports::{self, Grant};
use super::outcome::Failure;
use super::shape::{self, Refusal};
use super::text::one_line;
use super::toolchain::Toolchain;
use crate::config::PluginConfig;
use crate::time::millis;

/// The system's error text when it refuses memory or address space.
const OUT_OF_MEMORY: &str = "os error 12";

/// Time after which a compilation is logged.
const PATIENCE: Duration = Duration::from_millis(500);

/// Time between two frames of the spinner.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// A binary begins with the magic bytes, then a version and a layer, 16 bits each.
const MAGIC: &[u8] = b"\0asm";
const LAYER_CORE_MODULE: &[u8] = &[0, 0];

/// The bytes of a plugin's file at one moment.
pub struct Binary {
    path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) digest: String,
}

impl Binary {
    /// Reads the file at `path` on a blocking thread.
    ///
    /// # Errors
    /// When the file cannot be read. The contents are not checked.
    pub async fn read(path: &Path) -> Result<Binary, LoadError> {
        let owned_path = path.to_owned();
        off_the_data_path(path, move || read(owned_path)).await
    }

    /// SHA-256 of the bytes, 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

impl Engine {
    /// Reads, compiles, checks and probes the component at `path` with this configuration.
    ///
    /// The work is done on a blocking thread; a large component takes seconds.
    pub async fn load(&self, path: &Path, configuration: &PluginConfig) -> Result<Plugin, LoadError> {
        self.load_binary(Binary::read(path).await?, configuration, Haste::Now).await
    }

    /// Compiles, checks and probes a component.
    pub async fn load_binary(
        &self,
        binary: Binary,
        configuration: &PluginConfig,
        haste: Haste,
    ) -> Result<Plugin, LoadError> {
        let (engine, configuration) = (self.clone(), Arc::new(configuration.clone()));
        let (path, bytes) = (binary.path.clone(), binary.bytes.len());
        let prepared = off_the_data_path(&path, move || match haste {
            Haste::Now => {
                engine.compile_apart(&binary.bytes);
                prepare(&engine, &binary, configuration)
            }
            Haste::Background => engine.background().run(&binary.path, || prepare(&engine, &binary, configuration)),
        });
        let plugin = match haste {
            Haste::Now => announced(&path, bytes, prepared).await?,
            Haste::Background => prepared.await?,
        };
        // A version is good only after an instance has started under the limits.
        match plugin.instantiate("probe".into()).await {
            Ok(_) => Ok(plugin),
            Err(Failure::Start(reason)) if reason.contains(OUT_OF_MEMORY) => Err(LoadError::NoMemory { path, reason }),
            Err(reason) => Err(LoadError::DoesNotStart { path, reason }),
        }
    }
}

/// Logs that a plugin is being compiled when the compilation takes long: with a large plugin nothing else happens for
/// seconds.
async fn announced<T>(path: &Path, bytes: usize, compiling: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let mut compiling = pin!(compiling);
    if let Ok(done) = tokio::time::timeout(PATIENCE, &mut compiling).await {
        return done;
    }
    tracing::info!(
        plugin = %path.display(),
        bytes,
        "compiling the plugin, because the cache of compiled plugins does not have it; a large plugin takes seconds"
    );
    // The spinner appears on a terminal only.
    let spinner = ProgressBar::new_spinner().with_message("compiling the plugin");
    spinner.enable_steady_tick(SPINNER_TICK);
    let done = compiling.await;
    spinner.finish_and_clear();
    tracing::info!(compile_ms = millis(start.elapsed()), "compiled the plugin");
    done
}

/// Everything except the probe. Blocks.
fn prepare(engine: &Engine, binary: &Binary, configuration: Arc<PluginConfig>) -> Result<Plugin, LoadError> {
    let Binary { path, bytes, digest } = binary;
    let component = compile(engine, bytes, path)?;
    match misfits(&component, bytes, path).into_iter().next() {
        Some(misfit) => Err(misfit),
        None => Ok(Plugin::new(resolve(&component, bytes, path)?, digest.clone(), configuration, engine.clone())),
    }
}

pub(super) fn read(path: PathBuf) -> Result<Binary, LoadError> {
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Binary { digest: digest(&bytes), path, bytes }),
        Err(source) => Err(LoadError::Unreadable { path, source }),
    }
}

pub(super) fn compile(engine: &Engine, bytes: &[u8], path: &Path) -> Result<Component, LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty { path: path.to_owned() });
    }
    if !bytes.starts_with(MAGIC) || bytes.len() < 8 {
        return Err(LoadError::NotWasm { path: path.to_owned() });
    }
    if &bytes[6..8] == LAYER_CORE_MODULE {
        return Err(LoadError::CoreModule { path: path.to_owned(), toolchain: Toolchain::of(bytes) });
    }
    engine.compile(bytes).map_err(|error| not_compiled(path.to_owned(), bytes, one_line(&error)))
}

/// Why a component was not compiled. The engine's text decides, because the causes differ.
fn not_compiled(path: PathBuf, bytes: &[u8], reason: String) -> LoadError {
    if let Some(&Refusal { what, advice, features }) = shape::refusal(bytes) {
        let advice = Toolchain::of(bytes).and_then(|made| made.without(features)).unwrap_or(advice);
        return LoadError::Needs { path, what, advice };
    }
    if reason.contains("make memory executable") {
        return LoadError::NotExecutable { path, reason };
    }
    if reason.contains(OUT_OF_MEMORY) {
        return LoadError::NoMemory { path, reason };
    }
    LoadError::Invalid { path, reason }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn exports(component: &Component) -> Vec<String> {
    component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect()
}

pub(super) fn import_names(component: &Component) -> Vec<String> {
    component.component_type().imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
}

/// Misfits with the contract, as far as names show them.
pub(super) fn misfits(component: &Component, bytes: &[u8], path: &Path) -> Vec<LoadError> {
    let (path, toolchain) = (|| path.to_owned(), || Toolchain::of(bytes));
    let mut misfits = Vec::new();
    // The export comes first: the author of a wrong file needs that error, and not one about the file's imports.
    let exports = exports(component);
    if Contract::among(&exports).is_none() {
        misfits.push(match exports.iter().find(|name| contract::is_ours(name)) {
            Some(ours) => LoadError::WrongVersion { path: path(), toolchain: toolchain(), export: ours.clone() },
            None => {
                let expected = contract::EXPORT;
                LoadError::WrongWorld { path: path(), toolchain: toolchain(), expected, exports, reason: None }
            }
        });
    }
    let unknown: Vec<String> = import_names(component).into_iter().filter_map(missing).collect();
    if !unknown.is_empty() {
        misfits.push(LoadError::UnknownImports { path: path(), toolchain: toolchain(), imports: unknown });
    }
    misfits
}

/// An import that the host does not provide, with the version that the host provides instead.
fn missing(import: String) -> Option<String> {
    match imports::grant(&import) {
        Grant::Missing { version: Some(version) } => Some(format!("{import} (the host has version {version})")),
        Grant::Missing { version: None } => Some(import),
        Grant::Granted | Grant::Empty(_) => None,
    }
}

/// Resolves imports and exports of a component without misfits, and finds out whether it may ask for the context of a
/// call. The error names types that differ.
pub(super) fn resolve(component: &Component, bytes: &[u8], path: &Path) -> Result<(Ready, bool), LoadError> {
    let wrong_imports = |error: wasmtime::Error| LoadError::WrongImports {
        path: path.to_owned(),
        toolchain: Toolchain::of(bytes),
        reason: one_line(&error),
    };
    let exports = exports(component);
    let mut linker = Linker::new(component.engine());
    imports::link(&mut linker, component).map_err(wrong_imports)?;
    let linked = linker.instantiate_pre(component).map_err(wrong_imports)?;
    let checked = Contract::among(&exports).map(|contract| contract.check(linked));
    let reason = match checked {
        Some(Ok(ready)) => return Ok((ready, imports::ask_for_context(&import_names(component)))),
        Some(Err(error)) => Some(one_line(&error)),
        None => None,
    };
    let (path, toolchain) = (path.to_owned(), Toolchain::of(bytes));
    Err(LoadError::WrongWorld { path, toolchain, expected: contract::EXPORT, exports, reason })
}
