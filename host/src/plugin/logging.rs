//! What a guest writes: `wasi:logging` becomes log events, and so do lines on stdout and stderr, with the
//! consumer, the message and the plugin's generation. What is too much is dropped and counted.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::bindings::wasi::logging::logging::{Host, Level};
use super::instance::State;
use crate::config::PluginLimits;

/// Longest context of a log line, in bytes.
const CONTEXT_BYTES_MAX: usize = 256;
/// How much of stderr is kept to explain a trap, in bytes.
const LAST_WORDS_BYTES_MAX: usize = 1 << 10;
/// Longest write that a guest may make at once, in bytes; wasmtime's own streams take as much.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// Time over which the rate of log lines is counted.
const WINDOW: Duration = Duration::from_secs(1);

/// What all instances of a plugin together may log. One for each version of a plugin.
#[derive(Debug)]
pub(super) struct LogBudget {
    generation: u64,
    lines_max: u32,
    rate_max: u32,
    line_bytes_max: usize,
    window: Mutex<Window>,
    /// Lines dropped and not yet told about.
    untold: AtomicU64,
    /// Lines dropped ever.
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Window {
    start: Instant,
    lines: u32,
}

impl LogBudget {
    pub(super) fn new(limits: &PluginLimits, generation: u64) -> LogBudget {
        LogBudget {
            generation,
            lines_max: limits.log_lines_max,
            rate_max: limits.log_rate_max,
            line_bytes_max: limits.log_line_bytes_max,
            window: Mutex::new(Window { start: Instant::now(), lines: 0 }),
            untold: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Lines dropped since the plugin was loaded.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Whether another line may be logged now.
    fn permit(&self, now: Instant) -> bool {
        self.turn_over(now);
        let mut window = self.window();
        window.lines = window.lines.saturating_add(1);
        window.lines <= self.rate_max
    }

    /// Begins a new window when it is time, and logs what was dropped in the old one.
    fn turn_over(&self, now: Instant) {
        let mut window = self.window();
        if now.saturating_duration_since(window.start) >= WINDOW {
            *window = Window { start: now, lines: 0 };
            drop(window);
            self.tell();
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_line(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        if self.untold.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                generation = self.generation,
                "the plugin logs more than {} lines for a message or {} a second; the others are dropped and counted",
                self.lines_max,
                self.rate_max
            );
        }
    }

    /// Logs how many lines were dropped, if any were.
    fn tell(&self) {
        let dropped = self.untold.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(
                generation = self.generation,
                dropped,
                "dropped log lines of the plugin; make it log less, or raise --max-log-lines or --max-log-rate"
            );
        }
    }
}

impl Drop for LogBudget {
    fn drop(&mut self) {
        self.tell();
    }
}

/// What one instance writes to the log. Clones share one journal.
#[derive(Clone)]
pub(super) struct Journal(Arc<Mutex<Entries>>);

struct Entries {
    budget: Arc<LogBudget>,
    consumer_id: Arc<str>,
    /// The message in work; empty while the instance starts.
    message_id: String,
    /// Lines logged for this message.
    lines: u32,
    /// Lines of stdout and stderr that have no end yet.
    open: [Vec<u8>; 2],
    /// The end of what was written to stderr for this message.
    last_words: Vec<u8>,
}

/// Where a guest writes to without `wasi:logging`. Such lines (`print` debugging, the text of a panic) are logged
/// at the level debug.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

impl Journal {
    pub(super) fn new(budget: Arc<LogBudget>, consumer_id: Arc<str>) -> Journal {
        Journal(Arc::new(Mutex::new(Entries {
            budget,
            consumer_id,
            message_id: String::new(),
            lines: 0,
            open: [Vec::new(), Vec::new()],
            last_words: Vec::new(),
        })))
    }

    pub(super) fn stdout(&self) -> Output {
        Output { journal: self.clone(), stream: Stream::Stdout }
    }

    pub(super) fn stderr(&self) -> Output {
        Output { journal: self.clone(), stream: Stream::Stderr }
    }

    /// What comes now belongs to this message.
    pub(super) fn begin(&self, message_id: &str) {
        let mut entries = self.entries();
        entries.message_id.clear();
        entries.message_id.push_str(message_id);
        entries.lines = 0;
        entries.last_words.clear();
    }

    /// Logs what has no end of line: nothing more of this message comes.
    pub(super) fn end(&self) {
        let mut entries = self.entries();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !entries.open[stream as usize].is_empty() {
                entries.log_open_line(stream);
            }
        }
        // A plugin that has become quiet writes no line that would tell what was dropped.
        if entries.budget.untold.load(Ordering::Relaxed) > 0 {
            entries.budget.turn_over(Instant::now());
        }
    }

    /// The end of what was written to stderr for this message, on one line.
    pub(super) fn last_words(&self) -> String {
        let entries = self.entries();
        let text = String::from_utf8_lossy(&entries.last_words);
        let telling = text.lines().map(str::trim).filter(|line| {
            // Rust's advice is about its own environment, which plugins do not have.
            !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE")
        });
        printable(&telling.collect::<Vec<_>>().join(" "), LAST_WORDS_BYTES_MAX).into_owned()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stderr {
            let excess = (self.last_words.len() + bytes.len()).saturating_sub(LAST_WORDS_BYTES_MAX);
            self.last_words.drain(..excess.min(self.last_words.len()));
            self.last_words.extend_from_slice(&bytes[bytes.len().saturating_sub(LAST_WORDS_BYTES_MAX)..]);
        }
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.open[stream as usize].extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.open[stream as usize].len() > self.budget.line_bytes_max {
                self.log_open_line(stream);
            }
        }
    }

    fn log_open_line(&mut self, stream: Stream) {
        let line = std::mem::take(&mut self.open[stream as usize]);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            let context = if stream == Stream::Stdout { "stdout" } else { "stderr" };
            self.log(Level::Debug, context, text);
        }
    }

    fn log(&mut self, level: Level, context: &str, text: &str) {
        // A level is part of an event's static description, hence one macro for each.
        macro_rules! event {
            ($level:ident) => {{
                // A line that nobody would see costs nothing and counts for nothing.
                if !tracing::enabled!(target: "plugin", tracing::Level::$level) {
                    return;
                }
                self.lines = self.lines.saturating_add(1);
                if self.lines > self.budget.lines_max || !self.budget.permit(Instant::now()) {
                    return self.budget.drop_line();
                }
                tracing::event!(
                    target: "plugin",
                    tracing::Level::$level,
                    consumer = &*self.consumer_id,
                    message_id = (!self.message_id.is_empty()).then_some(self.message_id.as_str()),
                    generation = self.budget.generation,
                    context = &*printable(context, CONTEXT_BYTES_MAX),
                    "{}",
                    printable(text, self.budget.line_bytes_max)
                )
            }};
        }
        match level {
            Level::Trace => event!(TRACE),
            Level::Debug => event!(DEBUG),
            Level::Info => event!(INFO),
            Level::Warn => event!(WARN),
            // `tracing` has no level above error.
            Level::Error | Level::Critical => event!(ERROR),
        }
    }
}

impl Host for State {
    fn log(&mut self, level: Level, context: String, message: String) {
        self.journal.entries().log(level, &context, &message);
    }
}

/// The guest's stdout or stderr.
#[derive(Clone)]
pub(super) struct Output {
    journal: Journal,
    stream: Stream,
}

impl Output {
    fn write_bytes(&self, bytes: &[u8]) {
        self.journal.entries().write(self.stream, bytes);
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
        self.write_bytes(&bytes);
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
        self.write_bytes(bytes);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn all_instances_of_a_plugin_share_its_rate() {
        let limits = PluginLimits { log_rate_max: 3, ..Config::default().plugin_limits };
        let budget = LogBudget::new(&limits, 1);
        let now = Instant::now();
        let permitted = (0..10).filter(|_| budget.permit(now)).count();
        assert_eq!(permitted, 3);
        assert!(!budget.permit(now + WINDOW / 2));
        assert!(budget.permit(now + WINDOW), "the next second");
    }

    #[test]
    fn dropped_lines_are_counted_until_they_are_told() {
        let budget = LogBudget::new(&Config::default().plugin_limits, 1);
        budget.drop_line();
        budget.drop_line();
        assert_eq!((budget.dropped(), budget.untold.load(Ordering::Relaxed)), (2, 2));
        budget.tell();
        assert_eq!((budget.dropped(), budget.untold.load(Ordering::Relaxed)), (2, 0));
    }

    #[test]
    fn a_guests_text_fits_one_line() {
        assert_eq!(printable("plain é", 100), "plain é");
        assert_eq!(printable("two\nlines\u{1b}[31m", 100), "two\\nlines\\u{1b}[31m");
        assert_eq!(printable("éé", 3), "é … (4 bytes)");
    }
}
