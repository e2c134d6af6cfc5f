//! From a file to a tested plugin: read, digest, compile, check the contract, probe. This file does not know when and
//! why a plugin is loaded.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};
use wasmtime::component::{Component, Linker};

use super::compiled::{Asks, Plugin};
use super::compiler::Haste;
use super::contract::{self, Contract, Ready};
use super::engine::{Engine, off_the_data_path};
use super::error::LoadError;
use super::file::{self, MAGIC};
use super::imports::{self, Grant};
use super::outcome::Failure;
use super::shape::{REFUSALS, Refusal};
use super::text::one_line;
use super::toolchain::Toolchain;
use crate::config::{Buckets, PluginConfig};
use crate::time::millis;

/// The system's error text when it refuses memory or address space.
const OUT_OF_MEMORY: &str = "os error 12";

/// Time after which a compilation is logged.
const PATIENCE: Duration = Duration::from_millis(500);

/// Time between two frames of the spinner.
const SPINNER_TICK: Duration = Duration::from_millis(100);

/// Behind the magic bytes stand a version and a layer, 16 bits each.
const LAYER_CORE_MODULE: &[u8] = &[0, 0];

/// The bytes of a plugin's file at one moment.
pub struct Binary {
    pub(super) path: PathBuf,
    pub(super) bytes: Bytes,
    pub(super) digest: String,
}

impl Binary {
    /// Reads the file at `path`, if it is not longer than this.
    ///
    /// # Errors
    /// When the file is no regular file, is too long, is not WebAssembly and long, changes, or cannot be read. The contents are
    /// not checked otherwise.
    pub async fn read(path: &Path, bytes_max: usize) -> Result<Binary, LoadError> {
        let bytes = Bytes::from(file::read(path, bytes_max).await?);
        let (path, read) = (path.to_owned(), bytes.clone());
        let digest = off_the_data_path(&path, move || Ok(digest(&read))).await?;
        Ok(Binary { path, bytes, digest })
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
        self.load_binary(Binary::read(path, self.plugin_bytes_max()).await?, configuration, Haste::Now).await
    }

    /// Compiles, checks and probes a component.
    pub async fn load_binary(
        &self,
        binary: Binary,
        configuration: &PluginConfig,
        haste: Haste,
    ) -> Result<Plugin, LoadError> {
        let Binary { path, bytes, digest } = binary;
        is_component(&path, &bytes)?;
        let compiling = self.compiled(&bytes, &path, haste);
        let (component, _) = match haste {
            Haste::Now => announced(&path, bytes.len(), compiling).await?,
            Haste::Background => compiling.await?,
        };
        let (engine, configuration, checked) = (self.clone(), Arc::new(configuration.clone()), path.clone());
        let checking = move || match misfits(&component, &bytes, &checked).into_iter().next() {
            Some(misfit) => Err(misfit),
            None => Ok(Plugin::new(resolve(&component, &bytes, &checked)?, digest, configuration, engine)),
        };
        let plugin = off_the_data_path(&path, checking).await?;
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

/// Whether the bytes begin as a component does. Nothing else of them is looked at before they are compiled.
pub(super) fn is_component(path: &Path, bytes: &[u8]) -> Result<(), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Empty { path: path.to_owned() });
    }
    if !bytes.starts_with(MAGIC) || bytes.len() < 8 {
        return Err(LoadError::NotWasm { path: path.to_owned() });
    }
    if &bytes[6..8] == LAYER_CORE_MODULE {
        return Err(LoadError::CoreModule { path: path.to_owned(), toolchain: Toolchain::of(bytes) });
    }
    Ok(())
}

impl LoadError {
    /// A component that uses what no engine has.
    pub(super) fn refused(path: &Path, bytes: &[u8], refusal: usize) -> LoadError {
        let Some(&Refusal { what, advice, features }) = REFUSALS.get(refusal) else {
            return LoadError::invalid(path, "it uses an unknown feature".to_owned());
        };
        let advice = Toolchain::of(bytes).and_then(|made| made.without(features)).unwrap_or(advice);
        LoadError::Needs { path: path.to_owned(), what, advice }
    }

    /// A component that was not compiled. The engine's text decides why, because the causes differ.
    pub(super) fn invalid(path: &Path, reason: String) -> LoadError {
        let path = path.to_owned();
        match () {
            () if reason.contains("make memory executable") => LoadError::NotExecutable { path, reason },
            () if reason.contains(OUT_OF_MEMORY) => LoadError::NoMemory { path, reason },
            () => LoadError::Invalid { path, reason },
        }
    }
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
    // What is granted makes no import missing.
    match imports::grant(&import, &Buckets::default()) {
        Grant::Missing { version: Some(version) } => Some(format!("{import} (the host has version {version})")),
        Grant::Missing { version: None } => Some(import),
        Grant::Granted | Grant::Empty(_) => None,
    }
}

/// Resolves imports and exports of a component without misfits, and finds out whether it may ask for the context of a
/// call. The error names types that differ.
pub(super) fn resolve(component: &Component, bytes: &[u8], path: &Path) -> Result<(Ready, Asks), LoadError> {
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
        Some(Ok(ready)) => {
            let names = import_names(component);
            let asks =
                Asks { for_context: imports::ask_for_context(&names), for_state: imports::ask_for_state(&names) };
            return Ok((ready, asks));
        }
        Some(Err(error)) => Some(one_line(&error)),
        None => None,
    };
    let (path, toolchain) = (path.to_owned(), Toolchain::of(bytes));
    Err(LoadError::WrongWorld { path, toolchain, expected: contract::EXPORT, exports, reason })
}
