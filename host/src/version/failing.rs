//! What a host does with a version that fails nearly everything when its probation is over, or that never had one: it goes back to
//! the last good version if that is still kept, and gives the plugin single messages otherwise.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::breaker::Breaker;
use super::history::{Entry, Event};
use super::{Version, Versions};

/// A version that was good, and until when it is kept.
#[derive(Debug)]
pub(super) struct Kept {
    version: Arc<Version>,
    until: Instant,
}

impl Versions {
    /// Lets the breaker open when nearly all of this many messages fail; 0 never opens it.
    #[must_use]
    pub fn breaking(self, messages_min: u32) -> Versions {
        Versions { breaker: Breaker::new(messages_min.into()), ..self }
    }

    /// Whether the plugin gets all messages.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Adds what a version made of messages.
    pub fn count(&self, version: &Version, (messages, failures): (u64, u64), failure: Option<&str>) {
        let is_it = || self.current().plugin.generation() == version.plugin.generation();
        // A failure of the version before says nothing about this one.
        if failures > 0 && !is_it() {
            return;
        }
        if let Some((messages, failures)) = self.breaker.add(messages, failures) {
            self.fails(version, (messages, failures), failure.unwrap_or_default());
        }
    }

    fn fails(&self, version: &Version, (messages, failures): (u64, u64), failure: &str) {
        let digest = version.plugin.short_digest();
        let share = format!("failed {failures} of the last {messages} messages, the last one because {failure}");
        if let Some(restored) = self.good_one_of(version).and_then(|good| self.bring_back(version, &good, |_| true)) {
            let reason = format!("the version {share}");
            error!(
                bad = digest,
                digest = restored.plugin.short_digest(),
                generation = restored.plugin.generation(),
                "rolled back the plugin: {reason}; it is not used again before SIGHUP or a restart"
            );
            return self.add_rollback(version, &restored, reason, false);
        }
        // Another version may be in use by now, and has closed the breaker.
        if !self.breaker.is_open() {
            return;
        }
        error!(
            digest,
            generation = version.plugin.generation(),
            "the plugin fails nearly everything: it {share}; messages wait without losing attempts, single ones are tried, and \
             processing goes on when one of them comes through or another version is in use"
        );
        let entry = Entry::new(Event::Failing, (Some(version.plugin.digest()), None), version.plugin.generation());
        self.history.add(entry.because(format!("the version {share}")));
        self.announce();
    }

    /// The good version before this one, if it is kept and has enough instance slots.
    fn good_one_of(&self, version: &Version) -> Option<Arc<Version>> {
        // A version on probation is judged by its regressions: the version before has failed these messages as well.
        if version.probation.is_some() {
            return None;
        }
        let consumers = self.orders.borrow().consumers;
        let kept = version.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let good = kept.as_ref().filter(|kept| kept.until > Instant::now())?.version.clone();
        (good.plugin.instances_max() >= consumers).then_some(good)
    }

    /// A single message was tried while the breaker was open.
    pub fn tried(&self, has_failed: bool) {
        if has_failed {
            return self.breaker.failed_again();
        }
        if self.breaker.close() {
            let current = self.current();
            let digest = current.plugin.short_digest();
            info!(digest, "the plugin processes messages again: the message that was tried came through");
            let entry =
                Entry::new(Event::Recovered, (Some(current.plugin.digest()), None), current.plugin.generation());
            self.history.add(entry);
            self.announce();
        }
    }

    /// Time until the good version before the one in use is forgotten. Forgets it when that time has come.
    pub(super) fn forget(&self) -> Option<Duration> {
        let current = self.current();
        let mut kept = current.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let left = kept.as_ref()?.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            kept.take();
            return None;
        }
        Some(left)
    }
}

impl Kept {
    /// Keeps a version for this long. The one that it keeps itself is forgotten: nobody goes back two steps.
    pub(super) fn new(version: &Arc<Version>, keep: Duration) -> Option<Kept> {
        version.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let until = Instant::now().checked_add(keep).filter(|_| !keep.is_zero())?;
        Some(Kept { version: version.clone(), until })
    }
}
