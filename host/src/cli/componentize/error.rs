//! Why a module cannot become a plugin, and what to do.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use super::super::wit::contract::CONTRACTS;
use super::super::{Exit, Failure};

/// Names in an enumeration, at most.
const NAMES_MAX: usize = 12;

/// `host componentize` failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a component out of {}: {problem}", .module.display())]
pub(super) struct ComponentizeError {
    pub module: PathBuf,
    pub problem: Problem,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("{0}; name the core module, a .wasm file that a compiler has written")]
    Unreadable(io::Error),
    #[error("the file is not WebAssembly; name the core module, a .wasm file that a compiler has written")]
    NotWasm,
    #[error(
        "the file is a component already, and needs no `host componentize`; `host check` says whether it is a plugin"
    )]
    Component,
    #[error(
        "the module is a command, a program that runs once and ends, because it exports `_start`; build a reactor: \
         with `-mexec-model=reactor` for clang and `zig cc`, with `-buildmode=c-shared` for Go, with \
         `crate-type = [\"cdylib\"]` for Rust"
    )]
    Command,
    #[error(
        "the module does not export the function `process`, and exports {}; {} is missing. For C and Go, `wit-bindgen` \
         makes the code that exports the function: compile and link that code too. In other languages, export a \
         function with exactly this name",
        list(.exports), expected()
    )]
    NoProcess { exports: Vec<String> },
    #[error(
        "the module imports what a plugin cannot have: {}; {} `host wit` shows the imports of a plugin",
        of_modules(.imports), advice(.imports)
    )]
    UnknownImports {
        /// Module and name.
        imports: Vec<(String, String)>,
    },
    #[error("{reason}; make the bindings anew from `host wit --dir wit`, and build with a current toolchain")]
    Unfit { reason: String },
    #[error("cannot read the contract of this host: {0}")]
    Contract(String),
    #[error("cannot write {}: {}", .0.display(), .1)]
    Unwritable(PathBuf, io::Error),
}

impl From<ComponentizeError> for Failure {
    fn from(error: ComponentizeError) -> Failure {
        let exit = match error.problem {
            Problem::Unwritable(..) | Problem::Contract(_) => Exit::Other,
            _ => Exit::Plugin,
        };
        Failure { exit, error: error.into() }
    }
}

/// The names of `process` in a core module, one for each version of the contract.
fn expected() -> String {
    let names: Vec<String> = CONTRACTS.iter().map(|contract| format!("`{}`", export(contract.version))).collect();
    names.join(" or ")
}

/// The name of `process` in a core module, as the component model defines the name.
pub(super) fn export(version: &str) -> String {
    format!("{}#process", interface(version))
}

/// The interface that a plugin exports.
pub(super) fn interface(version: &str) -> String {
    format!("host:plugin/processor@{version}")
}

/// What to do about imports that nobody provides.
fn advice(imports: &[(String, String)]) -> String {
    let mut text = String::new();
    let mut add = |beginning: &str, what: &str| {
        if imports.iter().any(|(module, _)| module.starts_with(beginning)) {
            let _ = write!(text, "{what} ");
        }
    };
    add("env", "`env` stands for functions that the linker did not find, so link the library that defines them.");
    add("wasi_unstable", "`wasi_unstable` comes from an old compiler, so use a current one.");
    add("wasi_snapshot_preview1", "WASI preview 1 has no such function, so correct the name.");
    add("gojs", "`gojs` is for browsers, so build with GOOS=wasip1.");
    add(
        "wasi:",
        "Only the imports of the contract are added to a module without types; for more of WASI 0.2, \
         embed a world of your own.",
    );
    text.trim_end().to_owned()
}

fn of_modules(imports: &[(String, String)]) -> String {
    list(&imports.iter().map(|(module, name)| format!("`{name}` of `{module}`")).collect::<Vec<_>>())
}

fn list(names: &[String]) -> String {
    let mut shown = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX {
        let _ = write!(shown, " and {} more", names.len() - NAMES_MAX);
    }
    if shown.is_empty() { "nothing".to_owned() } else { shown }
}
