//! The cost of WebAssembly: the host with its plugin beside the same host with the plugin's function compiled in.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Args;
use crate::findings::{Findings, Target};
use crate::load::Load;
use crate::path;
use crate::run::{self, Arm, HOST, Subject, native_host};

/// Measures both hosts `rounds` times, in turn.
pub fn measure(args: &Args, rounds: u32, plugin: &Path) -> Result<Findings> {
    build_native()?;
    let load = Load::small(args.messages);
    let arm = |subject| Arm::new(subject, load, plugin);
    let native = arm(Subject::Native { consumers: 10 });
    let arms = [
        arm(Subject::Floor),
        native.clone(),
        native.again(),
        arm(Subject::Host { consumers: 10 }),
        arm(Subject::Native { consumers: 1 }),
        arm(Subject::Host { consumers: 1 }),
    ];
    let mut table = path::table(&arms);
    run::take_turns("tax", rounds, &arms, |index, measured| table.add(index, &path::values(measured)))?;
    let own = |index| table.median(index, "process_us_per_message");
    let (ten, one) = (own(3) / own(1), own(5) / own(4));
    Ok(Findings::from(table)
        .reaching("Wasm tax on host CPU per message, 10 consumers", ten, "× native", Target::AtMost(1.25))
        .reaching("Wasm tax on host CPU per message, 1 consumer", one, "× native", Target::AtMost(1.25)))
}

/// Builds the host of the other arm in the same target folder, so that only the host itself is compiled again.
fn build_native() -> Result<()> {
    eprintln!("building the host with the plugin's function in it; the first time this takes a minute or two");
    let folder = Path::new(HOST).parent().and_then(Path::parent).context("the binary lies in a target folder")?;
    let status = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", "host", "--bin", "host-native"])
        .args(["--features", "native-bench", "--target-dir"])
        .arg(folder)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "building the host with the plugin's function in it failed");
    ensure!(native_host().is_file(), "cargo built no {}", native_host().display());
    Ok(())
}
