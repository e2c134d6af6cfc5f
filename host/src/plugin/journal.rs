//! A guest's output as log events with the consumer, the message and the plugin's generation. Excess lines are dropped
//! and counted. This file does not know through which import a line came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use super::text::printable;
use crate::config::PluginLimits;
use crate::traces::context::TraceId;

/// Maximum length of the context of a log line, in bytes.
const CONTEXT_BYTES_MAX: usize = 256;
/// Length of the end of stderr that is kept to explain a trap, in bytes.
const LAST_WORDS_BYTES_MAX: usize = 1 << 10;
/// Level of lines on stdout and stderr: that of ordinary operation, so that a plugin's author sees them without a
/// change of settings.
const STREAM_LEVEL: Level = Level::INFO;
/// Time window for the rate of log lines.
const WINDOW: Duration = Duration::from_secs(1);

/// The budget of log lines for all instances of a plugin together. Each version of a plugin has its own budget.
#[derive(Debug)]
pub(super) struct LogBudget {
    generation: u64,
    lines_max: u32,
    rate_max: u32,
    line_bytes_max: usize,
    window: Mutex<Window>,
    /// Dropped lines that are not reported yet.
    untold: AtomicU64,
    /// Dropped lines in total.
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

    /// Dropped lines since the plugin was loaded.
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

    /// Begins a new window when the old one has ended, and logs the number of dropped lines.
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
                "the plugin logs more than {} lines for a message or {} a second; further lines are dropped and counted",
                self.lines_max,
                self.rate_max
            );
        }
    }

    /// Logs the number of dropped lines, if there are any.
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

/// The log output of one instance. Clones share one journal.
#[derive(Clone)]
pub(super) struct Journal(Arc<Mutex<Entries>>);

struct Entries {
    budget: Arc<LogBudget>,
    consumer_id: Arc<str>,
    /// The present message; empty while the instance starts.
    message_id: String,
    /// The trace of that message.
    trace_id: Option<TraceId>,
    /// Number of lines logged for this message.
    lines: u32,
    /// Lines of stdout and stderr without a line end so far.
    open: [Vec<u8>; 2],
    /// The end of stderr for this message.
    last_words: Vec<u8>,
}

/// Output of a guest without `wasi:logging`: `print` debugging, or the text of a panic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

impl Journal {
    pub(super) fn new(budget: Arc<LogBudget>, consumer_id: Arc<str>) -> Journal {
        Journal(Arc::new(Mutex::new(Entries {
            budget,
            consumer_id,
            message_id: String::new(),
            trace_id: None,
            lines: 0,
            open: [Vec::new(), Vec::new()],
            last_words: Vec::new(),
        })))
    }

    /// Takes bytes from a stream of the guest. Whole lines are logged; the rest waits for its line end.
    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) {
        self.entries().write(stream, bytes);
    }

    /// Logs a line at this level.
    pub(super) fn log(&self, level: Level, context: &str, text: &str) {
        self.entries().log(level, context, text);
    }

    /// Assigns all further output to this message.
    pub(super) fn begin(&self, message_id: &str, trace_id: Option<TraceId>) {
        let mut entries = self.entries();
        entries.message_id.clear();
        entries.message_id.push_str(message_id);
        entries.trace_id = trace_id;
        entries.lines = 0;
        entries.last_words.clear();
    }

    /// Logs lines without a line end, because the message is finished.
    pub(super) fn end(&self) {
        let mut entries = self.entries();
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !entries.open[stream as usize].is_empty() {
                entries.log_open_line(stream);
            }
        }
        // Reports here, because a plugin that has become quiet writes no more lines that would cause a report.
        if entries.budget.untold.load(Ordering::Relaxed) > 0 {
            entries.budget.turn_over(Instant::now());
        }
    }

    /// The end of stderr for this message, on one line.
    pub(super) fn last_words(&self) -> String {
        let entries = self.entries();
        let text = String::from_utf8_lossy(&entries.last_words);
        let telling = text.lines().map(str::trim).filter(|line| {
            // Rust's advice refers to the plugin's own environment, which is always empty.
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
            self.log(STREAM_LEVEL, context, text);
        }
    }

    fn log(&mut self, level: Level, context: &str, text: &str) {
        // A level is part of an event's static description, hence the macro.
        macro_rules! event {
            ($level:ident) => {{
                // A line below the log level costs nothing and does not count.
                if !tracing::enabled!(target: "plugin", Level::$level) {
                    return;
                }
                self.lines = self.lines.saturating_add(1);
                if self.lines > self.budget.lines_max || !self.budget.permit(Instant::now()) {
                    return self.budget.drop_line();
                }
                tracing::event!(
                    target: "plugin",
                    Level::$level,
                    consumer = &*self.consumer_id,
                    message_id = (!self.message_id.is_empty()).then_some(self.message_id.as_str()),
                    trace_id = self.trace_id.map(tracing::field::display),
                    generation = self.budget.generation,
                    context = &*printable(context, CONTEXT_BYTES_MAX),
                    "{}",
                    printable(text, self.budget.line_bytes_max)
                )
            }};
        }
        match level {
            Level::TRACE => event!(TRACE),
            Level::DEBUG => event!(DEBUG),
            Level::INFO => event!(INFO),
            Level::WARN => event!(WARN),
            Level::ERROR => event!(ERROR),
        }
    }
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
}
