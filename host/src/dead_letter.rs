//! A message given up on. How it is kept is written down in `redis::store::entry`.

use crate::message::Reason;

/// Of a message that is too big, so much is kept.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// A message given up on.
#[derive(Debug)]
pub struct DeadLetter<'a> {
    /// As it was received.
    pub payload: &'a [u8],
    /// Why, from the fixed set.
    pub reason: Reason,
    /// Why, for people: what went wrong last.
    pub error: &'a str,
    /// The host that gave up.
    pub host_id: &'a str,
    /// What is known of a message that came as far as a consumer.
    pub origin: Option<Origin<'a>>,
}

/// What is known of a message that came as far as a consumer.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Its id.
    pub message_id: &'a str,
    /// Token of its claim, which begins with the time when the message was appended first, in ms since 1970.
    pub token: &'a str,
    /// Times that it was tried.
    pub attempts: u32,
    /// The consumer that gave up.
    pub consumer_id: &'a str,
    /// SHA-256 of the version of the plugin that it was tried with last.
    pub plugin_digest: &'a str,
    /// Its generation in this host.
    pub plugin_generation: u64,
}

/// What is kept of a payload.
#[must_use]
pub fn kept(payload: &[u8], reason: Reason) -> &[u8] {
    match reason {
        Reason::TooBig => &payload[..payload.len().min(PAYLOAD_BYTES_MAX)],
        _ => payload,
    }
}
