//! What other hosts of the group have to do with the versions of this one. This file decides nothing and knows no Redis.

use std::sync::{MutexGuard, PoisonError};

use super::history::{Entry, Event};
use super::{Fingerprint, Version, Versions};
use crate::fleet::{Verdict, Waiting};

/// What other hosts have to do with the versions.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    pub(super) waiting: Option<Waiting>,
    /// With the version that the verdict is about.
    verdict: Option<(Fingerprint, Verdict)>,
}

impl Versions {
    /// Records which version waits for the canary of the group, or that none does.
    pub fn wait(&self, waiting: Option<Waiting>) {
        if std::mem::replace(&mut self.elsewhere().waiting, waiting.clone()) == waiting {
            return;
        }
        if let Some(waiting) = waiting {
            let current = self.current();
            let digests = (Some(waiting.digest.as_str()), Some(current.plugin.digest()));
            let entry = Entry::new(Event::Waiting, digests, current.plugin.generation());
            self.history.add(entry.because(waiting.to_string()));
        }
        self.announce();
    }

    /// Records what another host says of the version with this fingerprint, or that it says nothing. Returns whether that is
    /// news.
    pub fn hear(&self, fingerprint: &Fingerprint, verdict: Option<Verdict>) -> bool {
        let heard = verdict.map(|verdict| (fingerprint.clone(), verdict));
        let is_news = std::mem::replace(&mut self.elsewhere().verdict, heard.clone()) != heard;
        if is_news {
            self.announce();
        }
        is_news
    }

    /// What another host says of this version.
    pub(super) fn verdict_on(&self, version: &Version) -> Option<Verdict> {
        let elsewhere = self.elsewhere();
        elsewhere
            .verdict
            .as_ref()
            .filter(|(about, _)| *about == version.fingerprint)
            .map(|(_, verdict)| verdict.clone())
    }

    pub(super) fn elsewhere(&self) -> MutexGuard<'_, Elsewhere> {
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
