//! The plugins that tests run, built from source once per test run.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::repository;

/// The plugin that does what the message says: see `tests/plugins/puppet`.
pub fn puppet() -> PathBuf {
    test_guests().join("puppet.wasm")
}

/// A plugin that uses state as the message says: see `tests/plugins/bank`.
pub fn bank() -> PathBuf {
    test_guests().join("bank.wasm")
}

/// A plugin of the released contract 0.1.0.
pub fn contract_0_1_0() -> PathBuf {
    test_guests().join("contract_0_1_0.wasm")
}

/// A component that is an ordinary command.
pub fn wrong_world() -> PathBuf {
    test_guests().join("wrong-world.wasm")
}

/// A plugin that imports `example:thing/api`.
pub fn unknown_import() -> PathBuf {
    test_guests().join("unknown_import.wasm")
}

/// A plugin that makes an HTTP request when the message asks for it.
pub fn http() -> PathBuf {
    test_guests().join("http.wasm")
}

/// A plugin whose instances never finish their start.
pub fn loops_at_start() -> PathBuf {
    test_guests().join("loops_at_start.wasm")
}

/// A plugin whose instances trap at their start.
pub fn traps_at_start() -> PathBuf {
    test_guests().join("traps_at_start.wasm")
}

/// A plugin whose instances take 64 MiB of memory at their start.
pub fn grows_at_start() -> PathBuf {
    test_guests().join("grows_at_start.wasm")
}

/// A plugin of which tests make versions: see `support::release`.
pub fn release() -> PathBuf {
    test_guests().join("release.wasm")
}

/// A plugin with an async function that uses WASI 0.3.
pub fn wasi_0_3() -> PathBuf {
    test_guests().join("wasi_0_3.wasm")
}

/// A plugin with as much code as an interpreter. The result is the message.
pub fn large() -> PathBuf {
    test_guests().join("large.wasm")
}

/// The example that adds `random_property`.
pub fn enrich() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("plugins/enrich")).join("plugin.wasm")
}

/// The folder `plugins/dist`, with the example in Rust and its other versions, as a user builds them.
pub fn examples() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut build = Command::new(repository().join(".ci/plugins"));
        let built = build.arg("enrich").stdin(Stdio::null()).output().expect("run .ci/plugins");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    });
    repository().join("plugins/dist")
}

fn test_guests() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("tests/plugins")).clone()
}

/// Builds the workspace in this folder and gives the folder of its components. When nothing has changed
/// this takes a moment.
fn build(folder: &str) -> PathBuf {
    let folder = repository().join(folder);
    let target = folder.join("target");
    let output = Command::new(env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["build", "--release", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .current_dir(&folder)
        .output()
        .expect("run cargo");
    assert!(
        output.status.success(),
        "building the plugins in {} failed; `just setup` installs the Wasm target:\n{}",
        folder.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    target.join("wasm32-wasip2/release")
}
