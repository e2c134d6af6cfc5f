//! One measurement of the path, and what the other parts share with it: a fresh Redis, the floor or a host as a process of its own, and a burst from another process.

use std::fmt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use host::redis::embedded::Embedded;
use redis::{Connection, FromRedisValue, RedisResult, cmd};

/// The binary.
pub const HOST: &str = env!("CARGO_BIN_EXE_host");

/// Longest wait for a start, and for progress.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Time between two looks; each costs Redis a few microseconds.
pub const POLL: Duration = Duration::from_millis(5);

/// Kernel ticks a second, in which Linux counts the CPU time of a process.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is measured.
#[derive(Clone, Debug)]
pub enum Subject {
    /// Bare Redis commands.
    Floor,
    /// The release binary.
    Host {
        /// Its consumers.
        consumers: u32,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Floor => f.write_str("floor"),
            Subject::Host { consumers: 1 } => f.write_str("host, 1 consumer"),
            Subject::Host { consumers } => write!(f, "host, {consumers} consumers"),
        }
    }
}

/// What one burst took.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Entries in the output stream over the time from the publisher's start to the last of them.
    pub messages_per_second: f64,
    /// CPU time of Redis a message, publishing and receiving included.
    pub redis_us: f64,
    /// CPU time of the floor or host a message; `None` where the system does not tell.
    pub process_us: Option<f64>,
}

/// Ends a process when dropped.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures `subject` with one burst of `messages`.
pub fn measure(subject: &Subject, messages: u64, plugin: &Path) -> Result<Measured> {
    let server = Embedded::start()?;
    let mut redis = redis::Client::open(server.url())?.get_connection()?;
    if matches!(subject, Subject::Floor) {
        // The floor promises nothing: it may fall behind by more than Redis allows a subscriber by default.
        ask::<()>(&mut redis, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"])?;
    }
    let mut process = Ended(start(subject, &server, messages, plugin).context("cannot start it")?);
    wait_until_ready(subject, &mut redis, &mut process.0)?;

    let (redis_before, process_before) = (redis_seconds(&mut redis)?, process_seconds(process.0.id()));
    let start = Instant::now();
    let mut publisher = Ended(publisher(&server, messages)?);
    let elapsed = wait_for_results(&mut redis, &mut process.0, messages, start)?;
    let (redis_after, process_after) = (redis_seconds(&mut redis)?, process_seconds(process.0.id()));
    ensure!(publisher.0.wait()?.success(), "the publisher failed");

    let per_message = |seconds: f64| seconds * 1e6 / messages as f64;
    Ok(Measured {
        messages_per_second: messages as f64 / elapsed.as_secs_f64(),
        redis_us: per_message(redis_after - redis_before),
        process_us: process_before.zip(process_after).map(|(before, after)| per_message(after - before)),
    })
}

/// Publishes a burst, in a process of its own.
pub fn publisher(server: &Embedded, messages: u64) -> Result<Child> {
    let mut command = Command::new(HOST);
    command.args(["publish", "--redis", &server.url(), "--count", &messages.to_string()]);
    command.env_clear().stdout(Stdio::null()).spawn().context("cannot start the publisher")
}

/// A host that is ready to be started.
pub fn host(consumers: u32, server: &Embedded, plugin: &Path) -> Command {
    let mut command = Command::new(HOST);
    command.arg("--plugin").arg(plugin);
    command.args(["--consumers", &consumers.to_string(), "--redis", &server.url()]);
    // What is measured here begins after the start, and the user's cache is none of our business.
    command.env_clear().env("HOST_LOG_LEVEL", "warn").env("HOST_NO_CACHE", "true");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn start(subject: &Subject, server: &Embedded, messages: u64, plugin: &Path) -> Result<Child> {
    let mut command = match subject {
        Subject::Floor => {
            let mut command = Command::new(std::env::current_exe()?);
            // One more than will come, so that it is still there when its CPU time is read.
            command.args(["--floor", &server.port().to_string(), &(messages + 1).to_string()]);
            command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
            command
        }
        Subject::Host { consumers } => host(*consumers, server, plugin),
    };
    Ok(command.spawn()?)
}

/// Waits for the subscription, and for the consumers of a host.
pub fn wait_until_ready(subject: &Subject, redis: &mut Connection, process: &mut Child) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    let wanted = match subject {
        Subject::Floor => 0,
        Subject::Host { consumers } => u64::from(*consumers),
    };
    loop {
        let (_, subscribers): (String, u64) = ask(redis, &["PUBSUB", "NUMSUB", "messages:published"])?;
        let consumers: u64 = ask(redis, &["LLEN", "consumer:ids"])?;
        if subscribers == 1 && consumers == wanted {
            return Ok(());
        }
        if let Some(status) = process.try_wait()? {
            bail!("it ended while it was starting: {status}");
        }
        ensure!(Instant::now() < deadline, "it was not ready within {WAIT_MAX:?}");
        sleep(POLL);
    }
}

/// Waits until every message has its entry, and says how long that was after `start`.
pub fn wait_for_results(
    redis: &mut Connection,
    process: &mut Child,
    messages: u64,
    start: Instant,
) -> Result<Duration> {
    let mut last = (0, Instant::now());
    loop {
        let results: u64 = ask(redis, &["XLEN", "messages:processed"])?;
        if results >= messages {
            ensure!(results == messages, "{results} results for {messages} messages");
            return Ok(start.elapsed());
        }
        if results > last.0 {
            last = (results, Instant::now());
        }
        if let Some(status) = process.try_wait()? {
            bail!("it ended after {results} of {messages} messages: {status}");
        }
        ensure!(
            last.1.elapsed() < WAIT_MAX,
            "only {results} of {messages} messages were processed; then nothing moved"
        );
        sleep(POLL);
    }
}

fn ask<T: FromRedisValue>(redis: &mut Connection, words: &[&str]) -> RedisResult<T> {
    let mut command = cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command.query(redis)
}

/// CPU time of the server so far.
fn redis_seconds(redis: &mut Connection) -> Result<f64> {
    let info: String = ask(redis, &["INFO", "cpu"])?;
    let value = |name: &str| -> Result<f64> {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("Redis tells no {name}"))?.trim().parse()?)
    };
    Ok(value("used_cpu_user")? + value("used_cpu_sys")?)
}

/// CPU time of a process so far, from `/proc`.
fn process_seconds(id: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything; the fields after it are fixed.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = |text: Option<&str>| text?.parse::<f64>().ok();
    Some((ticks(fields.next())? + ticks(fields.next())?) / TICKS_PER_SECOND)
}
