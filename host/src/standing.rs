//! What the intake of a host is at the moment, for whoever asks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// What an intake is in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It hears nothing, and has nothing to append.
    #[default]
    Deaf,
    /// It hears nothing at present, and has heard messages that nobody has appended.
    Owing,
    /// It hears what is published; another host appends.
    Standby,
    /// It holds the lease and appends.
    Active,
}

impl State {
    /// The state that follows from three facts; there is no other memory in it.
    #[must_use]
    pub fn of(holds_lease: bool, hears: bool, owes: bool) -> State {
        match (hears, holds_lease, owes) {
            (true, true, _) => State::Active,
            (true, false, _) => State::Standby,
            (false, _, true) => State::Owing,
            (false, _, false) => State::Deaf,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Deaf => "deaf",
            State::Owing => "owing",
            State::Standby => "standby",
            State::Active => "active",
        })
    }
}

/// What the intake last said about itself.
#[derive(Debug, Default)]
pub struct Standing {
    lag: AtomicU64,
    history: AtomicU64,
    place: Mutex<Place>,
}

/// The intake's state, and who is active.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What the intake is.
    pub state: State,
    /// The host whose intake is active, as far as this one knows.
    pub active: Option<Arc<str>>,
}

impl Standing {
    /// Tells how many messages were heard that nobody is known to have appended.
    pub fn set_lag(&self, messages: usize) {
        self.lag.store(messages as u64, Ordering::Relaxed);
    }

    /// Messages that were heard and that nobody is known to have appended.
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.lag.load(Ordering::Relaxed)
    }

    /// Tells to which history of the data the intake appends.
    pub fn set_history(&self, history: u64) {
        self.history.store(history, Ordering::Relaxed);
    }

    /// To which history of the data the intake appends; 0 before it knows.
    #[must_use]
    pub fn history(&self) -> u64 {
        self.history.load(Ordering::Relaxed)
    }

    /// Tells what the intake is now. `Some`: what it was, when that was something else.
    pub fn set_place(&self, state: State, active: Option<&str>) -> Option<State> {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if place.active.as_deref() != active {
            place.active = active.map(Arc::from);
        }
        let before = std::mem::replace(&mut place.state, state);
        (before != state).then_some(before)
    }

    /// What the intake is, and who is active.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
