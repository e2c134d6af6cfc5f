//! Everything that speaks Redis.

pub mod embedded;
