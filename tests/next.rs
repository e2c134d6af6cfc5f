//! The host as it will be when the format of entries has changed, built with the feature `next-format` for the test of a rolling
//! upgrade. Everything else is the binary's own source.

use std::process::ExitCode;

#[path = "../host/src/main.rs"]
mod binary;

fn main() -> ExitCode {
    binary::main()
}
