//! The processing function: a Wasm component under limits.
//! Nothing else names wasmtime, and this module knows no Redis.
//!
//! A plugin's file becomes a [`Plugin`] in `loader` (read, compiled, checked, started once as a
//! probe), on the [`Engine`] that `engine` tunes. Every consumer has an [`Instance`] of it in
//! `instance`, whose store carries the `limits`. What a guest imports is linked in `bindings` (the
//! contract in `wit/`), `logging` and `configuration`.
//!
//! Invariant: a store whose call ended in anything but an answer is dropped and never called again.

use std::path::PathBuf;
use std::time::Duration;

mod bindings;
mod cache;
mod configuration;
mod engine;
mod inspect;
mod instance;
mod limits;
mod loader;
mod logging;
#[cfg(feature = "native-bench")]
pub mod native;
#[cfg(test)]
mod tests;

pub use engine::Engine;
pub use inspect::{Grant, Import, Inspection, Producer};
pub use instance::Instance;
pub use loader::{Binary, Haste, Plugin};

/// What the plugin decided about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One result, JSON text.
    Emit(String),
    /// Several results, JSON text each, in order.
    EmitAll(Vec<String>),
    /// No result, on purpose.
    Drop,
    /// Try again later, after so many milliseconds if given.
    Retry(Option<u32>),
    /// Give up at once, with the plugin's reason.
    Reject(String),
}

/// Why a message has no outcome. The texts are bounded, fit for a log line and a dead letter.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Failure {
    /// The plugin returned an error. Its instance goes on.
    #[error("the plugin failed: {0}")]
    Failed(String),
    /// The guest trapped: the reason, and what it last wrote to stderr, for example a panic's text.
    #[error("the plugin trapped: {0}")]
    Trapped(String),
    /// The guest took longer than its limit.
    #[error(
        "the plugin took longer than {}; raise its time limit or make it faster",
        humantime::format_duration(*.0)
    )]
    TimedOut(Duration),
    /// The guest was refused memory and did not survive it. The limit in bytes.
    #[error("the plugin needs more than {0} bytes of memory; raise its memory limit or make it use less")]
    OutOfMemory(usize),
    /// A result was too long, or all results of a message together were.
    #[error("the plugin's result is longer than {bytes_max} bytes; raise its result limit or make the result shorter")]
    ResultTooLong {
        /// The limit that was passed, in bytes.
        bytes_max: usize,
    },
    /// A message had more results than it may have.
    #[error("the plugin gave more than {0} results for one message; raise its limit of results or make it give fewer")]
    TooManyResults(u32),
    /// A result that cannot be written: the sentence says why.
    #[error("{0}")]
    BadResult(String),
    /// No fresh instance could be made.
    #[error("could not start an instance of the plugin: {0}")]
    Start(String),
}

/// A plugin that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Wasmtime refused its configuration. Nothing a plugin can do.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
    /// There is no such file, or it cannot be read.
    #[error("cannot read the plugin {}: {source}; name the file of a WebAssembly component", .path.display())]
    Unreadable {
        /// The plugin's file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Nothing is in the file.
    #[error("cannot load the plugin {}: the file is empty; name the built component, a .wasm file", .path.display())]
    Empty {
        /// The plugin's file.
        path: PathBuf,
    },
    /// Some other kind of file.
    #[error(
        "cannot load the plugin {}: it is not WebAssembly; name the built component, a .wasm file",
        .path.display()
    )]
    NotWasm {
        /// The plugin's file.
        path: PathBuf,
    },
    /// WebAssembly, but of the kind before components.
    #[error(
        "cannot load the plugin {}: it is a core module, not a component; build it for the target wasm32-wasip2, \
         or turn it into a component with `wasm-tools component new`",
        .path.display()
    )]
    CoreModule {
        /// The plugin's file.
        path: PathBuf,
    },
    /// A component that is damaged, or uses features that are off.
    #[error("cannot compile the plugin {}: {reason}; build it again with a current toolchain", .path.display())]
    Invalid {
        /// The plugin's file.
        path: PathBuf,
        /// What wasmtime said.
        reason: String,
    },
    /// A component of another world, or of another version of ours.
    #[error(
        "cannot use the plugin {}: it does not export {expected}, but {}{}; \
         build it against the world `plugin` in wit/",
        .path.display(), loader::list(.exports), loader::because(.reason)
    )]
    WrongWorld {
        /// The plugin's file.
        path: PathBuf,
        /// The interface that a plugin exports.
        expected: &'static str,
        /// What it exports.
        exports: Vec<String>,
        /// What does not fit, if the interface is there.
        reason: Option<String>,
    },
    /// A component that needs what the host does not have.
    #[error(
        "cannot use the plugin {}: it imports {}, which this host does not provide; \
         a plugin may import WASI 0.2 and what the world `plugin` in wit/ names",
        .path.display(), loader::list(.imports)
    )]
    UnknownImports {
        /// The plugin's file.
        path: PathBuf,
        /// What it imports in vain.
        imports: Vec<String>,
    },
    /// A component that imports something the host has in another shape.
    #[error("cannot use the plugin {}: {reason}; build it against WASI 0.2 and the files in wit/", .path.display())]
    WrongImports {
        /// The plugin's file.
        path: PathBuf,
        /// What wasmtime said.
        reason: String,
    },
    /// The probe did not come up.
    #[error("the plugin {} does not start: {reason}", .path.display())]
    DoesNotStart {
        /// The plugin's file.
        path: PathBuf,
        /// What happened to the probe.
        reason: Failure,
    },
}
