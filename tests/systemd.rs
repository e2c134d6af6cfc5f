//! The host under a service manager: a socket of the test takes the manager's place and hears what systemd would hear.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use serde_json::json;
use tempfile::TempDir;

use crate::support::guests::large;
use crate::support::host::Launch;
use crate::support::http::{Request, address};
use crate::support::{BOUND, Host, Publisher, Redis, Release, Signal, message, puppet, wait_for, wait_until};

/// Without a sign of life for this long, the manager takes a host for hung.
const WATCHDOG: Duration = Duration::from_secs(2);

const READY: &str = "READY=1";
const RELOADING: &str = "RELOADING=1";
const STOPPING: &str = "STOPPING=1";
const ALIVE: &str = "WATCHDOG=1";

/// A case that every version passes.
const CASE: &str = r#"{"name": "a case", "message": {"message_id": "case-1"}, "emit-subset": {"attempt": 1}}"#;

/// A service manager, as far as its socket goes.
struct Manager {
    address: SocketAddr,
    /// Value of NOTIFY_SOCKET.
    name: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    _folder: TempDir,
}

/// One datagram.
struct Heard {
    at: Instant,
    text: String,
}

impl Manager {
    /// A manager whose socket is a file.
    fn start() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        Manager::listen(folder, SocketAddr::from_pathname(&path).unwrap(), path.display().to_string())
    }

    /// A manager whose socket is in no folder.
    fn abstract_socket() -> Manager {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("host-test{}", folder.path().display());
        Manager::listen(folder, SocketAddr::from_abstract_name(&name).unwrap(), format!("@{name}"))
    }

    fn listen(folder: TempDir, address: SocketAddr, name: String) -> Manager {
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = heard.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = socket.recv(&mut buffer) {
                let text = String::from_utf8(buffer[..length].to_vec()).expect("the protocol is text");
                all.lock().unwrap().push(Heard { at: Instant::now(), text });
            }
        });
        Manager { address, name, heard, _folder: folder }
    }

    /// The environment that the manager gives to a service with this watchdog.
    fn watching(&self, launch: Launch, watchdog: Duration) -> Launch {
        launch.env("NOTIFY_SOCKET", &self.name).env("WATCHDOG_USEC", watchdog.as_micros().to_string())
    }

    /// Everything so far, a datagram a text.
    fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().map(|heard| heard.text.clone()).collect()
    }

    /// How many datagrams have this line.
    fn count(&self, line: &str) -> usize {
        self.heard().iter().filter(|text| text.lines().any(|each| each == line)).count()
    }

    fn wait_for(&self, line: &str, count: usize) {
        wait_for(&format!("{count} times {line}"), BOUND, || {
            if self.count(line) >= count { Ok(()) } else { Err(format!("{:?}", self.heard())) }
        });
    }

    /// Waits for more signs of life than there are now.
    fn wait_for_life(&self) {
        self.wait_for(ALIVE, self.count(ALIVE) + 5);
    }

    /// Waits until the manager would end the host.
    fn wait_for_silence(&self) {
        wait_for("no sign of life within the watchdog's time", BOUND, || {
            let heard = self.heard.lock().unwrap();
            let last = heard.iter().rev().find(|heard| heard.text.contains(ALIVE)).expect("there was life");
            if last.at.elapsed() > WATCHDOG { Ok(()) } else { Err(format!("alive {:?} ago", last.at.elapsed())) }
        });
    }

    /// The last status.
    fn status(&self) -> String {
        let heard = self.heard();
        let mut statuses = heard.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("STATUS="));
        statuses.next_back().unwrap_or_default().to_owned()
    }

    fn wait_for_status(&self, part: &str) {
        wait_for(&format!("a status with {part:?}"), BOUND, || {
            let status = self.status();
            if status.contains(part) { Ok(()) } else { Err(status) }
        });
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // An empty datagram ends the thread.
        let ended = UnixDatagram::unbound().and_then(|socket| {
            socket.connect_addr(&self.address)?;
            socket.send(&[])
        });
        ended.expect("the manager listens until its end");
    }
}

/// A file whose reader waits until the test writes.
struct Pipe(PathBuf);

impl Pipe {
    fn new(path: PathBuf) -> Pipe {
        let made = Command::new("mkfifo").arg(&path).status().expect("run mkfifo");
        assert!(made.success(), "mkfifo {}", path.display());
        Pipe(path)
    }

    /// Puts the pipe in the place of this file as well, in one step.
    fn replace(&self, file: &Path) {
        let beside = file.with_extension("new");
        fs::hard_link(&self.0, &beside).unwrap();
        fs::rename(&beside, file).unwrap();
    }

    /// The end for writing, as soon as somebody reads.
    fn writer(&self) -> File {
        let open = || OpenOptions::new().write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(&self.0);
        let file = wait_for("a reader of the pipe", BOUND, || open().map_err(|error| error.to_string()));
        rustix::fs::fcntl_setfl(&file, OFlags::empty()).unwrap();
        file
    }

    /// Puts the file back, and gives its text to whoever reads the pipe.
    fn give_back(&self, file: &Path, text: &str) {
        let beside = file.with_extension("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, file).unwrap();
        self.writer().write_all(text.as_bytes()).unwrap();
    }
}

/// A host on this Redis with three consumers that this manager watches.
fn launch(redis: &Redis, manager: &Manager) -> Launch {
    manager.watching(Host::on(redis).consumers(3), WATCHDOG)
}

#[test]
fn the_manager_hears_that_a_host_is_ready_when_it_is() {
    for manager in [Manager::start(), Manager::abstract_socket()] {
        let redis = Redis::start();
        let host = launch(&redis, &manager).arg("--plugin", large()).switch("--no-cache").start();
        // The host waits for the process that compiles its plugin.
        let compiler = host.compiler();
        Signal::Stop.send(compiler);
        assert_eq!(manager.heard(), [""; 0], "the plugin is not compiled yet");
        Signal::Continue.send(compiler);
        manager.wait_for(READY, 1);
        assert_eq!((redis.consumer_ids().len(), redis.subscribers()), (3, 1));
        assert!(manager.heard()[0].contains(READY), "{:?}", manager.heard());
        host.stop();
        assert_eq!(manager.count(READY), 1);
    }
}

#[test]
fn the_status_says_in_a_line_how_the_host_is() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let host = launch(&redis, &manager).start();
    manager.wait_for(READY, 1);
    manager.wait_for_status("3 consumers, plugin 1 (");
    manager.wait_for_status(", steady), intake active, 0 messages processed, 0 dead letters");
    Publisher::new(&redis).publish_all([message("a", json!({})), message("b", json!({"do": "reject"}))]);
    manager.wait_for_status(" 2 messages processed, 1 dead letters");
    host.stop();
}

#[test]
fn a_stop_is_told_and_the_host_stays_alive_until_its_messages_are_finished() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let host = launch(&redis, &manager).arg("--max-plugin-time", "1m").start();
    manager.wait_for(READY, 1);
    Publisher::new(&redis).publish(message("slow", json!({"do": "wait", "ms": 2_500})));
    redis.wait_until_in_work("slow");
    host.signal(Signal::Terminate);
    manager.wait_for(STOPPING, 1);
    assert!(!redis.pending().is_empty(), "the message is in progress");
    let alive = manager.count(ALIVE);
    let ended = host.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(manager.count(ALIVE) > alive, "{:?}", manager.heard());
    assert!(manager.status().starts_with("stopping: "), "{}", manager.status());
    assert_eq!((manager.count(STOPPING), manager.count(READY)), (1, 1));
    redis.result_of("slow");
}

#[test]
fn a_stop_before_the_host_is_ready_is_told() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let host = launch(&redis, &manager).arg("--plugin", large()).switch("--no-cache").start();
    Signal::Stop.send(host.compiler());
    host.signal(Signal::Terminate);
    manager.wait_for(STOPPING, 1);
    assert_eq!((host.ended().code, manager.count(READY)), (Some(0), 0));
}

#[test]
fn a_reload_is_told_from_its_beginning_to_its_end() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let plugin = redis.folder().join("plugin.wasm");
    Release::new("A").write_to(&plugin);
    let host = launch(&redis, &manager).arg("--plugin", &plugin).arg("--watch", "off").start();
    manager.wait_for(READY, 1);
    Release::new("B").write_to(&plugin);
    host.signal(Signal::Hangup);
    manager.wait_for(READY, 2);
    let heard = manager.heard();
    let reload = heard.iter().find(|text| text.starts_with(RELOADING)).unwrap_or_else(|| panic!("{heard:?}"));
    let (_, time) = reload.split_once("\nMONOTONIC_USEC=").unwrap_or_else(|| panic!("{reload}"));
    // The same clock as the manager's: seconds since the machine was started.
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let seconds = time.parse::<f64>().unwrap() / 1e6;
    assert!((0.0..=uptime).contains(&seconds), "{seconds} s of {uptime} s");
    assert!(host.log().contains("a new version of the plugin is in use"), "the reload is complete: {}", host.log());
    manager.wait_for_status("plugin 2 (");
    host.stop();
}

#[test]
fn a_host_whose_consumers_compute_without_end_is_alive() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let host = manager.watching(Host::on(&redis).consumers(20), WATCHDOG).arg("--max-plugin-time", "5m");
    let host = host.arg("--max-delivery-messages", "1").start();
    manager.wait_for(READY, 1);
    let ids: Vec<String> = (0..20).map(|number| format!("m-{number}")).collect();
    Publisher::new(&redis).publish_all(ids.iter().map(|id| message(id, json!({"do": "loop"}))));
    ids.iter().for_each(|id| redis.wait_until_in_work(id));
    // From one look to the next the threads are busy with the same calls.
    manager.wait_for_life();
    manager.wait_for_life();
    assert!(!host.log().contains("no progress"), "{}", host.log());
    host.kill();
}

/// Requires that the manager hears nothing while a part hangs, and that the host names the part if it can.
fn expect_silence(manager: &Manager, host: &Host, part: Option<&str>, hang: impl FnOnce(), go_on: impl FnOnce()) {
    manager.wait_for(READY, 1);
    manager.wait_for_life();
    hang();
    if let Some(part) = part {
        host.wait_for_log(&format!(
            "parts of the host make no progress; the service manager hears nothing until they go on parts=\"{part}\""
        ));
    }
    manager.wait_for_silence();
    let alive = manager.count(ALIVE);
    go_on();
    manager.wait_for(ALIVE, alive + 5);
}

#[test]
fn a_paused_host_is_silent() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let host = launch(&redis, &manager).start();
    let (hang, go_on) = (|| host.signal(Signal::Stop), || host.signal(Signal::Continue));
    expect_silence(&manager, &host, None, hang, go_on);
    host.stop();
}

#[test]
fn a_host_whose_main_thread_hangs_is_silent() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let (file, text) = (redis.folder().join("host.toml"), "consumers = 3\n");
    fs::write(&file, text).unwrap();
    let configured = manager.watching(Host::on(&redis), WATCHDOG).arg("--config", &file).arg("--watch", "off");
    let host = configured.start();
    let pipe = Pipe::new(redis.folder().join("pipe"));
    let hang = || {
        // The main thread reads the configuration, and waits for a writer.
        pipe.replace(&file);
        host.signal(Signal::Hangup);
        manager.wait_for(RELOADING, 1);
    };
    expect_silence(&manager, &host, None, hang, || pipe.give_back(&file, text));
    manager.wait_for(READY, 2);
    host.stop();
}

#[test]
fn a_host_with_a_consumers_thread_that_hangs_is_silent() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let (plugin, cases) = (redis.folder().join("plugin.wasm"), redis.folder().join("cases.jsonl"));
    Release::new("A").write_to(&plugin);
    fs::write(&cases, CASE).unwrap();
    let reloading = launch(&redis, &manager).arg("--plugin", &plugin).arg("--reload-cases", &cases);
    let host = reloading.start();
    let pipe = Pipe::new(redis.folder().join("pipe"));
    let hang = || {
        // A consumers' thread tries the new version, and waits for a writer of the cases.
        pipe.replace(&cases);
        Release::new("B").write_to(&plugin);
    };
    expect_silence(&manager, &host, Some("consumers"), hang, || pipe.give_back(&cases, CASE));
    host.wait_for_log("all parts of the host go on again");
    host.wait_for_log("a new version of the plugin is in use");
    host.stop();
}

/// Starts the program in its arguments. The first line in the pipe names a thread to stop, as a debugger does it; the
/// thread goes on when the pipe is closed.
const DEBUGGER: &str = r#"
import ctypes, os, pathlib, signal, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
SEIZE, INTERRUPT, DETACH, ALL_THREADS, END_WITH_PARENT = 0x4206, 0x4207, 17, 0x40000000, 1
def ptrace(request, thread):
    if libc.ptrace(request, thread, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x}")
host = subprocess.Popen(sys.argv[2:], preexec_fn=lambda: libc.prctl(END_WITH_PARENT, signal.SIGKILL))
signal.signal(signal.SIGTERM, lambda *_: host.terminate())
with open(sys.argv[1]) as pipe:
    name = pipe.readline().strip()
    names = {task.name: (task / "comm").read_text().strip() for task in pathlib.Path(f"/proc/{host.pid}/task").iterdir()}
    [thread] = [int(task) for task in names if names[task] == name]
    ptrace(SEIZE, thread)
    ptrace(INTERRUPT, thread)
    os.waitpid(thread, ALL_THREADS)
    pipe.read()
    ptrace(DETACH, thread)
sys.exit(host.wait())
"#;

#[test]
fn a_host_whose_intake_hangs_is_silent() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let pipe = Pipe::new(redis.folder().join("pipe"));
    let debugged = Launch::python(DEBUGGER).words(&[pipe.0.to_str().unwrap(), env!("CARGO_BIN_EXE_host")]);
    let debugged = manager.watching(debugged, WATCHDOG).arg("--redis", redis.url()).arg("--plugin", puppet());
    let host = debugged.start();
    let debugger = Mutex::new(None);
    let hang = || {
        let mut pipe = pipe.writer();
        pipe.write_all(b"intake\n").unwrap();
        *debugger.lock().unwrap() = Some(pipe);
    };
    expect_silence(&manager, &host, Some("intake"), hang, || *debugger.lock().unwrap() = None);
    host.stop();
}

#[test]
fn a_host_with_a_part_that_hangs_is_not_healthy_and_names_the_part() {
    let redis = Redis::start();
    let (plugin, cases) = (redis.folder().join("plugin.wasm"), redis.folder().join("cases.jsonl"));
    Release::new("A").write_to(&plugin);
    fs::write(&cases, CASE).unwrap();
    let reloading =
        Host::on(&redis).arg("--plugin", &plugin).arg("--reload-cases", &cases).arg("--http", "127.0.0.1:0");
    let host = reloading.ready(&redis, 3);
    let address = address(&host);
    let health = || {
        let answer = Request::get("/health").send(address);
        (answer.status, answer.json())
    };
    let pipe = Pipe::new(redis.folder().join("pipe"));
    // A consumers' thread tries the new version, and waits for a writer of the cases.
    pipe.replace(&cases);
    Release::new("B").write_to(&plugin);
    wait_until("not healthy", || health() == (503, json!({"healthy": false, "late": ["consumers"]})));
    pipe.give_back(&cases, CASE);
    wait_until("healthy again", || health() == (200, json!({"healthy": true})));
    host.stop();
}

#[test]
fn a_watchdog_of_another_process_is_not_served() {
    let (redis, manager) = (Redis::start(), Manager::start());
    let host = launch(&redis, &manager).env("WATCHDOG_PID", "1").start();
    manager.wait_for(READY, 1);
    wait_until("the first look", || manager.heard().len() > 1);
    host.signal(Signal::Terminate);
    assert_eq!(host.ended().code, Some(0));
    assert_eq!((manager.count(STOPPING), manager.count(ALIVE)), (1, 0), "{:?}", manager.heard());
}

#[test]
fn a_manager_that_cannot_be_reached_is_named_and_the_host_works() {
    let redis = Redis::start();
    let gone = redis.folder().join("gone").display().to_string();
    for (socket, told) in
        [("relative", "is not the absolute path of a socket"), (gone.as_str(), "cannot tell the service manager")]
    {
        let host = Host::on(&redis).env("NOTIFY_SOCKET", socket).ready(&redis, 2);
        host.wait_for_log(told);
        Publisher::new(&redis).publish(message(socket, json!({})));
        redis.result_of(socket);
        let ended = host.stop();
        assert!(ended.stderr.contains("NOTIFY_SOCKET"), "{}", ended.stderr);
    }
}

#[test]
fn a_manager_that_reads_nothing_holds_no_host_up() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let path = folder.path().join("notify");
    let deaf = UnixDatagram::bind(&path).unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.set_nonblocking(true).unwrap();
    sender.connect(&path).unwrap();
    while sender.send(&[0; 16]).is_ok() {}
    let host = Host::on(&redis).env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000").ready(&redis, 2);
    host.wait_for_log("it has read nothing for 1s");
    Publisher::new(&redis).publish(message("a", json!({})));
    redis.result_of("a");
    wait_until("a second look", || host.log().matches("it has read nothing").count() > 1);
    host.stop();
    drop(deaf);
}
