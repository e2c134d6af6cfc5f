//! Whether a host pauses: it takes no new deliveries to process, and does everything else. This file does not know who asked
//! for that.

use tokio::sync::watch;

/// The switch. A host starts without a pause.
#[derive(Debug, Default)]
pub struct Pause(watch::Sender<bool>);

impl Pause {
    /// Begins or ends the pause. Returns whether that is a change.
    pub fn set(&self, is_on: bool) -> bool {
        self.0.send_if_modified(|now| std::mem::replace(now, is_on) != is_on)
    }

    /// Whether the host pauses.
    #[must_use]
    pub fn is_on(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the end of the pause; returns at once when there is none.
    pub async fn ended(&self) {
        // The channel cannot close, because this value owns the sender.
        let _ = self.0.subscribe().wait_for(|is_on| !is_on).await;
    }
}
