//! Guests of the tests, built when a part of the benchmark needs them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The plugin `puppet`, which follows the orders in a message.
pub fn puppet() -> Result<PathBuf> {
    build("puppet")
}

/// The plugin with as much code as an interpreter.
pub fn large() -> Result<PathBuf> {
    build("large")
}

fn build(name: &str) -> Result<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/plugins"));
    let status = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2", "--package", name])
        .current_dir(&folder)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "building the plugin {name} failed; `just setup` installs the Wasm target");
    Ok(folder.join("target/wasm32-wasip2/release").join(name).with_extension("wasm"))
}
