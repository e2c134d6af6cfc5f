//! The identity of this host. An id is used once: a host that counted as dead continues with a new id.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rand::RngExt as _;

/// The present id of this host. Shared by everything that signs with the id.
#[derive(Clone, Debug)]
pub struct Identity(Arc<RwLock<Known>>);

/// An id, and the time until which its host cannot count as dead.
#[derive(Debug)]
struct Known {
    id: Arc<str>,
    until: Instant,
}

/// Time between two checks for the heartbeat that confirms an id.
const CONFIRMATION_LOOK: Duration = Duration::from_millis(10);

impl Identity {
    /// A new id.
    #[must_use]
    pub fn fresh() -> Identity {
        Identity(Arc::new(RwLock::new(Known { id: new_host_id(), until: Instant::now() })))
    }

    /// Host name, process id and a random part.
    #[must_use]
    pub fn host_id(&self) -> Arc<str> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).id.clone()
    }

    /// The id, after a heartbeat has confirmed it. A host that was paused for long may count as dead, and learns that
    /// from its next heartbeat.
    pub async fn confirmed(&self) -> Arc<str> {
        loop {
            {
                let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
                if Instant::now() < known.until {
                    return known.id.clone();
                }
            }
            tokio::time::sleep(CONFIRMATION_LOOK).await;
        }
    }

    /// Whether a heartbeat has confirmed the id, and the host cannot count as dead at this moment.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        Instant::now() < self.0.read().unwrap_or_else(PoisonError::into_inner).until
    }

    /// The host cannot count as dead before this moment.
    pub fn confirm(&self, until: Instant) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).until = until;
    }

    /// Continues with a new id.
    pub fn renew(&self) -> Arc<str> {
        let id = new_host_id();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Known { id: id.clone(), until: Instant::now() };
        id
    }
}

fn new_host_id() -> Arc<str> {
    let name = gethostname::gethostname().to_string_lossy().into_owned();
    let random: u32 = rand::rng().random();
    format!("{name}-{}-{random:08x}", std::process::id()).into()
}

/// The id of a host's consumer. Consumers are numbered from 1.
#[must_use]
pub fn consumer_id(host_id: &str, number: u32) -> Arc<str> {
    format!("{host_id}/{number}").into()
}
