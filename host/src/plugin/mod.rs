//! The processing function: a Wasm component under limits.
//! Nothing else names wasmtime, and this module knows no Redis.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::config::PluginLimits;

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

/// Why a message has no outcome.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Failure {
    /// The plugin returned an error.
    #[error("the plugin failed: {0}")]
    Failed(String),
    /// The guest trapped.
    #[error("the plugin trapped: {0}")]
    Trapped(String),
    /// The guest took longer than its limit.
    #[error("the plugin took longer than {0:?}")]
    TimedOut(Duration),
    /// No fresh instance could be made.
    #[error("could not start an instance of the plugin: {0}")]
    Start(String),
}

/// A plugin that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);

/// The wasmtime engine, one per process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {}

/// One compiled and checked version of a plugin. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plugin {}

/// A consumer's own instance. After a trap or a limit it replaces itself with a fresh one.
#[derive(Debug)]
pub struct Instance {}

impl Engine {
    /// An engine for `instances` instances at a time.
    pub fn new(_limits: &PluginLimits, _instances: u32) -> Result<Engine, LoadError> {
        unimplemented!()
    }

    /// Reads, compiles, checks and probes the component at `path`.
    pub async fn load(&self, _path: &Path) -> Result<Plugin, LoadError> {
        unimplemented!()
    }
}

impl Plugin {
    /// SHA-256 of the plugin's bytes, 64 hexadecimal digits.
    pub fn digest(&self) -> &str {
        unimplemented!()
    }

    /// An instance for the consumer with this id; the id is named in the plugin's log lines.
    pub async fn instantiate(&self, _consumer_id: Arc<str>) -> Result<Instance, Failure> {
        unimplemented!()
    }
}

impl Instance {
    /// Runs the plugin's `process` on one message, under the limits.
    pub async fn process(
        &mut self,
        _id: &str,
        _body: &str,
        _attempt: u32,
    ) -> Result<Outcome, Failure> {
        unimplemented!()
    }
}
