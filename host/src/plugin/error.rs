//! Why a plugin cannot be used, each kind with what to do about it. It knows no wasmtime.

use std::path::PathBuf;

use super::outcome::Failure;
use super::text::{because, list};

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
    /// A component that needs a feature of WebAssembly that is not switched on.
    #[error("cannot use the plugin {}: {what}, which this host does not run; {advice}", .path.display())]
    Needs {
        /// The plugin's file.
        path: PathBuf,
        /// What it is or uses.
        what: &'static str,
        /// What its author can do.
        advice: &'static str,
    },
    /// The system does not let the process run what it compiles.
    #[error(
        "cannot compile the plugin {}: the system does not let this process make memory executable ({reason}); a plugin is \
         compiled to machine code, so allow it: MemoryDenyWriteExecute=no for a systemd service, execmem for SELinux",
        .path.display()
    )]
    NotExecutable {
        /// The plugin's file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The system gives no memory, or no room for it.
    #[error(
        "cannot start the plugin {}: the system gives this process no memory for it ({reason}); an instance reserves 4 GiB of \
         address space, most of which it never uses, so raise the limit of address space (`ulimit -v`, LimitAS= of a systemd \
         service)",
        .path.display()
    )]
    NoMemory {
        /// The plugin's file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A component of another world, or of another version of ours.
    #[error(
        "cannot use the plugin {}: it does not export {expected}, but {}{}; \
         build it against the world `plugin` in wit/",
        .path.display(), list(.exports), because(.reason)
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
        .path.display(), list(.imports)
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
