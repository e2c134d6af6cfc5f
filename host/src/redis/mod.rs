//! Everything that is said to Redis; no other module speaks to it.
//! It knows commands, keys and replies, and nothing of plugins or of why something is written.

pub mod backoff;
pub mod census;
pub mod checks;
pub mod clock;
pub mod connection;
pub mod dead;
pub mod deliveries;
pub mod embedded;
pub mod entries;
pub mod inbox;
pub mod keys;
pub mod lane;
pub mod publisher;
pub mod registry;
pub mod resp;
pub mod retries;
mod runtime_folder;
pub mod script;
pub mod settler;
pub mod stats;
mod stream;
pub mod subscription;
pub mod wire;

pub use ::redis::RedisError;
