//! What a host tells about itself: counters, and the report line made from them every interval.

pub mod counters;
pub mod report;
pub mod throttle;
