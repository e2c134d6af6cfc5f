//! Times of a campaign: milliseconds since its start, so that millions of them fit.

use std::thread;
use std::time::{Duration, Instant};

/// A time that has not come.
pub const NEVER: u32 = u32::MAX;

/// Started with the campaign.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

/// A time and a later one.
pub type Span = (u32, u32);

impl Clock {
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    /// Milliseconds since the start.
    pub fn now(self) -> u32 {
        u32::try_from(self.0.elapsed().as_millis()).expect("a campaign is shorter than 49 days")
    }

    /// Waits until this time.
    pub fn wait_until(self, at: u32) {
        wait(at.saturating_sub(self.now()));
    }
}

/// Lets this much time pass. A fault has a length; this is the only place where the campaign sleeps for one.
pub fn wait(ms: u32) {
    thread::sleep(Duration::from_millis(ms.into()));
}

/// How much of the time from `from` to `to` lies in none of these spans.
pub fn outside(spans: &[Span], from: u32, to: u32) -> u32 {
    let mut spans: Vec<Span> = spans.iter().map(|(start, end)| (*start.max(&from), *end.min(&to))).collect();
    spans.retain(|(start, end)| start < end);
    spans.sort_unstable();
    let (mut covered, mut reached) = (0, from);
    for (start, end) in spans {
        covered += end.saturating_sub(start.max(reached));
        reached = reached.max(end);
    }
    to.saturating_sub(from) - covered
}
