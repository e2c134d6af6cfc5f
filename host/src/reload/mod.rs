//! Changes while a host runs: of the plugin's file, of the configuration, of the number of consumers.
//! Whatever is wrong with a change, the host goes on as before. It knows nothing of messages.
//!
//! `watch` tells that a file has changed, this module loads and tries what is in it, and `version` puts it into use and decides
//! whether it stays.

mod watch;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::cases::Cases;
use crate::config::{Config, ConfigError, Watch, needing_a_start};
use crate::plugin::{Binary, Engine, Haste, LoadError, Plugin};
use crate::time::millis;
use crate::version::{Fingerprint, Versions};
use watch::Watched;

/// Consumers that an engine has slots for at least, so that adding a few does not need another one.
const CAPACITY_MIN: u32 = 64;

/// Refused versions that are remembered.
const REFUSED_MAX: usize = 1_000;

/// How a running host learns what it is to change.
pub struct Control {
    /// Reads the configuration again, from everything that it came from at the start.
    pub reread: Box<dyn Fn() -> Result<Config, ConfigError> + Send>,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Told when somebody asks for a reload.
    pub asked: Arc<Notify>,
    /// When the process began to start.
    pub started: Instant,
}

impl Control {
    /// For a host whose configuration stays as it is.
    #[must_use]
    pub fn fixed(config: Config) -> Control {
        Control {
            reread: Box::new(move || Ok(config.clone())),
            file: None,
            asked: Arc::default(),
            started: Instant::now(),
        }
    }
}

/// An engine for a host with this configuration.
///
/// # Errors
/// When the system does not give what it needs.
pub fn engine(config: &Config) -> Result<Engine, LoadError> {
    Engine::configured(config, config.consumers.max(CAPACITY_MIN))
}

/// Tells versions apart: by the plugin's bytes, its limits and its configuration.
#[must_use]
pub fn fingerprint(digest: &str, config: &Config) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(digest);
    hash.update(format!("{:?}", config.plugin_limits));
    for text in config.plugin_config.iter().flat_map(|(key, value)| [key, value]) {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Watches over a running host's files and puts their changes into effect.
pub struct Reloader {
    control: Control,
    /// The configuration in effect.
    config: Config,
    /// The configuration as it was read last.
    read: Config,
    engine: Engine,
    versions: Arc<Versions>,
    /// The threads of the consumers.
    workers: Handle,
    watched: Watched,
    /// What was in the file when it was looked at last. `None`: it is to be tried, whatever was found before.
    seen: Option<Fingerprint>,
    /// Versions that need not be tried again, and why.
    refused: HashMap<Fingerprint, String>,
    /// What was said last about a configuration that cannot be used.
    config_problem: Option<String>,
    /// What was said last about a plugin's file that cannot be read.
    file_problem: Option<String>,
}

/// Why the reloader woke up.
enum Occasion {
    Changed,
    Asked,
    /// The version in use may have proved itself.
    Review,
}

impl Reloader {
    /// For a host that runs with this configuration and engine.
    pub async fn new(
        control: Control,
        config: Config,
        engine: Engine,
        versions: Arc<Versions>,
        workers: Handle,
    ) -> Reloader {
        let watched = Watched::new(files(&config, &control), config.reload.clone()).await;
        let read = config.clone();
        Reloader {
            control,
            config,
            read,
            engine,
            versions,
            workers,
            watched,
            seen: None,
            refused: HashMap::new(),
            config_problem: None,
            file_problem: None,
        }
    }

    /// Puts changes into effect for ever. May be dropped at any moment.
    pub async fn run(&mut self) {
        if self.config.reload.watch != Watch::Off {
            // The file may have changed between its first reading and the first look at its stamp.
            self.reload().await;
        }
        loop {
            match self.occasion().await {
                Occasion::Changed => self.reload().await,
                Occasion::Asked => {
                    info!("looking again at the plugin and the configuration, as asked by SIGHUP");
                    self.versions.forgive();
                    self.refused.clear();
                    self.seen = None;
                    (self.config_problem, self.file_problem) = (None, None);
                    self.watched.settle().await;
                    self.reload().await;
                }
                // A version that was waited for may have proved itself.
                Occasion::Review => self.resize(),
            }
        }
    }

    async fn occasion(&mut self) -> Occasion {
        let review = self.versions.review();
        tokio::select! {
            () = self.control.asked.notified() => Occasion::Asked,
            () = self.watched.changed() => Occasion::Changed,
            () = tokio::time::sleep(review.unwrap_or_default()), if review.is_some() => Occasion::Review,
        }
    }

    async fn reload(&mut self) {
        let binary = loop {
            self.reread();
            self.watched.watch(files(&self.config, &self.control), &self.config.reload).await;
            let binary = match &self.config.plugin {
                Some(path) => Some(Binary::read(path).await),
                None => None,
            };
            if self.watched.is_true().await {
                break binary;
            }
            // One of the files is being written again. Whichever it is: what was read of it is not what it is noted for.
            self.watched.settle().await;
        };
        match binary {
            Some(Ok(binary)) => self.renew_plugin(binary).await,
            Some(Err(error)) => self.complain(&error),
            None => {}
        }
        self.resize();
    }

    /// Takes up what can change in the configuration, if it is valid.
    fn reread(&mut self) {
        let new = match (self.control.reread)() {
            Ok(new) => new,
            Err(error) => {
                let problem = error.problems.join("; ");
                if self.config_problem.as_ref() != Some(&problem) {
                    warn!("refused a changed configuration; the one in use goes on: {problem}");
                    self.versions.refuse(None, format!("the configuration is not valid: {problem}"));
                    self.config_problem = Some(problem);
                }
                return;
            }
        };
        self.config_problem = None;
        let waiting: Vec<String> = needing_a_start(&self.read, &new).iter().map(|setting| setting.path()).collect();
        if !waiting.is_empty() {
            warn!("these settings have changed and wait for the next start: {}", waiting.join(", "));
        }
        self.config.take_up(&new);
        self.read = new;
    }

    /// Puts this version into use, if it is another one than the one in use and nothing is wrong with it.
    async fn renew_plugin(&mut self, binary: Binary) {
        self.file_problem = None;
        let fingerprint = fingerprint(binary.digest(), &self.config);
        let before = self.seen.replace(fingerprint.clone());
        let nothing_new = before.as_ref() == Some(&fingerprint) || fingerprint == self.versions.fingerprint();
        if nothing_new && !self.is_outgrown() {
            return;
        }
        let digest = binary.digest().to_owned();
        let start = Instant::now();
        let loaded = if self.versions.is_bad(&fingerprint) {
            Err("it was in use, failed and was rolled back; SIGHUP gives it another try".to_owned())
        } else if let Some(reason) = self.refused.get(&fingerprint) {
            Err(reason.clone())
        } else {
            self.load(binary).await
        };
        match loaded {
            Ok(plugin) => self.swap(&plugin, fingerprint, start.elapsed()),
            Err(reason) => self.refuse(&digest, fingerprint, reason),
        }
    }

    /// Whether there are to be more consumers than the version in use has room for.
    fn is_outgrown(&self) -> bool {
        self.config.consumers > self.versions.current().plugin.instances_max()
    }

    /// Compiles and tries a version, beside the running consumers.
    async fn load(&mut self, binary: Binary) -> Result<Plugin, String> {
        let engine =
            if self.config.consumers > self.engine.instances() || *self.engine.limits() != self.config.plugin_limits {
                engine(&self.config).map_err(|error| error.to_string())?
            } else {
                self.engine.clone()
            };
        let (loading, config) = (engine.clone(), self.config.clone());
        // Not on this thread: a plugin's code must not hold heartbeats up.
        let trying = self.workers.spawn(async move {
            let loaded = loading.load_binary(binary, &config.plugin_config, Haste::Background).await;
            let plugin = loaded.map_err(|error| error.to_string())?;
            try_cases(&plugin, &config).await?;
            Ok(plugin)
        });
        let plugin = trying.await.unwrap_or_else(|error| Err(format!("loading it broke down: {error}")))?;
        self.engine = engine;
        Ok(plugin)
    }

    fn swap(&self, plugin: &Plugin, fingerprint: Fingerprint, load_time: Duration) {
        // If the version in use has proved itself by now, it is the one to go back to.
        self.versions.review();
        let before = self.versions.current();
        let version = self.versions.swap(plugin, fingerprint, &self.config.reload);
        info!(
            generation = version.plugin.generation(),
            digest = version.plugin.short_digest(),
            before = before.plugin.short_digest(),
            load_ms = millis(load_time),
            "a new version of the plugin is in use"
        );
    }

    fn refuse(&mut self, digest: &str, fingerprint: Fingerprint, reason: String) {
        warn!(
            digest = &digest[..12],
            in_use = self.versions.current().plugin.short_digest(),
            "refused a new version of the plugin; the one in use goes on: {reason}"
        );
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        self.versions.refuse(Some(digest), reason.clone());
        self.refused.insert(fingerprint, reason);
    }

    /// Says once that the plugin's file cannot be read.
    fn complain(&mut self, error: &LoadError) {
        let problem = match error {
            LoadError::Unreadable { path, source } if source.kind() == io::ErrorKind::NotFound => {
                format!("the plugin's file is gone; the version in use goes on: {}", path.display())
            }
            error => format!("the version of the plugin in use goes on: {error}"),
        };
        if self.file_problem.as_ref() != Some(&problem) {
            warn!("{problem}");
            self.file_problem = Some(problem);
        }
    }

    /// Asks for as many consumers as there are to be.
    fn resize(&self) {
        // The version to go back to needs room for them as well.
        self.versions.want_consumers(self.config.consumers.min(self.versions.instances_max()));
    }
}

/// Whether the operator's own cases pass, if there are any.
async fn try_cases(plugin: &Plugin, config: &Config) -> Result<(), String> {
    let Some(path) = &config.reload.cases else { return Ok(()) };
    let failures = match Cases::read(path) {
        Ok(cases) => cases.failures(plugin, config).await,
        Err(problems) => problems,
    };
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("it does not pass the cases in {}: {}", path.display(), failures.join("; ")))
}

/// The files whose change matters.
fn files(config: &Config, control: &Control) -> Vec<PathBuf> {
    config.plugin.iter().chain(&control.file).cloned().collect()
}
