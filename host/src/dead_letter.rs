//! A message given up on, as it is kept. It knows the fields and nothing of who gives up or why.

use std::time::SystemTime;

use crate::message::Reason;
use crate::redis::entries::Entries;

/// Of a message that is too big, so much is kept.
const PAYLOAD_BYTES_MAX: usize = 64 << 10;

/// A message given up on.
#[derive(Debug)]
pub struct DeadLetter<'a> {
    /// Its id, if it has one.
    pub message_id: Option<&'a str>,
    /// As it was received.
    pub payload: &'a [u8],
    /// Why, from the fixed set.
    pub reason: Reason,
    /// Why, for people.
    pub error: &'a str,
    /// Times that a plugin has seen it.
    pub attempts: u32,
    /// The host that gave up.
    pub host_id: &'a str,
    /// The consumer that gave up, if it came so far.
    pub consumer_id: Option<&'a str>,
    /// SHA-256 of the plugin in use, if it came so far.
    pub plugin_digest: Option<&'a str>,
}

impl DeadLetter<'_> {
    /// Adds the dead letter as one stream entry.
    pub fn write_to(&self, entries: &mut Entries) {
        if let Some(id) = self.message_id {
            entries.field("message_id", id);
        }
        entries.field("payload", kept(self.payload, self.reason));
        entries.field("payload_bytes", self.payload.len().to_string());
        entries.field("reason", self.reason.as_str());
        entries.field("error", self.error);
        entries.field("attempts", self.attempts.to_string());
        entries.field("host_id", self.host_id);
        if let Some(id) = self.consumer_id {
            entries.field("consumer_id", id);
        }
        if let Some(digest) = self.plugin_digest {
            entries.field("plugin_digest", digest);
        }
        entries.field("time", humantime::format_rfc3339_millis(SystemTime::now()).to_string());
        entries.finish();
    }
}

/// What is kept of a payload.
#[must_use]
pub fn kept(payload: &[u8], reason: Reason) -> &[u8] {
    match reason {
        Reason::TooBig => &payload[..payload.len().min(PAYLOAD_BYTES_MAX)],
        _ => payload,
    }
}
