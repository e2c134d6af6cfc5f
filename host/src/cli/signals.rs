//! Signals: which signals stop the process, and which signals cause a reload.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};

use super::Exit;
use crate::output;

/// Two signals within this time count as one. GNU `timeout`, npm and process managers forward a signal that the
/// terminal has already sent to the whole process group.
const SAME_SIGNAL_TIME: Duration = Duration::from_secs(1);

/// Time between SIGHUP and a second check of the terminal: a shell that ends first sends the signal, and the terminal
/// goes away after that.
const HANGUP_TIME: Duration = Duration::from_millis(500);

/// Resolves at the first SIGTERM or Ctrl-C. A second signal, at least a second later, ends the process at once.
pub(super) fn shutdown() -> io::Result<impl Future<Output = ()>> {
    shutdown_also_at(std::future::pending())
}

/// Like [`shutdown`], with another reason to stop. The future `other` returns the name of that reason.
fn shutdown_also_at(
    other: impl Future<Output = &'static str> + Send + 'static,
) -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        let name = tokio::select! {
            name = either(&mut interrupt, &mut terminate) => name,
            name = other => name,
        };
        let first = Instant::now();
        tracing::info!(
            signal = name,
            "stopping: finishing the messages in progress; another signal, a second later or more, ends the process at once"
        );
        // Sending fails if the host has already ended by itself.
        let _ = stop.send(());
        let name = loop {
            let name = either(&mut interrupt, &mut terminate).await;
            if first.elapsed() >= SAME_SIGNAL_TIME {
                break name;
            }
        };
        tracing::warn!(signal = name, "ended at once by a second signal");
        output::finish();
        std::process::exit(i32::from(Exit::Interrupted as u8));
    });
    Ok(async {
        let _ = stopped.await;
    })
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// SIGHUP, which has two meanings: the terminal is gone, or a user asks for a reload.
pub(super) struct Hangup {
    signal: Signal,
    /// Whether the process was started from a terminal and ends with that terminal.
    from_terminal: bool,
}

impl Hangup {
    /// Handles SIGHUP from now on. Before this call SIGHUP ends the process, unless `nohup` made the process ignore the
    /// signal: such a process outlives its terminal.
    pub(super) fn listen() -> io::Result<Hangup> {
        let from_terminal = !is_ignored(SignalKind::hangup()) && File::open(TERMINAL).is_ok();
        Ok(Hangup { signal: signal(SignalKind::hangup())?, from_terminal })
    }

    /// Like [`shutdown`], and also resolves at a SIGHUP when the terminal is gone. Any other SIGHUP asks for a reload.
    pub(super) fn shutdown(self, reload: Arc<Notify>) -> io::Result<impl Future<Output = ()>> {
        shutdown_also_at(self.terminal_gone(reload))
    }

    async fn terminal_gone(mut self, reload: Arc<Notify>) -> &'static str {
        const NAME: &str = "SIGHUP, and the terminal is gone";
        while self.signal.recv().await.is_some() {
            if !self.from_terminal {
                reload.notify_one();
                continue;
            }
            if terminal_is_gone() {
                return NAME;
            }
            reload.notify_one();
            sleep(HANGUP_TIME).await;
            if terminal_is_gone() {
                return NAME;
            }
        }
        std::future::pending().await
    }
}

/// The controlling terminal of the process.
const TERMINAL: &str = "/dev/tty";

/// Whether the terminal is gone. Any other error on opening the terminal does not mean that it is gone.
fn terminal_is_gone() -> bool {
    let opened = File::open(TERMINAL);
    opened.is_err_and(|error| matches!(Errno::from_io_error(&error), Some(Errno::NXIO | Errno::IO)))
}

/// Whether the parent process made this process ignore the signal. Known on Linux only; elsewhere always false.
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw_value() - 1) & 1 == 1
}
