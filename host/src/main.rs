//! The binary: arguments in, exit code out.

use std::process::ExitCode;

use host::cli::{self, Exit};
use host::output;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Everything in the binary; the benchmark has a second binary with the same contents.
pub fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    let exit = match cli::execute(cli) {
        Ok(()) => Exit::Clean,
        Err(failure) if failure.is_closed_output() => Exit::Clean,
        Err(failure) => {
            output::stderr().line(&format!("error: {failure}"));
            failure.exit
        }
    };
    output::finish();
    exit.into()
}
