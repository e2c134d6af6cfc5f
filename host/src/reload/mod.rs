//! Changes while a host runs: of the plugin's file, of the configuration, of the number of consumers.
//! After an invalid change the host continues as before. This room knows no messages.
//!
//! `watch` detects that a file has changed. This module loads and tries the new version. `fleet` asks the group. `version` puts
//! the version in use and decides whether it stays.

mod attempt;
mod control;
pub mod events;
pub mod fleet;
mod ready;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::cases::Cases;
use crate::config::{Config, Watch, needing_a_start};
use crate::fleet::Waiting;
use crate::plugin::{Binary, Engine, LoadError, Plugin};
use crate::service_manager::News;
use crate::time::millis;
use crate::version::{Fingerprint, Versions};
use attempt::Superseded;
pub use control::{Control, Reloaded, Request, requests};
use fleet::{Candidate, Fleet, Ruling};
use ready::Ready;
use watch::Watched;

/// Minimum number of instance slots of an engine, so that a few more consumers do not need another engine.
const CAPACITY_MIN: u32 = 64;

/// Maximum number of refused versions to remember.
const REFUSED_MAX: usize = 1_000;

/// An engine for a host with this configuration.
///
/// # Errors
/// When the system refuses memory or other resources.
pub fn engine(config: &Config) -> Result<Engine, LoadError> {
    Engine::configured(config, config.consumers.max(CAPACITY_MIN))
}

/// Identifies a version by the plugin's bytes, limits and configuration.
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

/// Watches the files of a running host and applies their changes.
pub struct Reloader {
    control: Control,
    requested: mpsc::Receiver<Request>,
    /// Requests that came while a version was loaded.
    postponed: VecDeque<Request>,
    /// Whether a file has changed while a version was loaded that is still in its file.
    again: bool,
    /// The configuration in effect.
    config: Config,
    /// The configuration that was read last.
    read: Config,
    engine: Engine,
    versions: Arc<Versions>,
    fleet: Arc<Fleet>,
    /// A version that waits for the canary of the group.
    ready: Option<Ready>,
    /// The threads of the consumers.
    workers: Handle,
    watched: Watched,
    /// The version that was in the file at the last reload. `None`: the next version is tried even if it was seen
    /// before.
    seen: Option<Fingerprint>,
    /// Refused versions with their reasons. These versions are not tried again.
    refused: HashMap<Fingerprint, String>,
    /// The last logged problem with the configuration.
    config_problem: Option<String>,
    /// The last logged problem with the plugin's file.
    file_problem: Option<String>,
}

/// Reason for the reloader to wake up.
enum Occasion {
    Changed,
    Asked,
    Requested(Request),
    /// The group has another word for the version that waits.
    Ruled(Ruling),
    /// A probation is due for review.
    Review,
}

impl Reloader {
    /// A reloader for a host with this configuration and engine.
    pub async fn new(
        (control, requested): (Control, mpsc::Receiver<Request>),
        config: Config,
        engine: Engine,
        (versions, fleet): (Arc<Versions>, Arc<Fleet>),
        workers: Handle,
    ) -> Reloader {
        let watched = Watched::new(files(&config, &control), config.reload.clone()).await;
        let read = config.clone();
        Reloader {
            control,
            requested,
            postponed: VecDeque::new(),
            again: false,
            config,
            read,
            engine,
            versions,
            fleet,
            ready: None,
            workers,
            watched,
            seen: None,
            refused: HashMap::new(),
            config_problem: None,
            file_problem: None,
        }
    }

    /// Applies changes for ever. The future may be dropped at any moment.
    pub async fn run(&mut self) {
        if self.config.reload.watch != Watch::Off {
            // The file may have changed between the read at the start and the first look at its stamp.
            self.reload(false).await;
        }
        loop {
            match self.occasion().await {
                Occasion::Changed => {
                    self.reload(false).await;
                }
                Occasion::Asked => {
                    info!("reloading the plugin and the configuration after SIGHUP");
                    self.control.manager.tell(&[News::Reloading]).await;
                    self.versions.forgive();
                    self.reload_afresh(false).await;
                    self.control.manager.tell(&[News::Ready]).await;
                }
                Occasion::Requested(Request::Reload { force, answer }) => {
                    info!(force, "reloading the plugin and the configuration after a command");
                    let reloaded = self.reload_afresh(force).await;
                    // An error means that nobody waits for the answer any more.
                    let _ = answer.send(reloaded);
                }
                // More consumers than the version in use has room for need the version once more.
                Occasion::Requested(Request::Resize) if self.is_outgrown() => {
                    self.reload(false).await;
                }
                Occasion::Requested(Request::Resize) => self.resize(),
                Occasion::Ruled(ruling) => {
                    if let Some(ready) = self.ready.take() {
                        self.obey(ruling, ready);
                        self.resize();
                    }
                }
                // The end of a probation may allow more consumers.
                Occasion::Review => self.resize(),
            }
        }
    }

    async fn occasion(&mut self) -> Occasion {
        let review = self.versions.review();
        if let Some(request) = self.postponed.pop_front() {
            return Occasion::Requested(request);
        }
        let (fleet, ready, canary) = (&self.fleet, &self.ready, self.config.reload.canary);
        let ruled = async {
            match ready {
                Some(ready) => fleet.next_ruling(ready.candidate(canary), &ready.waiting).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.control.asked.notified() => Occasion::Asked,
            () = self.watched.changed() => Occasion::Changed,
            // Without a listener nobody sends, and this branch is off.
            Some(request) = self.requested.recv() => Occasion::Requested(request),
            ruling = ruled => Occasion::Ruled(ruling),
            () = tokio::time::sleep(review.unwrap_or_default()), if review.is_some() => Occasion::Review,
        }
    }

    /// Reloads also what was refused before, and with `force` what was rolled back, here or by another host.
    async fn reload_afresh(&mut self, force: bool) -> Reloaded {
        if force {
            self.versions.forgive();
        }
        self.refused.clear();
        self.seen = None;
        (self.config_problem, self.file_problem) = (None, None);
        self.watched.settle().await;
        self.reload(force).await
    }

    /// Tries what the files have, until they have stayed the same meanwhile.
    async fn reload(&mut self, force: bool) -> Reloaded {
        let mut before = None;
        loop {
            let reloaded = match self.reload_once(force).await {
                Ok(reloaded) => reloaded,
                Err(Superseded::ByAFile) => continue,
                Err(Superseded::ByAnOrder) => {
                    return Reloaded::Refused("another reload was asked for meanwhile".into());
                }
            };
            let said = before.take().filter(|_| matches!(reloaded, Reloaded::Unchanged(_))).unwrap_or(reloaded);
            if !std::mem::take(&mut self.again) {
                return said;
            }
            before = Some(said);
        }
    }

    async fn reload_once(&mut self, force: bool) -> Result<Reloaded, Superseded> {
        let (reread, binary) = loop {
            let reread = self.reread();
            self.watched.watch(files(&self.config, &self.control), &self.config.reload).await;
            let binary = match &self.config.plugin {
                Some(path) => Some(Binary::read(path, self.config.load.plugin_bytes_max).await),
                None => None,
            };
            if self.watched.is_true().await {
                break (reread, binary);
            }
            // One of the files has changed since it was read, so the content does not belong to the recorded stamp.
            self.watched.settle().await;
        };
        let reloaded = match binary {
            Some(Ok(binary)) => self.renew_plugin(binary, force).await?,
            Some(Err(error)) => {
                self.stop_waiting();
                Reloaded::Refused(self.complain(&error))
            }
            None => self.unchanged(),
        };
        self.resize();
        Ok(match reread {
            Ok(()) => reloaded,
            Err(problem) => Reloaded::Refused(problem),
        })
    }

    fn unchanged(&self) -> Reloaded {
        Reloaded::Unchanged(self.versions.current().plugin.digest().to_owned())
    }

    /// Applies the settings that can change while a host runs, if the configuration is valid.
    ///
    /// # Errors
    /// The problem, when the configuration is not valid.
    fn reread(&mut self) -> Result<(), String> {
        let new = match (self.control.reread)() {
            Ok(new) => new,
            Err(error) => {
                let problem = error.problems.join("; ");
                let sentence = format!("the configuration is not valid: {problem}");
                if self.config_problem.as_ref() != Some(&problem) {
                    warn!("refused a changed configuration; the configuration in use stays: {problem}");
                    self.versions.refuse(None, sentence.clone());
                    self.config_problem = Some(problem);
                }
                return Err(sentence);
            }
        };
        self.config_problem = None;
        let waiting = needing_a_start(&self.read, &new);
        if !waiting.is_empty() {
            warn!("these settings have changed and take effect at the next start: {}", waiting.join(", "));
        }
        if new.consumers != self.read.consumers {
            self.versions.command_consumers(None);
        }
        if new.load != self.config.load {
            // What was refused may be possible now.
            self.refused.clear();
            (self.seen, self.file_problem) = (None, None);
        }
        self.config.take_up(&new);
        self.read = new;
        Ok(())
    }

    /// The number of consumers of a command or of the configuration.
    fn consumers(&self) -> u32 {
        self.versions.consumers_commanded().unwrap_or(self.config.consumers)
    }

    /// Puts this version in use, if it differs from the version in use, passes all checks, and the group allows it.
    async fn renew_plugin(&mut self, binary: Binary, force: bool) -> Result<Reloaded, Superseded> {
        self.file_problem = None;
        let fingerprint = fingerprint(binary.digest(), &self.config);
        if let Some(ready) = self.ready.as_ref().filter(|ready| ready.fingerprint == fingerprint)
            && self.seen.as_ref() == Some(&fingerprint)
        {
            return Ok(Reloaded::Waits(ready.waiting.clone()));
        }
        self.stop_waiting();
        let before = self.seen.replace(fingerprint.clone());
        let nothing_new = before.as_ref() == Some(&fingerprint) || fingerprint == self.versions.fingerprint();
        if nothing_new && !self.is_outgrown() {
            return Ok(self.unchanged());
        }
        let digest = binary.digest().to_owned();
        let force = force || self.versions.is_forgiven(&fingerprint);
        let asks = fingerprint != self.versions.fingerprint() && !self.versions.is_trusted(&fingerprint);
        // Before the version is compiled for nothing.
        let may_be_refused = asks && !force && !self.versions.is_bad(&fingerprint);
        if may_be_refused && let Some(verdict) = self.fleet.verdict_on(&fingerprint, &digest).await {
            return Ok(self.refuse_for_another(&verdict));
        }
        let start = Instant::now();
        let loaded = if self.versions.is_bad(&fingerprint) {
            Err("the version was rolled back before; SIGHUP, or a reload with force, tries it again".to_owned())
        } else if let Some(reason) = self.refused.get(&fingerprint) {
            Err(reason.clone())
        } else {
            self.load(binary).await?
        };
        Ok(match loaded {
            Ok(plugin) => {
                let canary = self.config.reload.canary;
                let ruling = match asks {
                    true => {
                        self.fleet.rule(Candidate { fingerprint: &fingerprint, digest: &digest, canary, force }).await
                    }
                    false => Ruling::Use,
                };
                let waiting = Waiting { digest, canary: None };
                self.obey(ruling, Ready { plugin, fingerprint, load_time: start.elapsed(), waiting })
            }
            Err(reason) => {
                self.refuse(&digest, reason.clone());
                self.remember_refusal(fingerprint, reason.clone());
                Reloaded::Refused(reason)
            }
        })
    }

    /// Whether the wanted number of consumers exceeds the instance slots of the version in use.
    fn is_outgrown(&self) -> bool {
        self.consumers() > self.versions.current().plugin.instances_max()
    }

    fn swap(&self, plugin: &Plugin, fingerprint: Fingerprint, load_time: Duration) {
        // A version whose probation has just ended is the one for a rollback.
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

    fn refuse(&self, digest: &str, reason: String) {
        warn!(
            digest = &digest[..12],
            in_use = self.versions.current().plugin.short_digest(),
            "refused a new version of the plugin; the version in use stays: {reason}"
        );
        self.versions.refuse(Some(digest), reason);
    }

    fn remember_refusal(&mut self, fingerprint: Fingerprint, reason: String) {
        if self.refused.len() >= REFUSED_MAX {
            self.refused.clear();
        }
        self.refused.insert(fingerprint, reason);
    }

    /// Logs once that the plugin's file cannot be read, and returns the problem.
    fn complain(&mut self, error: &LoadError) -> String {
        let (problem, is_gone) = match error {
            LoadError::Unreadable { path, source } if source.kind() == io::ErrorKind::NotFound => {
                (format!("the plugin's file is gone; the version in use stays: {}", path.display()), true)
            }
            error => (format!("refused a new version of the plugin; the version in use stays: {error}"), false),
        };
        if self.file_problem.as_ref() != Some(&problem) {
            warn!(in_use = self.versions.current().plugin.short_digest(), "{problem}");
            if !is_gone {
                self.versions.refuse(None, error.to_string());
            }
            self.file_problem = Some(problem.clone());
        }
        problem
    }

    /// Asks for the configured number of consumers.
    fn resize(&self) {
        // The version of a rollback must have enough instance slots as well.
        self.versions.want_consumers(self.consumers().min(self.versions.instances_max()));
    }
}

/// Tries the version on the operator's cases, if there are any.
async fn try_cases(plugin: &Plugin, config: &Config) -> Result<(), String> {
    let Some(path) = &config.reload.cases else { return Ok(()) };
    let failures = match Cases::read(path) {
        Ok(cases) => cases.failures(plugin, config).await,
        Err(problems) => problems,
    };
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("the version does not pass the cases in {}: {}", path.display(), failures.join("; ")))
}

/// The files to watch.
fn files(config: &Config, control: &Control) -> Vec<PathBuf> {
    config.plugin.iter().chain(&control.file).cloned().collect()
}
