//! The host with the example `enrich` compiled into it in place of a plugin, built with the feature `native-bench`.
//! Everything else is the binary's own source.

use std::process::ExitCode;

#[path = "../../host/src/main.rs"]
mod binary;

fn main() -> ExitCode {
    binary::main()
}
