//! One round of appending: waiting messages cut into deliveries, and what is no message into dead letters.
//! It decides and encodes; it sends nothing.

use tracing::warn;

use crate::config::{DeliveryConfig, MessageConfig};
use crate::dead_letter::DeadLetter;
use crate::message::{self, Reason};
use crate::redis::store::entries::Entries;
use crate::redis::store::entry::write_dead_letter;
use crate::throttle::Throttle;

/// Bytes of a round, at most: what Redis swallows in a few milliseconds, so that a round in flight
/// delays neither the lease's renewal nor the other commands.
pub const ROUND_BYTES_MAX: usize = 2 << 20;
/// The same of messages.
pub const ROUND_MESSAGES_MAX: usize = 1_024;

/// What goes to Redis in one transaction. Reused from round to round.
#[derive(Debug, Default)]
pub struct Round {
    /// Entries for the inbox.
    pub deliveries: Entries,
    /// Entries for the dead letters.
    pub dead_letters: Entries,
    /// Why the dead letters are no messages.
    pub reasons: Vec<Reason>,
    /// Which payloads are no messages, in ascending order.
    pub refused: Vec<usize>,
    refusals: Throttle,
}

impl Round {
    /// Cuts the messages of a round into deliveries, each of at most `messages_max`. Dead letters are signed with this host id, in
    /// this format.
    pub fn fill<'a>(
        &mut self,
        payloads: impl Iterator<Item = &'a [u8]>,
        messages_max: usize,
        delivery: &DeliveryConfig,
        limits: &MessageConfig,
        signature: (&str, u32),
    ) {
        self.deliveries.clear();
        self.dead_letters.clear();
        self.reasons.clear();
        self.refused.clear();
        let (mut messages, mut bytes) = (0, 0);
        for (place, payload) in payloads.enumerate() {
            match message::read_id(payload, limits) {
                Ok(id) => {
                    if messages == messages_max || (messages > 0 && bytes + payload.len() > delivery.bytes_max) {
                        self.deliveries.finish();
                        (messages, bytes) = (0, 0);
                    }
                    self.deliveries.field(&id, payload);
                    messages += 1;
                    bytes += payload.len();
                }
                Err(refusal) => {
                    self.refused.push(place);
                    self.refuse(payload, &refusal, signature);
                }
            }
        }
        if messages > 0 {
            self.deliveries.finish();
        }
    }

    fn refuse(&mut self, payload: &[u8], refusal: &message::Refusal, (host_id, format): (&str, u32)) {
        if let Some(unlogged) = self.refusals.permit() {
            warn!(reason = %refusal.reason, bytes = payload.len(), unlogged, "{refusal}; it is kept as a dead letter");
        }
        self.reasons.push(refusal.reason);
        let letter = DeadLetter { payload, reason: refusal.reason, error: &refusal.sentence, host_id, origin: None };
        write_dead_letter(&mut self.dead_letters, format, &letter);
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    fn limits() -> MessageConfig {
        MessageConfig { bytes_max: 1000, depth_max: 8, ..Config::default().message }
    }

    fn rounds(payloads: &[&str], delivery: &DeliveryConfig) -> (Vec<usize>, usize) {
        let mut round = Round::default();
        let payloads = payloads.iter().map(|payload| payload.as_bytes());
        round.fill(payloads, 3, delivery, &limits(), ("host", 1));
        let sizes = round.deliveries.iter_sizes().map(|values| values / 2).collect();
        (sizes, round.dead_letters.len())
    }

    #[test]
    fn messages_are_shared_out_and_the_rest_become_dead_letters() {
        let delivery = DeliveryConfig { messages_max: 128, bytes_max: 1 << 20, time_target: Duration::from_millis(50) };
        let (sizes, dead) = rounds(
            &[
                r#"{"message_id":1}"#,
                "rubbish",
                r#"{"message_id":2}"#,
                r#"{"message_id":3}"#,
                "{}",
                r#"{"message_id":4}"#,
            ],
            &delivery,
        );
        assert_eq!((sizes, dead), (vec![3, 1], 2));
    }

    #[test]
    fn a_delivery_is_bounded_in_bytes_but_never_empty() {
        let delivery = DeliveryConfig { messages_max: 128, bytes_max: 40, time_target: Duration::from_millis(50) };
        let large = format!(r#"{{"message_id":1,"x":"{}"}}"#, "y".repeat(100));
        let (sizes, dead) = rounds(&[&large, r#"{"message_id":2}"#, r#"{"message_id":3}"#, &large], &delivery);
        assert_eq!((sizes, dead), (vec![1, 2, 1], 0));
    }
}
