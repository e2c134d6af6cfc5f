//! The version of the plugin that a host uses: the consumers' view of the version, and the steps from one version to
//! the next. A step happens at once and for all consumers, from any thread. This room knows no files.

pub mod breaker;
mod comparison;
mod costs;
mod elsewhere;
mod failing;
pub mod history;
pub mod probation;
mod status;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;
use tracing::{error, info};

use crate::config::{OnOff, ReloadConfig};
use crate::plugin::Plugin;
use breaker::Breaker;
use elsewhere::Elsewhere;
use failing::Kept;
use history::{Entry, Event, History, Judged, Recent};
use probation::{Probation, Record};
pub use status::{Refused, State, Status};

/// A digest of everything that a version consists of: the plugin's bytes, configuration and limits.
pub type Fingerprint = String;

/// A version of the plugin with its generation.
#[derive(Debug)]
pub struct Version {
    /// The plugin, with its generation.
    pub plugin: Plugin,
    /// Counts of messages and failures.
    pub record: Arc<Record>,
    /// The probation, until it ends.
    pub probation: Option<Probation>,
    /// The good version before this one, when the probation is over.
    kept: Mutex<Option<Kept>>,
    fingerprint: Fingerprint,
    /// Time at which the version came into use.
    since: SystemTime,
    /// Whether a rollback has brought the version back.
    restored: bool,
}

impl Version {
    /// Its fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    fn judged(&self, by_command: bool) -> Judged {
        let (fingerprint, digest) = (self.fingerprint.clone(), self.plugin.digest().to_owned());
        Judged { fingerprint, digest, by_command }
    }
}

/// Orders for the consumers of a host.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The version to use.
    pub version: Arc<Version>,
    /// Number of consumers. A consumer with a higher number ends.
    pub consumers: u32,
    /// Wanted number of consumers.
    pub consumers_wanted: u32,
}

/// The version in use, and a record of bad versions. Shared by consumers, reload and reports.
#[derive(Debug)]
pub struct Versions {
    orders: watch::Sender<Orders>,
    swaps: AtomicU64,
    rollbacks: AtomicU64,
    refusals: Mutex<Refusals>,
    history: History,
    breaker: Breaker,
    elsewhere: Mutex<Elsewhere>,
    /// The number of consumers of a command, which goes before the one of the configuration.
    commanded: Mutex<Option<u32>>,
}

#[derive(Debug, Default)]
struct Refusals {
    /// Versions that were rolled back.
    bad: HashSet<Fingerprint>,
    /// Versions that were rolled back, and that may be tried again.
    forgiven: HashSet<Fingerprint>,
    count: u64,
    last: Option<Refused>,
}

impl Versions {
    /// Starts with the first version of a host, which is trusted because no other version exists.
    #[must_use]
    pub fn new(plugin: Plugin, fingerprint: Fingerprint, consumers: u32) -> Versions {
        let version = Version {
            plugin,
            record: Arc::default(),
            probation: None,
            kept: Mutex::default(),
            fingerprint,
            since: SystemTime::now(),
            restored: false,
        };
        let history = History::default();
        history.add(Entry::new(Event::Started, (Some(version.plugin.digest()), None), version.plugin.generation()));
        Versions {
            orders: watch::Sender::new(Orders { version: Arc::new(version), consumers, consumers_wanted: consumers }),
            swaps: AtomicU64::default(),
            rollbacks: AtomicU64::default(),
            refusals: Mutex::default(),
            history,
            breaker: Breaker::new(0),
            elsewhere: Mutex::default(),
            commanded: Mutex::default(),
        }
    }

    /// What has happened to the versions, and all that will.
    #[must_use]
    pub fn history(&self) -> watch::Receiver<Recent> {
        self.history.subscribe()
    }

    /// The present orders and all changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Orders> {
        self.orders.subscribe()
    }

    /// The version in use.
    #[must_use]
    pub fn current(&self) -> Arc<Version> {
        self.orders.borrow().version.clone()
    }

    /// Maximum number of instances, both for the version in use and for the version of a rollback.
    #[must_use]
    pub fn instances_max(&self) -> u32 {
        let current = self.current();
        let before = current.probation.as_ref().map_or(u32::MAX, |probation| probation.before().plugin.instances_max());
        current.plugin.instances_max().min(before)
    }

    /// Fingerprint of the version in use.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.orders.borrow().version.fingerprint.clone()
    }

    /// Whether this version was rolled back.
    #[must_use]
    pub fn is_bad(&self, fingerprint: &Fingerprint) -> bool {
        self.refusals().bad.contains(fingerprint)
    }

    /// Whether this version has nothing to prove: it is the one to which a rollback would lead.
    #[must_use]
    pub fn is_trusted(&self, fingerprint: &Fingerprint) -> bool {
        let current = self.current();
        current.probation.as_ref().map_or(&current, Probation::before).fingerprint == *fingerprint
    }

    /// Whether this host rolled the version back, and may try it again.
    #[must_use]
    pub fn is_forgiven(&self, fingerprint: &Fingerprint) -> bool {
        self.refusals().forgiven.contains(fingerprint)
    }

    /// Lets this version be tried although another host rolled it back.
    pub fn forgive_one(&self, fingerprint: &Fingerprint) {
        self.refusals().forgiven.insert(fingerprint.clone());
    }

    /// Lets versions that were rolled back be tried again.
    pub fn forgive(&self) {
        let mut refusals = self.refusals();
        refusals.forgiven = std::mem::take(&mut refusals.bad);
    }

    /// Puts another version in use. The version is on probation, unless it is the trusted one or rollback is off.
    pub fn swap(&self, plugin: &Plugin, fingerprint: Fingerprint, config: &ReloadConfig) -> Arc<Version> {
        let before = self.current();
        let event = if self.refusals().forgiven.remove(&fingerprint) { Event::Forced } else { Event::Swapped };
        let swapped = self.replace(|current| {
            let trusted = current.probation.as_ref().map_or(current, Probation::before);
            let untried = config.rollback == OnOff::On && trusted.fingerprint != fingerprint;
            Some(Version {
                plugin: plugin.with_generation(current.plugin.generation() + 1),
                record: Arc::default(),
                probation: untried.then(|| Probation::new(trusted.clone(), config)),
                kept: Mutex::default(),
                fingerprint,
                since: SystemTime::now(),
                restored: false,
            })
        });
        let version = swapped.unwrap_or_else(|| self.current());
        let digests = (Some(version.plugin.digest()), Some(before.plugin.digest()));
        self.history.add(Entry::new(event, digests, version.plugin.generation()));
        version
    }

    /// Counts a regression: a message that this version failed and the previous version processed. Rolls back to the
    /// previous version if there are too many regressions.
    pub fn regressed(&self, version: &Version, message_id: &str, failure: &str) {
        let Some(probation) = &version.probation else { return };
        if !probation.regressed(version.record.messages()) {
            return;
        }
        let Some(restored) = self.restore(version, probation) else { return };
        error!(
            bad = version.plugin.short_digest(),
            digest = restored.plugin.short_digest(),
            generation = restored.plugin.generation(),
            regressions = probation.regressions(),
            messages = version.record.messages(),
            example = message_id,
            failure,
            "rolled back the plugin: the new version failed messages that the previous version processes; \
             the new version is not used again before SIGHUP or a restart"
        );
        let reason = format!(
            "the new version failed {} of {} messages that the previous version processes, such as {message_id}: {failure}",
            probation.regressions(),
            version.record.messages(),
        );
        self.add_rollback(version, &restored, reason, false);
    }

    fn add_rollback(&self, bad: &Version, restored: &Version, reason: String, by_command: bool) {
        let digests = (Some(restored.plugin.digest()), Some(bad.plugin.digest()));
        let entry = Entry::new(Event::RolledBack, digests, restored.plugin.generation()).because(reason);
        self.history.add(entry.judging(bad.judged(by_command)));
    }

    /// Goes back to the version before the one in use, which is not used again before it is forgiven. `None` if the version in
    /// use is not on probation, because then the version before is gone.
    pub fn roll_back(&self) -> Option<Arc<Version>> {
        let version = self.current();
        let restored = self.restore(&version, version.probation.as_ref()?)?;
        self.add_rollback(&version, &restored, "a command asked for it".to_owned(), true);
        Some(restored)
    }

    /// Puts the version before this one in use again, unless another version than this one is in use by now.
    fn restore(&self, version: &Version, probation: &Probation) -> Option<Arc<Version>> {
        // Somebody may already have rolled back, or the version may have been trusted.
        self.bring_back(version, probation.before(), |current| current.probation.is_some())
    }

    /// Puts an earlier version in use in place of this one, if it is still the one in use and that version allows it.
    fn bring_back(
        &self,
        version: &Version,
        before: &Arc<Version>,
        allows: impl Fn(&Version) -> bool,
    ) -> Option<Arc<Version>> {
        let restored = self.replace(|current| {
            let is_it = current.plugin.generation() == version.plugin.generation() && allows(current);
            is_it.then(|| Version {
                plugin: before.plugin.with_generation(current.plugin.generation() + 1),
                record: before.record.clone(),
                probation: None,
                kept: Mutex::default(),
                fingerprint: before.fingerprint.clone(),
                since: SystemTime::now(),
                restored: true,
            })
        })?;
        self.rollbacks.fetch_add(1, Ordering::Relaxed);
        self.refusals().bad.insert(version.fingerprint.clone());
        Some(restored)
    }

    /// Ends the probation of the version in use if its conditions are met, and forgets a version that was kept for long enough.
    /// Otherwise returns the time until the next review. `None` if there is nothing to review.
    pub fn review(&self) -> Option<Duration> {
        let current = self.current();
        let Some(probation) = &current.probation else { return self.forget() };
        let wait = probation.wait(current.record.messages(), self.orders.borrow().consumers, Instant::now());
        if wait.is_some() {
            return wait;
        }
        if let Some(proved) = self.prove(&current, false) {
            info!(
                generation = proved.plugin.generation(),
                digest = proved.plugin.short_digest(),
                messages = proved.record.messages(),
                "the new version of the plugin has passed its probation"
            );
        }
        self.forget()
    }

    /// Ends the probation of the version in use, or the verdict of another host on it. `None` if there is neither.
    pub fn trust(&self) -> Option<Arc<Version>> {
        let current = self.current();
        if let Some(proved) = self.prove(&current, true) {
            return Some(proved);
        }
        self.verdict_on(&current)?;
        self.add_trust(&current, true);
        Some(current)
    }

    fn add_trust(&self, trusted: &Version, by_command: bool) {
        let entry = Entry::new(Event::Trusted, (Some(trusted.plugin.digest()), None), trusted.plugin.generation());
        self.history.add(entry.judging(trusted.judged(by_command)));
    }

    /// Ends the probation of this version, if it is still in use and on probation.
    fn prove(&self, version: &Version, by_command: bool) -> Option<Arc<Version>> {
        let proved = self.replace(|now| {
            // The version may have been rolled back meanwhile.
            let is_it = now.plugin.generation() == version.plugin.generation() && now.probation.is_some();
            is_it.then(|| Version {
                plugin: now.plugin.clone(),
                record: now.record.clone(),
                kept: Mutex::new(
                    now.probation.as_ref().and_then(|probation| Kept::new(probation.before(), probation.keep())),
                ),
                probation: None,
                fingerprint: now.fingerprint.clone(),
                since: now.since,
                restored: false,
            })
        })?;
        self.add_trust(&proved, by_command);
        Some(proved)
    }

    /// Lets the heartbeat publish the status soon, after a change that these orders do not tell.
    pub fn announce(&self) {
        self.orders.send_modify(|_| {});
    }

    /// The number of consumers of a command; none leaves the number to the configuration.
    pub fn command_consumers(&self, consumers: Option<u32>) {
        *self.commanded.lock().unwrap_or_else(PoisonError::into_inner) = consumers;
    }

    /// The number of consumers that a command has set.
    #[must_use]
    pub fn consumers_commanded(&self) -> Option<u32> {
        *self.commanded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the wanted number of consumers.
    pub fn want_consumers(&self, wanted: u32) {
        self.orders.send_if_modified(|orders| std::mem::replace(&mut orders.consumers_wanted, wanted) != wanted);
    }

    /// Sets the number of consumers.
    pub fn set_consumers(&self, consumers: u32) {
        self.orders.send_modify(|orders| orders.consumers = consumers);
    }

    /// Records a refused version.
    pub fn refuse(&self, digest: Option<&str>, reason: String) {
        let mut refusals = self.refusals();
        refusals.count += 1;
        let time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        refusals.last = Some(Refused { digest: digest.map(str::to_owned), reason: reason.clone(), time });
        drop(refusals);
        let current = self.current();
        let digests = (digest, Some(current.plugin.digest()));
        self.history.add(Entry::new(Event::Refused, digests, current.plugin.generation()).because(reason));
        self.announce();
    }

    /// The present status.
    #[must_use]
    pub fn status(&self) -> Status {
        let Orders { version, consumers, .. } = self.orders.borrow().clone();
        let waiting = self.elsewhere().waiting.clone();
        let verdict = self.verdict_on(&version);
        let refusals = self.refusals();
        Status {
            generation: version.plugin.generation(),
            digest: version.plugin.digest().to_owned(),
            state: match (&version.probation, version.restored) {
                _ if self.breaker.is_open() => State::Failing,
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
            waiting,
            verdict,
            compared: version.record.costs.compared(),
        }
    }

    /// Replaces the version in use by the result of `next`, in one step.
    fn replace(&self, next: impl FnOnce(&Arc<Version>) -> Option<Version>) -> Option<Arc<Version>> {
        let mut replaced = None;
        self.orders.send_if_modified(|orders| {
            let Some(version) = next(&orders.version) else { return false };
            let version = Arc::new(version);
            let another = version.plugin.generation() != orders.version.plugin.generation();
            self.swaps.fetch_add(u64::from(another), Ordering::Relaxed);
            if another {
                // What the version before has failed says nothing about this one.
                self.breaker.close();
            }
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
