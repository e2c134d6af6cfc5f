//! From an outcome to what is written: what becomes of a message (`settlement`, the one place that decides), whether there is
//! another attempt (`attempts`), and how the usual delivery is written, many at a time (`settler`).

pub mod attempts;
pub mod settlement;
pub mod settler;
