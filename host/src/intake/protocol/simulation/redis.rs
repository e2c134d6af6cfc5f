//! The simulated Redis: data, the logs of what was published, and the scripts as far as the protocol sees them.

use std::collections::{HashMap, HashSet};

use super::super::*;
use super::{DEDUP_WINDOW_MS, LEASE_MS};

/// What is published, in the order of publishing.
#[derive(Clone, Debug)]
pub enum Event {
    Message(u32),
    Mark(Announcement),
}

/// Everything that Redis keeps.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub appended: HashMap<u32, u32>,
    pub claims: HashMap<u32, u64>,
    /// Messages that were to be appended although they were claimed.
    pub again: HashSet<u32>,
    pub covered: Covered,
    /// Changes of the list: what a watch compares.
    pub version: u64,
    pub lease: Option<(String, u64)>,
    pub history: u64,
    pub number: u64,
    /// For which data the history was begun.
    pub made_for: u64,
}

/// The servers: the one that is written to, and the logs of what each has published.
#[derive(Debug)]
pub struct Redis {
    pub data: Data,
    pub logs: Vec<Vec<Event>>,
    pub identity: u64,
    /// Until then it executes nothing, and then everything that was sent.
    pub stalled_until: u64,
    /// Until then it is away.
    pub away_until: u64,
    pub full_until: u64,
    /// With when it was.
    pub older: VecDeque<(u64, Snapshot)>,
    /// How far the replica is behind.
    pub replica_lag_ms: u64,
}

/// How things were: in which log, how many events were in it, and the data.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub log: usize,
    pub events: usize,
    pub data: Data,
}

impl Redis {
    pub fn log(&mut self) -> &mut Vec<Event> {
        self.logs.last_mut().expect("there is a server")
    }

    /// Remembers how things are.
    pub fn remember(&mut self, now_ms: u64) {
        let snapshot = Snapshot { log: self.logs.len() - 1, events: self.log().len(), data: self.data.clone() };
        self.older.push_back((now_ms, snapshot));
        // Enough for the replica.
        if self.older.len() > 16 {
            self.older.pop_front();
        }
    }

    /// What has come to the replica.
    pub fn replica(&self, now_ms: u64) -> Option<&Snapshot> {
        let arrived = |at_ms: &u64| at_ms + self.replica_lag_ms <= now_ms;
        let (_, newest) = self.older.iter().rev().find(|(at_ms, _)| arrived(at_ms))?;
        (newest.log + 1 == self.logs.len()).then_some(newest)
    }

    pub fn mark(&mut self, host: &str, former: Option<&str>, wish: Wish, now_ms: u64) -> Announcement {
        let data = &mut self.data;
        if data.made_for != self.identity {
            data.history = (data.history + 1).max(now_ms);
            (data.number, data.made_for) = (0, self.identity);
        }
        data.number += 1;
        data.lease.take_if(|(_, until)| *until <= now_ms);
        let until = now_ms + LEASE_MS;
        if let Some((holder, _)) = data.lease.as_mut().filter(|(holder, _)| Some(&**holder) == former) {
            *holder = host.into();
        }
        match (&mut data.lease, wish) {
            (None, Wish::Take) => data.lease = Some((host.into(), until)),
            (Some((holder, _)), Wish::Release) if holder == host => data.lease = None,
            (Some((holder, end)), _) if holder == host => *end = until,
            _ => {}
        }
        let announcement = Announcement {
            mark: Mark { history: data.history, number: data.number, at_ms: now_ms },
            holder: data.lease.as_ref().map_or(Holder::Nobody, |(holder, _)| Holder::Host(holder.clone())),
            lease_left: Duration::from_millis(data.lease.as_ref().map_or(0, |(_, until)| until - now_ms)),
            covered: data.covered.clone(),
        };
        self.log().push(Event::Mark(announcement.clone()));
        announcement
    }

    pub fn append(&mut self, watched: u64, messages: &[u32], covered: &Covered, now_ms: u64) -> bool {
        let data = &mut self.data;
        if data.version != watched {
            return false;
        }
        data.version += 1;
        data.covered = covered.clone();
        for id in messages {
            let is_claimed = data.claims.get(id).is_some_and(|until| *until > now_ms);
            if !is_claimed {
                data.claims.insert(*id, now_ms + DEDUP_WINDOW_MS);
                *data.appended.entry(*id).or_default() += 1;
            } else {
                data.again.insert(*id);
            }
        }
        true
    }
}
