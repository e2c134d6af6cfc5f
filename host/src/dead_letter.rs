//! A message given up on, as it is kept. It knows the fields and nothing of who gives up or why.

use std::time::{Duration, SystemTime};

use crate::message::Reason;
use crate::redis::entries::Entries;

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

impl DeadLetter<'_> {
    /// Adds the dead letter as one stream entry.
    pub fn write_to(&self, entries: &mut Entries) {
        if let Some(origin) = &self.origin {
            entries.field("message_id", origin.message_id);
        }
        entries.field("payload", kept(self.payload, self.reason));
        entries.field("payload_bytes", self.payload.len().to_string());
        entries.field("reason", self.reason.as_str());
        entries.field("error", self.error);
        entries.field("attempts", self.origin.map_or(0, |origin| origin.attempts).to_string());
        entries.field("host_id", self.host_id);
        if let Some(origin) = &self.origin {
            entries.field("consumer_id", origin.consumer_id);
            entries.field("plugin_digest", origin.plugin_digest);
            entries.field("plugin_generation", origin.plugin_generation.to_string());
            entries.field("token", origin.token);
            if let Some(first_seen) = time_of(origin.token) {
                entries.field("first_seen", humantime::format_rfc3339_millis(first_seen).to_string());
            }
        }
        entries.field("time", humantime::format_rfc3339_millis(SystemTime::now()).to_string());
        entries.finish();
    }
}

/// When an entry of a stream was appended or a claim was made: an id and a token begin with the server's milliseconds.
#[must_use]
pub fn time_of(entry_id: &str) -> Option<SystemTime> {
    let ms = entry_id.split('-').next()?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}

/// What is kept of a payload.
#[must_use]
pub fn kept(payload: &[u8], reason: Reason) -> &[u8] {
    match reason {
        Reason::TooBig => &payload[..payload.len().min(PAYLOAD_BYTES_MAX)],
        _ => payload,
    }
}
