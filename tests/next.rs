//! The host with a later format of entries, built with the feature `next-format` for the test of a rolling upgrade.
//! Everything else is the source of the binary.

use std::process::ExitCode;

#[path = "../host/src/main.rs"]
mod binary;

fn main() -> ExitCode {
    binary::main()
}
