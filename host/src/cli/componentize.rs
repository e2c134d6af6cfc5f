//! `host componentize`: makes a component out of a core module. `encode` does the work; this file reads and writes.

mod encode;
mod error;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueHint;

use self::error::{ComponentizeError, Problem};
use super::{Failure, Flags, refuse};

/// Arguments of `host componentize`.
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Make a plugin out of a core module, as C, Zig and Go compile it.

Such compilers write a core module: functions over numbers and memory. A host runs components, which have typed imports \
and exports. The command adds the types of the contract, `host wit`, unless the module has them already, as C with \
the object file of wit-bindgen has, and an adapter from WASI preview 1 to WASI 0.2. On success the command prints nothing.

Rust (wasm32-wasip2), Python and TypeScript write components themselves.")]
#[command(after_long_help = "\
Examples:
  zig cc --target=wasm32-wasi -mexec-model=reactor -O2 -o core.wasm plugin.c enrich.c
  host componentize core.wasm -o enrich.wasm
      C. `wit-bindgen c` makes plugin.c out of the contract.
  GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -ldflags=-checklinkname=0 -o core.wasm .
  host componentize core.wasm -o enrich.wasm
      Go. `wit-bindgen go` makes the package that exports the function.

Exit codes:
  0    the component is written
  1    the component cannot be written
  2    wrong usage
  4    the module cannot become a plugin; standard error says why and what to do")]
pub(super) struct ComponentizeArgs {
    /// The core module, a .wasm file
    #[arg(value_name = "MODULE", value_hint = ValueHint::FilePath)]
    module: PathBuf,

    /// The component; an existing file is replaced at once, also while a host is watching the file
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
}

pub(super) fn execute(flags: &Flags, args: &ComponentizeArgs) -> Result<(), Failure> {
    refuse(flags, "componentize")?;
    let problem = |problem| ComponentizeError { module: args.module.clone(), problem };
    let module = fs::read(&args.module).map_err(|error| problem(Problem::Unreadable(error)))?;
    let component = encode::component(&module).map_err(problem)?;
    replace(&args.output, &component).map_err(|error| problem(Problem::Unwritable(args.output.clone(), error)))?;
    Ok(())
}

/// Writes a file so that nobody sees a part of it.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A pipe or a device cannot be replaced; a link stays a link.
    let path = match fs::canonicalize(path) {
        Ok(file) if file.is_file() => file,
        Ok(other) => return fs::write(other, bytes),
        Err(_) => path.to_owned(),
    };
    let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy();
    let new = path.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).inspect_err(|_| {
        // What matters is the first error.
        let _ = fs::remove_file(&new);
    })
}
