//! `host` turns a Redis Pub/Sub channel into a scalable consumer group that runs a sandboxed WebAssembly component.
//!
//! The path of a message, and the room of each step:
//!
//! ```text
//! PUBLISH → intake (receive, claim, append) → inbox → consumer (fetch, process, settle) → messages:processed
//! ```
//!
//! Invariants: only `redis` speaks Redis; only `plugin` names wasmtime, and it knows no Redis; no message is
//! acknowledged before its results are written, and both happen in one step; a poisoned store is never called again;
//! every queue, wait and retry has a bound that `config` names.

// Standard output and standard error are written through `output`, or at once by `cli`: those macros block, and panic
// without a reader.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod announcer;
#[cfg(test)]
mod arbitrary;
pub mod cases;
pub mod cli;
pub mod config;
pub mod consumer;
pub mod counters;
pub mod dead_letter;
pub mod dead_letters;
pub mod effects;
pub mod fleet;
pub mod group;
pub mod host;
pub mod http;
pub mod identity;
pub mod intake;
pub mod measured;
pub mod message;
pub mod observe;
pub mod output;
pub mod pace;
pub mod parts;
pub mod pause;
pub mod plugin;
mod printable;
pub mod processor;
pub mod redis;
pub mod registry;
pub mod reload;
pub mod remote;
pub mod report;
pub mod retry;
pub mod service_manager;
pub mod settle;
pub mod standing;
mod state;
mod takeover;
mod throttle;
mod time;
pub mod traces;
pub mod trimming;
pub mod version;
pub mod watchdog;
pub mod worker;
