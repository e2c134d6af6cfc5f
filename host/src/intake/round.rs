//! One round of appending: waiting messages cut into deliveries, and what is no message into dead letters.
//! It decides and encodes; it sends nothing.

use std::collections::HashMap;

use tracing::warn;

use super::buffer::Buffer;
use crate::config::{DeliveryConfig, MessageLimits};
use crate::dead_letter::{DeadLetter, kept};
use crate::message;
use crate::pace::Pace;
use crate::redis::store::append::PayloadDigest;
use crate::redis::store::entries::Entries;
use crate::redis::store::entry::write_dead_letter;
use crate::throttle::Throttle;

/// Bytes and messages of a round, at most: what Redis swallows in a few milliseconds, so that a round in flight
/// delays neither the lease's renewal nor the other commands.
const ROUND_BYTES_MAX: usize = 2 << 20;
const ROUND_MESSAGES_MAX: usize = 1_024;

/// What goes to Redis in one transaction. Reused from round to round.
#[derive(Debug, Default)]
pub struct Round {
    /// Entries for the inbox.
    pub deliveries: Entries,
    /// Entries for the dead letters.
    pub dead_letters: Entries,
    /// Messages of the buffer that the round covers.
    pub messages: usize,
    /// Refused messages that are known to be kept already, and of how many messages that may be so.
    kept: HashMap<PayloadDigest, usize>,
    replayed: usize,
    refusals: Throttle,
}

impl Round {
    /// A round after which others may follow; the first `replayed` messages may have been appended before, and what
    /// was refused of them may be among `kept`. Claims sort the others out, but what has no id cannot be claimed.
    pub fn after_replay(replayed: usize, kept: HashMap<PayloadDigest, usize>) -> Round {
        Round { replayed, kept, ..Round::default() }
    }

    /// The round was appended; the next one begins behind it.
    pub fn done(&mut self) {
        self.replayed = self.replayed.saturating_sub(self.messages);
        if self.replayed == 0 {
            self.kept.clear();
        }
    }

    /// Covers the oldest waiting messages, as many as fit. Dead letters are signed with this host id, in this format.
    pub fn fill(
        &mut self,
        buffer: &Buffer,
        pace: &Pace,
        delivery: &DeliveryConfig,
        limits: &MessageLimits,
        signature: (&str, u32),
    ) {
        self.deliveries.clear();
        self.dead_letters.clear();
        self.messages = 0;
        let messages_max = pace.delivery_messages(buffer.len(), delivery);
        let (mut round_bytes, mut messages, mut bytes) = (0, 0, 0);
        for payload in buffer.iter() {
            if self.messages == ROUND_MESSAGES_MAX || round_bytes > ROUND_BYTES_MAX {
                break;
            }
            self.messages += 1;
            round_bytes += payload.len();
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
                Err(refusal) => self.refuse(payload, &refusal, signature),
            }
        }
        if messages > 0 {
            self.deliveries.finish();
        }
    }

    fn refuse(&mut self, payload: &[u8], refusal: &message::Refusal, (host_id, format): (&str, u32)) {
        if self.messages <= self.replayed
            && let Some(count) = self.kept.get_mut(&PayloadDigest::of(kept(payload, refusal.reason)))
            && *count > 0
        {
            *count -= 1;
            return;
        }
        if let Some(unlogged) = self.refusals.permit() {
            warn!(reason = %refusal.reason, bytes = payload.len(), unlogged, "{refusal}; it is kept as a dead letter");
        }
        let letter = DeadLetter { payload, reason: refusal.reason, error: &refusal.sentence, host_id, origin: None };
        write_dead_letter(&mut self.dead_letters, format, &letter);
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const LIMITS: MessageLimits = MessageLimits { bytes_max: 1000, depth_max: 8 };

    fn rounds(payloads: &[&str], delivery: &DeliveryConfig) -> (Vec<usize>, usize) {
        let mut buffer = Buffer::new(1 << 20);
        buffer.push(payloads.iter().map(|payload| payload.as_bytes()), Instant::now());
        let pace = Pace::default();
        pace.set_group(1, 2);
        let mut round = Round::default();
        round.fill(&buffer, &pace, delivery, &LIMITS, ("host", 1));
        assert_eq!(round.messages, payloads.len());
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

    #[test]
    fn what_was_refused_before_a_replay_is_not_kept_twice() {
        let mut buffer = Buffer::new(1 << 20);
        buffer.push(["rubbish", "rubbish", "junk", "rubbish"].iter().map(|payload| payload.as_bytes()), Instant::now());
        let kept = HashMap::from([(PayloadDigest::of(b"rubbish"), 1), (PayloadDigest::of(b"junk"), 1)]);
        let mut round = Round::after_replay(3, kept);
        let delivery = DeliveryConfig { messages_max: 128, bytes_max: 40, time_target: Duration::from_millis(50) };
        round.fill(&buffer, &Pace::default(), &delivery, &LIMITS, ("host", 1));
        assert_eq!((round.messages, round.dead_letters.len()), (4, 2));
        round.done();
        round.fill(&buffer, &Pace::default(), &delivery, &LIMITS, ("host", 1));
        assert_eq!(round.dead_letters.len(), 4);
    }
}
