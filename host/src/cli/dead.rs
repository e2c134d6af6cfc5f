//! `host dead`: looks at dead letters, puts them back into the inbox, deletes them.
//! It knows what a person wants to see; how dead letters lie in Redis is the business of `redis::store::dead`.

mod filter;
mod table;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use self::filter::{Filter, FilterArgs};
use super::{Exit, Failure, Flags, load, print};
use crate::redis::RedisError;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::embedded::Embedded;
use crate::redis::store::dead::{self, Letter, Order, Reader, Replayed};
use crate::redis::store::keys::Keys;

/// Arguments of `host dead`.
#[derive(Args, Debug)]
#[command(long_about = "\
Look at dead letters, put them back into the inbox, or delete them.

Redis, its login and the keys are found as a host finds them: flags before `dead`, environment and configuration file \
count. No plugin is needed, and no host has to run.")]
pub(super) struct DeadArgs {
    /// Redis to look at [default: as for a host, redis://127.0.0.1:6379]
    #[arg(long, value_name = "URL", global = true)]
    redis: Option<String>,

    /// Output stream whose dead letters are meant [default: as for a host, messages:processed]
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
        /// Dead letters at most
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Print each as a JSON object with its payload, one a line
        #[arg(long)]
        json: bool,
    },
    /// Show one dead letter whole
    Show {
        /// Id of the entry, or of the message
        id: String,
        /// Print it as a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Put dead letters back into the inbox, to be tried from the beginning
    ///
    /// A message whose id was published again and processed meanwhile is dropped as a duplicate, within the dedup
    /// window. What never was a message, because it has no id, stays where it is, and the exit code is 1.
    Replay {
        #[command(flatten)]
        filter: FilterArgs,
        /// All of them
        #[arg(long, conflicts_with_all = ["ids", "reasons", "since"])]
        all: bool,
    },
    /// Delete dead letters for good
    Purge {
        #[command(flatten)]
        filter: FilterArgs,
        /// All of them
        #[arg(long, conflicts_with_all = ["ids", "reasons", "since"])]
        all: bool,
        /// Do not ask; needed where there is nobody to ask
        #[arg(long)]
        yes: bool,
    },
}

/// A connection and the names that belong to it.
struct Redis {
    connection: LibraryConnection,
    keys: Keys,
    address: String,
}

/// Runs `host dead`.
pub(super) fn execute(before: Flags, args: DeadArgs) -> Result<(), Failure> {
    let mut given = before.overlaid_with(Flags::default());
    let own = [("redis", args.redis), ("output-key", args.output_key)];
    given.flags.extend(own.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let mut config = load(&given)?.config;
    Embedded::find_if_named(&mut config.redis)?;
    let connector =
        Connector::new(&config.redis).map_err(|error| Failure { exit: Exit::Usage, error: error.into() })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let address = connector.address().to_string();
        let connection = connector.connect().await.map_err(|error| failed(&address, &error))?;
        let mut redis = Redis { connection, keys: Arc::new(config.keys), address };
        match args.command {
            Command::List { filter, limit, json } => list(&mut redis, filter, limit, json).await,
            Command::Show { id, json } => show(&mut redis, &id, json).await,
            Command::Replay { filter, all } => replay(&mut redis, filter, all).await,
            Command::Purge { filter, all, yes } => purge(&mut redis, filter, all, yes).await,
        }
    })
}

fn usage(message: &'static str) -> Failure {
    Failure { exit: Exit::Usage, error: anyhow!(message) }
}

fn failed(address: &str, error: &RedisError) -> Failure {
    let error =
        anyhow!("cannot work on the dead letters in Redis at {address}: {error}; is it running, and is --redis right?");
    Failure { exit: Exit::Redis, error }
}

impl Redis {
    fn failed(&self, error: &RedisError) -> Failure {
        failed(&self.address, error)
    }

    async fn reader(&mut self, filter: &Filter, order: Order) -> Result<Reader, Failure> {
        let reader = Reader::new(&mut self.connection, &self.keys, filter.since(), order).await;
        reader.map_err(|error| self.failed(&error))
    }

    async fn next(&mut self, reader: &mut Reader) -> Result<Vec<Letter>, Failure> {
        let page = reader.next(&mut self.connection).await;
        page.map_err(|error| self.failed(&error))
    }

    async fn filter(&mut self, args: FilterArgs) -> Result<Filter, Failure> {
        // Entries are numbered by the server's clock.
        let now = dead::server_time(&mut self.connection).await.map_err(|error| self.failed(&error))?;
        Ok(args.filter(now))
    }

    /// A bar over all dead letters. It shows itself on a terminal only.
    async fn bar(&mut self) -> Result<ProgressBar, Failure> {
        let count = dead::count(&mut self.connection, &self.keys).await.map_err(|error| self.failed(&error))?;
        let bar = ProgressBar::new(count);
        let template = "{wide_bar} {human_pos} of {human_len} dead letters, {msg}, {eta} left";
        Ok(match ProgressStyle::with_template(template) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }
}

async fn list(redis: &mut Redis, filter: FilterArgs, limit: u64, json: bool) -> Result<(), Failure> {
    let filter = redis.filter(filter).await?;
    let mut reader = redis.reader(&filter, Order::Newest).await?;
    let (mut listed, mut more) = (Vec::new(), false);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    while !more {
        let page = redis.next(&mut reader).await?;
        if page.is_empty() {
            break;
        }
        for letter in page.into_iter().filter(|letter| filter.matches(letter)) {
            if listed.len() == limit {
                more = true;
                break;
            }
            if json {
                // Payloads can be long; each goes out before the next page comes in.
                print(table::json(&letter).as_bytes())?;
            }
            listed.push(table::Row::of(&letter));
        }
    }
    if !json {
        print(table::table(&listed).as_bytes())?;
    }
    if more {
        eprintln!("these are the newest {}; --limit N shows more", HumanCount(limit as u64));
    } else if listed.is_empty() {
        eprintln!("no dead letter {}", if filter.is_empty() { "is there" } else { "matches" });
    }
    Ok(())
}

async fn show(redis: &mut Redis, id: &str, json: bool) -> Result<(), Failure> {
    let filter = Filter::of_id(id);
    let mut reader = redis.reader(&filter, Order::Newest).await?;
    let mut found = false;
    loop {
        let page = redis.next(&mut reader).await?;
        if page.is_empty() {
            break;
        }
        for letter in page.iter().filter(|letter| filter.matches(letter)) {
            match json {
                true => print(table::json(letter).as_bytes())?,
                false => print(&table::whole(letter))?,
            }
            found = true;
        }
    }
    if found {
        return Ok(());
    }
    Err(anyhow!(
        "there is no dead letter {id:?}, neither as an entry nor as a message; `host dead list` shows what there is"
    )
    .into())
}

async fn replay(redis: &mut Redis, filter: FilterArgs, all: bool) -> Result<(), Failure> {
    let filter = redis.filter(filter).await?;
    if filter.is_empty() && !all {
        return Err(usage("say which dead letters to replay: --id, --reason, --since, or --all"));
    }
    let mut total = Replayed::default();
    work_through(redis, &filter, "replayed", async |redis, ids| {
        let done = dead::replay(&mut redis.connection, &redis.keys, ids).await;
        let done = done.map_err(|error| redis.failed(&error))?;
        total.replayed += done.replayed;
        total.gone += done.gone;
        total.unfit += done.unfit;
        Ok(done.replayed)
    })
    .await?;
    println!("replayed {} dead letters", HumanCount(total.replayed));
    if total.gone > 0 {
        eprintln!("{} were gone before they could be replayed: somebody else was quicker", HumanCount(total.gone));
    }
    if total.unfit > 0 {
        let count = HumanCount(total.unfit);
        return Err(anyhow!(
            "{count} cannot be replayed: they have no message id; publish them again as messages, or purge them"
        )
        .into());
    }
    if total == Replayed::default() && !all {
        return Err(anyhow!("no dead letter matches; `host dead list` shows what there is").into());
    }
    Ok(())
}

async fn purge(redis: &mut Redis, filter: FilterArgs, all: bool, yes: bool) -> Result<(), Failure> {
    let filter = redis.filter(filter).await?;
    if filter.is_empty() && !all {
        return Err(usage("say which dead letters to purge: --id, --reason, --since, or --all"));
    }
    if !yes && !confirmed(redis, &filter).await? {
        println!("nothing was purged");
        return Ok(());
    }
    let purged = work_through(redis, &filter, "purged", async |redis, ids| {
        dead::purge(&mut redis.connection, &redis.keys, ids).await.map_err(|error| redis.failed(&error))
    })
    .await?;
    println!("purged {} dead letters", HumanCount(purged));
    if purged == 0 && !all {
        return Err(anyhow!("no dead letter matches; `host dead list` shows what there is").into());
    }
    Ok(())
}

/// Does something with all dead letters that the filter matches, a page at a time, and shows how far it is. `act` returns
/// with how many it was done; so does this.
async fn work_through(
    redis: &mut Redis,
    filter: &Filter,
    done_word: &str,
    mut act: impl AsyncFnMut(&mut Redis, &[&str]) -> Result<u64, Failure>,
) -> Result<u64, Failure> {
    let bar = redis.bar().await?;
    let mut reader = redis.reader(filter, Order::Oldest).await?;
    let mut done = 0;
    loop {
        let page = redis.next(&mut reader).await?;
        if page.is_empty() {
            break;
        }
        let ids: Vec<&str> =
            page.iter().filter(|letter| filter.matches(letter)).map(|letter| &*letter.entry_id).collect();
        if !ids.is_empty() {
            done += act(redis, &ids).await?;
        }
        bar.inc(page.len() as u64);
        bar.set_message(format!("{} {done_word}", HumanCount(done)));
    }
    bar.finish_and_clear();
    Ok(done)
}

/// Asks whoever sits at the terminal.
async fn confirmed(redis: &mut Redis, filter: &Filter) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(usage("there is nobody to ask; --yes purges without a question"));
    }
    let mut reader = redis.reader(filter, Order::Oldest).await?;
    let mut count = 0_usize;
    loop {
        let page = redis.next(&mut reader).await?;
        if page.is_empty() {
            break;
        }
        count += page.iter().filter(|letter| filter.matches(letter)).count();
    }
    eprint!("delete {} dead letters for good? [y/N] ", HumanCount(count as u64));
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
