//! The source of the numbers: the machine, its load, and its figures about a process.

use std::collections::HashMap;
use std::fmt;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// Kernel ticks a second, in which Linux counts the CPU time of a process.
const TICKS_PER_SECOND: f64 = 100.0;

/// This machine.
#[derive(Debug)]
pub struct Machine {
    cpu: String,
    cores: usize,
    system: String,
    server: String,
    load: String,
}

impl Machine {
    /// Reads the facts of this machine.
    pub fn look() -> Result<Machine> {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let server = host::redis::embedded::Embedded::start_on_loopback()?;
        let mut redis = redis::Client::open(server.url())?.get_connection()?;
        let info: String = redis::cmd("INFO").arg("server").query(&mut redis)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(Machine {
            cpu: model.map_or_else(|| std::env::consts::ARCH.into(), |(_, name)| name.trim().to_owned()),
            cores: std::thread::available_parallelism()?.get(),
            system: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| std::env::consts::OS.into(), |release| format!("Linux {}", release.trim())),
            server: version.context("Redis tells no version")?.trim().to_owned(),
            load: load(),
        })
    }

    /// The facts as JSON.
    pub fn json(&self) -> Value {
        let Machine { cpu, cores, system, server, load } = self;
        json!({ "cpu": cpu, "cores": cores, "system": system, "redis": server, "load": load })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, system, server, load } = self;
        write!(f, "{cores} cores of {cpu}, {system}, Redis {server}, load at the start: {load}")
    }
}

/// Load averages over 1, 5 and 15 minutes. Other programs on the machine make the numbers worse.
pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg");
    load.map_or_else(|_| "unknown".into(), |load| load.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// CPU time of a process up to a moment.
#[derive(Clone, Debug)]
pub struct CpuTime {
    /// Nanoseconds of each thread, if the system provides them.
    threads: HashMap<String, u64>,
    /// Seconds of the whole process, in ticks.
    seconds: f64,
}

impl CpuTime {
    /// The time so far; `None` if the system does not provide it.
    pub fn of(process: u32) -> Option<CpuTime> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name, in brackets, may contain any characters; the fields after it are fixed.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks = |text: Option<&str>| text?.parse::<f64>().ok();
        let seconds = (ticks(fields.next())? + ticks(fields.next())?) / TICKS_PER_SECOND;
        let thread = |entry: fs::DirEntry| {
            let spent = fs::read_to_string(entry.path().join("schedstat")).ok()?;
            Some((entry.file_name().into_string().ok()?, spent.split(' ').next()?.parse().ok()?))
        };
        let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten().filter_map(thread).collect();
        Some(CpuTime { threads, seconds })
    }

    /// Seconds since an earlier moment. Counted by threads, because ticks are coarse; a thread that has ended since was
    /// idle.
    pub fn since(&self, before: &CpuTime) -> f64 {
        if self.threads.is_empty() {
            return self.seconds - before.seconds;
        }
        let spent = |(thread, now): (&String, &u64)| now - before.threads.get(thread).unwrap_or(&0).min(now);
        self.threads.iter().map(spent).sum::<u64>() as f64 / 1e9
    }
}

/// Memory of a process in MiB: `VmRSS` for the present memory, or `VmHWM` for the maximum.
pub fn memory_mib(process: u32, what: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')?.trim().strip_suffix(" kB"));
    Ok(kib.with_context(|| format!("the system does not tell {what}"))?.trim().parse::<f64>()? / 1024.0)
}

/// Memory in MB that would not exist without this process: what the process has written, and the initial memory of
/// plugins, once. Not the pages of the program, which the system can read again. The memory of `VmRSS` contains
/// the initial memory once for each instance. NaN if the system does not tell.
pub fn own_memory_mb(process: u32) -> f64 {
    let kib = |what: &str| -> Option<f64> {
        let all = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        let kib =
            all.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':')?.trim().strip_suffix(" kB"))?;
        kib.trim().parse().ok()
    };
    kib("Pss_Anon").zip(kib("Pss_Shmem")).map_or(f64::NAN, |(written, initial)| (written + initial) * 1.024e-3)
}
