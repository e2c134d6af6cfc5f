//! `host wit`: prints the contract between host and plugin, or writes the contract into a folder.

pub(super) mod contract;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::ValueHint;
use clap::builder::PossibleValuesParser;

use self::contract::{CONTRACTS, Contract};
use super::{Failure, Flags, print, refuse};

/// Arguments of `host wit`.
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Print the contract between host and plugin, or write the contract into a folder.

The contract is a WIT file: the function that a plugin implements, and what a plugin may import. A binding generator \
turns the contract into types of your language: wit-bindgen for Rust, C and Go, componentize-py for Python, jco or \
componentize-qjs for TypeScript. A generator needs the folder with all files, so use --dir.")]
#[command(after_long_help = "\
Examples:
  host wit
      Read the contract.
  host wit --dir wit
      Write plugin.wit and the packages that it imports, wit/deps/…, into the folder `wit`.
  host wit --contract 0.1.0 --dir wit-0.1.0
      Write an older version. Plugins of every released version keep working.

Exit codes:
  0    printed or written
  1    a file in the folder differs, or cannot be written
  2    wrong usage")]
pub(super) struct WitArgs {
    /// Write all files of the contract into this folder, and print nothing
    ///
    /// The folder is made if it does not exist. Other files in the folder stay.
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,

    /// Version of the contract [default: the newest]
    #[arg(long, value_name = "VERSION", value_parser = PossibleValuesParser::new(CONTRACTS.iter().map(|it| it.version)))]
    contract: Option<String>,

    /// Overwrite files that differ from the contract
    #[arg(long, requires = "dir")]
    force: bool,
}

pub(super) fn execute(flags: &Flags, args: &WitArgs) -> Result<(), Failure> {
    refuse(flags, "wit")?;
    let contract = args.contract.as_deref().and_then(Contract::of).unwrap_or_else(Contract::current);
    match &args.dir {
        None => print(contract.plugin.as_bytes()),
        Some(folder) => Ok(write(contract, folder, args.force)?),
    }
}

/// Writes the files that are missing. Files that differ are an error before anything is written.
fn write(contract: &Contract, folder: &Path, force: bool) -> anyhow::Result<()> {
    let mut missing = Vec::new();
    let mut differing = Vec::new();
    for (path, text) in contract.files() {
        let path = folder.join(path);
        match fs::read(&path) {
            Ok(present) if present == text.as_bytes() => {}
            Ok(_) => differing.push((path, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push((path, text)),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    if !differing.is_empty() && !force {
        let names: Vec<_> = differing.iter().map(|(path, _)| path.display().to_string()).collect();
        return Err(anyhow!(
            "cannot write the contract {}: these files differ from it: {}; \
             name another folder with --dir, or overwrite the files with --force",
            contract.version,
            names.join(", ")
        ));
    }
    for (path, text) in missing.into_iter().chain(differing) {
        let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        written.with_context(|| format!("cannot write the contract to {}", path.display()))?;
    }
    Ok(())
}
