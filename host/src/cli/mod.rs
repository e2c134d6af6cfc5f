//! The command line: one file for each command. It turns arguments into a configuration and an exit code,
//! and knows nothing of messages.

mod check;
mod completions;
mod config;
mod dead;
mod demo;
mod exit;
mod flags;
mod log;
mod man;
mod publish;
mod run;
mod signals;
mod test;

use std::io::{self, Write as _};

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

pub use exit::{Exit, Failure, OutputError};
pub use flags::{Flags, PluginFlags};

use crate::config::{Config, ConfigError, Given, Loaded, masked};
use crate::output;

const ABOUT: &str = "Turn a Redis Pub/Sub channel into a consumer group that runs a WebAssembly plugin";

const LONG_ABOUT: &str = "\
Turn a Redis Pub/Sub channel into a consumer group that runs a WebAssembly plugin.

Every JSON message published on the channel is handed to one of the consumers of all running hosts. Its plugin, a \
sandboxed WebAssembly component, turns it into results, which are appended to an output stream. A message id gives \
one result within the dedup window, whichever host dies. Start the same command on more machines to scale out.

Without a command, host processes messages until it is stopped.";

const AFTER_HELP: &str =
    "`host --help` shows all settings, with units, bounds and environment variables, and examples.";

const AFTER_LONG_HELP: &str = "\
Examples:
  host --plugin enrich.wasm --consumers 10
      Ten consumers against the Redis on this machine.
  host --plugin enrich.wasm --redis embedded
      The same with a private Redis that ends with the host.
  HOST_REDIS=rediss://user:password@redis.example:6380/0 host --plugin enrich.wasm
      TLS and a login; the password stays out of the list of processes.
  host config --plugin enrich.wasm --consumers 50 > host.toml && host --config host.toml
      Write a commented configuration file, and run with it.

Values:
  SIZE is a number of bytes: 1048576, 64KiB, 1MiB, 2GiB. DURATION has a unit: 250ms, 3s, 5m.
  Every flag has an environment variable and a key in the configuration file. Flags beat environment
  variables beat the file beat defaults. Passwords and the plugin's own configuration are masked wherever
  they would be shown.

Output:
  Report lines go to standard output, log lines to standard error.

Signals:
  SIGTERM or Ctrl-C stops: what is in work is finished, at most for the drain timeout. Another one, a second
  later or more, ends the process at once; other hosts take over what was in work.
  SIGHUP reloads: the plugin, its configuration and limits, and the number of consumers. SIGHUP because the
  terminal was closed stops, unless the host was started with nohup.

Exit codes:
  0    clean stop
  1    any other failure
  2    wrong usage or configuration
  3    Redis: unreachable, refused login, missing rights, too old, key of a wrong type
  4    plugin: missing, not a component, wrong world, does not start
  130  ended at once by a second Ctrl-C or SIGTERM";

/// The arguments of the process.
#[derive(Debug, Parser)]
#[command(name = "host", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(after_help = AFTER_HELP, after_long_help = AFTER_LONG_HELP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Command>,
}

// With `about` instead of a sentence of documentation, which would take the place of the commands' own long texts.
#[derive(Debug, Subcommand)]
enum Command {
    #[command(about = "Print the configuration in effect as a commented file")]
    Config(config::ConfigArgs),
    #[command(about = "Look at dead letters, replay them, purge them")]
    Dead(dead::DeadArgs),
    #[command(about = "See it work: a private Redis, a host and a publisher")]
    Demo(demo::DemoArgs),
    #[command(about = "Tell what a plugin is, and whether a host can use it")]
    Check(check::CheckArgs),
    #[command(about = "Try a plugin on cases from a file, without Redis")]
    Test(test::TestArgs),
    #[command(about = "Publish messages: generated ones, or the lines of a file")]
    Publish(publish::PublishArgs),
    #[command(about = "Print the completion script of a shell")]
    Completions(completions::CompletionsArgs),
    /// Print the man page
    Man,
}

/// Reads the arguments of the process.
///
/// # Errors
///
/// With the exit code, after the message or the help was printed.
pub fn parse() -> Result<Cli, u8> {
    Cli::try_parse().map_err(|error| report_usage(&error))
}

/// Runs the command that the arguments name.
///
/// # Errors
///
/// With the exit code and what went wrong.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        None => run::execute(&cli.flags.overlaid_with(Flags::default())),
        Some(Command::Config(args)) => config::execute(cli.flags, args),
        Some(Command::Dead(args)) => dead::execute(cli.flags, args),
        Some(Command::Demo(args)) => demo::execute(&cli.flags, args),
        Some(Command::Check(args)) => check::execute(&cli.flags, args),
        Some(Command::Test(args)) => test::execute(&cli.flags, args),
        Some(Command::Publish(args)) => publish::execute(cli.flags, &args),
        Some(Command::Completions(args)) => completions::execute(&args, &cli.flags),
        Some(Command::Man) => man::execute(&cli.flags),
    }
}

/// Loads the configuration from these flags, the process's environment and the file.
fn load(given: &Given) -> Result<Loaded, Failure> {
    Ok(read(given)?)
}

fn read(given: &Given) -> Result<Loaded, ConfigError> {
    crate::config::load(given, |name| std::env::var_os(name))
}

/// The configuration of a command that only tries a plugin.
fn load_for_plugin(before: &Flags, flags: PluginFlags, command: &str) -> Result<Config, Failure> {
    let given = flags.under(before).map_err(|flag| useless(flag, command))?;
    Ok(load(&given)?.into_triable()?)
}

/// Refuses settings in front of a command that would ignore them.
fn refuse(flags: &Flags, command: &str) -> Result<(), Failure> {
    flags.first().map_or(Ok(()), |flag| Err(useless(flag, command)))
}

fn useless(flag: &str, command: &str) -> Failure {
    let error = anyhow::anyhow!("`host {command}` has no use for --{flag}; leave it out");
    Failure { exit: Exit::Usage, error }
}

/// Writes the whole output of a command at once, so that a reader that leaves early is noticed here.
fn print(output: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(output).and_then(|()| stdout.flush());
    Ok(written.map_err(OutputError::from)?)
}

/// Writes a line of a command's output.
fn print_line(line: &str) -> Result<(), Failure> {
    print(format!("{line}\n").as_bytes())
}

/// Writes a line beside a command's output, to standard error.
fn note(line: &str) {
    output::stderr().line(line);
}

/// Prints clap's message or help. An argument in the wrong place may be a URL with a password.
fn report_usage(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    let shown = masked(&text);
    // A closed standard error leaves nobody to tell.
    let _ = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => error.print(),
        _ if shown == text => error.print(),
        _ => io::stderr().write_all(shown.as_bytes()),
    };
    u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8)
}

/// The command line as clap knows it, for completions and the man page.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }

    #[test]
    fn the_help_of_a_command_says_more_than_the_list_of_commands() {
        for name in ["check", "config", "dead", "demo", "publish", "test"] {
            let command = super::command();
            let command = command.find_subcommand(name).unwrap();
            let (short, long) = (command.get_about().unwrap(), command.get_long_about().unwrap());
            assert!(long.to_string().len() > short.to_string().len(), "{name}");
        }
    }
}
