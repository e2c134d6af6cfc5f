//! An attempt at a version: loaded and tried beside the running consumers, and given up when there is a newer one.

use std::pin::pin;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tracing::info;

use super::{Reloader, Request};
use crate::config::Config;
use crate::plugin::{Binary, Engine, Haste, Plugin};

/// Why a version was not loaded to the end.
pub(super) enum Superseded {
    /// Another one is in the file.
    ByAFile,
    /// A request for a reload waits.
    ByAnOrder,
}

impl Reloader {
    /// Loads a version, unless it is gone from its file before that is done, or somebody asks for another reload.
    pub(super) async fn load(&mut self, binary: Binary) -> Result<Result<Plugin, String>, Superseded> {
        let config = Config { consumers: self.consumers(), ..self.config.clone() };
        let digest = binary.digest().to_owned();
        // A drop gives the version up.
        let mut loading = pin!(load(binary, config, self.engine.clone(), self.workers.clone()));
        let by = loop {
            tokio::select! {
                loaded = &mut loading => {
                    return Ok(loaded.map(|(engine, plugin)| {
                        self.engine = engine;
                        plugin
                    }));
                }
                () = self.control.asked.notified() => {
                    self.control.asked.notify_one();
                    break Superseded::ByAnOrder;
                }
                () = self.watched.changed() => {
                    if self.has_another_than(&digest).await {
                        break Superseded::ByAFile;
                    }
                    self.again = true;
                }
                Some(request) = self.requested.recv() => {
                    let supersedes = matches!(request, Request::Reload { .. });
                    self.postponed.push_back(request);
                    if supersedes {
                        break Superseded::ByAnOrder;
                    }
                }
            }
        };
        info!(
            digest = &digest[..12],
            "gave up loading a version of the plugin, because there is a newer one, or an order"
        );
        (self.seen, self.again) = (None, false);
        Err(by)
    }

    /// Whether the plugin's file no longer has the version with this digest.
    async fn has_another_than(&self, digest: &str) -> bool {
        let Some(path) = &self.config.plugin else { return true };
        let read = Binary::read(path, self.config.load.plugin_bytes_max).await;
        read.map_or(true, |binary| binary.digest() != digest)
    }
}

/// Compiles and tries a version, beside the running consumers. A drop of the future ends both.
async fn load(binary: Binary, config: Config, present: Engine, workers: Handle) -> Result<(Engine, Plugin), String> {
    let engine = if config.consumers > present.instances() || *present.limits() != config.plugin_limits {
        super::engine(&config).map_err(|error| error.to_string())?
    } else {
        present.loading(&config.load)
    };
    let loading = engine.clone();
    let mut trying = JoinSet::<Result<Plugin, String>>::new();
    // On a consumer thread: a plugin's code must not delay heartbeats.
    trying.spawn_on(
        async move {
            let loaded = loading.load_binary(binary, &config.plugin_config, Haste::Background).await;
            let plugin = loaded.map_err(|error| error.to_string())?;
            super::try_cases(&plugin, &config).await?;
            Ok(plugin)
        },
        &workers,
    );
    match trying.join_next().await {
        Some(Ok(loaded)) => Ok((engine, loaded?)),
        Some(Err(error)) => Err(format!("loading the version failed: {error}")),
        None => Err("loading the version failed".to_owned()),
    }
}
