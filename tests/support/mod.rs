//! The needs of every black-box test: its own Redis, the real binary, real plugins, a publisher, and a way to wait for
//! a condition instead of for time. Everything here is ended and removed when it goes out of scope, even when the test
//! panics.

pub mod browser;
pub mod collector;
pub mod consumer;
pub mod flow;
pub mod guests;
pub mod host;
pub mod http;
pub mod languages;
pub mod liar;
pub mod openmetrics;
pub mod proxy;
pub mod publisher;
pub mod records;
pub mod redis;
pub mod release;
pub mod sentinels;
pub mod written;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

pub use flow::Flow;
pub use guests::{enrich, examples, puppet};
pub use host::{Host, Signal};
pub use publisher::{Publisher, Traffic, message};
pub use records::{Entry, expect_each_once};
pub use redis::Redis;
pub use release::Release;

/// Maximum wait of any test for a condition: far above the usual time on a busy machine, so that reaching it means
/// "never".
pub const BOUND: Duration = Duration::from_secs(60);

/// Time between two looks at a condition: short at first, because most are true at once.
const POLL_MIN: Duration = Duration::from_millis(1);
const POLL_MAX: Duration = Duration::from_millis(15);

/// Waits until `probe` returns a value. Its error describes the present state, for the panic message.
pub fn wait_for<T>(what: &str, bound: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    let mut poll = POLL_MIN;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(state) if start.elapsed() > bound => {
                panic!("waited {bound:?} for {what}; the last state was: {state}")
            }
            Err(_) => thread::sleep(poll),
        }
        poll = (poll * 2).min(POLL_MAX);
    }
}

/// Waits until `probe` is true.
pub fn wait_until(what: &str, mut probe: impl FnMut() -> bool) {
    wait_for(what, BOUND, || if probe() { Ok(()) } else { Err("not yet".into()) });
}

/// The repository's root: the binary and the README's commands run there.
pub fn repository() -> PathBuf {
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the package lies in the repository").to_owned()
}
