//! The processing function: a Wasm component under limits.
//! Nothing else names wasmtime, and this module knows no Redis.
//!
//! The files depend on each other one way; each knows only those above it:
//!
//! | file | what it is |
//! | --- | --- |
//! | `outcome`, `error`, `text` | values: what a call came to, why a plugin cannot be used, texts fit for a log line |
//! | `limits`, `journal`, `shape` | what one instance may use, and what it may write; what a component looks like and needs |
//! | `bindings`, `imports/` | the contract in `wit/` as Rust types; everything that a guest may import, and the store |
//! | `cache`, `engine`, `compiler` | tuning of wasmtime, and the threads that compile |
//! | `compiled` | a [`Plugin`]: ready for use |
//! | `instance` | a consumer's own [`Instance`] of it, which runs `process` |
//! | `loader` | from a file to a plugin that is known to work |
//! | `inspect` | what a component is, for `host check` |
//!
//! Invariant: a store whose call ended in anything but an answer is dropped and never called again.

mod bindings;
mod cache;
mod compiled;
mod compiler;
mod engine;
mod error;
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
#[cfg(test)]
pub(crate) mod tests;
mod text;

pub use compiled::Plugin;
pub use compiler::Haste;
pub use engine::Engine;
pub use error::LoadError;
pub use imports::Grant;
pub use inspect::{Import, Inspection, Producer};
pub use instance::Instance;
pub use loader::Binary;
pub use outcome::{Failure, Outcome};
