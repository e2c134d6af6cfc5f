//! What comes of a call: the plugin's decision, or why there is none. It knows no wasmtime.

use std::time::Duration;

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
    /// A text that the guest returned is not UTF-8.
    #[error("the plugin returned text that is not UTF-8; make it encode its results and reasons as UTF-8")]
    NotText,
    /// A result that cannot be written: the sentence says why.
    #[error("{0}")]
    BadResult(String),
    /// No fresh instance could be made.
    #[error("could not start an instance of the plugin: {0}")]
    Start(String),
}
