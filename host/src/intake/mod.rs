//! Receives from Pub/Sub and appends to the inbox. One host of the group is active, the others stand by with what they heard
//! and nobody has appended. It knows nothing of consumers beyond their pace.
//!
//! It has a thread of its own: whatever the plugins do, the subscription is drained.

mod append;
mod backlog;
mod heard;
mod kept;
mod protocol;
mod receive;
mod round;
mod segment;
mod subscriptions;
mod traced;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::config::Config;
use crate::group::Group;
use crate::redis::store::append::Times;
use crate::redis::store::buffer_limit::BufferLimit;
use append::{Append, Throttles};
use backlog::Backlog;
use protocol::{Protocol, Settings};
use receive::Receiver;
use round::{ROUND_BYTES_MAX, ROUND_MESSAGES_MAX};

/// What the receiving side and the appending side share.
struct Handover {
    protocol: Mutex<Protocol>,
    /// What Redis keeps for the subscription.
    backlog: Mutex<Backlog>,
    /// Something was heard, or has changed.
    arrived: Notify,
    /// Whether a mark has been heard: the subscription is there.
    is_placed: watch::Sender<bool>,
}

impl Handover {
    fn protocol(&self) -> MutexGuard<'_, Protocol> {
        // After a panic the host stops, and appends nothing more.
        self.protocol.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn backlog(&self) -> MutexGuard<'_, Backlog> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running intake.
pub struct Intake {
    thread: Option<JoinHandle<()>>,
    runtime: Handle,
    stop: watch::Sender<bool>,
    is_placed: watch::Receiver<bool>,
    handover: Arc<Handover>,
    done: watch::Receiver<bool>,
}

impl Intake {
    /// Starts the intake's thread. `limit` is what the server keeps for a subscriber.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(config: &Config, group: &Arc<Group>, limit: BufferLimit) -> std::io::Result<Intake> {
        let (stop, stop_seen) = watch::channel(false);
        let (finished, done) = watch::channel(false);
        let settings = Settings {
            buffer_bytes_max: config.intake.buffer_bytes_max,
            silence_max: config.intake.silence_max,
            claim_age_max: config.dedup_window / 2,
            round_messages_max: ROUND_MESSAGES_MAX,
            round_bytes_max: ROUND_BYTES_MAX,
        };
        let protocol = Protocol::new(group.identity.host_id(), settings, Instant::now(), rand::random());
        let (is_placed, placed) = watch::channel(false);
        let handover = Arc::new(Handover {
            protocol: Mutex::new(protocol),
            backlog: Mutex::new(Backlog::new(limit)),
            arrived: Notify::new(),
            is_placed,
        });
        let receiver = Receiver {
            group: group.clone(),
            handover: handover.clone(),
            strangers: crate::throttle::Throttle::default(),
        };
        let append = Append {
            group: group.clone(),
            delivery: config.delivery.clone(),
            message: config.message.clone(),
            output: config.output.clone(),
            times: Times { lease_ttl: config.intake.lease_ttl, dedup_window: config.dedup_window },
            handover: handover.clone(),
            throttles: Throttles::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let supervisor = group.supervisor.clone();
        let thread = std::thread::Builder::new().name("intake".into()).spawn(move || {
            runtime.block_on(supervisor.once("intake", async {
                tokio::select! {
                    () = receiver.run(stop_seen) => {}
                    () = append.run() => {}
                }
            }));
            finished.send_replace(true);
        })?;
        Ok(Intake { thread: Some(thread), runtime: handle, stop, is_placed: placed, handover, done })
    }

    /// The runtime of the intake's thread, which wakes up at least ten times a second.
    #[must_use]
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Returns once the subscription is there.
    pub async fn ready(&mut self) {
        let _ = self.is_placed.wait_for(|is_placed| *is_placed).await;
    }

    /// Ends the subscription, appends what was received and lets the lease go. May be dropped when that takes too long.
    pub async fn stop(&mut self) {
        self.stop.send_replace(true);
        let _ = self.done.wait_for(|done| *done).await;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    /// Messages that were received and that nobody is known to have appended.
    #[must_use]
    pub fn lag(&self) -> usize {
        self.handover.protocol().lag()
    }
}
