//! `host tail`: what happens to messages, as it happens. This file prints and filters; `observe::tail` reads.

mod filter;
mod line;

use std::io;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use self::filter::FilterArgs;
use super::observed::{GroupArgs, Observed, unreadable};
use super::since::{Since, since};
use super::{Failure, Flags, log, note, print, signals::shutdown};
use crate::observe::choice::Choice;
use crate::observe::tail::{Follower, Page};
use crate::redis::client::backoff::Backoff;

/// How far the command may be behind before it says so, and how often it says so.
const BEHIND_MAX: Duration = Duration::from_secs(3);
const BEHIND_INTERVAL: Duration = Duration::from_secs(5);

/// Arguments of `host tail`.
#[derive(Args, Debug)]
#[command(long_about = "\
Show results, retries and dead letters as they are written, until Ctrl-C.

The command reads Redis only, over one connection, and does not disturb the group: it takes no message from anybody. After a \
failure it connects again and continues where it was. If it cannot keep up, it says so on standard error, and leaves nothing \
out. A retry that waits for less than 100 ms may be missed. The settings for Redis and the keys are those of a host: flags \
before `tail`, environment variables, configuration file. Named outputs are those that the hosts announce; for older hosts, those in the configuration file.")]
#[command(after_long_help = "\
Examples:
  host tail
      All outcomes of the group with the default names, from now on.
  host tail --outcome dead-letter --outcome retry --since 1h
      What went wrong within the last hour, and from now on.
  host tail --id order-17 --count 1 --json
      The first outcome of one message, then the end.
  host tail --grep '\"priority\":\"high\"' --json | jq .fields
      Outcomes with a text in any field.

A retry is shown when it begins to wait: the attempt and the time are those of the next attempt.

JSON, one object a line; a property that an outcome does not have is missing:
  outcome      result, dead-letter or retry
  time         by the clock of Redis, RFC 3339
  key          the stream, or the set of waiting retries
  output       of a result: main, or the name of the output
  entry        of a result and a dead letter: the id of the entry
  message_id, consumer_id
  attempt, due of a retry: number and time of the next attempt
  fields       the other fields of the entry, as texts")]
pub(super) struct TailArgs {
    #[command(flatten)]
    group: GroupArgs,

    #[command(flatten)]
    filter: FilterArgs,

    /// Begin with what was written since a time, such as 2026-01-31T12:00:00Z, or within a duration, such as 30m
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,

    /// Stop after this number of outcomes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Runs `host tail`.
pub(super) fn execute(before: Flags, args: TailArgs) -> Result<(), Failure> {
    let TailArgs { group, filter, since, count, json } = args;
    let Observed { config, connector, keys } = group.find(before)?;
    let since = since.map(|since| since.before(SystemTime::now()));
    let follower = Follower::new(connector.clone(), keys, &config.outputs, &filter.outcomes(), since);
    let form = if json { line::Form::Json } else { line::Form::Text { with_colours: log::colours(&io::stdout()) } };
    let choice = filter.choice();
    let tail = Tail { follower, choice, form, left: count, is_level: since.is_none(), behind_noted: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let shutdown = shutdown()?;
        tokio::select! {
            ended = tail.run() => ended,
            () = connector.follow() => Ok(()),
            () = shutdown => Ok(()),
        }
    });
    // A write to a terminal that is stopped may never return.
    runtime.shutdown_background();
    result
}

/// A tail that runs.
struct Tail {
    follower: Follower,
    choice: Choice,
    form: line::Form,
    /// Outcomes to print; no end if `None`.
    left: Option<u64>,
    /// Whether everything that was written before the start has been read.
    is_level: bool,
    /// When it was last said that the command is behind.
    behind_noted: Option<Instant>,
}

impl Tail {
    async fn run(mut self) -> Result<(), Failure> {
        let mut backoff = Backoff::default();
        let mut is_connected = false;
        while self.left != Some(0) {
            let page = match self.follower.next().await {
                Ok(page) => page,
                Err(error) if !is_connected => return Err(unreadable(self.follower.address(), &error)),
                // Another try does not help against what the server refuses.
                Err(error) if matches!(error.code(), Some("WRONGTYPE" | "NOPERM" | "NOAUTH" | "WRONGPASS")) => {
                    return Err(unreadable(self.follower.address(), &error));
                }
                Err(error) => {
                    if backoff.attempts() == 0 {
                        note(&format!("cannot read from Redis at {}: {error}; trying again", self.follower.address()));
                    }
                    backoff.wait().await;
                    continue;
                }
            };
            if backoff.attempts() > 0 {
                note("reads from Redis again, and continues where it was");
                backoff.reset();
            }
            is_connected = true;
            self.note_delays(&page);
            let lines = self.lines(&page);
            if !lines.is_empty() {
                // On another thread, so that Ctrl-C ends the command while nobody reads.
                let printed = tokio::task::spawn_blocking(move || print(&lines)).await;
                printed.map_err(anyhow::Error::from)??;
            }
        }
        Ok(())
    }

    /// Says when the command is behind, when it is not any more, and what it could not read.
    fn note_delays(&mut self, page: &Page) {
        if page.missed > 0 {
            note(&format!("{} entries were removed from their streams before they could be read", page.missed));
        }
        let behind = page.behind.filter(|behind| self.is_level && *behind > BEHIND_MAX);
        match behind {
            Some(behind) if self.behind_noted.is_none_or(|noted| noted.elapsed() >= BEHIND_INTERVAL) => {
                note(&format!("cannot keep up: {} s behind", behind.as_secs()));
                self.behind_noted = Some(Instant::now());
            }
            None if page.behind.is_none() => {
                self.is_level = true;
                if self.behind_noted.take().is_some() {
                    note("has caught up");
                }
            }
            _ => {}
        }
    }

    /// The lines of the events that are wanted.
    fn lines(&mut self, page: &Page) -> Vec<u8> {
        let mut lines = Vec::new();
        for event in page.events.iter().filter(|event| self.choice.matches(event)) {
            match &mut self.left {
                Some(0) => break,
                Some(left) => *left -= 1,
                None => {}
            }
            self.form.write(event, &mut lines);
        }
        lines
    }
}
