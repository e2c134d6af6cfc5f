//! One measurement, and the code that the parts share: a fresh Redis, the floor or hosts as separate processes, a burst
//! from another process, and a check of the books afterwards.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use host::redis::embedded::Embedded;
use redis::{Connection, FromRedisValue, RedisResult, cmd};

use crate::ledger;
use crate::load::{self, Load};
use crate::machine::{CpuTime, memory_mib, own_memory_mb};
use crate::progress_bar;

/// The binary.
pub const HOST: &str = env!("CARGO_BIN_EXE_host");

/// Longest wait for a start, and for progress.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

/// Time between two looks; each look costs Redis a few microseconds.
pub const POLL: Duration = Duration::from_millis(5);

/// Number of the first message of a warm-up, beyond all counted numbers.
const WARM_UP_FIRST: u64 = 1 << 40;

/// A subject of a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Bare Redis commands.
    Floor,
    /// A bare subscriber, which only appends.
    Bare,
    /// The release binary.
    Host {
        /// Number of consumers.
        consumers: u32,
    },
    /// Several hosts.
    Hosts {
        /// Number of hosts.
        hosts: u32,
        /// Consumers of each host.
        consumers: u32,
    },
    /// The binary with the plugin's function compiled into it.
    Native {
        /// Number of consumers.
        consumers: u32,
    },
}

impl Subject {
    /// Number of subscribing processes.
    fn processes(&self) -> u32 {
        if let Subject::Hosts { hosts, .. } = self { *hosts } else { 1 }
    }

    /// Consumers of all hosts together.
    fn consumers(&self) -> u32 {
        match self {
            Subject::Floor | Subject::Bare => 0,
            Subject::Host { consumers } | Subject::Native { consumers } => *consumers,
            Subject::Hosts { hosts, consumers } => hosts * consumers,
        }
    }

    fn is_host(&self) -> bool {
        self.consumers() > 0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: &u32| if *count == 1 { "" } else { "s" };
        match self {
            Subject::Floor => f.write_str("floor"),
            Subject::Bare => f.write_str("bare subscriber"),
            Subject::Host { consumers } => write!(f, "host, {consumers} consumer{}", plural(consumers)),
            Subject::Hosts { hosts, consumers } => {
                write!(f, "{hosts} host{}, {consumers} consumer{} each", plural(hosts), plural(consumers))
            }
            Subject::Native { consumers } => write!(f, "native, {consumers} consumer{}", plural(consumers)),
        }
    }
}

/// A subject under a load.
#[derive(Clone, Debug)]
pub struct Arm {
    /// Name in the table.
    pub name: String,
    /// The subject.
    pub subject: Subject,
    /// The published load.
    pub load: Load,
    /// The plugin of a host.
    pub plugin: PathBuf,
    /// Number of messages of the same kind that are processed before, so that the host knows their processing time.
    pub warm_up: u64,
    /// Number of entries in the output stream before.
    pub filled: u64,
    /// Cache folder with the compiled plugin. Without one, a host compiles at its start.
    pub cache: Option<PathBuf>,
}

impl Arm {
    /// A subject under a load, called by the subject's name.
    pub fn new(subject: Subject, load: Load, plugin: &Path) -> Arm {
        let name = subject.to_string();
        Arm { name, subject, load, plugin: plugin.to_owned(), warm_up: 0, filled: 0, cache: None }
    }

    /// The same arm with another name.
    pub fn called(self, name: impl Into<String>) -> Arm {
        Arm { name: name.into(), ..self }
    }

    /// The same arm with compiled plugins from this cache folder.
    pub fn with_cache(self, folder: &Path) -> Arm {
        Arm { cache: Some(folder.to_owned()), ..self }
    }

    /// The same arm again, with a name that says so: the difference between the two is noise.
    pub fn again(&self) -> Arm {
        self.clone().called(format!("{}, again", self.name))
    }
}

/// The figures of one burst. NaN means that a figure is not available.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Entries in the output stream over the time from the publisher's start to the last of them.
    pub messages_per_second: f64,
    /// CPU time of Redis a message, publishing and receiving included.
    pub redis_us: f64,
    /// CPU time of the floor or of all hosts a message.
    pub process_us: f64,
    /// Memory of the first process before the burst.
    pub ready_mib: f64,
    /// Memory of that process after the burst.
    pub loaded_mib: f64,
    /// Memory after the burst that would not exist without that process, in MB.
    pub own_mb: f64,
}

/// Ends a process when dropped.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures each arm `rounds` times, in turn.
pub fn take_turns(part: &str, rounds: u32, arms: &[Arm], mut each: impl FnMut(usize, &Measured)) -> Result<()> {
    let bar = progress_bar(u64::from(rounds) * arms.len() as u64)?;
    for round in 1..=rounds {
        for (index, arm) in arms.iter().enumerate() {
            bar.set_message(format!("{part}, round {round}, {}", arm.name));
            each(index, &measure(arm).with_context(|| format!("{part}: {}, round {round}", arm.name))?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Measures an arm with one burst.
pub fn measure(arm: &Arm) -> Result<Measured> {
    let Arm { subject, load, warm_up, filled, .. } = arm;
    let (server, mut redis) = redis_for(subject)?;
    fill_output(&mut redis, *filled)?;
    let mut processes = start(arm, &server)?;
    wait_until_ready(subject, &mut redis, &mut processes[0].0)?;
    let before = warm_up + filled;
    if *warm_up > 0 {
        let warming = Load { messages: *warm_up, first: WARM_UP_FIRST, ..*load };
        let mut publisher = Ended(warming.publish(&server, subject.processes())?);
        wait_for_results(&mut redis, &mut processes[0].0, before, Instant::now())?;
        load::published(&mut publisher.0)?.by_all()?;
    }

    let first = processes[0].0.id();
    let ready_mib = memory_mib(first, "VmRSS")?;
    let (redis_before, processes_before) = (redis_seconds(&mut redis)?, cpu_times(&processes));
    let start = Instant::now();
    let mut publisher = Ended(load.publish(&server, subject.processes())?);
    let elapsed = wait_for_results(&mut redis, &mut processes[0].0, before + load.messages, start)?;
    let (redis_after, processes_after) = (redis_seconds(&mut redis)?, cpu_times(&processes));
    load::published(&mut publisher.0)?.by_all()?;
    let measured = Measured {
        messages_per_second: load.messages as f64 / elapsed.as_secs_f64(),
        redis_us: (redis_after - redis_before) * 1e6 / load.messages as f64,
        process_us: cpu_between(processes_before, processes_after) * 1e6 / load.messages as f64,
        ready_mib,
        loaded_mib: memory_mib(first, "VmRSS")?,
        own_mb: own_memory_mb(first),
    };

    ledger::expect_each_once(&mut redis, load.messages, before)?;
    if subject.is_host() {
        ledger::expect_in_order(&mut redis, load.messages)?;
    }
    for process in &mut processes {
        let ended = process.0.try_wait()?;
        ensure!(ended.is_none(), "one of the processes has ended: {ended:?}");
    }
    Ok(measured)
}

/// A Redis with the recommended configuration.
pub fn redis_for(subject: &Subject) -> Result<(Embedded, Connection)> {
    let server = Embedded::start_on_loopback()?;
    let mut redis = redis::Client::open(server.url())?.get_connection()?;
    if subject.is_host() {
        ledger::expect_shipped_limit(&mut redis)?;
    } else {
        // The floor has no guarantees: its backlog may exceed Redis's default limit for a subscriber.
        ask::<()>(&mut redis, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"])?;
    }
    Ok((server, redis))
}

/// Adds this number of unrelated entries to the output stream.
fn fill_output(redis: &mut Connection, entries: u64) -> Result<()> {
    const BATCH: usize = 10_000;
    let numbers: Vec<u64> = (0..entries).collect();
    for batch in numbers.chunks(BATCH) {
        let mut pipeline = redis::pipe();
        for number in batch {
            pipeline.cmd("XADD").arg("messages:processed").arg("*");
            pipeline.arg("earlier").arg(number).arg("random_property").arg("0123456789abcdef").ignore();
        }
        pipeline.query::<()>(redis)?;
    }
    Ok(())
}

/// Publishes a burst of small messages, in a separate process.
pub fn publisher(server: &Embedded, messages: u64) -> Result<Child> {
    Load::small(messages).publish(server, 1)
}

/// A host that is ready to be started.
pub fn host(consumers: u32, server: &Embedded, plugin: &Path) -> Command {
    host_at(Path::new(HOST), consumers, server, plugin)
}

fn host_at(program: &Path, consumers: u32, server: &Embedded, plugin: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--plugin").arg(plugin);
    command.args(["--consumers", &consumers.to_string(), "--redis", &server.url()]);
    // The measurement begins after the start, and the benchmark must not use the user's cache.
    command.env_clear().env("HOST_LOG_LEVEL", "warn").env("HOST_NO_CACHE", "true");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Path of the binary with the plugin's function compiled in.
pub fn native_host() -> PathBuf {
    Path::new(HOST).with_file_name("host-native")
}

/// Starts the processes of an arm.
pub fn start(arm: &Arm, server: &Embedded) -> Result<Vec<Ended>> {
    let command = || -> Result<Command> {
        Ok(match &arm.subject {
            Subject::Floor | Subject::Bare => {
                let mut command = Command::new(std::env::current_exe()?);
                // One message more than will come, so that the process still exists when its CPU time is read.
                let messages = arm.load.messages + arm.warm_up + 1;
                command.args(["--floor", &server.port().to_string(), &messages.to_string()]);
                command.args((arm.subject == Subject::Bare).then_some("--bare"));
                command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
                command
            }
            Subject::Host { consumers } | Subject::Hosts { consumers, .. } => {
                let mut command = host(*consumers, server, &arm.plugin);
                if let Some(folder) = &arm.cache {
                    command.env_remove("HOST_NO_CACHE").env("XDG_CACHE_HOME", folder);
                }
                command
            }
            Subject::Native { consumers } => host_at(&native_host(), *consumers, server, &arm.plugin),
        })
    };
    (0..arm.subject.processes()).map(|_| Ok(Ended(command()?.spawn().context("cannot start it")?))).collect()
}

/// Waits for the subscription, and until the consumers of a host are listed.
pub fn wait_until_ready(subject: &Subject, redis: &mut Connection, process: &mut Child) -> Result<()> {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        let (_, subscribers): (String, u32) = ask(redis, &["PUBSUB", "NUMSUB", "messages:published"])?;
        let consumers: u32 = ask(redis, &["LLEN", "consumer:ids"])?;
        if subscribers == subject.processes() && consumers == subject.consumers() {
            return Ok(());
        }
        if let Some(status) = process.try_wait()? {
            bail!("it ended while it was starting: {status}");
        }
        ensure!(Instant::now() < deadline, "it was not ready within {WAIT_MAX:?}");
        sleep(POLL);
    }
}

/// Waits until every message has its entry, and returns the time since `start`.
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

/// Sends a command of plain words.
pub fn ask<T: FromRedisValue>(redis: &mut Connection, words: &[&str]) -> RedisResult<T> {
    let mut command = cmd(words[0]);
    words[1..].iter().for_each(|word| {
        command.arg(word);
    });
    command.query(redis)
}

/// CPU time of the server so far.
pub fn redis_seconds(redis: &mut Connection) -> Result<f64> {
    let info: String = ask(redis, &["INFO", "cpu"])?;
    let value = |name: &str| -> Result<f64> {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("Redis tells no {name}"))?.trim().parse()?)
    };
    Ok(value("used_cpu_user")? + value("used_cpu_sys")?)
}

/// CPU times of all processes so far.
pub fn cpu_times(processes: &[Ended]) -> Option<Vec<CpuTime>> {
    processes.iter().map(|process| CpuTime::of(process.0.id())).collect()
}

/// Seconds that the processes used between two moments; NaN if the system does not provide them.
pub fn cpu_between(before: Option<Vec<CpuTime>>, after: Option<Vec<CpuTime>>) -> f64 {
    let Some((before, after)) = before.zip(after) else { return f64::NAN };
    after.iter().zip(&before).map(|(after, before)| after.since(before)).sum()
}
