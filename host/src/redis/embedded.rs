//! A private Redis that ends with the host: for `--redis embedded`, the demo and the benchmark. This file knows no keys
//! and no messages.
//!
//! The server must not outlive the host, however the host ends. A killed process cannot clean up, so a small shell
//! stands between host and server. The shell's standard input is a pipe whose other end only the host holds. The pipe
//! ends with the host; then the shell kills the server and removes its folder.
//!
//! The server listens on a Unix socket in a folder that no other user can enter, and on no port. `running` finds the socket
//! there for other commands.

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::runtime_folder::{self, FolderError, is_plain_in_path, url_of};
use crate::config::RedisConfig;

/// The word in place of a URL that asks for a private Redis.
pub const WORD: &str = "embedded";

/// Programs of the server, in order of preference.
const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];

/// Maximum time until a server answers; the usual time is 10 to 20 ms.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// Time between two attempts to reach a starting server.
const START_POLL: Duration = Duration::from_millis(5);

/// Number of attempts with another port, because another process may take a free port before the server does.
const PORTS_TRIED_MAX: u32 = 5;

/// Arguments: folder, then the server's command line.
///
/// The server is killed, because it has nothing to save. If the server has ended by itself, `reader` ends first, so
/// that the kill cannot hit another process with the same number.
const WATCHER: &str = r#"
folder=$1
shift
exec 3<&0
"$@" </dev/null >/dev/null 2>&1 3<&- &
server=$!
{ read -r _ <&3; kill -9 "$server"; } &
reader=$!
wait "$server"
status=$?
kill "$reader"
echo "$status" >"$folder/ended"
read -r _ <&3
rm -rf "$folder"
"#;

/// Reason why no private Redis is available.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// Neither Redis nor Valkey is installed.
    #[error(
        "cannot start a private Redis: neither redis-server nor valkey-server is on PATH; \
         install one (Debian, Ubuntu: apt-get install redis-server; macOS: brew install redis) \
         or name a running server with --redis URL"
    )]
    NoServer,
    /// The system refused a folder, a port or a process.
    #[error("cannot start a private Redis: {doing} failed: {error}")]
    System {
        /// The refused action.
        doing: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// The folder for sockets cannot be used.
    #[error("cannot use a private Redis: {0}")]
    Folder(FolderError),
    /// The server ended during its start.
    #[error("the private Redis ({}) ended while it was starting, exit status {status}; the end of its log: {log}", server.display())]
    Ended {
        /// The server's program.
        server: PathBuf,
        /// Exit status of the server.
        status: String,
        /// The last lines of the server's log.
        log: String,
    },
    /// The server runs but does not answer.
    #[error("the private Redis ({}) did not answer within {START_TIME_MAX:?}: {last}; the end of its log: {log}", server.display())]
    Silent {
        /// The server's program.
        server: PathBuf,
        /// The last error of an attempt to reach the server.
        last: String,
        /// The last lines of the server's log.
        log: String,
    },
}

/// A running private Redis. A drop ends the server and removes its folder.
#[derive(Debug)]
pub struct Embedded {
    watcher: Child,
    address: Address,
    // The shell removes the folder as well, in case this value is never dropped.
    folder: TempDir,
}

/// Address of a server.
#[derive(Debug)]
enum Address {
    Socket(PathBuf),
    /// On the loopback interface.
    Port(u16),
}

impl Embedded {
    /// Starts a server on a Unix socket for this user only, without persistence, and waits until the server answers.
    /// Blocks for about 20 ms.
    ///
    /// # Errors
    /// When no server is installed, or when the server does not start.
    pub fn start() -> Result<Embedded, EmbeddedError> {
        let server = server()?;
        let folder = folder(Some(&runtime_folder::folder().map_err(EmbeddedError::Folder)?))?;
        let socket = runtime_folder::socket_in(folder.path());
        let embedded = Embedded::spawn(&server, folder, Address::Socket(socket))?;
        embedded.wait_until_ready(&server)?;
        Ok(embedded)
    }

    /// Starts a server on a port of the loopback interface, which every user of the machine can reach and no other
    /// command finds. For the benchmark, whose clients measure over TCP.
    /// # Errors
    /// Like [`Embedded::start`].
    pub fn start_on_loopback() -> Result<Embedded, EmbeddedError> {
        let server = server()?;
        let mut tried = 1;
        loop {
            let embedded = Embedded::spawn(&server, folder(None)?, Address::Port(free_port()?))?;
            match embedded.wait_until_ready(&server) {
                Ok(()) => return Ok(embedded),
                Err(EmbeddedError::Ended { .. }) if tried < PORTS_TRIED_MAX => tried += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts a server if `config` asks for one, and writes its URL into `config`.
    ///
    /// # Errors
    /// Like [`Embedded::start`].
    pub fn if_named(config: &mut RedisConfig) -> Result<Option<Embedded>, EmbeddedError> {
        if config.url != WORD {
            return Ok(None);
        }
        let embedded = Embedded::start()?;
        config.url = embedded.url();
        Ok(Some(embedded))
    }

    /// The URL: `unix:///…/redis.sock` or `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        match &self.address {
            Address::Socket(path) => url_of(path),
            Address::Port(port) => format!("redis://127.0.0.1:{port}"),
        }
    }

    /// The port on the loopback interface; 0 if there is none.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self.address {
            Address::Socket(_) => 0,
            Address::Port(port) => port,
        }
    }

    /// The path of the socket, quoted for a shell; empty if there is none.
    #[must_use]
    pub fn socket_in_shell(&self) -> String {
        let Address::Socket(path) = &self.address else { return String::new() };
        let path = path.to_string_lossy();
        let is_plain = path.bytes().all(is_plain_in_path);
        if is_plain { path.into_owned() } else { format!("'{}'", path.replace('\'', r"'\''")) }
    }

    /// Ends the server, and waits for its end. A drop does the same.
    pub fn stop(self) {}

    fn spawn(server: &Path, folder: TempDir, address: Address) -> Result<Embedded, EmbeddedError> {
        let mut command = Command::new("sh");
        command.args(["-c", WATCHER, "host-redis-watcher"]).arg(folder.path()).arg(server);
        match &address {
            Address::Socket(path) => command.args(["--port", "0", "--unixsocketperm", "700", "--unixsocket"]).arg(path),
            Address::Port(port) => command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]),
        };
        let watcher = command
            .args(["--save", "", "--appendonly", "no"])
            .arg("--dir")
            .arg(folder.path())
            .arg("--logfile")
            .arg(log_file(folder.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal signals the whole foreground group, and Redis must outlive the host's drain.
            .process_group(0)
            .spawn()
            .map_err(|error| EmbeddedError::System { doing: "running sh", error })?;
        Ok(Embedded { watcher, address, folder })
    }

    fn wait_until_ready(&self, server: &Path) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            let last = match self.answers() {
                Ok(()) => return Ok(()),
                Err(error) => error.to_string(),
            };
            let log = || log_end(&log_file(self.folder.path()));
            // The shell writes this file; an empty file is not written yet.
            let status = std::fs::read_to_string(self.folder.path().join("ended")).unwrap_or_default();
            if !status.is_empty() {
                return Err(EmbeddedError::Ended { server: server.into(), status: status.trim().into(), log: log() });
            }
            if Instant::now() > deadline {
                return Err(EmbeddedError::Silent { server: server.into(), last, log: log() });
            }
            sleep(START_POLL);
        }
    }

    /// Whether a server answers at the address, and whether it is this server: a Redis of another process may have
    /// taken the port, and the host must not write to that Redis.
    fn answers(&self) -> redis::RedisResult<()> {
        let mut connection = redis::Client::open(self.url())?.get_connection_with_timeout(START_TIME_MAX)?;
        connection.set_read_timeout(Some(START_TIME_MAX))?;
        let (_, folder): (String, String) = redis::cmd("CONFIG").arg("GET").arg("dir").query(&mut connection)?;
        if same_folder(Path::new(&folder), self.folder.path()) {
            Ok(())
        } else {
            Err(redis::RedisError::from((redis::ErrorKind::Io, "another Redis has taken the port")))
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Closes the pipe. The shell then kills the server, waits for its end, and ends.
        drop(self.watcher.stdin.take());
        // An error means that the shell has already ended.
        let _ = self.watcher.wait();
    }
}

fn server() -> Result<PathBuf, EmbeddedError> {
    find_server(std::env::var_os("PATH").as_deref()).ok_or(EmbeddedError::NoServer)
}

/// A folder for a server, which no other user can enter: in `within`, or among the temporary files.
fn folder(parent: Option<&Path>) -> Result<TempDir, EmbeddedError> {
    let mut builder = tempfile::Builder::new();
    builder.permissions(std::fs::Permissions::from_mode(0o700));
    let made = match parent {
        Some(parent) => builder.prefix(runtime_folder::PREFIX).tempdir_in(parent),
        None => builder.prefix("host-redis-").tempdir(),
    };
    made.map_err(|error| EmbeddedError::System { doing: "making a folder for its files", error })
}

/// The first server found in the folders of `path`.
fn find_server(path: Option<&OsStr>) -> Option<PathBuf> {
    let folders: Vec<PathBuf> = std::env::split_paths(path?).collect();
    SERVERS.iter().find_map(|name| folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file()))
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16, EmbeddedError> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| EmbeddedError::System { doing: "looking for a free port on 127.0.0.1", error })
}

fn log_file(folder: &Path) -> PathBuf {
    folder.join("redis.log")
}

/// The last lines of a server's log, in one line.
fn log_end(file: &Path) -> String {
    let log = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return "(nothing logged)".into();
    }
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

/// A temporary folder often has two names, one of them through a symbolic link.
fn same_folder(a: &Path, b: &Path) -> bool {
    a == b || matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until `done` says so; fails after a bound far beyond what is needed.
    fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !done() {
            assert!(Instant::now() < deadline, "waited too long: {what}");
            sleep(START_POLL);
        }
    }

    fn refuses_connections(socket: &Path) -> bool {
        std::os::unix::net::UnixStream::connect(socket).is_err()
    }

    fn socket(embedded: &Embedded) -> PathBuf {
        runtime_folder::socket_in(embedded.folder.path())
    }

    #[test]
    fn it_answers_on_a_socket_only_and_keeps_nothing_on_disk() {
        let embedded = Embedded::start().unwrap();
        let mut connection = redis::Client::open(embedded.url()).unwrap().get_connection().unwrap();
        let mut setting = |name: &str| -> String {
            let (_, value): (String, String) =
                redis::cmd("CONFIG").arg("GET").arg(name).query(&mut connection).unwrap();
            value
        };
        assert_eq!(setting("port"), "0");
        assert_eq!(setting("save"), "");
        assert_eq!(setting("appendonly"), "no");
        let mode = std::fs::metadata(embedded.folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn stopping_ends_the_server_and_removes_its_folder() {
        let embedded = Embedded::start().unwrap();
        let (socket, folder) = (socket(&embedded), embedded.folder.path().to_path_buf());
        assert!(folder.exists());
        embedded.stop();
        assert!(refuses_connections(&socket));
        assert!(!folder.exists());
    }

    // A SIGKILL of the host leaves only the end of the pipe to the shell; no process waits or cleans up.
    #[test]
    fn the_end_of_the_pipe_alone_ends_the_server_and_removes_its_folder() {
        let mut embedded = Embedded::start().unwrap();
        let (socket, folder) = (socket(&embedded), embedded.folder.path().to_path_buf());
        drop(embedded.watcher.stdin.take());
        wait_for("the server ends", || refuses_connections(&socket));
        wait_for("the folder goes", || !folder.exists());
    }

    #[test]
    fn a_port_that_is_taken_is_noticed_even_if_a_redis_answers_there() {
        let first = Embedded::start_on_loopback().unwrap();
        let server = server().unwrap();
        let second = Embedded::spawn(&server, folder(None).unwrap(), Address::Port(first.port())).unwrap();
        let error = second.wait_until_ready(&server).unwrap_err();
        assert!(matches!(error, EmbeddedError::Ended { .. }), "{error}");
        assert!(error.to_string().contains("in use"), "{error}");
    }

    #[test]
    fn without_a_server_on_path_there_is_none() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(find_server(Some(empty.path().as_os_str())), None);
        assert_eq!(find_server(None), None);
    }

    #[test]
    fn redis_is_preferred_and_valkey_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let valkey = folder.path().join("valkey-server");
        std::fs::write(&valkey, "").unwrap();
        assert_eq!(find_server(Some(folder.path().as_os_str())), Some(valkey));
        let redis = folder.path().join("redis-server");
        std::fs::write(&redis, "").unwrap();
        assert_eq!(find_server(Some(folder.path().as_os_str())), Some(redis));
    }
}
