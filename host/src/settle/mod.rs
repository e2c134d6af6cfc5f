//! From an outcome to the writes in Redis. `settlement` is the one place that decides what becomes of a message.
//! `attempts` decides whether there is another attempt. `settler` writes the usual deliveries, many at a time.
//! `traced` remembers the sampled messages meanwhile.

pub mod attempts;
pub mod settlement;
pub mod settler;
pub mod traced;
