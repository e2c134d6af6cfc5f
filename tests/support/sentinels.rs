//! A primary with two replicas, and three Sentinels that watch them.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::{ConnectionLike, FromRedisValue, cmd};
use serde_json::json;
use tempfile::TempDir;

use super::redis::{SYSTEM, free_port, server_program};
use super::{BOUND, Redis, Signal, message, wait_for, wait_until};
use crate::support::records::CHANNEL;

/// The name under which the Sentinels know the primary.
pub const NAME: &str = "mymaster";

/// One Sentinel; ended on drop.
pub struct Sentinel {
    child: Child,
    port: u16,
}

/// The servers and their Sentinels.
pub struct Watched {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
    _folder: TempDir,
}

impl Sentinel {
    /// A Sentinel with this configuration, which has no port yet. It speaks TLS only if it has a certificate.
    pub fn start(folder: &TempDir, number: usize, configuration: &str) -> Sentinel {
        // Another process may take the port before the Sentinel binds it: try again.
        for _ in 0..10 {
            let port = free_port();
            let home = folder.path().join(format!("{number}-{port}"));
            fs::create_dir(&home).expect("make a folder");
            let file = home.join("sentinel.conf");
            let needs_tls = configuration.contains("tls-");
            let listen = if needs_tls { format!("port 0\ntls-port {port}") } else { format!("port {port}") };
            let own = format!("{listen}\nbind 127.0.0.1\nprotected-mode no\ndir {}\n", home.display());
            fs::write(&file, own + configuration).expect("write a configuration");
            let mut command = Command::new(if needs_tls { SYSTEM.to_owned() } else { server_program() });
            command.arg(&file).arg("--sentinel").stdin(Stdio::null()).stdout(Stdio::null());
            let mut sentinel = Sentinel { child: command.spawn().expect("start a Sentinel"), port };
            let answers = wait_for("a Sentinel", BOUND, || {
                if sentinel.child.try_wait().expect("look at a Sentinel").is_some() {
                    return Ok(false);
                }
                std::net::TcpStream::connect(("127.0.0.1", port)).map(|_| true).map_err(|error| error.to_string())
            });
            if answers {
                return sentinel;
            }
        }
        panic!("no Sentinel has started");
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, signal: Signal) {
        signal.send(self.child.id());
    }

    fn ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(format!("redis://{}", self.address()))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        T::from_redis_value(connection.req_command(cmd("SENTINEL").arg(words))?).map_err(Into::into)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Watched {
    /// All of them, when each Sentinel knows all others and both replicas.
    pub fn start() -> Watched {
        Watched::start_with(&[], "")
    }

    /// The same with further arguments of the servers and lines in the configuration of the Sentinels.
    pub fn start_with(arguments: &[&str], configuration: &str) -> Watched {
        let base = [&["--save", "", "--repl-diskless-sync-delay", "0"], arguments].concat();
        let primary = Redis::start_with(&base);
        let port = primary.port().to_string();
        let follow = [base.as_slice(), &["--replicaof", "127.0.0.1", &port]].concat();
        let servers = vec![primary, Redis::start_with(&follow), Redis::start_with(&follow)];
        for replica in &servers[1..] {
            wait_until("a replica follows", || {
                replica.command::<String>("INFO replication").contains("master_link_status:up")
            });
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let configuration = format!(
            "sentinel monitor {NAME} 127.0.0.1 {port} 2\nsentinel down-after-milliseconds {NAME} 1000\n\
             sentinel failover-timeout {NAME} 5000\n{configuration}"
        );
        let sentinels = (0..3).map(|number| Sentinel::start(&folder, number, &configuration)).collect();
        Watched { servers, sentinels, _folder: folder }
    }

    /// Waits until the Sentinels can replace the primary.
    pub fn wait_until_complete(&self) {
        for sentinel in &self.sentinels {
            wait_for("a Sentinel that knows all others", BOUND, || {
                let count = |what| sentinel.ask::<Vec<redis::Value>>(&[what, NAME]).map(|all| all.len());
                match (count("REPLICAS"), count("SENTINELS")) {
                    (Ok(2), Ok(2)) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            });
        }
    }

    /// Where hosts find the primary.
    pub fn url(&self) -> String {
        let addresses: Vec<String> = self.sentinels.iter().map(Sentinel::address).collect();
        format!("redis+sentinel://{}/{NAME}", addresses.join(","))
    }

    /// The primary, as the Sentinels know it.
    pub fn primary(&self) -> &Redis {
        let port = primary_port(&self.sentinels[0].address()).expect("a Sentinel answers");
        self.servers.iter().find(|server| server.port() == port).expect("one of the servers")
    }

    /// Begins a failover as an operator does.
    pub fn fail_over(&self) {
        wait_until("a failover", || self.sentinels[0].ask::<String>(&["FAILOVER", NAME]).is_ok());
    }

    /// Waits until all Sentinels name another server than this one.
    pub fn wait_until_replaced(&self, before: u16) {
        wait_until("another primary", || {
            self.sentinels.iter().all(|sentinel| primary_port(&sentinel.address()).is_some_and(|port| port != before))
        });
    }
}

fn primary_port(sentinel: &str) -> Option<u16> {
    let client = redis::Client::open(format!("redis://{sentinel}")).ok()?;
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(2)).ok()?;
    let address = cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(NAME).query::<(String, u16)>(&mut connection);
    address.ok().map(|(_, port)| port)
}

/// A publisher that asks the Sentinels for the primary whenever its connection breaks, and keeps a ledger.
pub struct Ledger {
    stop: Arc<AtomicBool>,
    heard: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Ledger {
    /// Publishes a few hundred batches a second, as long as there is a primary.
    pub fn start(watched: &Watched) -> Ledger {
        const BATCH: usize = 20;
        let sentinels: Vec<String> = watched.sentinels.iter().map(Sentinel::address).collect();
        let (stop, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counter) = (stop.clone(), heard.clone());
        let thread = thread::spawn(move || {
            let (mut connection, mut next, mut ids) = (None, 0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(10));
                if connection.is_none() {
                    let port = sentinels.iter().find_map(|sentinel| primary_port(sentinel));
                    connection = port.and_then(|port| {
                        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).ok()?;
                        client.get_connection_with_timeout(Duration::from_secs(2)).ok()
                    });
                }
                let Some(open) = &mut connection else { continue };
                let mut pipeline = redis::pipe();
                for number in next..next + BATCH {
                    pipeline.cmd("PUBLISH").arg(CHANNEL).arg(message(&format!("l-{number}"), json!({})));
                }
                match pipeline.query::<Vec<usize>>(open) {
                    // What nobody was subscribed to is nobody's.
                    Ok(receivers) => ids.extend(
                        (next..)
                            .zip(receivers)
                            .filter(|(_, count)| *count > 0)
                            .map(|(number, _)| format!("l-{number}")),
                    ),
                    // Nobody knows whether it was published.
                    Err(_) => connection = None,
                }
                counter.store(ids.len(), Ordering::Relaxed);
                next += BATCH;
            }
            ids
        });
        Ledger { stop, heard, thread: Some(thread) }
    }

    /// Waits until so many more messages were heard by a host.
    pub fn wait_for_more(&self, count: usize) {
        let goal = self.heard.load(Ordering::Relaxed) + count;
        wait_until("more messages that a host has heard", || self.heard.load(Ordering::Relaxed) >= goal);
    }

    /// Stops, and returns the ids of all messages that a host has heard.
    pub fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("a publisher finishes once").join().expect("the publisher runs to its end")
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
