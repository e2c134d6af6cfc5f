//! The real binary as a process: start, signals, output, end.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::{BOUND, Redis, puppet, repository, wait_for};

/// Signals that tests send.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// A polite request to stop.
    Terminate,
    /// Look at the plugin and the configuration again.
    Hangup,
    /// Death without warning.
    Kill,
    /// A pause: like a virtual machine that is not scheduled.
    Stop,
    /// The end of a pause.
    Continue,
}

impl Signal {
    /// Sends the signal to a process that was started here and is not reaped yet.
    pub fn send(self, process: u32) {
        let name = match self {
            Signal::Interrupt => "INT",
            Signal::Terminate => "TERM",
            Signal::Hangup => "HUP",
            Signal::Kill => "KILL",
            Signal::Stop => "STOP",
            Signal::Continue => "CONT",
        };
        // The shell's own `kill` is on every system, and needs no unsafe code.
        let line = format!("kill -{name} {process}");
        let status = Command::new("sh").arg("-c").arg(&line).status().expect("run a shell");
        assert!(status.success(), "`{line}` failed");
    }
}

/// The binary with its arguments, before it is started.
pub struct Launch {
    command: Command,
    /// Names and values; a name that is given again replaces the value.
    options: Vec<(String, OsString)>,
}

/// A started host; killed on drop, and its log is shown if the test failed.
pub struct Host {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

/// A thread of a host, as the system sees it.
#[derive(Debug)]
pub struct Thread {
    pub name: String,
    /// The higher, the more it gives way to other threads; 0 is ordinary.
    pub niceness: i32,
    /// Whether it has computed for as long as the system counts: 10 ms.
    pub has_computed: bool,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// What a process has written so far on one stream.
struct Lines {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// A pipe without room for another byte.
pub fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let flags = rustix::fs::fcntl_getfl(&writer).expect("flags of a pipe");
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).expect("set flags of a pipe");
    while rustix::io::write(&writer, &[b'x'; 4096]).is_ok() {}
    while rustix::io::write(&writer, b"x").is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).expect("set flags of a pipe");
    (reader, writer)
}

/// The threads of a process, by its folder of threads. A thread may end between two looks.
fn threads_in(folder: std::fs::ReadDir) -> Vec<Thread> {
    let files = folder.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
    files.map(|stat| Thread::of(&stat)).collect()
}

impl Launch {
    /// The binary without any argument, and without settings from the environment of the tests.
    pub fn bare() -> Launch {
        Launch::command(Command::new(env!("CARGO_BIN_EXE_host")))
    }

    /// Another build of the binary.
    pub fn program(program: &Path) -> Launch {
        Launch::command(Command::new(program))
    }

    /// One of the other commands, such as `publish`.
    pub fn subcommand(name: &str) -> Launch {
        let mut launch = Launch::bare();
        launch.command.arg(name);
        launch
    }

    /// Further words, before all options.
    pub fn words(mut self, words: &[&str]) -> Launch {
        self.command.args(words);
        self
    }

    /// A program that may use one processor only, with its arguments.
    pub fn on_one_processor(program: &str) -> Launch {
        let status = std::fs::read_to_string("/proc/self/status").expect("read what processors there are");
        let processors = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list");
        let first = processors.trim().split(['-', ',']).next().expect("a processor");
        Launch::program(Path::new("taskset")).words(&["-c", first, program])
    }

    /// A line for the shell.
    pub fn shell(line: &str) -> Launch {
        let mut command = Command::new("sh");
        command.arg("-c").arg(line);
        Launch::command(command)
    }

    /// A program in Python, which every machine that builds the host has.
    pub fn python(program: &str) -> Launch {
        let mut command = Command::new("python3");
        command.arg("-c").arg(program);
        Launch::command(command)
    }

    fn command(mut command: Command) -> Launch {
        for (name, _) in env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("HOST_") || name_text == "REDIS_URL" {
                command.env_remove(&name);
            }
        }
        // Compiled plugins are shared by the tests, and kept apart from the user's.
        command.env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
        command.current_dir(repository()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Launch { command, options: Vec::new() }
    }

    /// An option with its value, instead of any value that it has so far.
    pub fn arg(mut self, name: &str, value: impl AsRef<OsStr>) -> Launch {
        self.options.retain(|(given, _)| given != name);
        self.options.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// A flag without a value.
    pub fn switch(mut self, name: &str) -> Launch {
        self.command.arg(name);
        self
    }

    /// Starts it in this folder.
    pub fn folder(mut self, folder: &Path) -> Launch {
        self.command.current_dir(folder);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Launch {
        self.command.env(name, value);
        self
    }

    /// Its standard output goes there, and the test does not see it.
    pub fn stdout(mut self, stream: impl Into<Stdio>) -> Launch {
        self.command.stdout(stream);
        self
    }

    /// Its standard error goes there, and the test does not see it.
    pub fn stderr(mut self, stream: impl Into<Stdio>) -> Launch {
        self.command.stderr(stream);
        self
    }

    pub fn consumers(self, count: usize) -> Launch {
        self.arg("--consumers", count.to_string())
    }

    /// Starts the process.
    pub fn start(mut self) -> Host {
        for (name, value) in &self.options {
            self.command.arg(name).arg(value);
        }
        let mut child = self.command.spawn().expect("start the binary");
        // The command holds the test's end of a stream that goes elsewhere.
        drop(self.command);
        let stdout = child.stdout.take().map_or_else(|| Lines::read(io::empty()), Lines::read);
        let stderr = child.stderr.take().map_or_else(|| Lines::read(io::empty()), Lines::read);
        Host { child, stdout, stderr }
    }

    /// Runs the process to its end, which must come without help.
    pub fn run(self) -> Ended {
        self.start().ended()
    }
}

impl Host {
    /// A host on this Redis with the puppet as plugin, to be changed by further options.
    pub fn on(redis: &Redis) -> Launch {
        Launch::bare().arg("--redis", redis.url()).arg("--plugin", puppet())
    }

    /// Starts a host with so many consumers and waits until it receives and is registered.
    pub fn ready(redis: &Redis, consumers: usize) -> Host {
        Host::on(redis).ready(redis, consumers)
    }

    pub fn signal(&self, signal: Signal) {
        signal.send(self.process());
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("look at the host")
    }

    /// Kills it without warning and waits for its end.
    pub fn kill(mut self) {
        self.signal(Signal::Kill);
        self.child.wait().expect("wait for the host");
    }

    /// Stops the host in order, requires the exit code 0 and returns its output.
    pub fn stop(self) -> Ended {
        self.signal(Signal::Terminate);
        let ended = self.ended();
        assert_eq!(ended.code, Some(0), "a clean stop ends with 0: {}", ended.stderr);
        ended
    }

    /// Waits for its end.
    pub fn ended(mut self) -> Ended {
        let child = &mut self.child;
        let stderr = &self.stderr;
        let status = wait_for("the end of the host", BOUND, || {
            child.try_wait().expect("look at the host").ok_or_else(|| format!("it runs; its log:\n{}", stderr.text()))
        });
        Ended { code: status.code(), stdout: self.stdout.rest(), stderr: self.stderr.rest() }
    }

    /// Memory of its process that is in RAM now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// The most memory that its process has had in RAM, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    fn memory_bytes(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("a line {name}"));
        let kib = line.trim().strip_suffix(" kB").expect("a number of kB");
        kib.parse::<u64>().expect("a number") * 1024
    }

    /// The threads of its process that live now.
    pub fn threads(&self) -> Vec<Thread> {
        let path = format!("/proc/{}/task", self.child.id());
        threads_in(std::fs::read_dir(&path).unwrap_or_else(|error| panic!("read {path}: {error}")))
    }

    /// Processes that it has started and that are there.
    pub fn children(&self) -> Vec<u32> {
        let parent = |id: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
            let (_, rest) = stat.rsplit_once(')')?;
            rest.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        let entries = std::fs::read_dir("/proc").expect("read /proc");
        let all = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter(|id| parent(*id) == Some(self.process())).collect()
    }

    /// The process that compiles a plugin for it, once there is one.
    pub fn compiler(&self) -> u32 {
        wait_for("a process that compiles", BOUND, || match self.children()[..] {
            [child] => Ok(child),
            ref others => Err(format!("{others:?}; log:\n{}", self.log())),
        })
    }

    /// The threads of its children that live now.
    pub fn threads_of_children(&self) -> Vec<Thread> {
        let folders =
            self.children().into_iter().filter_map(|child| std::fs::read_dir(format!("/proc/{child}/task")).ok());
        folders.flat_map(threads_in).collect()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Waits until its log has this text.
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), BOUND, || {
            let log = self.log();
            if log.contains(text) { Ok(()) } else { Err(log) }
        });
    }

    /// The report lines so far, of a host with `--log-format json`.
    pub fn reports(&self) -> Vec<Value> {
        let text = self.stdout.text();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        complete.lines().map(parse).collect()
    }

    /// Its standard output so far.
    pub fn written(&self) -> String {
        self.stdout.text()
    }

    /// Waits for a report line that fulfils the condition.
    pub fn wait_for_report(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("a report with {what}"), BOUND, || {
            let mut reports = self.reports();
            match reports.iter().position(&is_it) {
                Some(position) => Ok(reports.swap_remove(position)),
                None => Err(format!("{:?}", reports.last())),
            }
        })
    }
}

impl Launch {
    /// Starts it with so many consumers and waits until it receives and is registered.
    pub fn ready(self, redis: &Redis, consumers: usize) -> Host {
        self.consumers(consumers).ready_as_configured(redis, consumers)
    }

    /// The same for a host that finds the number of consumers in its configuration.
    pub fn ready_as_configured(self, redis: &Redis, consumers: usize) -> Host {
        let (ids, subscribers) = (redis.consumer_ids(), redis.subscribers());
        let mut host = self.start();
        wait_for("a host that receives and is registered", BOUND, || {
            if let Some(status) = host.status() {
                panic!("the host ended with {status}:\n{}", host.stderr.rest());
            }
            let (now, subscribers_now) = (redis.consumer_ids(), redis.subscribers());
            let new = now.iter().filter(|id| !ids.contains(id)).count();
            if new == consumers && subscribers_now > subscribers {
                return Ok(());
            }
            Err(format!("{new} new consumers, {subscribers_now} subscribers, log:\n{}", host.stderr.text()))
        });
        host
    }
}

impl Thread {
    /// Reads a file `stat`: the number, the name in parentheses, then fields between blanks.
    fn of(stat: &str) -> Thread {
        let (_, rest) = stat.split_once('(').expect("a name");
        let (name, rest) = rest.rsplit_once(')').expect("a name");
        let fields: Vec<&str> = rest.split_whitespace().collect();
        // The first field here is the third of the file. Times are those of the program and of the system for it.
        let [user, system, niceness] = [14, 15, 19].map(|field| fields[field - 3].parse::<i32>().expect("a number"));
        Thread { name: name.to_owned(), niceness, has_computed: user + system > 0 }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SIGKILL also ends a paused process.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.stderr.rest();
            let start = log.char_indices().rev().nth(20_000).map_or(0, |(start, _)| start);
            eprintln!("--- log of host {} ---\n{}", self.child.id(), &log[start..]);
        }
    }
}

impl Lines {
    fn read(stream: impl Read + Send + 'static) -> Lines {
        let text = Arc::new(Mutex::new(String::new()));
        let all = text.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                let mut all = all.lock().expect("nobody panics with the lock");
                all.push_str(&line);
                all.push('\n');
            }
        });
        Lines { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        self.text.lock().expect("nobody panics with the lock").clone()
    }

    /// Everything, after the process has ended.
    fn rest(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}
