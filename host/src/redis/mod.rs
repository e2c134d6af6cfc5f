//! The room for Redis; no other room speaks to Redis.
//!
//! `client` has the protocol and the connections, and knows no key. `store` has one file for each key or script, and
//! owns the format of the data. `embedded` starts a private server.

pub mod client;
pub mod embedded;
mod runtime_folder;
pub mod store;

pub use ::redis::RedisError;
