//! A Redis server of one test, on a free port and a Unix socket in a temporary folder.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, io};

use redis::{Cmd, ConnectionLike, FromRedisValue, cmd};
use tempfile::TempDir;

use super::{Signal, wait_for};

/// How long a server may take to answer, also with a data set to load.
const START_BOUND: Duration = Duration::from_secs(20);

/// A running server; ended and removed on drop.
pub struct Redis {
    child: Child,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
}

impl Redis {
    /// A server that keeps nothing on disk.
    pub fn start() -> Redis {
        Redis::start_with(&["--save", ""])
    }

    /// A server with these arguments; `{folder}` in them stands for its temporary folder, `{port}` for its port.
    pub fn start_with(arguments: &[&str]) -> Redis {
        let folder = tempfile::Builder::new().prefix("host-test-").tempdir().expect("a temporary folder");
        Redis::start_in(folder, arguments)
    }

    /// A server whose temporary folder was prepared by the test.
    pub fn start_in(folder: TempDir, arguments: &[&str]) -> Redis {
        let path = folder.path().to_str().expect("a temporary folder has a name in UTF-8");
        let arguments: Vec<String> = arguments.iter().map(|argument| argument.replace("{folder}", path)).collect();
        // Another process may take the port before the server binds it: try again.
        for _ in 0..10 {
            let port = free_port();
            let mut child = spawn(&folder, port, &arguments);
            if answers(&folder, &mut child) {
                return Redis { child, folder, port, arguments };
            }
            let _ = child.wait();
        }
        panic!("the Redis server did not start:\n{}", log(&folder));
    }

    pub fn signal(&self, signal: Signal) {
        signal.send(self.child.id());
    }

    /// Kills the server without a chance to save.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill the Redis server");
        self.child.wait().expect("wait for the Redis server");
    }

    /// Starts the killed server again, on the same port and folder.
    pub fn restart(&mut self) {
        self.child = spawn(&self.folder, self.port, &self.arguments);
        assert!(answers(&self.folder, &mut self.child), "Redis did not come back:\n{}", log(&self.folder));
    }

    /// Where hosts find it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The temporary folder; whatever a test puts there goes away with the server.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The Unix socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.folder)
    }

    /// A connection of its own over the Unix socket, as the user who may do everything.
    pub fn connect(&self) -> redis::Connection {
        connect(&self.folder).expect("connect to the test's Redis")
    }

    /// Runs one command.
    pub fn run<T: FromRedisValue>(&self, command: &Cmd) -> T {
        command.query(&mut self.connect()).expect("a command of the test succeeds")
    }

    /// Runs one command, words separated by blanks.
    pub fn command<T: FromRedisValue>(&self, words: &str) -> T {
        let mut words = words.split(' ');
        let mut command = cmd(words.next().expect("a command has a name"));
        for word in words {
            command.arg(word);
        }
        self.run(&command)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the Redis server ---\n{}", log(&self.folder));
        }
    }
}

/// A port without a listener at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// The server for tests: that of the system, or another one on request.
pub fn server_program() -> String {
    env::var("HOST_TEST_REDIS_SERVER").unwrap_or_else(|_| SYSTEM.into())
}

/// The server of the system. A server that was asked for may be built without TLS.
pub const SYSTEM: &str = "redis-server";

fn spawn(folder: &TempDir, port: u16, arguments: &[String]) -> Child {
    let needs_tls = arguments.iter().any(|argument| argument == "--tls-port");
    let program = if needs_tls { SYSTEM.to_owned() } else { server_program() };
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.path().join("redis.log"))
        .expect("open the Redis log");
    let mut command = Command::new(&program);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--unixsocket"]).arg(socket(folder));
    command.arg("--dir").arg(folder.path());
    command.args(arguments.iter().map(|argument| argument.replace("{port}", &port.to_string())));
    command.stdin(Stdio::null()).stderr(log.try_clone().expect("share the Redis log")).stdout(log);
    command.spawn().unwrap_or_else(|error| panic!("start `{program}`: {error}; install it with `just setup`"))
}

/// Waits until the server has loaded its data and answers; false if it ended instead.
fn answers(folder: &TempDir, child: &mut Child) -> bool {
    wait_for("Redis to answer", START_BOUND, || {
        if child.try_wait().expect("look at the Redis server").is_some() {
            return Ok(false);
        }
        let mut connection = connect(folder).map_err(|error| error.to_string())?;
        match connection.req_command(&cmd("PING")).and_then(redis::Value::extract_error) {
            Ok(_) => Ok(true),
            // A server with a password also answers: with a request to log in.
            Err(error) if error.code() == Some("NOAUTH") => Ok(true),
            Err(error) => Err(error.to_string()),
        }
    })
}

fn connect(folder: &TempDir) -> redis::RedisResult<redis::Connection> {
    let url = format!("redis+unix://{}", socket(folder).display());
    redis::Client::open(url)?.get_connection()
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("redis.sock")
}

fn log(folder: &TempDir) -> String {
    let read = |path: PathBuf| -> io::Result<String> { fs::read_to_string(path) };
    read(folder.path().join("redis.log")).unwrap_or_else(|error| format!("no log: {error}"))
}
