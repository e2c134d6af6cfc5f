//! Who this host is. An id is used once: a host that was taken for dead goes on under a new one.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rand::RngExt as _;

/// The id under which this host is known now. Shared by everything that signs with it.
#[derive(Clone, Debug)]
pub struct Identity(Arc<RwLock<Known>>);

/// An id, and until when nobody can take its host for dead.
#[derive(Debug)]
struct Known {
    id: Arc<str>,
    until: Instant,
}

/// How often to look for the heartbeat that tells whether an id is still good.
const CONFIRMATION_LOOK: Duration = Duration::from_millis(10);

impl Identity {
    /// An id that was never used.
    #[must_use]
    pub fn fresh() -> Identity {
        Identity(Arc::new(RwLock::new(Known { id: new_host_id(), until: Instant::now() })))
    }

    /// Host name, process id and a random part.
    #[must_use]
    pub fn host_id(&self) -> Arc<str> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).id.clone()
    }

    /// The same, once no heartbeat is overdue: a host that was paused for long may have been taken for dead, and learns of
    /// it at its next one.
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

    /// Nobody can take the host for dead before this moment.
    pub fn confirm(&self, until: Instant) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).until = until;
    }

    /// Goes on under a new id.
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

/// The id of a host's consumer; consumers are numbered from 1.
#[must_use]
pub fn consumer_id(host_id: &str, number: u32) -> Arc<str> {
    format!("{host_id}/{number}").into()
}
