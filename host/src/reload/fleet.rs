//! What the hosts of a group tell each other of versions: this host tells how a probation ended, asks before it uses a version,
//! and stays the canary while it is. No call here waits for Redis longer than a moment, and no message waits for any of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use redis::RedisError;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use crate::config::RegistryConfig;
use crate::fleet::{Verdict, Waiting};
use crate::group::Group;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::client::reconnecting::{Reconnecting, breaks_connection};
use crate::redis::store::inbox::inbox_length;
use crate::redis::store::versions::{Known, Record, Subject, Wanted, Word, exchange};
use crate::time::rfc3339;
use crate::version::history::{Event, Judged};
use crate::version::{Fingerprint, Versions};

/// Wait for an answer of Redis.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two looks of a host that waits for the canary.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);

/// This host's part in what the group knows of versions.
#[derive(Debug)]
pub struct Fleet {
    group: Arc<Group>,
    versions: Arc<Versions>,
    connection: Reconnecting,
    /// Time between two renewals of a canary's record, and validity of the record: those of a heartbeat.
    renewal: RegistryConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The version of which this host is the canary, or was.
    canary_of: Option<Fingerprint>,
    /// Events of the history that are told.
    told: u64,
    /// The last logged problem.
    problem: Option<String>,
}

/// A version that this host may come to use.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Identifies the plugin's bytes, configuration and limits.
    pub fingerprint: &'a Fingerprint,
    /// SHA-256 of the bytes.
    pub digest: &'a str,
    /// Whether a canary has to try the version first.
    pub canary: bool,
    /// Whether a verdict counts for nothing, and nobody is waited for.
    pub force: bool,
}

/// What the group has to say of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// The host may use the version.
    Use,
    /// Another host tries the version first.
    Wait(Waiting),
    /// Another host rolled the version back.
    Refuse(Verdict),
}

impl Fleet {
    /// This host's part. Opens no connection.
    #[must_use]
    pub fn new(group: &Arc<Group>, versions: &Arc<Versions>, renewal: &RegistryConfig) -> Fleet {
        Fleet {
            group: group.clone(),
            versions: versions.clone(),
            connection: group.connect("versions"),
            renewal: renewal.clone(),
            state: Mutex::default(),
        }
    }

    /// Tells the group what happens to this host's versions, and hears what it says of the one in use, for ever.
    pub async fn run(&self) {
        let mut history = self.versions.history();
        let mut ticks = interval(self.renewal.beat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                Ok(()) = history.changed() => {}
            }
            history.mark_unchanged();
            self.look_at_the_inbox().await;
            // What fails now is tried again at the next tick.
            if self.tell().await {
                self.hear().await;
            }
        }
    }

    /// Tells the versions how long the inbox is, while one of them is on probation.
    async fn look_at_the_inbox(&self) {
        if self.versions.current().probation.is_none() {
            return;
        }
        let Ok(Ok((mut connection, number))) = timeout(ANSWER_TIMEOUT, self.connection.connection()).await else {
            return;
        };
        match timeout(ANSWER_TIMEOUT, inbox_length(&mut connection, &self.group.keys)).await {
            Ok(Ok(deliveries)) => self.versions.observe_inbox(deliveries),
            Ok(Err(error)) if !breaks_connection(&error) => {}
            _ => self.connection.broken(number).await,
        }
    }

    /// Tells how probations ended. Returns whether Redis answers.
    async fn tell(&self) -> bool {
        let history = self.versions.history();
        loop {
            let (event, told) = {
                let (recent, seen) = (history.borrow(), self.state().told);
                let Some(event) = recent.after(seen).next().cloned() else { return true };
                // Events that are not kept any more count as told.
                (event, (recent.total() - recent.after(seen).count() as u64) + 1)
            };
            if let Some(judged) = &event.judged {
                let reason = event.reason.as_deref().unwrap_or_default();
                let wanted = match (event.event, judged.by_command) {
                    (Event::RolledBack, _) => Wanted::RollBack(reason),
                    (_, true) => Wanted::Trust,
                    (_, false) => Wanted::Prove,
                };
                if self.exchange(judged, wanted).await.is_err() {
                    return false;
                }
            }
            self.state().told = told;
        }
    }

    /// Hears what the group says of the version in use, and stays its canary.
    async fn hear(&self) {
        let version = self.versions.current();
        let is_canary = version.probation.is_some() && self.state().canary_of.as_ref() == Some(version.fingerprint());
        let wanted = if is_canary { Wanted::Keep(self.renewal.beat_ttl) } else { Wanted::Look };
        let (fingerprint, digest) = (version.fingerprint().clone(), version.plugin.digest().to_owned());
        let about = Judged { fingerprint, digest, by_command: false };
        let Ok(known) = self.exchange(&about, wanted).await else { return };
        let own = self.group.identity.host_id();
        let verdict =
            known.record.filter(|record| *record.host != *own).and_then(|record| verdict(&about.digest, record));
        if self.versions.hear(&about.fingerprint, verdict.clone())
            && let Some(verdict) = verdict
        {
            let why = match version.probation {
                Some(_) => "the probation on this host decides whether it stays here",
                None => "it stays in use, because this host has no version before it",
            };
            warn!(
                digest = version.plugin.short_digest(),
                "another host rolled back the version in use: {verdict}; {why}"
            );
        }
    }

    /// What another host that rolled a version back says of the version, if Redis can tell.
    pub async fn verdict_on(&self, fingerprint: &Fingerprint, digest: &str) -> Option<Verdict> {
        let about = Judged { fingerprint: fingerprint.clone(), digest: digest.to_owned(), by_command: false };
        verdict(digest, self.exchange(&about, Wanted::Look).await.ok()?.record?)
    }

    /// What the group has to say of a candidate now. Without an answer of Redis a host that lets a canary go first waits, and any
    /// other host uses the version, because it has a probation of its own.
    pub async fn rule(&self, candidate: Candidate<'_>) -> Ruling {
        let about = Judged {
            fingerprint: candidate.fingerprint.clone(),
            digest: candidate.digest.to_owned(),
            by_command: candidate.force,
        };
        if candidate.force {
            self.override_verdict(&about, candidate.canary).await;
            return Ruling::Use;
        }
        let wanted = if candidate.canary { Wanted::Claim(self.renewal.beat_ttl) } else { Wanted::Look };
        match self.exchange(&about, wanted).await {
            Ok(known) => self.ruling(&about, known, candidate.canary),
            Err(_) if candidate.canary => Ruling::Wait(Waiting { digest: about.digest, canary: None }),
            Err(problem) => {
                warn!(
                    digest = &about.digest[..12],
                    "Redis cannot be asked whether another host has rolled this version back ({problem}); the version is used, and is \
                     on probation here"
                );
                Ruling::Use
            }
        }
    }

    fn ruling(&self, about: &Judged, known: Known, canary: bool) -> Ruling {
        if known.is_canary {
            self.become_canary(about);
            return Ruling::Use;
        }
        match known.record {
            Some(record) if record.state == Word::RolledBack => {
                verdict(&about.digest, record).map_or(Ruling::Use, Ruling::Refuse)
            }
            Some(record) if canary && record.state == Word::Canary => {
                Ruling::Wait(Waiting { digest: about.digest.clone(), canary: Some(record.host) })
            }
            _ => Ruling::Use,
        }
    }

    /// Forgets a verdict on a version that is used all the same.
    async fn override_verdict(&self, about: &Judged, canary: bool) {
        if let Ok(known) = self.exchange(about, Wanted::Forgive).await
            && let Some(verdict) = known.record.and_then(|record| verdict(&about.digest, record))
        {
            info!(digest = &about.digest[..12], "a command overrides a verdict of the group: {verdict}");
            self.versions.forgive_one(&about.fingerprint);
        }
        if canary
            && let Ok(known) = self.exchange(about, Wanted::Claim(self.renewal.beat_ttl)).await
            && known.is_canary
        {
            self.become_canary(about);
        }
    }

    fn become_canary(&self, about: &Judged) {
        let before = self.state().canary_of.replace(about.fingerprint.clone());
        if before.as_ref() != Some(&about.fingerprint) {
            info!(digest = &about.digest[..12], "this host is the canary of the group for this version");
        }
    }

    /// Waits until the group has something else to say of a candidate than this.
    pub async fn next_ruling(&self, candidate: Candidate<'_>, waiting: &Waiting) -> Ruling {
        loop {
            sleep(FOLLOW_INTERVAL).await;
            match self.rule(candidate).await {
                Ruling::Wait(still) if still == *waiting => {}
                ruling => return ruling,
            }
        }
    }

    /// Asks once, and logs a problem once.
    async fn exchange(&self, about: &Judged, wanted: Wanted<'_>) -> Result<Known, String> {
        let host_id = self.group.identity.host_id();
        let subject = Subject { fingerprint: &about.fingerprint, digest: &about.digest, host_id: &host_id };
        let connected = timeout(ANSWER_TIMEOUT, self.connection.connection()).await;
        let answer = match connected {
            Ok(Ok((mut connection, number))) => self.answer(&mut connection, number, subject, wanted).await,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection within {ANSWER_TIMEOUT:?}")),
        };
        match &answer {
            Ok(known) => {
                let key = &self.group.keys.versions;
                let unreadable =
                    format!("the field {} of {key} cannot be read, and counts as missing", about.fingerprint);
                self.note(known.was_unreadable.then_some(unreadable));
            }
            Err(problem) => {
                self.note(Some(format!("the hosts of the group cannot tell each other of versions: {problem}")));
            }
        }
        answer
    }

    async fn answer(
        &self,
        connection: &mut LibraryConnection,
        number: u64,
        subject: Subject<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Known, String> {
        let asked = timeout(ANSWER_TIMEOUT, exchange(connection, &self.group.keys, subject, wanted)).await;
        let is_broken = |error: &RedisError| breaks_connection(error);
        match asked {
            Ok(Ok(known)) => Ok(known),
            Ok(Err(error)) => {
                if is_broken(&error) {
                    self.connection.broken(number).await;
                }
                Err(error.to_string())
            }
            Err(_) => {
                self.connection.broken(number).await;
                Err(format!("no answer within {ANSWER_TIMEOUT:?}"))
            }
        }
    }

    /// Logs a problem that is another one than before.
    fn note(&self, problem: Option<String>) {
        let mut state = self.state();
        if state.problem != problem {
            if let Some(problem) = &problem {
                error!("{problem}");
            }
            state.problem = problem;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The verdict that a record holds, if it is one.
fn verdict(digest: &str, record: Record) -> Option<Verdict> {
    let time = |ms: f64| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(ms.clamp(0.0, 1e14) / 1_000.0));
    (record.state == Word::RolledBack).then(|| Verdict {
        digest: digest.to_owned(),
        host: record.host,
        time: time(record.at_ms),
        reason: record.reason.unwrap_or_else(|| "no reason is known".to_owned()),
        until: time(record.expires_ms),
    })
}
