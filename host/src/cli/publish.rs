//! `host publish`: publishes messages at full speed or at an even rate.
//! This file shapes the load; `redis::client::publisher` sends the messages to Redis.

mod source;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio::time::{Instant, sleep_until};

pub(super) use self::source::{Generator, Source};
use super::{Exit, Failure, Flags, load, note, print_line, signals::shutdown};
use crate::config::{Config, PropertyPath};
use crate::redis::client::connector::Connector;
use crate::redis::client::publisher::{Publisher, Received};
use crate::redis::running;

/// Number of messages when no flag limits the number.
const COUNT_DEFAULT: u64 = 10_000;

/// Shortest message that has room for the padding property.
const PAYLOAD_BYTES_MIN: u32 = 66;

/// Longest message that can be asked for. It exceeds the default limit of a host, so that the limit can be tested.
const PAYLOAD_BYTES_MAX: u32 = 64 << 20;

/// Time between two updates of the progress bar.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Arguments of `host publish`.
#[derive(Args, Clone, Debug)]
#[command(long_about = "\
Publish generated messages, or the lines of a file, to try a host or to put a load on it.

A generated message is {\"message_id\":\"<a random UUID>\"}, with padding if --payload-bytes is given; the id is in the \
property that --id-property names. The settings for Redis, the channel and the property are those of a host: flags before \
`publish`, environment variables, configuration file. Ctrl-C ends the command with the summary.")]
pub(super) struct PublishArgs {
    /// Address of Redis; embedded is the private Redis of a running host [default: as for a host,
    /// redis://127.0.0.1:6379]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,

    /// Channel to publish on [default: as for a host, messages:published]
    #[arg(long, value_name = "TEXT")]
    channel: Option<String>,

    /// Stop after this number of messages [default: 10000; no limit with --duration, --rate or --file]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Stop after this time, such as 30s or 5m; with --rate, after rate times duration messages
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,

    /// Messages per second, evenly paced [default: as fast as Redis accepts them]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// Maximum number of messages in a pipeline
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,

    /// Length of each generated message, reached with a padding property
    #[arg(long, value_name = "BYTES", conflicts_with = "file",
          value_parser = clap::value_parser!(u32).range(i64::from(PAYLOAD_BYTES_MIN)..=i64::from(PAYLOAD_BYTES_MAX)))]
    payload_bytes: Option<u32>,

    /// Percentage of generated messages that repeat an earlier id
    #[arg(long, value_name = "PERCENT", default_value_t = 0, conflicts_with = "file",
          value_parser = clap::value_parser!(u8).range(0..=99))]
    duplicates: u8,

    /// Publish each line of this file, unchanged, instead of generated messages; - is standard input. A file whose first
    /// lines are no JSON objects is refused
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Publish the lines of the file whatever is in them
    #[arg(long, requires = "file")]
    raw: bool,
}

/// What has been published so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Published {
    /// Messages that Redis accepted, and the numbers of their subscribers.
    pub received: Received,
    /// Sent messages that repeat an earlier id.
    pub repeats: u64,
    /// Total length of the sent messages.
    pub bytes: u64,
    /// From the first message to the last reply.
    pub elapsed: Duration,
}

/// How much to publish, and how fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Maximum number of messages.
    pub count: Option<u64>,
    /// Maximum time.
    pub duration: Option<Duration>,
    /// Messages per second; as fast as possible if `None`.
    pub rate: Option<u32>,
    /// Maximum number of messages in a pipeline.
    pub batch: usize,
}

impl Load {
    /// Number of messages that will be published, if the number is known.
    fn total(&self) -> Option<u64> {
        let in_time = self.rate.zip(self.duration).map(|(rate, time)| due_after(time, rate));
        self.count.into_iter().chain(in_time).min()
    }
}

/// Publishes until the load is done or a signal arrives, and prints a summary.
pub(super) fn execute(before: Flags, args: &PublishArgs) -> Result<(), Failure> {
    let mut given = before.overlaid_with(Flags::default());
    let own = [("redis", &args.redis), ("channel", &args.channel)];
    given.flags.extend(own.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    let mut config = load(&given)?.config;
    running::find_if_named(&mut config.redis)?;
    let connector =
        Connector::new(&config.redis).map_err(|error| Failure { exit: Exit::Usage, error: error.into() })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(publish(args, &connector, &config));
    runtime.shutdown_background();
    result
}

async fn publish(args: &PublishArgs, connector: &Connector, config: &Config) -> Result<(), Failure> {
    let channel = &config.keys.channel;
    let mut source = match &args.file {
        Some(path) => Source::lines(path, args.raw)?,
        None => generator(args, &config.message.id_property)?.into(),
    };
    let publisher = Publisher::connect(connector, channel).await.map_err(|error| {
        let address = connector.address();
        let error = anyhow::anyhow!(
            "cannot publish to Redis at {address}: {error}; check that Redis runs and that --redis is right"
        );
        Failure { exit: Exit::Redis, error }
    })?;
    let unlimited = args.duration.is_some() || args.rate.is_some() || args.file.is_some();
    let load = Load {
        count: args.count.or((!unlimited).then_some(COUNT_DEFAULT)),
        duration: args.duration,
        rate: args.rate,
        batch: args.batch as usize,
    };

    let bar = progress_bar(load.total());
    let result = run(load, &mut source, publisher, shutdown()?, |so_far| {
        bar.set_position(so_far.received.messages);
        bar.set_message(format!("{} a second", HumanCount(per_second(so_far.received.messages, so_far.elapsed))));
    })
    .await;
    bar.finish_and_clear();
    report(&result?, channel)
}

fn generator(args: &PublishArgs, id_property: &PropertyPath) -> Result<Generator, Failure> {
    let generator = Generator::new(id_property, args.payload_bytes, args.duplicates);
    let (bytes, least) = (args.payload_bytes.unwrap_or(u32::MAX), generator.padded_bytes_min());
    if (bytes as usize) < least {
        let error = anyhow::anyhow!(
            "--payload-bytes is {bytes}; with the id in {} it must be at least {least}",
            id_property.as_str()
        );
        return Err(Failure { exit: Exit::Usage, error });
    }
    Ok(generator)
}

/// Publishes from `source` until the load is done, the source ends or `shutdown` is ready. Then waits for the replies
/// to all sent messages, so that the numbers are complete.
///
/// # Errors
/// When a source cannot be read, Redis refuses a message or the connection breaks.
pub(super) async fn run(
    load: Load,
    source: &mut Source,
    mut publisher: Publisher,
    shutdown: impl Future<Output = ()>,
    mut progress: impl FnMut(&Published),
) -> Result<Published> {
    let start = Instant::now();
    let count = load.total();
    // With a rate the number of messages is the limit: the time ends a moment before the last message is due.
    let end = load.duration.filter(|_| load.rate.is_none()).map(|duration| start + duration);
    let mut shutdown = pin!(shutdown);
    let mut published = Published::default();
    let mut shown = start;
    let mut sent = 0_u64;
    let mut batch = Vec::new();

    while count.is_none_or(|count| sent < count) {
        let next = async {
            let due = due_messages(start, load.rate, sent).await;
            let left = count.map_or(u64::MAX, |count| count - sent);
            let wanted = usize::try_from(due.min(left)).unwrap_or(usize::MAX).min(load.batch);
            source.next(&mut batch, wanted).await
        };
        let repeats = tokio::select! {
            biased;
            () = &mut shutdown => break,
            () = wait_until(end) => break,
            repeats = next => repeats?,
        };
        let Some(repeats) = repeats else { break };
        sent += u64::try_from(batch.len())?;
        published.repeats += repeats;
        published.bytes += batch.iter().map(|message| message.len() as u64).sum::<u64>();
        publisher.send(&batch).await.with_context(|| format!("publishing stopped after {sent} messages"))?;
        batch.clear();

        published.received = publisher.received();
        published.elapsed = start.elapsed();
        if shown.elapsed() >= PROGRESS_INTERVAL {
            shown = Instant::now();
            progress(&published);
        }
    }
    publisher.flush().await.with_context(|| format!("publishing stopped after {sent} messages"))?;
    published.received = publisher.received();
    published.elapsed = start.elapsed();
    Ok(published)
}

/// Waits until a message is due and returns the number of due messages. After a delay more than one message is due.
async fn due_messages(start: Instant, rate: Option<u32>, sent: u64) -> u64 {
    let Some(rate) = rate else { return u64::MAX };
    loop {
        let due = due_after(start.elapsed(), rate);
        if due > sent {
            return due - sent;
        }
        // The timer's resolution is 1 ms: above 1,000/s this sleeps once for all messages of a millisecond.
        sleep_until(start + Duration::from_secs_f64((sent + 1) as f64 / f64::from(rate))).await;
    }
}

/// Number of messages that are due by this time.
fn due_after(elapsed: Duration, rate: u32) -> u64 {
    u64::try_from(elapsed.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX)
}

async fn wait_until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// A progress bar if the number of messages is known, else a spinner. Both appear on a terminal only.
fn progress_bar(count: Option<u64>) -> ProgressBar {
    let (bar, template) = match count {
        Some(count) => (ProgressBar::new(count), "{wide_bar} {human_pos} of {human_len} messages, {msg}, {eta} left"),
        None => (ProgressBar::no_length(), "{spinner} {human_pos} messages, {msg}, {elapsed}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Prints the summary.
fn report(published: &Published, channel: &str) -> Result<(), Failure> {
    let Published { repeats, bytes, received, elapsed, .. } = published;
    let seconds = elapsed.as_secs_f64();
    let rate = per_second(received.messages, *elapsed);
    let megabytes = *bytes as f64 / 1e6;
    let mut lines = format!(
        "published {} messages ({megabytes:.1} MB) in {seconds:.2} s: {} a second\n",
        HumanCount(received.messages),
        HumanCount(rate)
    );
    if *repeats > 0 {
        lines += &format!(
            "{} messages repeat an earlier id: {} different ids\n",
            HumanCount(*repeats),
            HumanCount(received.messages.saturating_sub(*repeats))
        );
    }
    lines += &format!("received {} times, {}", HumanCount(received.sum), subscribers(received));
    if received.unheard > 0 {
        note(&format!(
            "warning: {} of {} messages are lost: channel {channel} had no subscriber at the time",
            HumanCount(received.unheard),
            HumanCount(received.messages),
        ));
    }
    print_line(&lines)
}

/// Number of subscribers of each message.
fn subscribers(received: &Received) -> String {
    match (received.min, received.max) {
        (1, 1) => "by 1 subscriber".into(),
        (min, max) if min == max => format!("by {max} subscribers each"),
        (min, max) => format!("by {min} to {max} subscribers"),
    }
}

fn per_second(messages: u64, elapsed: Duration) -> u64 {
    if elapsed.is_zero() {
        return 0;
    }
    u64::try_from(u128::from(messages) * 1_000_000_000 / elapsed.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_spread_evenly_over_each_second() {
        assert_eq!(due_after(Duration::ZERO, 5_000), 0);
        assert_eq!(due_after(Duration::from_micros(199), 5_000), 0);
        assert_eq!(due_after(Duration::from_micros(200), 5_000), 1);
        assert_eq!(due_after(Duration::from_millis(1), 500_000), 500);
        assert_eq!(due_after(Duration::from_secs(60), 7), 420);
        // A week at the highest rate does not overflow.
        assert_eq!(due_after(Duration::from_secs(604_800), u32::MAX), 604_800 * u64::from(u32::MAX));
    }

    #[test]
    fn subscribers_are_told_as_a_number_or_as_a_range() {
        let received = |min, max| subscribers(&Received { min, max, ..Received::default() });
        assert_eq!(received(1, 1), "by 1 subscriber");
        assert_eq!(received(3, 3), "by 3 subscribers each");
        assert_eq!(received(0, 2), "by 0 to 2 subscribers");
    }
}
