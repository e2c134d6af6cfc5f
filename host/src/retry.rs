//! Returns waiting retries to the inbox when they are due. Every host does this for all retries of the group, so that
//! no retry depends on one host. This file does not know why a message waits.

use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};

use crate::config::DeliveryConfig;
use crate::group::Group;
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::store::retries::{Forwarded, forward};
use crate::throttle::Throttle;

/// Longest time between two looks, and so the maximum delay of a retry that was scheduled in between.
const LOOK_MAX: Duration = Duration::from_millis(100);

/// Shortest time between two looks, so that many due times in a row do not cause one look each.
const LOOK_MIN: Duration = Duration::from_millis(5);

/// With fewer due messages than this, each message becomes a delivery of its own.
const FEW: usize = 64;

/// Moves due messages.
#[derive(Debug)]
pub struct Forwarder {
    group: Arc<Group>,
    connection: Reconnecting,
    delivery: DeliveryConfig,
    newer: Throttle,
}

impl Forwarder {
    /// A forwarder on a connection of its own.
    #[must_use]
    pub fn new(group: Arc<Group>, delivery: DeliveryConfig) -> Forwarder {
        Forwarder { connection: group.connect("retries"), group, delivery, newer: Throttle::default() }
    }

    /// Forwards for ever.
    pub async fn run(&self) {
        let mut due = 0;
        loop {
            // Few due messages become a delivery each, so that no message waits for another one to fail again.
            let (messages, bytes) = (self.group.pace.delivery_messages(due, &self.delivery), self.delivery.bytes_max);
            let messages = if due < FEW { 1 } else { messages };
            let forwarded = self
                .connection
                .repeat("return retries to the inbox", move |mut connection| async move {
                    forward(&mut connection, &self.group.keys, messages, bytes, self.group.format()).await
                })
                .await;
            due = forwarded.moved;
            if forwarded.moved > 0 {
                debug!(messages = forwarded.moved, "returned due retries to the inbox");
            }
            if forwarded.newer > 0 && self.newer.permit().is_some() {
                warn!(
                    messages = forwarded.newer,
                    "retries are due that have a format which this version of host cannot read; they wait for a newer \
                     version"
                );
            }
            tokio::time::sleep(until_next_look(forwarded)).await;
        }
    }
}

/// Time until the next message is due, within bounds.
fn until_next_look(forwarded: Forwarded) -> Duration {
    match forwarded.next_due {
        // One call has a maximum: the next call follows at once.
        Some(Duration::ZERO) if forwarded.moved > 0 => Duration::ZERO,
        Some(next_due) => next_due.clamp(LOOK_MIN, LOOK_MAX),
        None => LOOK_MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_look_is_when_the_next_message_is_due_but_soon_in_any_case() {
        let ms = Duration::from_millis;
        let next =
            |moved, next_due: Option<u64>| until_next_look(Forwarded { moved, next_due: next_due.map(ms), newer: 0 });
        assert_eq!(next(0, None), LOOK_MAX);
        assert_eq!(next(0, Some(1)), LOOK_MIN);
        assert_eq!(next(3, Some(40)), ms(40));
        assert_eq!(next(3, Some(60_000)), LOOK_MAX);
        assert_eq!(next(128, Some(0)), Duration::ZERO);
    }
}
