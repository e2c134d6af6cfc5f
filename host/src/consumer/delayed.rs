//! Messages that are not due yet, by a time that stands in them. A consumer lets such a message wait as a retry does.

use std::time::Duration;

use super::Workplace;
use crate::message::Refusal;
use crate::redis::store::entry::{Delivery, Message};
use crate::time::stamp_ms;

impl Workplace {
    /// How long a message still waits, or why the time in it is wrong. `None`: the message is to be processed.
    ///
    /// The time counts from the first append, whose time is in the token, so that the answer is the same in each delivery: after
    /// the wait, after a split, and after a takeover.
    pub(crate) fn wait_of(&self, delivery: &Delivery, message: &Message) -> Option<Result<Duration, Refusal>> {
        let delays = self.delays.as_ref()?;
        // A message was due before its first attempt.
        if message.attempt() > 1 {
            return None;
        }
        // The clock may be unknown still; the server's time is past that of the entry in any case.
        let now_ms = self.group.clock.now_ms().max(stamp_ms(&delivery.entry_id).unwrap_or_default());
        let received_ms = stamp_ms(delivery.token(message)).unwrap_or(now_ms);
        match delays.due_ms(&message.body, received_ms) {
            Ok(due_ms) => {
                let wait_ms = due_ms?.checked_sub(now_ms).filter(|wait_ms| *wait_ms > 0)?;
                Some(Ok(Duration::from_millis(wait_ms)))
            }
            Err(refusal) => Some(Err(refusal)),
        }
    }
}
