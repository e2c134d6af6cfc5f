//! The group of a host: one value that is handed to every actor. It says where the group's Redis is, how its keys are called, who
//! this host is in it, and what is known and counted about it. It does nothing by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::counters::Counters;
use crate::identity::Identity;
use crate::pace::Pace;
use crate::redis::client::clock::ServerClock;
use crate::redis::client::connector::Connector;
use crate::redis::client::reconnecting::{Connect, Reconnecting};
use crate::redis::store::entry::FORMAT;
use crate::redis::store::keys::Keys;
use crate::standing::Standing;

/// What the actors of a host share.
#[derive(Debug)]
pub struct Group {
    /// Makes connections.
    pub connector: Connector,
    /// Names in Redis.
    pub keys: Keys,
    /// Under which id the host is known.
    pub identity: Identity,
    /// What time it is in Redis.
    pub clock: Arc<ServerClock>,
    /// How large the group is, and how fast.
    pub pace: Pace,
    /// What the host has counted.
    pub counters: Arc<Counters>,
    /// What the host's intake is.
    pub standing: Standing,
    /// In which format entries are written.
    format: AtomicU32,
}

impl Group {
    /// The group with these keys, as a host sees it that has not joined yet.
    #[must_use]
    pub fn new(connector: Connector, keys: Keys) -> Group {
        Group {
            connector,
            keys,
            identity: Identity::fresh(),
            clock: Arc::default(),
            pace: Pace::default(),
            counters: Arc::default(),
            standing: Standing::default(),
            format: AtomicU32::new(FORMAT),
        }
    }

    /// A connection that is made again whenever it breaks; `name` says in the log what it is for.
    pub fn connect<C: Connect>(&self, name: &'static str) -> Reconnecting<C> {
        Reconnecting::new(name, self.connector.clone(), self.counters.clone())
    }

    /// The format in which entries are written, which every host of the group reads.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.format.load(Ordering::Relaxed)
    }

    /// Tells which format every host of the group reads.
    pub fn set_format(&self, format: u32) {
        self.format.store(format, Ordering::Relaxed);
    }
}
