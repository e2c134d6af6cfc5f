//! Clocks of hosts that are wrong: a library that the host loads before the system's own changes the time of day that the host is
//! told, by as much as a file says.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::host::Launch;

/// How wrong a clock is.
const HOUR_SECONDS: i64 = 3_600;

/// What a host may report later than it was.
const LATE_MAX: Duration = Duration::from_secs(60);

/// The library; built with the C compiler with which Rust links.
#[derive(Clone, Debug)]
pub struct Library(PathBuf);

impl Library {
    pub fn build(folder: &Path) -> Library {
        let library = folder.join("skew.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/chaos/skew.c");
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&library).arg(source).arg("-ldl");
        let ended = command.output().unwrap_or_else(|error| panic!("start `cc`: {error}; install a C compiler"));
        assert!(ended.status.success(), "`cc` failed: {}", String::from_utf8_lossy(&ended.stderr));
        Library(library)
    }
}

/// The clock of one host.
#[derive(Debug)]
pub struct Skew {
    file: PathBuf,
    offset_seconds: AtomicI64,
}

impl Skew {
    /// A clock that may be wrong from the start: slow, right or fast, by this number.
    pub fn new(file: PathBuf, number: u64) -> Skew {
        let skew = Skew { file, offset_seconds: AtomicI64::new(0) };
        fs::write(&skew.file, 0_i64.to_ne_bytes()).expect("write the offset of a clock");
        skew.jump(number);
        skew
    }

    /// Lets a host have this clock.
    pub fn given_to(&self, launch: Launch, library: &Library) -> Launch {
        launch.env("LD_PRELOAD", &library.0).env("CHAOS_CLOCK_OFFSET", &self.file)
    }

    /// Sets the clock back by an hour, right, or forward by an hour, by this number; returns by how many seconds it is off now.
    pub fn jump(&self, number: u64) -> i64 {
        let offset = match number % 3 {
            0 => -HOUR_SECONDS,
            1 => 0,
            _ => HOUR_SECONDS,
        };
        // In place: the host has the file in its memory.
        let file = OpenOptions::new().write(true).open(&self.file);
        file.and_then(|mut file| file.write_all(&offset.to_ne_bytes())).expect("write the offset of a clock");
        self.offset_seconds.store(offset, Ordering::SeqCst);
        offset
    }

    /// Whether the time in a host's report is by this clock; else what is wrong.
    pub fn check(&self, report: &Value) -> Result<(), String> {
        let text = report.get("timestamp").and_then(Value::as_str).unwrap_or_default();
        let told = humantime::parse_rfc3339(text).map_err(|error| format!("the time {text:?}: {error}"))?;
        let offset = self.offset_seconds.load(Ordering::SeqCst);
        let hour = Duration::from_secs(offset.unsigned_abs());
        let expected = if offset < 0 { SystemTime::now() - hour } else { SystemTime::now() + hour };
        match expected.duration_since(told) {
            Ok(late) if late <= LATE_MAX => Ok(()),
            _ => Err(format!("a clock that is off by {offset} s tells {text}")),
        }
    }
}
