//! Signals: which of them stop the process, and which have it reload.

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

/// Signals so close to each other are one. GNU `timeout`, npm and process managers pass a signal on that the terminal has
/// sent to the whole group already.
const SAME_SIGNAL_TIME: Duration = Duration::from_secs(1);

/// Time between SIGHUP and a second look at the terminal: the end of a shell sends the signal first and takes the terminal
/// away then.
const HANGUP_TIME: Duration = Duration::from_millis(500);

/// Resolves at the first SIGTERM or Ctrl-C. Another one, a second later or more, ends the process at once.
pub(super) fn shutdown() -> io::Result<impl Future<Output = ()>> {
    shutdown_also_at(std::future::pending())
}

/// The same, with one more reason to stop, whose name it gives.
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
            "stopping: what is in work is finished first; another signal, a second later or more, ends at once"
        );
        // Nobody listens any more if the host has already ended by itself.
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

/// SIGHUP, which has two meanings: the terminal is gone, or somebody wants a reload.
pub(super) struct Hangup {
    signal: Signal,
    /// Whether the process was started from a terminal with which it is to end.
    from_terminal: bool,
}

impl Hangup {
    /// Takes SIGHUP over. Until then it ends the process, unless `nohup` has had it ignored: then the process is to outlive
    /// its terminal.
    pub(super) fn listen() -> io::Result<Hangup> {
        let from_terminal = !is_ignored(SignalKind::hangup()) && File::open(TERMINAL).is_ok();
        Ok(Hangup { signal: signal(SignalKind::hangup())?, from_terminal })
    }

    /// As [`shutdown`], and also at a SIGHUP that finds the terminal gone. Any other SIGHUP asks for a reload.
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

/// The terminal of the process, whichever that is.
const TERMINAL: &str = "/dev/tty";

/// Whether there is no terminal any more. Any other reason why it cannot be opened says nothing.
fn terminal_is_gone() -> bool {
    let opened = File::open(TERMINAL);
    opened.is_err_and(|error| matches!(Errno::from_io_error(&error), Some(Errno::NXIO | Errno::IO)))
}

/// Whether the parent had the signal ignored. Known on Linux only; elsewhere no signal counts as ignored.
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal.as_raw_value() - 1) & 1 == 1
}
