//! The processing function: a Wasm component under limits. Only this module names wasmtime, and it knows no Redis.
//!
//! The files depend on each other in one direction. Each file knows only the files above it:
//!
//! | file | contents |
//! | --- | --- |
//! | `file` | reads the file of a plugin, which need not be one |
//! | `toolchain`, `advice` | the language of a component, and how its toolchain is told what to do |
//! | `outcome`, `error`, `text` | values: the outcome of a call, the errors of a plugin, texts for a log line |
//! | `state/` | the state of a plugin while a delivery is processed |
//! | `limits`, `journal` | limits and log output of one instance |
//! | `bindings`, `imports/` | the contract in `wit/` as Rust types; all imports of a guest, and the store |
//! | `contract` | the versions of the contract that the host runs, and a guest of any of them |
//! | `shape`, `compiler`, `functions`, `image`, `child` | what is done in the process that compiles, and nowhere else |
//! | `cache`, `apart`, `engine` | compiled code, the process that compiles, and the engines, which have no compiler |
//! | `compiled` | a [`Plugin`]: ready for use |
//! | `instance` | a consumer's own [`Instance`], which runs `process` |
//! | `loader` | from a file to a tested plugin |
//! | `inspect` | facts about a component, for `host check` |
//!
//! Invariant: a process that runs plugins compiles none, and of a component that is not compiled yet it reads no more than
//! names.
//!
//! Invariant: a store whose call ended without an answer is dropped and never called again.

mod advice;
mod apart;
mod bindings;
mod cache;
mod child;
mod compiled;
mod compiler;
mod contract;
mod engine;
mod error;
mod file;
mod functions;
mod image;
mod imports;
mod inspect;
mod instance;
mod journal;
mod limits;
mod loader;
#[cfg(feature = "native-bench")]
pub mod native;
mod outcome;
mod shape;
pub mod state;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod toolchain;

pub use child::serve;
pub use compiled::Plugin;
pub use compiler::Haste;
pub use engine::{Engine, TICK};
pub use error::LoadError;
pub use imports::{Context, Grant};
pub use inspect::{Import, Inspection};
pub use instance::Instance;
pub use limits::Usage;
pub use loader::Binary;
pub use outcome::{Failure, Outcome, Output};
pub use toolchain::{Producer, Toolchain};
