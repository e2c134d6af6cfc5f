//! The binary: arguments in, exit code out.

use std::io::Write as _;
use std::process::ExitCode;

use host::cli::{self, Exit};
use host::config::masked;

/// Everything that the binary is; the benchmark has a second one of the same.
pub fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    match cli::execute(cli) {
        Ok(()) => Exit::Clean.into(),
        Err(failure) if failure.is_broken_pipe() => Exit::Clean.into(),
        Err(failure) => {
            let error = masked(&format!("{:#}", failure.error));
            // A closed standard error leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            failure.exit.into()
        }
    }
}
