//! A message that was given up. `redis::store::entry` defines its form in Redis.

use crate::message::Reason;

/// Maximum length of a kept payload of a message that is too big.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// A message that was given up.
#[derive(Debug)]
pub struct DeadLetter<'a> {
    /// The payload as it was received.
    pub payload: &'a [u8],
    /// The reason, from a fixed set.
    pub reason: Reason,
    /// The last error, for people.
    pub error: &'a str,
    /// The host that gave the message up.
    pub host_id: &'a str,
    /// Facts about a message that a consumer has processed.
    pub origin: Option<Origin<'a>>,
}

/// Facts about a message that a consumer has processed.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The message id.
    pub message_id: &'a str,
    /// Token of the claim, which begins with the time of the first append, in ms since 1970.
    pub token: &'a str,
    /// Number of attempts.
    pub attempts: u32,
    /// The consumer that gave the message up.
    pub consumer_id: &'a str,
    /// SHA-256 of the plugin version of the last attempt.
    pub plugin_digest: &'a str,
    /// Generation of that version in its host.
    pub plugin_generation: u64,
}

/// The part of a payload that is kept.
#[must_use]
pub fn kept(payload: &[u8], reason: Reason) -> &[u8] {
    match reason {
        Reason::TooBig => &payload[..payload.len().min(PAYLOAD_BYTES_MAX)],
        _ => payload,
    }
}
