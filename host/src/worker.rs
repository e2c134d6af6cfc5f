//! A running worker: a consumer that takes messages over HTTP from the hosts of a group, and writes to the group's streams. This
//! file wires the parts together: order of start, order of stop.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tracing::{error, info, warn};

use crate::config::Config;
use crate::consumer::Workplace;
use crate::group::Group;
use crate::host::{RunError, Workers};
use crate::http::Http;
use crate::output;
use crate::plugin::{Engine, Plugin};
use crate::redis::client::connector::Connector;
use crate::redis::store::checks;
use crate::redis::store::group::{Received, misfit_of_worker};
use crate::redis::store::keys::Keys;
use crate::reload::fleet::Fleet;
use crate::reload::{self, Control, Reloader};
use crate::remote::address::Address;
use crate::remote::desk::Desk;
use crate::remote::worker::Membership;
use crate::remote::{Remote, token};
use crate::traces::Traces;
use crate::traces::export::Exporter;
use crate::version::Versions;

/// What a worker needs beside its configuration.
#[derive(Debug)]
pub struct Terms {
    /// The group.
    pub group: Address,
    /// The worker's own address, as the group reaches it; the address on which it listens if there is none.
    pub advertised: Option<Address>,
    /// Time between two looks at the membership.
    pub interval: Duration,
}

/// Runs a worker until `shutdown` resolves.
///
/// # Errors
/// When the worker cannot start, or when one of its parts has panicked and cannot be replaced. A running worker continues through any failure of Redis and of its group.
pub async fn run(
    config: Config,
    control: Control,
    terms: Terms,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let mut shutdown = pin!(shutdown);
    let loaded = tokio::select! {
        loaded = load(&config) => loaded?,
        // A start can take long: Redis may be away, or a large plugin has to be compiled.
        () = &mut shutdown => {
            info!("stopped before the start was complete");
            return Ok(());
        }
    };
    Box::pin(work(config, control, terms, loaded, shutdown)).await
}

/// Checks the requirements of a worker and loads the plugin. The future may be dropped at any moment.
async fn load(config: &Config) -> Result<(Arc<Group>, Engine, Plugin), RunError> {
    let path = config.plugin.as_ref().ok_or(RunError::NoPlugin)?;
    let connector = Connector::new(&config.redis)?;
    let keys: Keys = Arc::new(config.keys.clone());
    let checked = checks::check(&connector, &keys, &config.outputs, !config.allow.keyvalue.is_empty()).await?;
    if let Some(misfit) = misfit_of_worker(&connector, &keys, &Received::configured(config)).await {
        return Err(misfit.into());
    }
    let traces = Traces::new(&config.traces, &keys);
    let group = Arc::new(Group::new(connector, keys).tracing(traces));
    let engine = reload::engine(config)?;
    output::tell(&group.supervisor);
    engine.tell(&group.supervisor);
    let plugin = engine.load(path, &config.plugin_config).await?;
    let (redis, server) = (group.connector.address(), &checked.server);
    info!(redis, server, plugin = %path.display(), digest = plugin.digest(), "starting a worker");
    Ok((group, engine, plugin))
}

async fn work(
    config: Config,
    control: Control,
    terms: Terms,
    (group, engine, plugin): (Arc<Group>, Engine, Plugin),
    shutdown: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), RunError> {
    let token = token(&config)?;
    let exporter = Exporter::start(&config.traces, group.traces.as_ref(), &group.supervisor);
    let workers = Workers::start(available_parallelism()?.get())?;
    let fingerprint = reload::fingerprint(plugin.digest(), &config);
    let versions = Arc::new(Versions::new(plugin, fingerprint, config.consumers));
    let workplace = Arc::new(Workplace::new(&config, &group, &versions, &workers.handle));
    let mut desk = None;
    let begin = |listening: SocketAddr| {
        let address = terms.advertised.clone().unwrap_or_else(|| listening.into());
        let made = Arc::new(Desk::of_worker(workplace, &config, workers.handle.clone(), address.shared()));
        desk = Some((address, made.clone()));
        Some(Remote { remotes: None, desk: made })
    };
    // A worker takes no commands.
    let (requests, requested) = reload::requests();
    let http = Http::start(&config, &group, &versions, requests, begin).await?;
    if let (Some((address, desk)), Some(http)) = (desk, http) {
        let mut membership = Membership::new(terms.group, token, &address, terms.interval);
        let (drain_timeout, threads) = (config.drain_timeout, workers.handle.clone());
        let fleet = Arc::new(Fleet::new(&group, &versions, &config.registry));
        let told = (versions, fleet.clone());
        let mut reloader = Reloader::new((control, requested), config, engine, told, threads).await;
        let supervisor = group.supervisor.clone();
        let working = async {
            tokio::select! {
                () = membership.run() => {}
                () = reloader.run() => {}
                () = fleet.run() => {}
                () = group.connector.follow() => {}
            }
        };
        tokio::select! {
            _ = supervisor.clone().once("control", working) => {}
            () = supervisor.failed() => {}
            () = shutdown => {}
        }
        let failed = supervisor.failure();
        if let Some(failed) = &failed {
            error!(part = failed.part, "stopping, because a part of this worker cannot be replaced");
        }
        membership.leave().await;
        if tokio::time::timeout(drain_timeout, desk.close()).await.is_err() {
            warn!(
                "messages were not processed within the drain timeout of {drain_timeout:?}; they go back to the group"
            );
        }
        http.stop().await;
        if let Some(exporter) = exporter {
            exporter.stop().await;
        }
        info!(processed = group.counters.processed.get(), "stopped");
        if let Some(failed) = failed {
            return Err(failed.into());
        }
    }
    Ok(())
}
