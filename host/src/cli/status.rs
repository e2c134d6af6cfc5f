//! `host status`: the state of a group at one moment, for a person or for a script. This file decides how the command ends;
//! `observe` looks at the group.

mod page;

use std::io;

use anyhow::anyhow;
use clap::Args;

pub(super) use self::page::{dead_letters, retries};
use super::observed::{GroupArgs, Observed, unreadable};
use super::{Exit, Failure, Flags, log, print};
use crate::observe::Observer;
use crate::observe::status::GroupStatus;

/// Arguments of `host status`.
#[derive(Args, Debug)]
#[command(long_about = "\
Show the state of a group at this moment: hosts, consumers, inbox, retries, dead letters and outputs.

The command reads Redis only. It needs no plugin, no HTTP listener and no configuration of the hosts, and changes nothing. \
The settings for Redis and the keys are those of a host: flags before `status`, environment variables, configuration file. \
Named outputs are those that the hosts announce; for older hosts, those in the configuration file.")]
#[command(after_long_help = "\
Examples:
  host status
      The group with the default names on the Redis of this machine.
  host --config host.toml status
      The group of the hosts with this configuration file, with its named outputs.
  host status --json | jq '.inbox.oldest_age_ms'
      One figure, for a script.
  host status > /dev/null || echo 'the group does not work'
      A check, for cron or a monitor.

Exit codes:
  0  the group works
  2  wrong usage or configuration
  3  Redis: unreachable, login refused, missing rights, key of a wrong type
  6  the group does not work: no host is alive, no intake is active, or Redis is full")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    group: GroupArgs,

    /// Print one JSON object with all hosts and all consumers
    #[arg(long)]
    json: bool,
}

/// Runs `host status`.
pub(super) fn execute(before: Flags, args: StatusArgs) -> Result<(), Failure> {
    let Observed { config, connector, keys } = args.group.find(before)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut observer = Observer::new(connector, keys, &config.outputs);
    let looked = runtime.block_on(observer.look());
    let status = looked.map_err(|error| unreadable(observer.address(), &error))?;
    if args.json {
        let text = serde_json::to_string(&status).map_err(anyhow::Error::from)?;
        print(format!("{text}\n").as_bytes())?;
    } else {
        print(page::page(&status, log::colours(&io::stdout())).as_bytes())?;
    }
    verdict(&status)
}

/// The failure of a group that does not work.
fn verdict(status: &GroupStatus) -> Result<(), Failure> {
    if status.healthy {
        return Ok(());
    }
    let problems: Vec<&str> = status.problems.iter().map(|problem| problem.text.as_str()).collect();
    Err(Failure { exit: Exit::Unhealthy, error: anyhow!("the group does not work: {}", problems.join("; ")) })
}
