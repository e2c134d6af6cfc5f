//! What the system says about this process.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What a process takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    /// CPU time of all threads since the start.
    pub(super) cpu: Duration,
    /// Memory in use, where the system tells it.
    pub(super) resident_bytes: Option<u64>,
}

impl Process {
    /// The figures of this moment.
    pub(super) fn now() -> Process {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let resident_bytes = fs::read_to_string("/proc/self/status").ok().and_then(|status| resident_bytes(&status));
        Process { cpu: cpu.try_into().unwrap_or_default(), resident_bytes }
    }
}

/// The line `VmRSS: 123 kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}
