//! A host of the campaign: its process, its way to Redis, and what happened to both.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use serde_json::Value;

use crate::clock::{Clock, NEVER, Span, wait};
use crate::relay::{Relay, Way};
use crate::setup::Setup;
use crate::skew::{Library, Skew};
use crate::support::host::Launch;
use crate::support::{Host, Signal};

/// Longest wait for a stop: twice the drain time.
const STOP_MS_MAX: u32 = 20_000;

/// The plugin's file in the folder of the campaign.
pub const PLUGIN: &str = "plugin.wasm";

/// A host.
pub struct Member {
    pub name: String,
    pub relay: Relay,
    pub consumers: usize,
    /// Its clock, if that may be wrong.
    pub skew: Option<Skew>,
    clock: Clock,
    host: Mutex<Host>,
    process: u32,
    life: Mutex<Life>,
    /// A fault has it.
    taken: AtomicBool,
    out: PathBuf,
    err: PathBuf,
}

/// What happened to a host.
#[derive(Clone, Debug)]
pub struct Life {
    pub started: u32,
    /// Pauses of the process.
    pub stops: Vec<Span>,
    /// Faults on its way to Redis.
    pub troubles: Vec<Span>,
    pub end: Option<End>,
}

/// The end of a host.
#[derive(Clone, Copy, Debug)]
pub struct End {
    pub at: u32,
    /// It was asked to stop.
    pub asked: bool,
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
}

/// What a process takes.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    pub memory_kib: u64,
    pub files: usize,
    /// Without those that compile plugins: they start in steps, the slower the machine the more of them, and then stay.
    pub threads: usize,
}

impl Use {
    /// Of this process; `None` once it has ended.
    pub fn of(process: u32) -> Option<Use> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let fields: HashMap<&str, &str> = status.lines().filter_map(|line| line.split_once(':')).collect();
        let number = |name: &str| fields.get(name)?.trim().split(' ').next()?.parse().ok();
        let files = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count();
        let names = fs::read_dir(format!("/proc/{process}/task")).ok()?;
        // A thread may end between two looks.
        let names = names.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
        let threads = names.filter(|name| !name.starts_with("compiler-")).count();
        Some(Use { memory_kib: number("VmRSS")?, files, threads })
    }
}

/// Where a host's output goes.
pub enum Output {
    Files,
    /// Pipes that are full and that nobody reads.
    FullPipes,
}

impl Member {
    pub fn start(
        name: String,
        folder: &Path,
        clock: Clock,
        setup: &Setup,
        target: u16,
        output: &Output,
        skew: Option<(Skew, &Library)>,
    ) -> Member {
        let relay = Relay::start(clock, target);
        let path = |kind: &str| folder.join(format!("{name}.{kind}"));
        let (out, err) = (path("out"), path("err"));
        let create = |path: &Path| File::create(path).expect("create a log of a host");
        let mut launch =
            Launch::program(&setup.program).arg("--redis", relay.url()).arg("--plugin", folder.join(PLUGIN));
        launch = launch.consumers(setup.consumers).arg("--log-format", "json").arg("--report-interval", "500ms");
        launch = launch.arg("--dedup-window", format!("{}s", setup.dedup_window.as_secs()));
        launch = launch.arg("--max-attempts", "3").arg("--retry-delay", "50ms").arg("--max-plugin-time", "400ms");
        launch = match output {
            Output::Files => launch.stdout(create(&out)).stderr(create(&err)),
            Output::FullPipes => launch.stdout(full_pipe(&out)).stderr(full_pipe(&err)).arg("--log-level", "debug"),
        };
        if let Some((skew, library)) = &skew {
            launch = skew.given_to(launch, library);
        }
        let host = launch.start();
        let life = Life { started: clock.now(), stops: Vec::new(), troubles: Vec::new(), end: None };
        Member {
            name,
            relay,
            consumers: setup.consumers,
            skew: skew.map(|(skew, _)| skew),
            clock,
            process: host.process(),
            host: Mutex::new(host),
            life: Mutex::new(life),
            taken: AtomicBool::new(false),
            out,
            err,
        }
    }

    /// Keeps other faults away; false if one has it already.
    pub fn take(&self) -> bool {
        !self.taken.swap(true, Ordering::SeqCst)
    }

    pub fn give_back(&self) {
        self.taken.store(false, Ordering::SeqCst);
    }

    pub fn is_taken(&self) -> bool {
        self.taken.load(Ordering::SeqCst)
    }

    /// The process runs; an end that nobody asked for is written down.
    pub fn is_alive(&self) -> bool {
        let mut life = self.life_mut();
        if life.end.is_none()
            && let Some(status) = self.host().status()
        {
            life.end = Some(End { at: self.clock.now(), asked: false, code: status.code() });
        }
        life.end.is_none()
    }

    pub fn kill(&self) {
        if self.end_by(Signal::Kill, false) {
            let _ = self.ended(STOP_MS_MAX);
        }
    }

    /// Asks it to stop and waits for the end; `false` if it does not come.
    pub fn stop(&self) -> bool {
        if !self.end_by(Signal::Terminate, true) {
            return true;
        }
        let code = self.ended(STOP_MS_MAX);
        if code.is_none() {
            self.host().signal(Signal::Kill);
        }
        if let Some(end) = &mut self.life_mut().end {
            end.code = code.flatten();
        }
        code.is_some()
    }

    /// Writes down the end that comes now and sends the signal; `false` if the process has ended of its own accord.
    fn end_by(&self, signal: Signal, asked: bool) -> bool {
        // Nobody else looks for the end of the process meanwhile.
        let (mut life, mut host) = (self.life_mut(), self.host());
        let (at, status) = (self.clock.now(), host.status());
        let own_accord = status.map(|status| End { at, asked: false, code: status.code() });
        let lives = life.end.is_none() && own_accord.is_none();
        if lives {
            host.signal(signal);
        }
        life.end.get_or_insert(own_accord.unwrap_or(End { at, asked, code: None }));
        lives
    }

    fn ended(&self, ms_max: u32) -> Option<Option<i32>> {
        let until = self.clock.now() + ms_max;
        while self.clock.now() < until {
            if let Some(status) = self.host().status() {
                return Some(status.code());
            }
            wait(5);
        }
        None
    }

    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            self.host().signal(signal);
        }
    }

    /// Pauses the process for so long.
    pub fn pause(&self, ms: u32) {
        let from = self.clock.now();
        self.life_mut().stops.push((from, NEVER));
        self.signal(Signal::Stop);
        wait(ms);
        self.signal(Signal::Continue);
        if let Some(stop) = self.life_mut().stops.last_mut() {
            stop.1 = self.clock.now();
        }
    }

    /// Does something to its way to Redis, and writes down when.
    pub fn trouble(&self, act: impl FnOnce(&Relay)) {
        let from = self.clock.now();
        self.life_mut().troubles.push((from, NEVER));
        act(&self.relay);
        self.relay.set(Way::Pass);
        self.relay.refuse(false);
        if let Some(trouble) = self.life_mut().troubles.last_mut() {
            trouble.1 = self.clock.now();
        }
    }

    pub fn life(&self) -> Life {
        self.life_mut().clone()
    }

    /// Whether this id of a consumer, or this value of a lease, is of this host.
    pub fn owns(&self, id: &str) -> bool {
        id.split('/').next().is_some_and(|host| host.rsplit('-').nth(1) == Some(&self.process.to_string()))
    }

    /// The last report that is complete.
    pub fn report(&self) -> Option<Value> {
        let text = fs::read_to_string(&self.out).unwrap_or_default();
        text.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }

    /// The log lines, as far as they are JSON.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// What the process takes; `None` once it has ended.
    pub fn usage(&self) -> Option<Use> {
        Use::of(self.process)
    }

    fn host(&self) -> MutexGuard<'_, Host> {
        self.host.lock().expect("nobody panics with the lock")
    }

    fn life_mut(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("nobody panics with the lock")
    }
}

/// The writing end of a pipe that holds all it can; a file beside the logs says so.
fn full_pipe(path: &Path) -> std::io::PipeWriter {
    use std::io::Write as _;
    let (reader, mut writer) = std::io::pipe().expect("make a pipe");
    let _ = fs::write(path, "");
    // The system's pipes hold 64 KiB.
    writer.write_all(&vec![b'\n'; 64 << 10]).expect("fill a pipe");
    // Nobody reads, and the pipe stays open.
    std::mem::forget(reader);
    writer
}
