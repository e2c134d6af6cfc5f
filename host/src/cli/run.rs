//! `host` without a command: runs a host until a signal stops it.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::{Exit, Failure, load, log};
use crate::config::{Config, Given};
use crate::host;
use crate::redis::embedded::Embedded;

pub(super) fn execute(given: &Given) -> Result<(), Failure> {
    let loaded = load(given)?;
    let warnings = loaded.warnings();
    let mut config = loaded.into_runnable()?;
    log::start(&config)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let private = Embedded::if_named(&mut config.redis)?;
    if let Some(private) = &private {
        tracing::info!(redis = private.url(), "started a private Redis, which ends with this host");
    }
    // One thread: consumers get threads of their own from the host.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(run(config));
    // What still blocks a thread, such as a compilation, must not hold up the exit.
    runtime.shutdown_background();
    drop(private);
    result
}

async fn run(config: Config) -> Result<(), Failure> {
    let shutdown = shutdown()?;
    host::run(config, shutdown).await?;
    Ok(())
}

/// Resolves at the first SIGTERM or Ctrl-C. The second one ends the process at once.
pub(super) fn shutdown() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        let name = either(&mut interrupt, &mut terminate).await;
        tracing::info!(signal = name, "stopping: what is in work is finished first; another signal ends at once");
        // Nobody listens any more if the host has already ended by itself.
        let _ = stop.send(());
        let name = either(&mut interrupt, &mut terminate).await;
        tracing::warn!(signal = name, "ended at once by a second signal");
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
