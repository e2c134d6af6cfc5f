//! Errors of plugins that cannot be used, each with advice. This file knows no wasmtime.

use std::path::PathBuf;
use std::time::Duration;

use super::outcome::Failure;
use super::text::{because, list};
use super::toolchain::Toolchain;

/// How to make a component with an unknown toolchain.
const COMPONENT: &str = "build it for the target wasm32-wasip2, or make a component of it with `host componentize`";

/// How to choose the world, behind a sentence that names it.
fn world(toolchain: Option<Toolchain>) -> &'static str {
    toolchain.map_or("", Toolchain::world)
}

/// A plugin that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Wasmtime refused its configuration. The plugin is not the cause.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
    /// The file does not exist or cannot be read.
    #[error("cannot read the plugin {}: {source}; name the file of a WebAssembly component", .path.display())]
    Unreadable {
        /// The plugin's file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The path leads to something that is no regular file.
    #[error("cannot load the plugin {}: it is {what}, not a file; name the built component, a .wasm file", .path.display())]
    NotAFile {
        /// The plugin's file.
        path: PathBuf,
        /// What the path leads to.
        what: &'static str,
    },
    /// The file is longer than the limit.
    #[error(
        "cannot load the plugin {}: it has {bytes} bytes, and the limit is {bytes_max} (--max-plugin-bytes); is it the right file?",
        .path.display()
    )]
    TooLong {
        /// The plugin's file.
        path: PathBuf,
        /// Length of the file.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// Somebody writes to the file.
    #[error(
        "cannot load the plugin {}: it changed while it was read; write a new version to another file, and rename it",
        .path.display()
    )]
    Changing {
        /// The plugin's file.
        path: PathBuf,
    },
    /// The file system does not answer.
    #[error(
        "cannot read the plugin {}: the file system did not answer within {time:?}; look at the mount, or copy the file to a disk \
         of this machine",
        .path.display()
    )]
    SlowFile {
        /// The plugin's file.
        path: PathBuf,
        /// How long the host waited.
        time: Duration,
    },
    /// The process that compiles came to no end, or to a bad one.
    #[error("cannot compile the plugin {}: {reason}", .path.display())]
    NotCompiled {
        /// The plugin's file.
        path: PathBuf,
        /// What became of the process, and what to do.
        reason: String,
    },
    /// The file is empty.
    #[error("cannot load the plugin {}: the file is empty; name the built component, a .wasm file", .path.display())]
    Empty {
        /// The plugin's file.
        path: PathBuf,
    },
    /// The file is of another kind.
    #[error(
        "cannot load the plugin {}: it is not WebAssembly; name the built component, a .wasm file",
        .path.display()
    )]
    NotWasm {
        /// The plugin's file.
        path: PathBuf,
    },
    /// A core module, not a component.
    #[error(
        "cannot load the plugin {}: it is a core module, not a component; {}",
        .path.display(), .toolchain.map_or(COMPONENT, Toolchain::component)
    )]
    CoreModule {
        /// The plugin's file.
        path: PathBuf,
        /// The toolchain that made the file, if it is known.
        toolchain: Option<Toolchain>,
    },
    /// A component that is damaged, or that uses disabled features.
    #[error("cannot compile the plugin {}: {reason}; build it again with a current toolchain", .path.display())]
    Invalid {
        /// The plugin's file.
        path: PathBuf,
        /// Wasmtime's error.
        reason: String,
    },
    /// A component that needs a disabled feature of WebAssembly.
    #[error("cannot use the plugin {}: {what}, which this host does not support; {advice}", .path.display())]
    Needs {
        /// The plugin's file.
        path: PathBuf,
        /// What the component is or uses.
        what: &'static str,
        /// Advice for the author.
        advice: &'static str,
    },
    /// The system does not allow the process to run compiled code.
    #[error(
        "cannot compile the plugin {}: the system does not let this process make memory executable ({reason}); a plugin is \
         compiled to machine code, so allow it: MemoryDenyWriteExecute=no for a systemd service, execmem for SELinux",
        .path.display()
    )]
    NotExecutable {
        /// The plugin's file.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// The system refuses memory or address space.
    #[error(
        "cannot start the plugin {}: the system gives this process no memory for it ({reason}); an instance reserves 4 GiB of \
         address space, most of which it never uses, so raise the limit of address space (`ulimit -v`, LimitAS= of a systemd \
         service)",
        .path.display()
    )]
    NoMemory {
        /// The plugin's file.
        path: PathBuf,
        /// The system's error.
        reason: String,
    },
    /// A plugin of a version of the contract that this host does not run.
    #[error(
        "cannot use the plugin {}: it exports {export}, and this host runs host:plugin/processor of the versions 1.x and \
         0.1.x; build it against the world `plugin` in wit/{}, or use a host that runs its version",
        .path.display(), world(*.toolchain)
    )]
    WrongVersion {
        /// The plugin's file.
        path: PathBuf,
        /// The toolchain that made the file, if it is known.
        toolchain: Option<Toolchain>,
        /// The interface with the version that the component exports.
        export: String,
    },
    /// A component for another world, or with other types in this one.
    #[error(
        "cannot use the plugin {}: it does not export {expected}, but {}{}; \
         build it against the world `plugin` in wit/{}",
        .path.display(), list(.exports), because(.reason), world(*.toolchain)
    )]
    WrongWorld {
        /// The plugin's file.
        path: PathBuf,
        /// The toolchain that made the file, if it is known.
        toolchain: Option<Toolchain>,
        /// The interface that a plugin must export.
        expected: &'static str,
        /// What the component exports.
        exports: Vec<String>,
        /// The difference, if the interface is exported.
        reason: Option<String>,
    },
    /// A component that needs an import which the host does not provide.
    #[error(
        "cannot use the plugin {}: it imports {}, which this host does not provide; \
         a plugin may import WASI 0.2 or 0.3 and the imports of the world `plugin` in wit/{}",
        .path.display(), list(.imports), world(*.toolchain)
    )]
    UnknownImports {
        /// The plugin's file.
        path: PathBuf,
        /// The toolchain that made the file, if it is known.
        toolchain: Option<Toolchain>,
        /// The missing imports.
        imports: Vec<String>,
    },
    /// A component with an import that has another type in the host.
    #[error(
        "cannot use the plugin {}: {reason}; build it against WASI 0.2 or 0.3 and the files in wit/{}",
        .path.display(), world(*.toolchain)
    )]
    WrongImports {
        /// The plugin's file.
        path: PathBuf,
        /// The toolchain that made the file, if it is known.
        toolchain: Option<Toolchain>,
        /// Wasmtime's error.
        reason: String,
    },
    /// The probe, the first instance, failed to start.
    #[error("the plugin {} does not start: {reason}", .path.display())]
    DoesNotStart {
        /// The plugin's file.
        path: PathBuf,
        /// The failure of the probe.
        reason: Failure,
    },
}
