//! Receives from Pub/Sub and appends to the inbox. One host of the group is active, the others stand by with
//! what they received during the last seconds. It knows nothing of consumers beyond their pace.
//!
//! It has a thread of its own: whatever the plugins do, the subscription is drained.

mod append;
mod buffer;
mod receive;
mod round;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{Notify, watch};

use crate::config::Config;
use crate::group::Group;
use append::Append;
use buffer::Buffer;
use receive::Receiver;

/// What the receiving side hands over to the appending side.
struct Handover {
    buffer: Mutex<Buffer>,
    /// Something was added to the buffer.
    arrived: Notify,
    /// Since when there is a subscription.
    subscribed: watch::Sender<Option<Instant>>,
}

impl Handover {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        // Nothing panics while it holds the lock; and if it did, the messages are as good as before.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running intake.
#[derive(Debug)]
pub struct Intake {
    thread: Option<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    subscribed: watch::Receiver<Option<Instant>>,
    done: watch::Receiver<bool>,
}

impl Intake {
    /// Starts the intake's thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(config: &Config, group: &Arc<Group>) -> std::io::Result<Intake> {
        let (subscribed, subscribed_seen) = watch::channel(None);
        let (stop, stop_seen) = watch::channel(false);
        let (finished, done) = watch::channel(false);
        let handover = Arc::new(Handover {
            buffer: Mutex::new(Buffer::new(config.intake.buffer_bytes_max)),
            arrived: Notify::new(),
            subscribed,
        });
        let receiver = Receiver { group: group.clone(), config: config.intake.clone(), handover: handover.clone() };
        let append = Append {
            group: group.clone(),
            intake: config.intake.clone(),
            delivery: config.delivery.clone(),
            message: config.message.clone(),
            output: config.output.clone(),
            dedup_window: config.dedup_window,
            handover,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("intake".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = receiver.run() => {}
                    () = append.run(stop_seen) => {}
                }
            });
            finished.send_replace(true);
        })?;
        Ok(Intake { thread: Some(thread), stop, subscribed: subscribed_seen, done })
    }

    /// Returns once the subscription is confirmed for the first time.
    pub async fn ready(&mut self) {
        let _ = self.subscribed.wait_for(Option::is_some).await;
    }

    /// Appends what is left, lets the lease go and ends the subscription.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _ = self.done.wait_for(|done| *done).await;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
