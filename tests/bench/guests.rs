//! Guests of the tests and examples in other languages than Rust, built when a part of the benchmark needs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::run::HOST;

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

/// Examples by name, as `just plugins` builds them.
pub fn examples(names: &[&str]) -> Result<Vec<PathBuf>> {
    eprintln!(
        "building {}; the first time, their tools are downloaded, 280 MB, and it takes minutes",
        names.join(", ")
    );
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    run(Command::new(repository.join(".ci/setup")).arg("languages"), "installing Python")?;
    run(Command::new(repository.join(".ci/plugins")).args(names).env("HOST_BINARY", HOST), "building the plugins")?;
    Ok(names.iter().map(|name| repository.join("plugins/dist").join(name).with_extension("wasm")).collect())
}

/// An example with another function: the file from `parsing/` in place of the file of the same name.
pub fn with_function(language: &str, example: &str, function: &str) -> Result<PathBuf> {
    let file = Path::new(function).file_name().context("the function has a file")?;
    let content = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/parsing").join(file))?;
    eprintln!("building {example} with a function that parses");
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parsing");
    let folder = scratch.join(example);
    fs::create_dir_all(&scratch)?;
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let mut new = Command::new(HOST);
    new.args(["new", example, "--lang", &language.to_lowercase(), "--from", "enrich", "--dir"]).arg(&scratch);
    // It prints what to do next.
    let new = new.stdout(Stdio::null()).status().context("cannot run `host new`")?;
    ensure!(new.success(), "`host new` failed; see above");
    fs::write(folder.join(function), content)?;
    run(Command::new(folder.join("build")).env("HOST_BINARY", HOST), "building the plugin")?;
    Ok(folder.join(example).with_extension("wasm"))
}

/// Runs a command to its end. What it prints goes to the standard error, because the other one is for figures.
fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    ensure!(status.with_context(|| format!("{what} could not start"))?.success(), "{what} failed; see above");
    Ok(())
}
