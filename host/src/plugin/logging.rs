//! What a guest writes: `wasi:logging` becomes log events, and so do lines on stdout and stderr.
//! It knows the consumer's id and nothing of messages.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::bindings::wasi::logging::logging::{Host, Level};
use super::instance::State;

/// Longest text of one log line, in bytes.
const LINE_BYTES_MAX: usize = 8 << 10;
/// Longest context of a log line, in bytes.
const CONTEXT_BYTES_MAX: usize = 256;
/// How much of stderr is kept to explain a trap, in bytes.
const LAST_WORDS_BYTES_MAX: usize = 1 << 10;
/// Longest write that a guest may make at once, in bytes; wasmtime's own streams take as much.
const WRITE_BYTES_MAX: usize = 64 << 10;

impl Host for State {
    fn log(&mut self, level: Level, context: String, message: String) {
        // A level is part of an event's static description, hence one macro for each.
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    target: "plugin",
                    consumer = &*self.consumer_id,
                    context = &*printable(&context, CONTEXT_BYTES_MAX),
                    "{}",
                    printable(&message, LINE_BYTES_MAX)
                )
            };
        }
        match level {
            Level::Trace => event!(trace),
            Level::Debug => event!(debug),
            Level::Info => event!(info),
            Level::Warn => event!(warn),
            // `tracing` has no level above error.
            Level::Error | Level::Critical => event!(error),
        }
    }
}

/// The guest's stdout or stderr. Plugins have `wasi:logging`; lines that arrive here (`print`
/// debugging, the text of a panic) are logged at the level debug. Clones share one stream.
#[derive(Clone)]
pub(super) struct Output(Arc<Mutex<Lines>>);

struct Lines {
    consumer_id: Arc<str>,
    /// `stdout` or `stderr`.
    name: &'static str,
    /// The line that has no end yet.
    line: Vec<u8>,
    /// The end of what was written since the last `forget`.
    last_words: Vec<u8>,
}

impl Output {
    pub(super) fn new(consumer_id: Arc<str>, name: &'static str) -> Output {
        Output(Arc::new(Mutex::new(Lines { consumer_id, name, line: Vec::new(), last_words: Vec::new() })))
    }

    /// Starts anew with the last words: what comes now belongs to another call.
    pub(super) fn forget(&self) {
        self.lines().last_words.clear();
    }

    /// The end of what was written since the last `forget`, on one line.
    pub(super) fn last_words(&self) -> String {
        let lines = self.lines();
        let text = String::from_utf8_lossy(&lines.last_words);
        let telling = text.lines().map(str::trim).filter(|line| {
            // Rust's advice is about its own environment, which plugins do not have.
            !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE")
        });
        printable(&telling.collect::<Vec<_>>().join(" "), LAST_WORDS_BYTES_MAX).into_owned()
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
        let excess = (self.last_words.len() + bytes.len()).saturating_sub(LAST_WORDS_BYTES_MAX);
        self.last_words.drain(..excess.min(self.last_words.len()));
        self.last_words.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_WORDS_BYTES_MAX)..]);

        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.line.len() >= LINE_BYTES_MAX {
                self.log_line();
            }
        }
    }

    fn log_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end();
        if !text.is_empty() {
            tracing::debug!(
                target: "plugin",
                consumer = &*self.consumer_id,
                context = self.name,
                "{}",
                printable(text, LINE_BYTES_MAX)
            );
        }
        self.line.clear();
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.lines().write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.lines().write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A guest's text made fit for one log line: at most `bytes_max` bytes of it, and control characters
/// written out, so that no plugin can forge a line or steer a terminal.
pub(super) fn printable(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let shown = &text[..text.floor_char_boundary(bytes_max)];
    if shown.len() == text.len() && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(shown.len() + 32);
    for char in shown.chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    if shown.len() < text.len() {
        // Writing to a string cannot fail.
        let _ = write!(line, " … ({} bytes)", text.len());
    }
    Cow::Owned(line)
}
