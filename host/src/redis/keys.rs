//! The names of everything that the host keeps in Redis.
//! They come from the configuration; nothing else in the program spells a key.

use crate::config::KeysConfig;

/// Names as the configuration has them, shared by every part that speaks to Redis.
pub type Keys = std::sync::Arc<KeysConfig>;
