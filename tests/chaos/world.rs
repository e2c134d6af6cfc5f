//! One campaign while it runs: servers, hosts, ledger, plugin, and the log of what happened.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use redis::{Cmd, Connection, FromRedisValue, RedisResult, cmd};

use crate::clock::{Clock, NEVER, Span, wait};
use crate::ledger::Ledger;
use crate::member::{Member, Output, PLUGIN};
use crate::relay::Relay;
use crate::setup::{Setup, pick};
use crate::skew::{Library, Skew};
use crate::support::records::{CHANNEL, IDS, LEASE};
use crate::support::{BOUND, Redis, Release, puppet, wait_for};

/// Longest wait for an answer of Redis to the campaign.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// Longest wait for hosts to be registered and subscribed.
const READY_MS_MAX: u32 = 30_000;

/// A campaign.
pub struct World {
    pub setup: Setup,
    pub clock: Clock,
    pub ledger: Ledger,
    /// Logs of the hosts, and the plugin.
    pub folder: PathBuf,
    /// The servers; the one that is written to, and perhaps its replica.
    pub servers: Mutex<Servers>,
    primary: AtomicU16,
    members: Mutex<Vec<Arc<Member>>>,
    /// One fault at a time has the servers.
    servers_taken: AtomicBool,
    /// When a fault had the servers.
    troubles: Mutex<Vec<Span>>,
    excused: Mutex<Excused>,
    paused: AtomicBool,
    /// One burst at a time.
    bursting: AtomicBool,
    events: Mutex<Vec<(u32, String)>>,
    findings: Mutex<Vec<String>>,
    /// Number of the next host.
    next: AtomicU32,
    /// The plugin as it was built.
    release: Release,
    /// What makes clocks of hosts wrong.
    library: Option<Library>,
}

/// What a fault itself has destroyed, so that no host can make it good.
#[derive(Clone, Default)]
pub struct Excused {
    /// Messages sent in these times may be missing, and why.
    pub times: Vec<(Span, &'static str)>,
    /// Numbers of messages that may be missing.
    pub missing: HashSet<u32>,
    /// Numbers of messages that may be there twice.
    pub twice: HashSet<u32>,
}

/// The servers of a campaign.
pub struct Servers {
    pub primary: Redis,
    pub replica: Option<Replica>,
}

/// A server that copies the primary, through a relay that can hold it back.
pub struct Replica {
    pub server: Redis,
    pub relay: Relay,
}

/// A host that a fault has; given back at the end of its scope.
pub struct Victim(pub Arc<Member>);

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

impl World {
    pub fn new(setup: Setup, folder: PathBuf) -> Arc<World> {
        fs::create_dir_all(&folder).expect("create the folder of the logs");
        let release = Release::of("puppet", fs::read(puppet()).expect("read the plugin"));
        let library = setup.skew.then(|| Library::build(&folder));
        let clock = Clock::start();
        let primary = server(setup.aof);
        let port = primary.port();
        let replica = setup.replica.then(|| replica_of(clock, server(setup.aof), port));
        let world = World {
            setup,
            clock,
            ledger: Ledger::default(),
            folder,
            servers: Mutex::new(Servers { primary, replica }),
            primary: AtomicU16::new(port),
            members: Mutex::default(),
            servers_taken: AtomicBool::new(false),
            troubles: Mutex::default(),
            excused: Mutex::default(),
            paused: AtomicBool::new(false),
            bursting: AtomicBool::new(false),
            events: Mutex::default(),
            findings: Mutex::default(),
            next: AtomicU32::new(1),
            release,
            library,
        };
        world.release.write_to(&world.plugin());
        Arc::new(world)
    }

    pub fn plugin(&self) -> PathBuf {
        self.folder.join(PLUGIN)
    }

    /// Another version of the plugin, which does the same.
    pub fn another_plugin(&self) -> Release {
        self.release.fresh()
    }

    // --- hosts ---

    pub fn members(&self) -> Vec<Arc<Member>> {
        self.members.lock().expect("nobody panics with the lock").clone()
    }

    pub fn living(&self) -> Vec<Arc<Member>> {
        self.members().into_iter().filter(|member| member.is_alive()).collect()
    }

    pub fn start_host(&self) -> Arc<Member> {
        self.start_host_with(&Output::Files)
    }

    pub fn start_host_with(&self, output: &Output) -> Arc<Member> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let (name, target) = (format!("h{number}"), self.primary_port());
        let skew = self.library.as_ref().map(|library| {
            let skew = Skew::new(self.folder.join(format!("{name}.clock")), u64::from(number));
            (skew, library)
        });
        let member = Member::start(name, &self.folder, self.clock, &self.setup, target, output, skew);
        let member = Arc::new(member);
        self.members.lock().expect("nobody panics with the lock").push(member.clone());
        member
    }

    /// Starts another host if there are fewer than the setup has.
    pub fn replace(&self) {
        if self.living().len() < self.setup.hosts {
            self.start_host();
        }
    }

    /// A host for a fault, more often than not the active one; while others are there, one of them is left alone.
    pub fn victim(&self, random: &mut StdRng) -> Option<Victim> {
        let free: Vec<Arc<Member>> = self.living().into_iter().filter(|member| !member.is_taken()).collect();
        if free.is_empty() || (free.len() == 1 && self.living().len() > 1 && random.random_bool(0.8)) {
            return None;
        }
        let active = self.active().filter(|active| free.iter().any(|member| Arc::ptr_eq(member, active)));
        let chosen = match active {
            Some(active) if random.random_bool(0.65) => active,
            _ => pick(random, &free).clone(),
        };
        chosen.take().then(|| Victim(chosen))
    }

    /// The host with the lease.
    pub fn active(&self) -> Option<Arc<Member>> {
        let lease: Option<String> = self.ask(cmd("GET").arg(LEASE)).ok()?;
        let lease = lease?;
        self.living().into_iter().find(|member| member.owns(&lease))
    }

    /// How a host is called in the log.
    pub fn describe(&self, member: &Arc<Member>) -> String {
        let is_active = self.active().is_some_and(|active| Arc::ptr_eq(&active, member));
        format!("{} ({})", member.name, if is_active { "active" } else { "standby" })
    }

    /// Waits until all living hosts are registered and subscribed; what is missing otherwise.
    pub fn ready(&self) -> Result<(), String> {
        let until = self.clock.now() + READY_MS_MAX;
        loop {
            let state = self.readiness();
            if state.is_ok() || self.clock.now() > until {
                return state;
            }
            wait(50);
        }
    }

    fn readiness(&self) -> Result<(), String> {
        self.registered()?;
        let living = self.living().len();
        let subscribers: (String, usize) =
            self.ask(cmd("PUBSUB").arg("NUMSUB").arg(CHANNEL)).map_err(|error| error.to_string())?;
        if subscribers.1 < living {
            return Err(format!("{living} hosts are alive and {} subscriptions are there", subscribers.1));
        }
        Ok(())
    }

    /// The list of consumers is true.
    pub fn registered(&self) -> Result<(), String> {
        let ids: Vec<String> = self.ask(cmd("LRANGE").arg(IDS).arg(0).arg(-1)).map_err(|error| error.to_string())?;
        let mut strangers = ids.len();
        let mut wrong = Vec::new();
        for member in self.living() {
            let count = ids.iter().filter(|id| member.owns(id)).count();
            strangers -= count;
            if count != member.consumers {
                wrong.push(format!("{count} of {} consumers of {}", member.consumers, member.name));
            }
        }
        if wrong.is_empty() && strangers == 0 {
            return Ok(());
        }
        Err(format!("{IDS} has {} and {strangers} of hosts that are gone", wrong.join(", ")))
    }

    // --- servers ---

    pub fn primary_port(&self) -> u16 {
        self.primary.load(Ordering::SeqCst)
    }

    /// From now on publishers, the campaign and new connections of hosts go to this server.
    pub fn lead_to(&self, port: u16) {
        self.primary.store(port, Ordering::SeqCst);
        self.members().iter().for_each(|member| member.relay.lead_to(port));
    }

    pub fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().expect("nobody panics with the lock")
    }

    pub fn connect(&self) -> RedisResult<Connection> {
        connect(self.primary_port())
    }

    /// Runs one command on the primary.
    pub fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        command.query(&mut self.connect()?)
    }

    /// Runs one command, words separated by blanks, and says so in the log if it fails.
    pub fn tell(&self, words: &str) {
        let mut parts = words.split(' ');
        let mut command = cmd(parts.next().unwrap_or_default());
        parts.for_each(|part| {
            command.arg(part);
        });
        if let Err(error) = self.ask::<redis::Value>(&command) {
            self.note(format!("{words}: {error}"));
        }
    }

    /// Does something to the servers, unless another fault has them; writes down when.
    pub fn trouble_servers(&self, act: impl FnOnce()) -> bool {
        if self.servers_taken.swap(true, Ordering::SeqCst) {
            return false;
        }
        let from = self.clock.now();
        self.troubles.lock().expect("nobody panics with the lock").push((from, NEVER));
        act();
        if let Some(trouble) = self.troubles.lock().expect("nobody panics with the lock").last_mut() {
            trouble.1 = self.clock.now();
        }
        self.servers_taken.store(false, Ordering::SeqCst);
        true
    }

    pub fn troubles(&self) -> Vec<Span> {
        self.troubles.lock().expect("nobody panics with the lock").clone()
    }

    /// Messages sent in this time have no claim to an outcome.
    pub fn excuse_time(&self, span: Span, why: &'static str) {
        self.excused_mut().times.push((span, why));
    }

    /// These messages have no claim to an outcome.
    pub fn excuse_missing(&self, numbers: impl IntoIterator<Item = u32>) {
        self.excused_mut().missing.extend(numbers);
    }

    /// These messages may have two outcomes.
    pub fn excuse_twice(&self, numbers: impl IntoIterator<Item = u32>) {
        self.excused_mut().twice.extend(numbers);
    }

    pub fn excused(&self) -> Excused {
        self.excused_mut().clone()
    }

    fn excused_mut(&self) -> MutexGuard<'_, Excused> {
        self.excused.lock().expect("nobody panics with the lock")
    }

    /// A figure of `INFO`.
    pub fn info(&self, section: &str, field: &str) -> Option<u64> {
        let text: String = self.ask(cmd("INFO").arg(section)).ok()?;
        let fields: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
        fields.get(field)?.trim().parse().ok()
    }

    // --- publishers and log ---

    pub fn publishing_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// Lets something happen unless another burst is under way.
    pub fn while_bursting(&self, act: impl FnOnce()) {
        if !self.bursting.swap(true, Ordering::SeqCst) {
            act();
            self.bursting.store(false, Ordering::SeqCst);
        }
    }

    pub fn pause_publishing(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    /// Writes down what happens.
    pub fn note(&self, what: impl Into<String>) {
        self.events.lock().expect("nobody panics with the lock").push((self.clock.now(), what.into()));
    }

    pub fn events(&self) -> Vec<(u32, String)> {
        self.events.lock().expect("nobody panics with the lock").clone()
    }

    /// Writes down something that must not be.
    pub fn find(&self, what: impl Into<String>) {
        self.findings.lock().expect("nobody panics with the lock").push(what.into());
    }

    pub fn findings(&self) -> Vec<String> {
        self.findings.lock().expect("nobody panics with the lock").clone()
    }
}

/// A connection that gives up some time.
pub fn connect(port: u16) -> RedisResult<Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
    connection.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(connection)
}

fn server(aof: bool) -> Redis {
    let aof = if aof { "yes" } else { "no" };
    Redis::start_with(&[
        "--save",
        "",
        "--appendonly",
        aof,
        "--enable-debug-command",
        "yes",
        // A replica is there at once, and a long way behind when it is held back.
        "--repl-diskless-sync",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
        "--repl-backlog-size",
        "64mb",
    ])
}

/// Makes this server a replica of the one on this port.
pub fn replica_of(clock: Clock, server: Redis, port: u16) -> Replica {
    let relay = Relay::start(clock, port);
    let attempt = || -> RedisResult<()> {
        cmd("REPLICAOF").arg("127.0.0.1").arg(relay.port()).query(&mut connect(server.port())?)
    };
    // A server that has just been started may still load its data.
    wait_for("a replica", BOUND, || attempt().map_err(|error| error.to_string()));
    Replica { server, relay }
}
