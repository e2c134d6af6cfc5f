//! Which version of the plugin a host uses: what its consumers see of it, and the steps from one version to the next.
//! A step is taken at once and for all consumers, from whichever thread. It knows no files.

pub mod probation;

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{error, info};

use crate::config::{OnOff, ReloadConfig};
use crate::plugin::Plugin;
use probation::{Probation, Record};

/// Everything that a version consists of, in short: the plugin's bytes, its configuration and its limits.
pub type Fingerprint = String;

/// A version of the plugin under its generation.
#[derive(Debug)]
pub struct Version {
    /// The plugin, which knows its generation.
    pub plugin: Plugin,
    /// How it has done.
    pub record: Arc<Record>,
    /// While the version has to prove itself.
    pub probation: Option<Probation>,
    fingerprint: Fingerprint,
    /// When it came into use.
    since: SystemTime,
    /// Whether it is there because the version after it failed.
    restored: bool,
}

/// What the consumers of a host are to do.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The version to process with.
    pub version: Arc<Version>,
    /// How many consumers there are. Those with a higher number end.
    pub consumers: u32,
    /// How many there are to be.
    pub consumers_wanted: u32,
}

/// What a host says about its plugin, to Redis and in its reports.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Number of the version in use, +1 at every swap.
    pub generation: u64,
    /// SHA-256 of its bytes.
    pub digest: String,
    /// Whether it is trusted.
    pub state: State,
    /// Since when it is in use, RFC 3339.
    pub since: String,
    /// Consumers of the host.
    pub consumers: u32,
    /// Times that another version came into use, rollbacks included.
    pub swaps: u64,
    /// Versions that were refused.
    pub refusals: u64,
    /// Times that the host went back to the version before.
    pub rollbacks: u64,
    /// The version refused last.
    pub refused: Option<Refused>,
}

/// Whether the version in use is trusted.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is.
    Steady,
    /// It has to prove itself.
    Probation,
    /// It is, and it is here again because the version after it failed.
    RolledBack,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Steady => "steady",
            State::Probation => "on probation",
            State::RolledBack => "restored",
        })
    }
}

/// A version that did not come into use.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// SHA-256 of its bytes, unless they could not be read.
    pub digest: Option<String>,
    /// A sentence.
    pub reason: String,
    /// When, RFC 3339.
    pub time: String,
}

/// The version in use, and what was learned about others. Shared by the consumers and whoever watches over them.
#[derive(Debug)]
pub struct Versions {
    orders: watch::Sender<Orders>,
    swaps: AtomicU64,
    rollbacks: AtomicU64,
    refusals: Mutex<Refusals>,
}

#[derive(Debug, Default)]
struct Refusals {
    /// Versions that failed in use.
    bad: HashSet<Fingerprint>,
    count: u64,
    last: Option<Refused>,
}

impl Versions {
    /// With the version that a host starts with, which is trusted because there is no other.
    #[must_use]
    pub fn new(plugin: Plugin, fingerprint: Fingerprint, consumers: u32) -> Versions {
        let version = Version {
            plugin,
            record: Arc::default(),
            probation: None,
            fingerprint,
            since: SystemTime::now(),
            restored: false,
        };
        Versions {
            orders: watch::Sender::new(Orders { version: Arc::new(version), consumers, consumers_wanted: consumers }),
            swaps: AtomicU64::default(),
            rollbacks: AtomicU64::default(),
            refusals: Mutex::default(),
        }
    }

    /// The orders, and every change of them.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    /// The version in use.
    #[must_use]
    pub fn current(&self) -> Arc<Version> {
        self.orders.borrow().version.clone()
    }

    /// Instances for which there is room, whether the version in use stays or the one before comes back.
    #[must_use]
    pub fn instances_max(&self) -> u32 {
        let current = self.current();
        let before = current.probation.as_ref().map_or(u32::MAX, |probation| probation.before().plugin.instances_max());
        current.plugin.instances_max().min(before)
    }

    /// What the version in use consists of.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.orders.borrow().version.fingerprint.clone()
    }

    /// Whether a version of this kind was taken back.
    #[must_use]
    pub fn is_bad(&self, fingerprint: &Fingerprint) -> bool {
        self.refusals().bad.contains(fingerprint)
    }

    /// Forgets which versions were taken back.
    pub fn forgive(&self) {
        self.refusals().bad.clear();
    }

    /// Puts another version into use, on probation unless it is what was trusted before or there is to be none.
    pub fn swap(&self, plugin: &Plugin, fingerprint: Fingerprint, config: &ReloadConfig) -> Arc<Version> {
        self.replace(|current| {
            let trusted = current.probation.as_ref().map_or(current, Probation::before);
            let untried = config.rollback == OnOff::On && trusted.fingerprint != fingerprint;
            Some(Version {
                plugin: plugin.with_generation(current.plugin.generation() + 1),
                record: Arc::default(),
                probation: untried.then(|| Probation::new(trusted.clone(), config)),
                fingerprint,
                since: SystemTime::now(),
                restored: false,
            })
        })
        .unwrap_or_else(|| self.current())
    }

    /// Counts a message that this version failed and the version before processed, and goes back to that one if it was
    /// one too many.
    pub fn regressed(&self, version: &Version, message_id: &str, failure: &str) {
        let Some(probation) = &version.probation else { return };
        if !probation.regressed(version.record.messages()) {
            return;
        }
        let restored = self.replace(|current| {
            // Another consumer may have gone back already, or another version have come.
            let failed = current.plugin.generation() == version.plugin.generation();
            let before = probation.before();
            failed.then(|| Version {
                plugin: before.plugin.with_generation(current.plugin.generation() + 1),
                record: before.record.clone(),
                probation: None,
                fingerprint: before.fingerprint.clone(),
                since: SystemTime::now(),
                restored: true,
            })
        });
        let Some(restored) = restored else { return };
        self.rollbacks.fetch_add(1, Ordering::Relaxed);
        self.refusals().bad.insert(version.fingerprint.clone());
        error!(
            bad = version.plugin.short_digest(),
            digest = restored.plugin.short_digest(),
            generation = restored.plugin.generation(),
            regressions = probation.regressions(),
            messages = version.record.messages(),
            example = message_id,
            failure,
            "rolled back the plugin: the new version failed messages that the version before processes; \
             it is not used again until SIGHUP or a restart asks for it"
        );
    }

    /// Trusts the version in use if it has proved itself. Otherwise says after which time to look again, unless there
    /// is nothing to prove.
    pub fn review(&self) -> Option<Duration> {
        let current = self.current();
        let probation = current.probation.as_ref()?;
        let wait = probation.wait(current.record.messages(), Instant::now());
        if wait.is_some() {
            return wait;
        }
        let proved = self.replace(|now| {
            // Meanwhile it may have been taken back.
            (now.plugin.generation() == current.plugin.generation()).then(|| Version {
                plugin: now.plugin.clone(),
                record: now.record.clone(),
                probation: None,
                fingerprint: now.fingerprint.clone(),
                since: now.since,
                restored: false,
            })
        });
        if let Some(proved) = proved {
            info!(
                generation = proved.plugin.generation(),
                digest = proved.plugin.short_digest(),
                messages = proved.record.messages(),
                "the new version of the plugin has proved itself"
            );
        }
        None
    }

    /// Asks for so many consumers.
    pub fn want_consumers(&self, wanted: u32) {
        self.orders.send_if_modified(|orders| std::mem::replace(&mut orders.consumers_wanted, wanted) != wanted);
    }

    /// Changes the number of consumers that work.
    pub fn set_consumers(&self, consumers: u32) {
        self.orders.send_modify(|orders| orders.consumers = consumers);
    }

    /// Notes a version that did not come into use.
    pub fn refuse(&self, digest: Option<&str>, reason: String) {
        let mut refusals = self.refusals();
        refusals.count += 1;
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        refusals.last = Some(Refused { digest: digest.map(str::to_owned), reason, time });
        drop(refusals);
        // Whoever tells about the state has something to tell.
        self.orders.send_modify(|_| {});
    }

    /// What there is to say.
    #[must_use]
    pub fn status(&self) -> Status {
        let Orders { version, consumers, .. } = self.orders.borrow().clone();
        let refusals = self.refusals();
        Status {
            generation: version.plugin.generation(),
            digest: version.plugin.digest().to_owned(),
            state: match (&version.probation, version.restored) {
                (Some(_), _) => State::Probation,
                (None, true) => State::RolledBack,
                (None, false) => State::Steady,
            },
            since: humantime::format_rfc3339_millis(version.since).to_string(),
            consumers,
            swaps: self.swaps.load(Ordering::Relaxed),
            refusals: refusals.count,
            rollbacks: self.rollbacks.load(Ordering::Relaxed),
            refused: refusals.last.clone(),
        }
    }

    /// Puts what `next` makes of the version in use into its place, in one step.
    fn replace(&self, next: impl FnOnce(&Arc<Version>) -> Option<Version>) -> Option<Arc<Version>> {
        let mut replaced = None;
        self.orders.send_if_modified(|orders| {
            let Some(version) = next(&orders.version) else { return false };
            let version = Arc::new(version);
            let another = version.plugin.generation() != orders.version.plugin.generation();
            self.swaps.fetch_add(u64::from(another), Ordering::Relaxed);
            orders.version = version.clone();
            replaced = Some(version);
            true
        });
        replaced
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
