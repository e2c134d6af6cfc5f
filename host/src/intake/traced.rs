//! Spans of the messages of a round that was appended. This file decides nothing about a message.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::round::Round;
use crate::redis::store::append::Claimed;
use crate::traces::context::Origin;
use crate::traces::{Traces, Way};

/// When the messages of a round were heard, and when the round was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// Numbers of messages in a row with the time at which they were heard.
    heard: Vec<(usize, Instant)>,
    at: (Instant, SystemTime),
}

impl Sent {
    /// A round of payloads that were heard like this is sent now.
    pub(super) fn now(heard: impl Iterator<Item = (usize, Instant)>) -> Sent {
        Sent { heard: heard.collect(), at: (Instant::now(), SystemTime::now()) }
    }

    /// When each payload of the round was heard, by the clock of the system.
    fn heard(&self) -> impl Iterator<Item = SystemTime> {
        let (now, system_now) = self.at;
        self.heard.iter().flat_map(move |(payloads, heard)| {
            let heard = system_now.checked_sub(now.saturating_duration_since(*heard)).unwrap_or(system_now);
            std::iter::repeat_n(heard, *payloads)
        })
    }
}

/// Records the sampled messages of a round. `claimed` tells of its deliveries, in their order.
pub(super) fn appended(traces: &Traces, host_id: &Arc<str>, round: &Round, sent: &Sent, claimed: &[Claimed]) {
    let answered = SystemTime::now();
    let is_message = |(place, _): &(usize, SystemTime)| round.refused.binary_search(place).is_err();
    let mut heard = sent.heard().enumerate().filter(is_message).map(|(_, heard)| heard);
    for (delivery, Claimed { token, copies }) in round.deliveries.iter().zip(claimed) {
        let messages: Vec<&[u8]> = delivery.collect();
        // Which messages of a delivery were copies, the server does not say.
        let is_new = copies * 2 < messages.len();
        for message in messages.chunks_exact(2) {
            let heard = heard.next().unwrap_or(answered);
            let [Ok(message_id), Ok(body)] = [message[0], message[1]].map(str::from_utf8) else { continue };
            let origin = Origin { message_id, body, token };
            if is_new && let Some(trace) = traces.sampled(origin) {
                traces.appended(host_id, trace, (origin, Way::Channel), [heard, sent.at.1, answered]);
            }
        }
    }
}
