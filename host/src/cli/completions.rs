//! `host completions`: prints a shell's completion script.

use clap_complete::Shell;

use super::{Failure, Flags, command, print, refuse};

/// Arguments of `host completions`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  host completions bash > ~/.local/share/bash-completion/completions/host
  host completions zsh > ~/.zfunc/_host
  host completions fish > ~/.config/fish/completions/host.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn execute(args: &CompletionsArgs, flags: &Flags) -> Result<(), Failure> {
    refuse(flags, "completions")?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "host", &mut script);
    print(&script)
}
