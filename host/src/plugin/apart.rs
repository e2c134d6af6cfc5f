//! Compiling in a process of its own, the only place where a plugin is compiled: whatever a plugin makes the compiler do,
//! this process goes on, and the memory that compiling took ends with the other process. The other process is this
//! program once more, and `child` is what it does. This file knows no engine.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::compiler::Haste;
use super::text::printable;
use crate::config::LoadConfig;

/// The hidden switch that makes this program compile the component on its standard input. Its value is an [`Order`].
pub const SWITCH: &str = "--compile";

/// How much is kept of what the other process writes on each stream.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;
/// Length and number of the last lines on its standard error that an error shows.
const SHOWN_BYTES_MAX: usize = 300;
const SHOWN_LINES_MAX: usize = 3;

/// What the Rust library writes when the system refuses memory, for data or for the stack of a thread.
const NO_MEMORY: [&str; 3] = ["memory allocation of", "os error 11", "os error 12"];

/// The environment of the process: its allocator is to take memory when it is needed, and not a gigabyte before, which would
/// make the limit of memory meaningless.
const ENVIRONMENT: (&str, &str) = ("MIMALLOC_ARENA_EAGER_COMMIT", "0");

/// What the other process is to do.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The cache folder in which the process leaves the code; it is of this order alone.
    pub(super) folder: PathBuf,
    /// Functions that were compiled before, and where those of this component are added.
    pub(super) functions: Option<PathBuf>,
    /// Stack size of an instance.
    pub(super) stack_bytes_max: usize,
    /// Maximum number of instances.
    pub(super) instances: u32,
    /// Whether consumers are running, to which compiling gives way.
    pub(super) gives_way: bool,
    /// How much memory the process may take.
    pub(super) memory_bytes_max: usize,
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The code is in the folder.
    Compiled(Report),
    /// It uses what no engine has: the index of `shape::REFUSALS`.
    Refused(usize),
    /// It was not compiled, for this reason.
    Invalid(String),
}

/// Facts about a component that only its compilation tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// Whether it was compiled for the full engine.
    pub(super) is_full: bool,
    /// What it uses that only the full engine has: indices of `shape::NEEDS`.
    pub(super) needs: Vec<usize>,
    /// Time for compiling alone.
    pub(super) time: Duration,
}

/// Limits of the process.
#[derive(Clone, Debug)]
pub(super) struct Apart {
    limits: LoadConfig,
}

impl Apart {
    pub(super) fn new(limits: &LoadConfig) -> Apart {
        Apart { limits: limits.clone() }
    }

    pub(super) fn limits(&self) -> &LoadConfig {
        &self.limits
    }

    /// Has the other process compile a component. A drop of the future ends that process.
    ///
    /// # Errors
    /// What became of the process, as the end of a sentence.
    pub(super) async fn compile(&self, order: Order, bytes: Bytes) -> Result<Answer, String> {
        #[cfg(test)]
        return Ok(tokio::task::spawn_blocking(move || super::child::work(&order, &bytes)).await.expect("no panic"));
        #[cfg(not(test))]
        self.have_compiled(&order, &bytes).await
    }

    #[cfg_attr(test, expect(dead_code, reason = "the tests of this crate are another program"))]
    async fn have_compiled(&self, order: &Order, bytes: &[u8]) -> Result<Answer, String> {
        let cannot_start = |error: io::Error| format!("the process that compiles cannot be started: {error}");
        let order = serde_json::to_string(order).map_err(|error| cannot_start(error.into()))?;
        let mut process = Command::new(this_program().map_err(cannot_start)?);
        process
            .arg0("host")
            .args([OsStr::new(SWITCH), OsStr::new(&order)])
            // Nothing is inherited; files that this program opens are closed by the system.
            .env_clear()
            .envs([ENVIRONMENT])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A Ctrl-C on the terminal is for this process alone.
            .process_group(0)
            .kill_on_drop(true);
        let mut process = process.spawn().map_err(cannot_start)?;
        let (mut stdin, stdout, stderr) = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let write = async {
            if let Some(pipe) = &mut stdin {
                // An error means that the process has ended; how it ended says why.
                let _ = pipe.write_all(&(bytes.len() as u64).to_le_bytes()).await;
                let _ = pipe.write_all(bytes).await;
            }
        };
        let work = async {
            let ((), output, errors) = tokio::join!(write, read(stdout), read(stderr));
            (process.wait().await, output, errors)
        };
        let Ok((status, output, errors)) = timeout(self.limits.compile_time_max, work).await else {
            return Err(format!(
                "compiling takes longer than {:?}; if that is no mistake in the plugin, give it more with --compile-timeout",
                self.limits.compile_time_max
            ));
        };
        // The end of this pipe would have ended the process.
        drop(stdin);
        let status =
            status.map_err(|error| format!("nobody knows how the process that compiles has ended: {error}"))?;
        match serde_json::from_slice(&output) {
            Ok(answer) if status.success() => Ok(answer),
            _ => Err(self.end(status, &errors)),
        }
    }

    /// How a process has ended that left no answer.
    fn end(&self, status: ExitStatus, errors: &[u8]) -> String {
        let errors = String::from_utf8_lossy(errors);
        let memory = self.limits.compile_memory_bytes_max;
        if NO_MEMORY.iter().any(|words| errors.contains(words)) {
            return format!(
                "compiling takes more than {} of memory; if that is no mistake in the plugin, give it more with --compile-memory",
                indicatif::BinaryBytes(memory as u64)
            );
        }
        let how = match status.signal() {
            Some(9) => "was killed, perhaps by the system because memory is short".to_owned(),
            _ => format!("ended with {status}"),
        };
        let lines: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = lines[lines.len().saturating_sub(SHOWN_LINES_MAX)..].iter();
        let shown: Vec<_> = last.map(|line| printable(line, SHOWN_BYTES_MAX)).collect();
        let said = if shown.is_empty() { String::new() } else { format!(": {}", shown.join(" | ")) };
        format!("the process that compiles {how}{said}")
    }
}

/// The beginning of a stream; the rest is read as well, so that the writer never waits.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = (&mut stream).take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    bytes
}

/// The file of this program, also after another version was installed in its place.
fn this_program() -> io::Result<PathBuf> {
    let itself = Path::new("/proc/self/exe");
    if itself.exists() { Ok(itself.to_owned()) } else { std::env::current_exe() }
}

impl Order {
    pub(super) fn haste(&self) -> Haste {
        if self.gives_way { Haste::Background } else { Haste::Now }
    }
}
