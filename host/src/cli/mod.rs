//! The command line: one file for each command. This room turns arguments into a configuration and an exit code,
//! and does not process messages.

mod check;
mod completions;
mod componentize;
mod config;
mod dead;
mod demo;
mod dev;
mod exit;
mod flags;
mod log;
mod man;
mod new;
mod observed;
mod publish;
mod run;
mod signals;
mod since;
mod state;
mod status;
mod tail;
mod test;
mod text;
mod top;
mod wit;
mod worker;

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

Publishers send JSON messages to the channel. Each message goes to one consumer of one running host. The consumer calls \
the plugin, a sandboxed WebAssembly component, and appends the results to an output stream. A message id gives one \
result within the dedup window, even if hosts die. To scale out, start the same command on more machines.

Without a command, host processes messages until a signal stops it.";

const AFTER_HELP: &str = "`host --help` shows examples and all settings, with units, bounds and environment variables.";

const AFTER_LONG_HELP: &str = "\
Examples:
  host --plugin enrich.wasm --consumers 10
      Run ten consumers with the Redis on this machine.
  host --plugin enrich.wasm --redis embedded
      Run with a private Redis that ends with the host.
  HOST_REDIS=rediss://user:password@redis.example:6380/0 host --plugin enrich.wasm
      Use TLS and a login; the password stays out of the process list.
  host config --plugin enrich.wasm --consumers 50 > host.toml && host --config host.toml
      Write a commented configuration file, and run a host with that file.

Values:
  SIZE is a number of bytes: 1048576, 64KiB, 1MiB, 2GiB. DURATION has a unit: 250ms, 3s, 5m.
  Every flag has an environment variable and a key in the configuration file. The order of precedence is
  flag, environment variable, file, default. Passwords and the values of the plugin's own configuration
  are masked in all output.

Output:
  Report lines go to standard output, log lines to standard error.

Signals:
  SIGTERM or Ctrl-C stops the host. The host first finishes the messages in progress, for at most the drain
  timeout. A second signal, at least a second later, ends the process at once; other hosts take over its
  messages.
  SIGHUP reloads the plugin, its configuration and limits, and the number of consumers. When the terminal
  closes, its SIGHUP stops the host, unless the host was started with nohup.

Exit codes:
  0    clean stop
  1    any other failure
  2    wrong usage or configuration
  3    Redis: unreachable, login refused, missing rights, too old, key of a wrong type
  4    plugin: missing, not a component, wrong world, does not start
  5    a stop left messages behind that were received and are lost
  6    `host status`: the group does not work
  7    a part of the host failed by a fault of the program and could not be replaced
  130  ended at once by a second Ctrl-C or SIGTERM";

/// The arguments of the process.
#[derive(Debug, Parser)]
#[command(name = "host", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(after_help = AFTER_HELP, after_long_help = AFTER_LONG_HELP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    flags: Flags,
    /// Compile the component on standard input, as a host asks of another process
    #[arg(long, hide = true, value_name = "ORDER")]
    compile: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

// `about`, because a documentation comment here would replace the long texts of the commands.
#[derive(Debug, Subcommand)]
enum Command {
    #[command(about = "Print the configuration in effect as a commented file")]
    Config(config::ConfigArgs),
    #[command(about = "List, show, replay and purge dead letters")]
    Dead(dead::DeadArgs),
    #[command(about = "Show the state of a group: hosts, consumers, inbox, retries, dead letters, outputs")]
    Status(status::StatusArgs),
    #[command(about = "Read and write the state of plugins")]
    State(state::StateArgs),
    #[command(about = "Show results, retries and dead letters as they are written")]
    Tail(tail::TailArgs),
    #[command(about = "Watch a group on the terminal")]
    Top(top::TopArgs),
    #[command(about = "Process messages of a group elsewhere, over HTTP")]
    Worker(worker::WorkerArgs),
    #[command(about = "Run a demonstration: a private Redis, a host and a publisher")]
    Demo(demo::DemoArgs),
    #[command(about = "Write a folder with a plugin to begin with, in the language of your choice")]
    New(new::NewArgs),
    #[command(about = "Build and test a plugin after every change of its sources")]
    Dev(dev::DevArgs),
    #[command(about = "Inspect a plugin, and check whether a host can use the plugin")]
    Check(check::CheckArgs),
    #[command(about = "Test a plugin with cases from a file, without Redis")]
    Test(test::TestArgs),
    #[command(about = "Print the contract of plugins, or write it into a folder")]
    Wit(wit::WitArgs),
    #[command(about = "Make a plugin out of a core module, as C, Zig and Go compile it")]
    Componentize(componentize::ComponentizeArgs),
    #[command(about = "Publish generated messages, or the lines of a file")]
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
/// The exit code. The message or the help is already printed.
pub fn parse() -> Result<Cli, u8> {
    Cli::try_parse().map_err(|error| report_usage(&error))
}

/// Runs the command that the arguments name.
///
/// # Errors
///
/// The exit code and the error.
pub fn execute(cli: Cli) -> Result<(), Failure> {
    if let Some(order) = cli.compile {
        return Ok(crate::plugin::serve(&order)?);
    }
    match cli.command {
        None => run::execute(&cli.flags.overlaid_with(Flags::default())),
        Some(Command::Config(args)) => config::execute(cli.flags, args),
        Some(Command::Dead(args)) => dead::execute(cli.flags, args),
        Some(Command::Status(args)) => status::execute(cli.flags, args),
        Some(Command::State(args)) => state::execute(cli.flags, args),
        Some(Command::Tail(args)) => tail::execute(cli.flags, args),
        Some(Command::Top(args)) => top::execute(cli.flags, args),
        Some(Command::Worker(args)) => worker::execute(cli.flags, args),
        Some(Command::Demo(args)) => demo::execute(&cli.flags, args),
        Some(Command::New(args)) => new::execute(&cli.flags, &args),
        Some(Command::Dev(args)) => dev::execute(&cli.flags, &args),
        Some(Command::Check(args)) => check::execute(&cli.flags, args),
        Some(Command::Test(args)) => test::execute(&cli.flags, args),
        Some(Command::Wit(args)) => wit::execute(&cli.flags, &args),
        Some(Command::Componentize(args)) => componentize::execute(&cli.flags, &args),
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
    let error = anyhow::anyhow!("`host {command}` does not use --{flag}; leave the flag out");
    Failure { exit: Exit::Usage, error }
}

/// Writes the whole output of a command at once, so that a closed standard output is an error here.
fn print(output: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(output).and_then(|()| stdout.flush());
    Ok(written.map_err(OutputError::from)?)
}

/// Writes a line of a command's output.
fn print_line(line: &str) -> Result<(), Failure> {
    print(format!("{line}\n").as_bytes())
}

/// Writes a line to standard error, beside the command's output.
fn note(line: &str) {
    output::stderr().line(line);
}

/// Prints clap's message or help, masked, because an argument in the wrong place may be a URL with a password.
fn report_usage(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    let shown = masked(&text);
    // If standard error is closed, nobody can read a report of that.
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
        for name in [
            "check",
            "componentize",
            "config",
            "dead",
            "demo",
            "dev",
            "new",
            "publish",
            "status",
            "tail",
            "test",
            "wit",
        ] {
            let command = super::command();
            let command = command.find_subcommand(name).unwrap();
            let (short, long) = (command.get_about().unwrap(), command.get_long_about().unwrap());
            assert!(long.to_string().len() > short.to_string().len(), "{name}");
        }
    }
}
