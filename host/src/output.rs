//! Lines for standard output and standard error, written without ever blocking the caller. This module knows bytes and
//! two streams, and no contents.
//!
//! A write to a full pipe, to a stopped terminal or to a slow disk blocks the writing thread. So each stream has a
//! separate writing thread behind a bounded queue. A line that finds the queue full is dropped and counted. The count
//! goes to the log as soon as the stream accepts lines again.

use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tracing::warn;

use crate::parts::supervisor::{Supervisor, Watch};

/// Maximum number of bytes that wait for a stream: some seconds of a flood of log lines.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Wait after a write to a non-blocking stream that accepts nothing now.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Maximum wait for both streams at the end of the process.
const END_TIME_MAX: Duration = Duration::from_secs(1);

static STDOUT: Output = Output::new(Stream::Stdout);
static STDERR: Output = Output::new(Stream::Stderr);

/// The threads that write have this supervisor from now on.
pub fn tell(supervisor: &Supervisor) {
    [&STDOUT, &STDERR].into_iter().for_each(|output| output.watch.tell(supervisor));
}

/// Standard output.
pub fn stdout() -> &'static Output {
    &STDOUT
}

/// Standard error.
pub fn stderr() -> &'static Output {
    &STDERR
}

/// Writes all waiting lines, as far as the streams accept them within a second. For the end of the process.
pub fn finish() {
    let deadline = Instant::now() + END_TIME_MAX;
    // Half of the time is reserved for standard error, which reports the losses of standard output.
    STDOUT.flush(deadline - END_TIME_MAX / 2);
    STDOUT.give_up();
    STDERR.flush(deadline);
}

/// A stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// A stream with its waiting lines.
#[derive(Debug)]
pub struct Output {
    stream: Stream,
    queue: Mutex<Queue>,
    /// Signals that the queue has lines, or that taken lines are written.
    changed: Condvar,
    /// Watches over the thread that writes.
    watch: Watch,
}

/// The waiting lines, and figures about the others.
#[derive(Debug)]
struct Queue {
    /// Whole lines.
    waiting: Vec<u8>,
    /// Whether the thread is writing lines that it has taken out of the queue.
    writing: bool,
    /// Whether the thread runs.
    started: bool,
    /// Number of dropped lines.
    dropped: u64,
    /// Number of dropped lines that the log has reported.
    told: u64,
    /// Whether the other end is closed.
    closed: bool,
}

impl Output {
    const fn new(stream: Stream) -> Output {
        let queue = Queue { waiting: Vec::new(), writing: false, started: false, dropped: 0, told: 0, closed: false };
        Output { stream, queue: Mutex::new(queue), changed: Condvar::new(), watch: Watch::new() }
    }

    /// Queues a line, without its line end. Never waits for the stream.
    pub fn line(&'static self, line: &str) {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        self.push(&bytes);
    }

    /// Whether the other end of the stream is closed, so that no reader is left.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Queues whole lines, all or none.
    fn push(&'static self, lines: &[u8]) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        if !queue.waiting.is_empty() && queue.waiting.len() + lines.len() > WAITING_BYTES_MAX {
            queue.dropped += count_lines(lines);
            return;
        }
        queue.waiting.extend_from_slice(lines);
        if !queue.started {
            // Without a thread the lines wait until the end of the process.
            let thread =
                thread::Builder::new().name("output".to_owned()).spawn(|| self.watch.keep("output", || self.run()));
            queue.started = thread.is_ok();
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Writes queued lines for ever.
    fn run(&self) {
        // What was taken before a panic is lost.
        self.lock().writing = false;
        loop {
            let mut queue = self.lock();
            while queue.waiting.is_empty() {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            let lines = std::mem::take(&mut queue.waiting);
            queue.writing = true;
            drop(queue);
            let unwritten = self.stream.write(&lines);
            self.note(unwritten);
            self.lock().writing = false;
            self.changed.notify_all();
        }
    }

    /// Counts lines that could not be written, and reports dropped lines if the stream works again.
    fn note(&self, unwritten: Result<(), Unwritten>) {
        let mut queue = self.lock();
        match unwritten {
            Ok(()) => {}
            Err(Unwritten { error: Errno::PIPE, .. }) => {
                queue.closed = true;
                queue.waiting = Vec::new();
            }
            Err(Unwritten { lines, .. }) => queue.dropped += lines,
        }
        if unwritten.is_ok() {
            self.tell(queue);
        }
    }

    /// Reports dropped lines that are not reported yet.
    fn tell(&self, mut queue: MutexGuard<'_, Queue>) {
        let (dropped, told) = (queue.dropped, queue.told);
        queue.told = dropped;
        // The log line goes through a queue, perhaps through this one.
        drop(queue);
        if dropped > told {
            let stream = self.stream.name();
            warn!(
                dropped,
                "dropped lines, because {stream} was not read or could not be written; the count covers the whole run"
            );
        }
    }

    /// Waits until all lines are written, the stream is closed or the deadline has passed.
    pub(crate) fn flush(&self, deadline: Instant) {
        let mut queue = self.lock();
        if !queue.started {
            let lines = std::mem::take(&mut queue.waiting);
            drop(queue);
            // The process ends, so an error cannot be reported.
            let _ = self.stream.write(&lines);
            return;
        }
        while queue.writing || !queue.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Drops all waiting lines and reports their number.
    fn give_up(&self) {
        let mut queue = self.lock();
        let waiting = std::mem::take(&mut queue.waiting);
        queue.dropped += count_lines(&waiting);
        self.tell(queue);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A writer for the log, which writes each line in one piece.
impl Write for &'static Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reason why lines could not be written, and their number.
#[derive(Clone, Copy, Debug)]
struct Unwritten {
    error: Errno,
    lines: u64,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "standard output",
            Stream::Stderr => "standard error",
        }
    }

    /// Writes all bytes, however long that takes. The write bypasses the locks and buffers of the standard library, so
    /// that other code which writes to the stream does not wait for this write.
    fn write(self, lines: &[u8]) -> Result<(), Unwritten> {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let stream: BorrowedFd<'_> = match self {
            Stream::Stdout => stdout.as_fd(),
            Stream::Stderr => stderr.as_fd(),
        };
        let mut rest = lines;
        while !rest.is_empty() {
            match rustix::io::write(stream, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => thread::sleep(RETRY_INTERVAL),
                Err(error) => return Err(Unwritten { error, lines: count_lines(rest) }),
            }
        }
        Ok(())
    }
}

fn count_lines(lines: &[u8]) -> u64 {
    lines.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}
