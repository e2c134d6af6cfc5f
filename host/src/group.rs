//! The group of a host: one value that is handed to every actor. It contains the connector for the group's Redis, the
//! names of the keys, this host's id, and shared facts and counters. This file has no behaviour of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::counters::Counters;
use crate::identity::Identity;
use crate::measured::Measured;
use crate::pace::Pace;
use crate::parts::supervisor::Supervisor;
use crate::pause::Pause;
use crate::redis::client::clock::ServerClock;
use crate::redis::client::connector::Connector;
use crate::redis::client::reconnecting::{Connect, Reconnecting};
use crate::redis::store::entry::FORMAT;
use crate::redis::store::keys::Keys;
use crate::standing::Standing;
use crate::traces::Traces;

/// The value that all actors of a host share.
#[derive(Debug)]
pub struct Group {
    /// Opens connections.
    pub connector: Connector,
    /// Names in Redis.
    pub keys: Keys,
    /// The host's id.
    pub identity: Identity,
    /// The clock of Redis.
    pub clock: Arc<ServerClock>,
    /// Size and speed of the group.
    pub pace: Pace,
    /// Whether the host takes no deliveries for now.
    pub pause: Pause,
    /// Watches over the parts of the host.
    pub supervisor: Supervisor,
    /// Counters of the host.
    pub counters: Arc<Counters>,
    /// Times, if somebody may ask for them.
    pub measured: Option<Arc<Measured>>,
    /// Traces of messages, if somebody takes them.
    pub traces: Option<Arc<Traces>>,
    /// What the host's intake is.
    pub standing: Standing,
    /// In which format entries are written.
    format: AtomicU32,
}

impl Group {
    /// The group with these keys, before the host has joined.
    #[must_use]
    pub fn new(connector: Connector, keys: Keys) -> Group {
        Group {
            connector,
            keys,
            identity: Identity::fresh(),
            clock: Arc::default(),
            pace: Pace::default(),
            pause: Pause::default(),
            supervisor: Supervisor::default(),
            counters: Arc::default(),
            measured: None,
            traces: None,
            standing: Standing::default(),
            format: AtomicU32::new(FORMAT),
        }
    }

    /// The group with times measured, or without.
    #[must_use]
    pub fn measuring(self, is_wanted: bool) -> Group {
        Group { measured: is_wanted.then(Arc::default), ..self }
    }

    /// The group with these traces.
    #[must_use]
    pub fn tracing(self, traces: Option<Arc<Traces>>) -> Group {
        Group { traces, ..self }
    }

    /// A connection that reconnects after a failure. `name` is its purpose, for the log.
    pub fn connect<C: Connect>(&self, name: &'static str) -> Reconnecting<C> {
        Reconnecting::new(name, self.connector.clone(), self.counters.clone())
    }

    /// Format of entries to write, which every host of the group can read.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.format.load(Ordering::Relaxed)
    }

    /// Sets the format that every host of the group can read.
    pub fn set_format(&self, format: u32) {
        self.format.store(format, Ordering::Relaxed);
    }
}
