//! Lines for standard output and standard error that never hold up the code that writes them.
//! This module knows bytes and two streams, and nothing of what the lines say.
//!
//! A write to a full pipe, to a stopped terminal or to a slow disk blocks the thread that writes. So each stream has a
//! thread of its own for that, and a bounded queue in front of it. A line that finds the queue full is dropped and
//! counted, and the log tells the count as soon as the stream takes something again.

use std::io::{self, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tracing::warn;

/// Bytes that may wait for a stream: some seconds of a flood of log lines.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Wait for a stream that takes nothing now and does not block either, because somebody has set it so.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Longest wait at the end of the process for streams that do not take what is left.
const END_TIME_MAX: Duration = Duration::from_secs(1);

static STDOUT: Output = Output::new(Stream::Stdout);
static STDERR: Output = Output::new(Stream::Stderr);

/// Standard output.
pub fn stdout() -> &'static Output {
    &STDOUT
}

/// Standard error.
pub fn stderr() -> &'static Output {
    &STDERR
}

/// Writes what waits for both streams, as far as the streams take it within a second. For the end of the process.
pub fn finish() {
    let deadline = Instant::now() + END_TIME_MAX;
    // Half of the time is left for standard error, which tells what standard output has lost.
    STDOUT.flush(deadline - END_TIME_MAX / 2);
    STDOUT.give_up();
    STDERR.flush(deadline);
}

/// Which stream of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// One stream with the lines that wait for it.
#[derive(Debug)]
pub struct Output {
    stream: Stream,
    queue: Mutex<Queue>,
    /// The queue was filled, or what was taken out of it has been written.
    changed: Condvar,
}

/// What waits for a stream, and what has become of the rest.
#[derive(Debug)]
struct Queue {
    /// Whole lines.
    waiting: Vec<u8>,
    /// Whether the thread is writing lines that it has taken out.
    writing: bool,
    /// Whether the thread runs.
    started: bool,
    /// Lines that were dropped so far.
    dropped: u64,
    /// How many of them the log has told.
    told: u64,
    /// Whether the other end is gone.
    closed: bool,
}

impl Output {
    const fn new(stream: Stream) -> Output {
        let queue = Queue { waiting: Vec::new(), writing: false, started: false, dropped: 0, told: 0, closed: false };
        Output { stream, queue: Mutex::new(queue), changed: Condvar::new() }
    }

    /// Hands on a line, without its end. Never waits for the stream.
    pub fn line(&'static self, line: &str) {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        self.push(&bytes);
    }

    /// Whether the other end of the stream is gone, so that nobody will ever read it.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Hands on whole lines, all of them or none.
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
            // Without a thread the lines wait for the end of the process.
            let thread = thread::Builder::new().name("output".to_owned()).spawn(|| self.run());
            queue.started = thread.is_ok();
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Writes whatever comes, for ever.
    fn run(&self) {
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

    /// Counts what could not be written, and tells what was dropped if the stream works again.
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

    /// Tells what was dropped and not told yet.
    fn tell(&self, mut queue: MutexGuard<'_, Queue>) {
        let (dropped, told) = (queue.dropped, queue.told);
        queue.told = dropped;
        // The log goes through a queue, perhaps through this one.
        drop(queue);
        if dropped > told {
            let stream = self.stream.name();
            warn!(
                dropped,
                "{stream} was not read, or could not be written: so many lines were dropped since the start"
            );
        }
    }

    /// Waits until everything is written or the stream is closed, or until the deadline.
    fn flush(&self, deadline: Instant) {
        let mut queue = self.lock();
        if !queue.started {
            let lines = std::mem::take(&mut queue.waiting);
            drop(queue);
            // The end is near: an error has nobody to hear of it.
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

    /// Drops what waits, and tells what was dropped.
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

/// For the log, which writes each of its lines in one piece.
impl Write for &'static Output {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why lines could not be written, and how many.
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

    /// Writes all of it, however long that takes. Past the locks and buffers of the standard library, so that code that
    /// writes there by itself does not wait for this.
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
