//! The outcome of a call: the plugin's decision, or the reason why there is none. This file knows no wasmtime.

use std::time::Duration;

/// The plugin's decision about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One result, as JSON text.
    Emit(String),
    /// Several results in order.
    EmitAll(Vec<Output>),
    /// No result, on purpose.
    Drop,
    /// Try again later, after this delay in milliseconds if one is given.
    Retry(Option<u32>),
    /// Give up at once, with the plugin's reason.
    Reject(String),
}

/// One result and its destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Name of the output; `None` for the main one.
    pub to: Option<String>,
    /// The result as JSON text.
    pub body: String,
}

impl Output {
    /// A result for the main output.
    #[must_use]
    pub fn main(body: String) -> Output {
        Output { to: None, body }
    }
}

/// Why a message has no outcome. The texts are bounded, and fit a log line and a dead letter.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Failure {
    /// The plugin returned an error. Its instance stays in use.
    #[error("the plugin failed: {0}")]
    Failed(String),
    /// The guest trapped: the reason, and the end of its stderr, for example the text of a panic.
    #[error("the plugin trapped: {0}")]
    Trapped(String),
    /// The guest took longer than its time limit.
    #[error(
        "the plugin took longer than {}; raise --max-plugin-time or make the plugin faster",
        humantime::format_duration(*.0)
    )]
    TimedOut(Duration),
    /// The guest was refused memory, and trapped or returned an error.
    #[error(
        "the plugin needs more than {bytes_max} bytes of memory; raise --max-plugin-memory or make the plugin use less\
         {words}"
    )]
    OutOfMemory {
        /// The limit in bytes.
        bytes_max: usize,
        /// The error that the guest returned, in brackets; empty after a trap.
        words: String,
    },
    /// A result was too long, or all results of a message together were too long.
    #[error(
        "the plugin's result is longer than {bytes_max} bytes; raise --max-result-bytes or make the result shorter"
    )]
    ResultTooLong {
        /// The exceeded limit, in bytes.
        bytes_max: usize,
    },
    /// A message had too many results.
    #[error("the plugin returned more than {0} results for one message; raise --max-results or return fewer results")]
    TooManyResults(u32),
    /// The guest returned text that is not UTF-8.
    #[error("the plugin returned text that is not UTF-8; encode results and reasons as UTF-8")]
    NotText,
    /// A result that cannot be written, with the reason as a sentence.
    #[error("{0}")]
    BadResult(String),
    /// No fresh instance could be created.
    #[error("could not start an instance of the plugin: {0}")]
    Start(String),
}
