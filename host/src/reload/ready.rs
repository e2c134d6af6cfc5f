//! A loaded version between its tests and its use: what becomes of it is what the group has to say.

use std::time::Duration;

use tracing::info;

use super::fleet::{Candidate, Ruling};
use super::{Reloaded, Reloader};
use crate::fleet::{Verdict, Waiting};
use crate::plugin::Plugin;
use crate::version::Fingerprint;

/// A version that is loaded and may come into use when the group allows it.
pub(super) struct Ready {
    pub(super) plugin: Plugin,
    pub(super) fingerprint: Fingerprint,
    pub(super) load_time: Duration,
    pub(super) waiting: Waiting,
}

impl Ready {
    /// The version, for the group.
    pub(super) fn candidate(&self, canary: bool) -> Candidate<'_> {
        Candidate { fingerprint: &self.fingerprint, digest: &self.waiting.digest, canary, force: false }
    }
}

impl Reloader {
    /// Does with a loaded version what the group has to say of it.
    pub(super) fn obey(&mut self, ruling: Ruling, ready: Ready) -> Reloaded {
        match ruling {
            Ruling::Use => {
                let digest = ready.waiting.digest.clone();
                self.versions.wait(None);
                self.swap(&ready.plugin, ready.fingerprint, ready.load_time);
                Reloaded::Swapped(digest)
            }
            Ruling::Wait(waiting) => {
                info!(
                    in_use = self.versions.current().plugin.short_digest(),
                    "{waiting}; the version in use stays until then"
                );
                self.versions.wait(Some(waiting.clone()));
                self.ready = Some(Ready { waiting: waiting.clone(), ..ready });
                Reloaded::Waits(waiting)
            }
            Ruling::Refuse(verdict) => self.refuse_for_another(&verdict),
        }
    }

    /// Forgets the version that waits. It is loaded again when it is in the file at the next look.
    pub(super) fn stop_waiting(&mut self) {
        if self.ready.take().is_some() {
            self.seen = None;
            self.versions.wait(None);
        }
    }

    /// Refuses a version that another host has rolled back.
    pub(super) fn refuse_for_another(&mut self, verdict: &Verdict) -> Reloaded {
        self.versions.wait(None);
        let reason = format!(
            "{verdict}; to use the version all the same, send {{\"force\": true}} to /api/v1/reload of a host, or start a host with \
             it; the verdict is forgotten at {}",
            verdict.until
        );
        // Not remembered, because somebody may withdraw the verdict.
        self.refuse(&verdict.digest, reason.clone());
        Reloaded::Refused(reason)
    }
}
