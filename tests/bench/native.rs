//! The host with the example `enrich` compiled in instead of a plugin, built with the feature `native-bench`.
//! Everything else is the source of the binary.

use std::process::ExitCode;

#[path = "../../host/src/main.rs"]
mod binary;

fn main() -> ExitCode {
    binary::main()
}
