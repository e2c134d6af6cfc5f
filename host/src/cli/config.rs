//! `host config`: prints the configuration in effect.

use super::{Failure, Flags, load, print, refuse};
use crate::config::reference;

/// Arguments of `host config`.
#[derive(Debug, clap::Args)]
#[command(long_about = "\
Print the configuration in effect as a commented file.

The output is TOML that --config reads. A password in the URL of Redis and the values of the plugin's own configuration \
are masked as ***, and a host refuses to run with ***. Set HOST_REDIS and HOST_PLUGIN_CONFIG where the file is used, or \
write the values into the file.")]
pub(super) struct ConfigArgs {
    /// Name the source of each value: default, file with line, environment variable or flag
    #[arg(long)]
    sources: bool,
    /// Print the handbook's chapter on configuration, with every setting, instead of the configuration
    #[arg(long, conflicts_with = "sources")]
    reference: bool,
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn execute(before: Flags, args: ConfigArgs) -> Result<(), Failure> {
    if args.reference {
        refuse(&before, "config --reference")?;
        refuse(&args.flags, "config --reference")?;
        return print(reference().as_bytes());
    }
    let loaded = load(&before.overlaid_with(args.flags))?;
    print(loaded.to_toml(args.sources).as_bytes())
}
