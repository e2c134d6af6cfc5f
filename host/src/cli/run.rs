//! `host` without a command: runs a host until a signal stops it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::{Exit, Failure, load, log};
use crate::config::{Config, Given};
use crate::host;
use crate::redis::embedded::Embedded;
use crate::reload::Control;

pub(super) fn execute(given: &Given) -> Result<(), Failure> {
    let started = Instant::now();
    // One thread: consumers get threads of their own from the host.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // First of all: until then a SIGHUP ends the process.
    let hangup = {
        let _entered = runtime.enter();
        signal(SignalKind::hangup())?
    };
    let loaded = load(given)?;
    let (warnings, file) = (loaded.warnings(), loaded.file.clone());
    let mut config = loaded.into_runnable()?;
    log::start(&config)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let named = config.redis.url.clone();
    let private = Embedded::if_named(&mut config.redis)?;
    if let Some(private) = &private {
        tracing::info!(redis = private.url(), "started a private Redis, which ends with this host");
    }
    let control = control(given, file, (named, config.redis.url.clone()), started);
    let result = runtime.block_on(run(config, control, hangup));
    // What still blocks a thread, such as a compilation, must not hold up the exit.
    runtime.shutdown_background();
    drop(private);
    result
}

async fn run(config: Config, control: Control, mut hangup: Signal) -> Result<(), Failure> {
    let shutdown = shutdown()?;
    let asked = control.asked.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            asked.notify_one();
        }
    });
    host::run(config, control, shutdown).await?;
    Ok(())
}

/// Reads the configuration again as it was read at the start. A private Redis keeps its place.
fn control(given: &Given, file: Option<PathBuf>, (named, redis): (String, String), started: Instant) -> Control {
    let given = given.clone();
    let reread = move || {
        let mut config = super::read(&given)?.into_runnable()?;
        if config.redis.url == named {
            config.redis.url.clone_from(&redis);
        }
        Ok(config)
    };
    Control { reread: Box::new(reread), file, asked: Arc::default(), started }
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
