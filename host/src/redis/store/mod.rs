//! The data in Redis: one file for each key or script. This room knows commands, keys and replies, and knows neither
//! plugins nor the reason of a write.

pub mod append;
pub mod buffer_limit;
pub mod census;
pub mod checks;
pub mod claims;
pub mod covered;
pub mod dead;
pub mod entries;
pub mod entry;
mod fence;
pub mod figures;
pub mod follow;
pub mod group;
pub mod handed;
pub mod in_hand;
pub mod inbox;
pub mod keys;
pub mod look;
pub mod marks;
pub mod output;
mod pages;
pub mod position;
pub mod readers;
pub mod registry;
pub mod remote;
pub mod results;
pub mod retries;
pub mod settle;
pub mod state;
pub mod stats;
pub mod takeover;
pub mod versions;
pub mod waiting;
