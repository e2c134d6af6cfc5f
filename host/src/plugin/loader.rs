//! From a file to a plugin that is known to work: read, digest, compile, contract check, probe.
//! It knows nothing of when and why a plugin is loaded.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, HasSelf, Linker, ResourceType};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, IoError};

use super::bindings::PluginPre;
use super::engine::Engine;
use super::inspect::Grant;
use super::instance::{Instance, State};
use super::logging::LogBudget;
use super::{Failure, LoadError};
use crate::config::{PluginConfig, PluginLimits};

/// Generation of the version that a host starts with.
const FIRST_GENERATION: u64 = 1;

/// Niceness of the threads that compile while consumers work.
#[cfg(target_os = "linux")]
const COMPILER_NICENESS: i32 = 10;

/// What a plugin exports.
const EXPORT: &str = "host:plugin/processor@0.1.0";
/// How the name of a compatible version begins; whether its types are the same is checked as well.
const EXPORT_COMPATIBLE: &str = "host:plugin/processor@0.1.";
/// How the name of any version begins, past and to come.
const EXPORT_ANY_VERSION: &str = "host:plugin/processor@";

/// How the names of the interfaces for HTTP begin, which are denied.
const HTTP: &str = "wasi:http/";

/// What a plugin may import, and what it finds: beginnings of names, the first that fits counts.
const IMPORTS: [(&str, Grant); 16] = [
    ("wasi:logging/logging@0.1.0-draft", Grant::Granted),
    ("wasi:config/store@0.2.0-rc.1", Grant::Granted),
    ("wasi:cli/stdout@", Grant::Granted),
    ("wasi:cli/stderr@", Grant::Granted),
    ("wasi:cli/environment@", Grant::Empty("no variables, no arguments")),
    ("wasi:cli/stdin@", Grant::Empty("closed")),
    ("wasi:cli/exit@", Grant::Empty("ends the instance as a trap does")),
    ("wasi:cli/terminal-", Grant::Empty("no terminal")),
    ("wasi:clocks/", Grant::Granted),
    ("wasi:io/", Grant::Granted),
    ("wasi:random/", Grant::Granted),
    (HTTP, Grant::Empty("a call is a trap")),
    ("wasi:filesystem/", Grant::Empty("no files")),
    ("wasi:sockets/instance-network@", Grant::Empty("no network")),
    ("wasi:sockets/ip-name-lookup@", Grant::Empty("no name is found")),
    ("wasi:sockets/", Grant::Empty("no address may be used")),
];

/// A binary begins with the magic bytes, then a version and a layer, 16 bits each.
const MAGIC: &[u8] = b"\0asm";
const LAYER_CORE_MODULE: &[u8] = &[0, 0];

/// One compiled and checked version of a plugin. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    /// Imports resolved, exports found and type-checked: all that can be done once for all instances.
    ready: PluginPre<State>,
    digest: String,
    /// What its instances read of it through `wasi:config`.
    configuration: Arc<PluginConfig>,
    log_budget: Arc<LogBudget>,
    /// Keeps the clock ticking that limits the instances' time.
    engine: Engine,
}

/// The bytes of a plugin's file, as they were at one moment.
pub struct Binary {
    path: PathBuf,
    pub(super) bytes: Vec<u8>,
    pub(super) digest: String,
}

impl Binary {
    /// Reads the file at `path`, on a thread for blocking work.
    ///
    /// # Errors
    /// When it cannot be read. What is in it is not looked at.
    pub async fn read(path: &Path) -> Result<Binary, LoadError> {
        let owned_path = path.to_owned();
        off_the_data_path(path, move || read(owned_path)).await
    }

    /// SHA-256 of the bytes, 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// On which threads a plugin is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// On all processors: nothing can run before it is done.
    Now,
    /// On threads that give way to all others: consumers are at work.
    Background,
}

impl Engine {
    /// Reads, compiles, checks and probes the component at `path`, which is given this configuration.
    ///
    /// The work is done on a thread for blocking work; a large component takes seconds.
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
        let path = binary.path.clone();
        let plugin = off_the_data_path(&path, move || match haste {
            Haste::Now => prepare(&engine, &binary, configuration),
            Haste::Background => in_the_background(&binary.path, || prepare(&engine, &binary, configuration)),
        })
        .await?;
        // A version is good only once an instance of it has come up under the limits.
        match plugin.instantiate("probe".into()).await {
            Ok(_) => Ok(plugin),
            Err(reason) => Err(LoadError::DoesNotStart { path, reason }),
        }
    }
}

impl Plugin {
    pub(super) fn new(
        ready: PluginPre<State>,
        digest: String,
        configuration: Arc<PluginConfig>,
        engine: Engine,
    ) -> Plugin {
        let log_budget = Arc::new(LogBudget::new(engine.limits(), FIRST_GENERATION));
        Plugin { inner: Arc::new(Inner { ready, digest, configuration, log_budget, engine }) }
    }

    /// The same plugin under another generation.
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

    /// Instances that there is room for.
    pub fn instances_max(&self) -> u32 {
        self.inner.engine.instances()
    }

    /// Log lines of all its instances that were dropped because they were too many.
    pub fn log_lines_dropped(&self) -> u64 {
        self.inner.log_budget.dropped()
    }

    /// An instance for the consumer with this id; the id is named in the plugin's log lines.
    pub async fn instantiate(&self, consumer_id: Arc<str>) -> Result<Instance, Failure> {
        Instance::start(self.clone(), consumer_id).await
    }

    /// Likewise, but it comes up only with its first message, which fails if it cannot.
    pub fn instance_to_be(&self, consumer_id: Arc<str>) -> Instance {
        Instance::to_be(self.clone(), consumer_id)
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

    pub(super) fn ready(&self) -> &PluginPre<State> {
        &self.inner.ready
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("digest", &self.short_digest()).finish_non_exhaustive()
    }
}

/// Runs work that computes for long on a thread for blocking work.
pub(super) async fn off_the_data_path<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(LoadError::Invalid { path: path.to_owned(), reason: format!("the compiler broke down: {error}") })
    })
}

/// Runs work on threads that have a lower priority than those of the consumers. Blocks.
fn in_the_background<T: Send>(path: &Path, work: impl FnOnce() -> Result<T, LoadError> + Send) -> Result<T, LoadError> {
    // Wasmtime compiles on the pool of threads that it is called from.
    let threads = rayon::ThreadPoolBuilder::new()
        .thread_name(|number| format!("compiler-{number}"))
        .start_handler(|_| give_way())
        .build();
    match threads {
        Ok(threads) => threads.install(work),
        Err(error) => Err(LoadError::Invalid {
            path: path.to_owned(),
            reason: format!("cannot start the compiler's threads: {error}"),
        }),
    }
}

/// Lowers the priority of this thread: with every processor busy it gets a tenth of one.
fn give_way() {
    // Elsewhere the call would lower the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, COMPILER_NICENESS) {
        tracing::debug!("cannot compile at a lower priority: {error}");
    }
}

/// Everything short of the probe. Blocks.
fn prepare(engine: &Engine, binary: &Binary, configuration: Arc<PluginConfig>) -> Result<Plugin, LoadError> {
    let Binary { path, bytes, digest } = binary;
    let component = compile(engine, bytes, path)?;
    match misfits(&component, path).into_iter().next() {
        Some(misfit) => Err(misfit),
        None => Ok(Plugin::new(resolve(&component, path)?, digest.clone(), configuration, engine.clone())),
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
        return Err(LoadError::CoreModule { path: path.to_owned() });
    }
    engine.compile(bytes).map_err(|error| LoadError::Invalid { path: path.to_owned(), reason: one_line(&error) })
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn exports(component: &Component) -> Vec<String> {
    component.component_type().exports(component.engine()).map(|(name, _)| name.to_owned()).collect()
}

pub(super) fn imports(component: &Component) -> Vec<String> {
    component.component_type().imports(component.engine()).map(|(name, _)| name.to_owned()).collect()
}

/// Whether this names some version of what a plugin exports.
pub(super) fn is_ours(export: &str) -> bool {
    export.starts_with(EXPORT_ANY_VERSION)
}

/// What an import of this name gets.
pub(super) fn grant(import: &str) -> Grant {
    IMPORTS.iter().find(|(known, _)| import.starts_with(known)).map_or(Grant::Unknown, |(_, grant)| *grant)
}

/// What does not fit the contract, as far as names tell.
pub(super) fn misfits(component: &Component, path: &Path) -> Vec<LoadError> {
    let path = || path.to_owned();
    let mut misfits = Vec::new();
    // The export first: whoever gives a wrong file gets told so, and not about the file's imports.
    let exports = exports(component);
    if !exports.iter().any(|name| name.starts_with(EXPORT_COMPATIBLE)) {
        misfits.push(LoadError::WrongWorld { path: path(), expected: EXPORT, exports, reason: None });
    }
    let mut unknown = imports(component);
    unknown.retain(|name| grant(name) == Grant::Unknown);
    if !unknown.is_empty() {
        misfits.push(LoadError::UnknownImports { path: path(), imports: unknown });
    }
    misfits
}

/// Resolves the imports and finds the exports of a component without misfits, or says whose types differ.
pub(super) fn resolve(component: &Component, path: &Path) -> Result<PluginPre<State>, LoadError> {
    let path = path.to_owned();
    let mut linker = Linker::new(component.engine());
    link(&mut linker).map_err(|error| LoadError::Engine(one_line(&error)))?;
    deny(&mut linker, component)
        .map_err(|error| LoadError::WrongImports { path: path.clone(), reason: one_line(&error) })?;
    let linked = match linker.instantiate_pre(component) {
        Ok(linked) => linked,
        Err(error) => return Err(LoadError::WrongImports { path, reason: one_line(&error) }),
    };
    PluginPre::new(linked).map_err(|error| LoadError::WrongWorld {
        path,
        expected: EXPORT,
        exports: exports(component),
        reason: Some(one_line(&error)),
    })
}

/// What a plugin finds when it starts: all of WASI 0.2 (over a context with nothing in it), logging, and its own
/// configuration.
fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    super::bindings::Plugin::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
}

/// Puts a trap behind every function of `wasi:http`. Some toolchains import it into every component, whether it
/// calls it or not, so refusing the component would be too much; but no call may look like one that worked.
fn deny(linker: &mut Linker<State>, component: &Component) -> wasmtime::Result<()> {
    let engine = component.engine();
    for (name, import) in component.component_type().imports(engine) {
        let ComponentItem::ComponentInstance(interface) = import.ty else { continue };
        if !name.starts_with(HTTP) {
            continue;
        }
        let mut instance = linker.instance(name)?;
        for (item, exported) in interface.exports(engine) {
            match exported.ty {
                ComponentItem::ComponentFunc(_) => {
                    let called = format!("{name}#{item}");
                    instance.func_new(item, move |_, _, _, _| {
                        wasmtime::bail!("it called {called}, which plugins are not granted")
                    })?;
                }
                ComponentItem::Resource(_) => instance.resource(item, resource_type(item), |_, _| Ok(()))?,
                // Types need no definition.
                _ => {}
            }
        }
    }
    Ok(())
}

/// The type behind a resource that a denied interface names: one of `wasi:io`, which is granted, or one of its own.
fn resource_type(name: &str) -> ResourceType {
    match name {
        "input-stream" => ResourceType::host::<DynInputStream>(),
        "output-stream" => ResourceType::host::<DynOutputStream>(),
        "pollable" => ResourceType::host::<DynPollable>(),
        "error" | "io-error" => ResourceType::host::<IoError>(),
        _ => ResourceType::host::<Never>(),
    }
}

/// Stands for all resources of denied interfaces, of which there is none ever.
enum Never {}

/// An error with its causes. Wasmtime's have line breaks.
fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Names as an enumeration, the first few of them.
pub(super) fn list(names: &[String]) -> String {
    const NAMES_MAX: usize = 8;
    let mut shown = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX {
        shown += &format!(" and {} more", names.len() - NAMES_MAX);
    }
    if shown.is_empty() { "nothing".into() } else { shown }
}

/// An optional reason as the tail of a sentence.
pub(super) fn because(reason: &Option<String>) -> String {
    reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"))
}
