//! Runs the build command of a plugin, and shows what the command writes if the build fails or takes long.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::timeout;

use crate::cli::note;

/// A build that takes longer, such as the first one, which downloads its tools, shows what it is doing.
const QUIET_TIME: Duration = Duration::from_secs(3);

/// Time between two looks at what a long build has written.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);

/// A build that has ended.
pub(super) struct Build {
    pub status: ExitStatus,
    pub time: Duration,
}

/// Runs the command in the folder. If the future is dropped, the command and its children are told to end.
pub(super) async fn run(command: &str, folder: &Path) -> anyhow::Result<Build> {
    let doing = || format!("cannot run the build command `{command}`");
    let start = Instant::now();
    let mut output = Output::new().with_context(doing)?;
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .current_dir(folder)
        // Some build scripts call this program, which need not be on PATH.
        .env("HOST_BINARY", std::env::current_exe().with_context(doing)?)
        .stdin(Stdio::null())
        .stdout(output.file.try_clone().with_context(doing)?)
        .stderr(output.file.try_clone().with_context(doing)?)
        .process_group(0)
        .spawn()
        .with_context(doing)?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let status = loop {
        if let Ok(ended) = timeout(SHOW_INTERVAL, child.wait()).await {
            break ended.with_context(doing)?;
        }
        if start.elapsed() > QUIET_TIME {
            output.show().with_context(doing)?;
        }
    };
    group.0 = None;
    if !status.success() {
        output.show().with_context(doing)?;
        output.end();
    }
    Ok(Build { status, time: start.elapsed() })
}

/// The processes of a build.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // The build may have ended in this moment.
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

/// What a build writes, in a file without a name.
struct Output {
    file: File,
    /// Number of bytes that were read.
    read: u64,
    /// The beginning of a line that is not complete yet.
    rest: Vec<u8>,
}

impl Output {
    fn new() -> io::Result<Output> {
        Ok(Output { file: tempfile::tempfile()?, read: 0, rest: Vec::new() })
    }

    /// Shows the complete lines that have not been shown yet.
    fn show(&mut self) -> io::Result<()> {
        let mut part = vec![0; 64 << 10];
        loop {
            // At a position: the build writes at the end of the same open file.
            let length = self.file.read_at(&mut part, self.read)?;
            if length == 0 {
                return Ok(());
            }
            self.read += length as u64;
            self.rest.extend_from_slice(&part[..length]);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                note(&String::from_utf8_lossy(&line[..end]));
            }
        }
    }

    /// Shows the last line if it has no end.
    fn end(&mut self) {
        if !self.rest.is_empty() {
            note(&String::from_utf8_lossy(&self.rest));
        }
    }
}
