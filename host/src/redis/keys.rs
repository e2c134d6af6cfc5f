//! The names of everything that the host keeps in Redis.
//! They come from the configuration; nothing else in the program spells a key.

use crate::config::KeysConfig;

/// Names as the configuration has them, shared by every part that speaks to Redis.
pub type Keys = std::sync::Arc<KeysConfig>;

/// The key of a message id's claim.
#[must_use]
pub fn claim(keys: &KeysConfig, message_id: &str) -> String {
    let mut key = String::with_capacity(keys.claim_prefix.len() + message_id.len());
    key.push_str(&keys.claim_prefix);
    key.push_str(message_id);
    key
}
