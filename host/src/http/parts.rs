//! Watches the parts of the host for `/health`. A supervisor restarts a host that is not healthy, so a part counts as late only
//! after a time in which no machine is too busy for it.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::Service;
use crate::parts::Parts;

/// Time between two looks at the parts.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Number of looks without progress after which a part counts as late.
const LATE_LOOKS: u32 = 5;

/// The parts that are late.
#[derive(Debug, Default)]
pub(super) struct Late(Mutex<Vec<&'static str>>);

impl Late {
    /// Their names.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.lock().clone()
    }

    /// No part is late any more.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at these parts until the host stops. Runs on the thread of the listener, so that any other one may hang.
pub(super) async fn watch(service: Arc<Service>, mut parts: Parts) {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut without_progress: HashMap<&str, u32> = HashMap::new();
    loop {
        looks.tick().await;
        let stuck = parts.stuck();
        without_progress.retain(|name, _| stuck.contains(name));
        stuck.iter().for_each(|name| *without_progress.entry(name).or_default() += 1);
        let is_late = |name: &&'static str| without_progress.get(name).is_some_and(|looks| *looks >= LATE_LOOKS);
        let late: Vec<&'static str> = stuck.into_iter().filter(is_late).collect();
        let mut told = service.late.lock();
        // Read under the lock: what is written here after the stop has begun would stay.
        if !service.is_ready.load(Ordering::Relaxed) {
            return;
        }
        if *told != late {
            if late.is_empty() {
                info!("all parts of the host go on again, and /health says so");
            } else {
                let parts = late.join(", ");
                warn!(parts, "parts of the host make no progress; /health answers 503 until they go on");
            }
            *told = late;
        }
    }
}
