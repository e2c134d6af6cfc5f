//! `host` without a command: runs a host until a signal stops it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;

use super::signals::Hangup;
use super::{Exit, Failure, load, log};
use crate::config::{Config, Given, Loaded};
use crate::host;
use crate::redis::embedded::Embedded;
use crate::reload::Control;
use crate::service_manager::ServiceManager;

/// How long a thread for blocking calls is kept without work. Work is handed to the thread that has been idle longest, and the
/// files are looked at every second: with tokio's 10 s, a host would keep as many threads as it ever had at once.
const IDLE_THREAD_KEPT: Duration = Duration::from_secs(1);

pub(super) fn execute(given: &Given) -> Result<(), Failure> {
    let started = Instant::now();
    // One thread: the host starts separate threads for consumers.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().thread_keep_alive(IDLE_THREAD_KEPT).build()?;
    // First, because until then a SIGHUP ends the process.
    let hangup = {
        let _entered = runtime.enter();
        Hangup::listen()?
    };
    let loaded = load(given)?;
    let (warnings, file) = (loaded.warnings(), loaded.file.clone());
    let mut config = loaded.into_runnable()?;
    log::start(&config)?;
    for warning in warnings.into_iter().chain(Loaded::unknown_variables(std::env::vars_os().map(|(name, _)| name))) {
        tracing::warn!("{warning}");
    }
    let named = config.redis.url.clone();
    let private = Embedded::if_named(&mut config.redis)?;
    if let Some(private) = &private {
        tracing::info!(redis = private.url(), "started a private Redis that ends with this host");
    }
    let manager = ServiceManager::named_by(|name| std::env::var_os(name)).unwrap_or_else(|error| {
        tracing::warn!("{error}");
        ServiceManager::default()
    });
    let mut control = control(given, file, (named, config.redis.url.clone()), started);
    control.manager = manager;
    let result = runtime.block_on(run(config, control, hangup));
    // A blocked thread, such as one that compiles, must not delay the exit.
    runtime.shutdown_background();
    drop(private);
    result
}

async fn run(config: Config, control: Control, hangup: Hangup) -> Result<(), Failure> {
    let shutdown = hangup.shutdown(control.asked.clone())?;
    // On the heap: a running host is large.
    match Box::pin(host::run(config, control, shutdown)).await?.not_appended {
        0 => Ok(()),
        messages => {
            let error = anyhow!(
                "{messages} messages were received and could not be appended before the host ended; they are lost"
            );
            Err(Failure { exit: Exit::Lost, error })
        }
    }
}

/// Reads the configuration again from the same sources as at the start. A private Redis keeps its address.
pub(super) fn control(
    given: &Given,
    file: Option<PathBuf>,
    (named, redis): (String, String),
    started: Instant,
) -> Control {
    let given = given.clone();
    let reread = move || {
        let mut config = super::read(&given)?.into_runnable()?;
        if config.redis.url == named {
            config.redis.url.clone_from(&redis);
        }
        Ok(config)
    };
    Control { reread: Box::new(reread), file, asked: Arc::default(), started, manager: ServiceManager::default() }
}
