//! Compiling in a process of its own, which leaves the result in the cache of compiled plugins. The allocator keeps most
//! of the memory that a compilation once took: 60 MB after a plugin in JavaScript, 250 MB after one in Python. That
//! memory ends with the other process. This file knows no engine.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Length of a component from which another process is worth its start. What a smaller one leaves is a few megabytes.
pub(super) const BYTES_MIN: usize = 1 << 20;

/// The command that starts the other process.
#[derive(Clone, Debug)]
pub struct Apart {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Apart {
    /// This program with its own arguments, so that it reads the same configuration, and with `switch` after them: then
    /// it is to call [`Engine::fill_cache`](super::Engine::fill_cache).
    ///
    /// # Errors
    /// When the system does not tell the path of this program.
    pub fn this_program(switch: &str) -> io::Result<Apart> {
        let arguments = std::env::args_os().skip(1).chain([switch.into()]).collect();
        Ok(Apart { program: std::env::current_exe()?, arguments })
    }

    /// Has the other process compile a component. Blocks until that process has ended.
    pub(super) fn compile(&self, bytes: &[u8]) -> io::Result<()> {
        let mut process = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // The drop of the pipe after the last byte is the end of the component.
        let written = process.stdin.take().map_or(Ok(()), |mut pipe| pipe.write_all(bytes));
        let status = process.wait()?;
        written?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("it ended with {status}"))) }
    }
}
