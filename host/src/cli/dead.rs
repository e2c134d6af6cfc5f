//! `host dead`: lists and shows dead letters, returns them to the inbox, deletes them.
//! This file knows what a person wants to see; the operations themselves are in `dead_letters`.

mod filter;
mod table;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use self::filter::FilterArgs;
use super::{Exit, Failure, Flags, load, note, print};
use crate::dead_letters::{DeadLetters, Filter, Progress, Replayed};
use crate::redis::RedisError;
use crate::redis::client::connector::Connector;
use crate::redis::running;

/// Arguments of `host dead`.
#[derive(Args, Debug)]
#[command(long_about = "\
List dead letters, return them to the inbox, or delete them.

The settings for Redis and the keys are those of a host: flags before `dead`, environment variables, configuration file. \
The command needs no plugin and no running host.")]
pub(super) struct DeadArgs {
    /// Address of Redis [default: as for a host, redis://127.0.0.1:6379]
    #[arg(long, value_name = "URL", global = true)]
    redis: Option<String>,

    /// Output stream of the group whose dead letters to use [default: as for a host, messages:processed]
    #[arg(long, value_name = "TEXT", global = true)]
    output_key: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List dead letters, newest first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Maximum number of dead letters to list
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Print one JSON object a line, with the payload
        #[arg(long)]
        json: bool,
    },
    /// Show all fields of one dead letter
    Show {
        /// Id of the entry, or of the message
        id: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
        /// Print the payload as it was published also on a terminal, which may act on what is in it
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// Return dead letters to the inbox, with attempts counted from 1 again
    ///
    /// If the same id was published again and processed within the dedup window, the replayed message is dropped as a
    /// duplicate. A dead letter without a message id cannot be replayed: it stays, and the exit code is 1.
    Replay {
        #[command(flatten)]
        filter: FilterArgs,
        /// Replay all dead letters
        #[arg(long, conflicts_with_all = ["ids", "reasons", "since"])]
        all: bool,
    },
    /// Delete dead letters permanently
    Purge {
        #[command(flatten)]
        filter: FilterArgs,
        /// Delete all dead letters
        #[arg(long, conflicts_with_all = ["ids", "reasons", "since"])]
        all: bool,
        /// Do not ask for confirmation; required when standard input is not a terminal
        #[arg(long)]
        yes: bool,
    },
}

/// Dead letters, and the address of Redis for error messages.
struct Redis {
    letters: DeadLetters,
    address: String,
}

/// Runs `host dead`.
pub(super) fn execute(before: Flags, args: DeadArgs) -> Result<(), Failure> {
    let mut given = before.overlaid_with(Flags::default());
    let own = [("redis", args.redis), ("output-key", args.output_key)];
    given.flags.extend(own.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let mut config = load(&given)?.config;
    running::find_if_named(&mut config.redis)?;
    let connector =
        Connector::new(&config.redis).map_err(|error| Failure { exit: Exit::Usage, error: error.into() })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = connector.address().to_string();
        let connection = connector.connect_to_primary().await.map_err(|error| failed(&address, &error))?;
        let mut redis = Redis { letters: DeadLetters::new(connection, Arc::new(config.keys)), address };
        match args.command {
            Command::List { filter, limit, json } => list(&mut redis, filter, limit, json).await,
            Command::Show { id, json, raw } => show(&mut redis, &id, json, raw).await,
            Command::Replay { filter, all } => replay(&mut redis, filter, all).await,
            Command::Purge { filter, all, yes } => purge(&mut redis, filter, all, yes).await,
        }
    })
}

fn usage(message: &'static str) -> Failure {
    Failure { exit: Exit::Usage, error: anyhow!(message) }
}

fn failed(address: &str, error: &RedisError) -> Failure {
    let error = anyhow!(
        "cannot use the dead letters in Redis at {address}: {error}; check that Redis runs and that --redis is right"
    );
    Failure { exit: Exit::Redis, error }
}

impl Redis {
    fn failed(&self, error: &RedisError) -> Failure {
        failed(&self.address, error)
    }

    async fn filter(&mut self, args: FilterArgs) -> Result<Filter, Failure> {
        // The ids of entries come from the server's clock.
        let now = self.letters.server_time().await.map_err(|error| self.failed(&error))?;
        Ok(args.filter(now))
    }

    /// A progress bar over all dead letters, and the function that moves the bar. The bar appears on a terminal only.
    async fn bar(&mut self, done_word: &'static str) -> Result<(ProgressBar, impl FnMut(Progress) + use<>), Failure> {
        let bar = ProgressBar::new(self.letters.total().await.map_err(|error| self.failed(&error))?);
        let template = "{wide_bar} {human_pos} of {human_len} dead letters, {msg}, {eta} left";
        let bar = match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        let moved = bar.clone();
        let progress = move |progress: Progress| {
            moved.set_position(progress.seen);
            moved.set_message(format!("{} {done_word}", HumanCount(progress.done)));
        };
        Ok((bar, progress))
    }
}

async fn list(redis: &mut Redis, filter: FilterArgs, limit: u64, json: bool) -> Result<(), Failure> {
    let filter = redis.filter(filter).await?;
    let address = redis.address.clone();
    let failed = |error| failed(&address, &error);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut listing = redis.letters.list(&filter, limit).await.map_err(failed)?;
    let mut listed = Vec::new();
    while let Some(page) = listing.next().await.map_err(failed)? {
        for letter in page {
            if json {
                // Payloads can be long, so each letter is printed before the next page is read.
                print(table::json(&letter).as_bytes())?;
            }
            listed.push(table::Row::of(&letter));
        }
    }
    if !json {
        print(table::table(&listed).as_bytes())?;
    }
    if listing.has_more() {
        note(&format!("listed the newest {}; --limit N lists more", HumanCount(limit as u64)));
    } else if listed.is_empty() {
        note(if filter.is_empty() { "there are no dead letters" } else { "no dead letter matches" });
    }
    Ok(())
}

async fn show(redis: &mut Redis, id: &str, json: bool, raw: bool) -> Result<(), Failure> {
    let is_raw = raw || !io::stdout().is_terminal();
    let found = redis.letters.find(id).await.map_err(|error| redis.failed(&error))?;
    if found.is_empty() {
        let error = anyhow!(
            "there is no dead letter with the entry id or message id {id:?}; `host dead list` lists all dead letters"
        );
        return Err(error.into());
    }
    for letter in &found {
        match json {
            true => print(table::json(letter).as_bytes())?,
            false => print(&table::whole(letter, is_raw))?,
        }
    }
    Ok(())
}

async fn replay(redis: &mut Redis, filter: FilterArgs, all: bool) -> Result<(), Failure> {
    let filter = redis.filter(filter).await?;
    if filter.is_empty() && !all {
        return Err(usage("choose the dead letters to replay with --id, --reason, --since or --all"));
    }
    let (bar, progress) = redis.bar("replayed").await?;
    let total = redis.letters.replay(&filter, progress).await.map_err(|error| redis.failed(&error))?;
    bar.finish_and_clear();
    print(format!("replayed {} dead letters\n", HumanCount(total.replayed)).as_bytes())?;
    if total.gone > 0 {
        let count = HumanCount(total.gone);
        note(&format!("{count} were already replayed or purged by another command"));
    }
    if total.newer > 0 {
        let count = HumanCount(total.newer);
        return Err(anyhow!(
            "{count} cannot be replayed: a newer version of host wrote them; replay them with that version"
        )
        .into());
    }
    if total.unfit > 0 {
        let count = HumanCount(total.unfit);
        return Err(anyhow!(
            "{count} cannot be replayed: they have no message id; publish corrected messages, or purge the dead letters"
        )
        .into());
    }
    if total == Replayed::default() && !all {
        return Err(nothing_matches());
    }
    Ok(())
}

async fn purge(redis: &mut Redis, filter: FilterArgs, all: bool, yes: bool) -> Result<(), Failure> {
    let filter = redis.filter(filter).await?;
    if filter.is_empty() && !all {
        return Err(usage("choose the dead letters to purge with --id, --reason, --since or --all"));
    }
    if !yes && !confirmed(redis, &filter).await? {
        return print(b"nothing was purged\n");
    }
    let (bar, progress) = redis.bar("purged").await?;
    let purged = redis.letters.purge(&filter, progress).await.map_err(|error| redis.failed(&error))?;
    bar.finish_and_clear();
    print(format!("purged {} dead letters\n", HumanCount(purged)).as_bytes())?;
    if purged == 0 && !all {
        return Err(nothing_matches());
    }
    Ok(())
}

fn nothing_matches() -> Failure {
    anyhow!("no dead letter matches; `host dead list` lists all dead letters").into()
}

/// Asks the user at the terminal for confirmation.
async fn confirmed(redis: &mut Redis, filter: &Filter) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(usage(
            "cannot ask for confirmation, because standard input is not a terminal; --yes purges without asking",
        ));
    }
    let count = redis.letters.count(filter).await.map_err(|error| redis.failed(&error))?;
    let mut stderr = io::stderr().lock();
    write!(stderr, "delete {} dead letters permanently? [y/N] ", HumanCount(count))?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
