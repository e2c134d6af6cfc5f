//! Several intakes and one Redis, simulated: every step is taken by a seed, faults fall between any two of them, and a seed that
//! fails can be run again. What is judged: every message that a host alive has heard is appended exactly once in the history of
//! the data that survives.
//!
//! `HOST_SIMULATION_SEEDS=FIRST..END` chooses other seeds.

use std::collections::HashSet;
use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

mod faults;
mod redis;

use self::redis::{Data, Event, Redis, Snapshot};
use super::*;

/// How long one step of the world takes.
const TICK_MS: u64 = 25;

/// Steps with faults, and those after them in which everything must come to rest.
const TICKS: u64 = 1_400;
const REST_TICKS: u64 = 900;

const LEASE_MS: u64 = 3_000;
const DEDUP_WINDOW_MS: u64 = 8_000;

/// How far the replica is behind, and how many subscriptions are at it: one in so many.
const REPLICA_LAG_MS_MAX: u64 = 2_500;
const AT_REPLICA: u32 = 5;

/// A command on its way.
#[derive(Debug)]
struct Sent {
    host: usize,
    connection: u64,
    identity: u64,
    execute_at: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Mark { host: Arc<str>, former: Option<Arc<str>>, wish: Wish },
    Watch,
    Append { watched: u64, messages: Vec<u32>, covered: Covered },
}

/// An answer on its way back.
#[derive(Debug)]
struct Reply {
    host: usize,
    connection: u64,
    arrives_at: u64,
    what: Answered,
}

#[derive(Debug)]
enum Answered {
    Marked(Announcement, ReplicationId),
    Listed(Covered, u64),
    Appended(bool, Covered, u64),
    Refused,
}

/// A subscription: which server's log it reads, and how far it has come.
#[derive(Debug)]
struct Subscribed {
    id: u64,
    log: usize,
    next: usize,
    silent_until: u64,
    /// Whether it is at the replica, which passes on what it has heard from the primary.
    at_replica: bool,
    /// When the server, which was the primary once, goes on as a replica of the one that was promoted.
    demoted_at: Option<u64>,
}

struct Host {
    name: Arc<str>,
    protocol: Protocol,
    streams: Vec<Subscribed>,
    opening_at: Option<u64>,
    opened: u64,
    connection: u64,
    connected: bool,
    /// A command whose answer is awaited.
    is_waiting: bool,
    watched: u64,
    wake_at: Option<Instant>,
    paused_until: u64,
    /// When it learns that it counted as dead.
    renamed_at: Option<u64>,
    is_alive: bool,
    is_stopped: bool,
    /// It was told to stop; and it has yet to end its subscriptions.
    is_told_to_stop: bool,
    stopping: bool,
    heard: HashSet<u32>,
    lost: usize,
    by_claims: usize,
    gaps: usize,
}

struct World {
    random: SmallRng,
    start: Instant,
    now_ms: u64,
    redis: Redis,
    hosts: Vec<Host>,
    sent: Vec<Sent>,
    replies: Vec<Reply>,
    next_id: u32,
    copied: HashSet<u32>,
    /// What happened, to be read when it came out wrong.
    story: Vec<String>,
    buffer_bytes_max: usize,
    /// Whether nothing happens but that hosts join.
    has_only_joins: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = SmallRng::seed_from_u64(seed);
        let buffer_bytes_max = if random.random_ratio(1, 8) { 600 } else { 1 << 20 };
        let redis = Redis {
            data: Data::default(),
            logs: vec![Vec::new()],
            identity: 1,
            stalled_until: 0,
            away_until: 0,
            full_until: 0,
            older: VecDeque::new(),
            replica_lag_ms: random.random_range(0..REPLICA_LAG_MS_MAX),
        };
        let mut world = World {
            random,
            start: Instant::now(),
            now_ms: 1_000_000,
            redis,
            hosts: Vec::new(),
            sent: Vec::new(),
            replies: Vec::new(),
            next_id: 0,
            copied: HashSet::new(),
            story: Vec::new(),
            buffer_bytes_max,
            has_only_joins: seed.is_multiple_of(8),
        };
        for _ in 0..world.random.random_range(1..=3) {
            world.join();
        }
        world
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.now_ms - 1_000_000)
    }

    fn join(&mut self) {
        let settings = Settings {
            buffer_bytes_max: self.buffer_bytes_max,
            silence_max: Duration::from_secs(3),
            claim_age_max: Duration::from_millis(DEDUP_WINDOW_MS / 2),
            round_messages_max: self.random.random_range(20..60),
            round_bytes_max: 2 << 20,
        };
        let name: Arc<str> = format!("host-{}", self.hosts.len()).into();
        self.hosts.push(Host {
            name: name.clone(),
            protocol: Protocol::new(name, settings, self.now(), self.random.random()),
            streams: Vec::new(),
            opening_at: None,
            opened: 0,
            connection: 0,
            connected: true,
            is_waiting: false,
            watched: u64::MAX,
            wake_at: None,
            paused_until: 0,
            renamed_at: None,
            is_alive: true,
            is_stopped: false,
            is_told_to_stop: false,
            stopping: false,
            heard: HashSet::new(),
            lost: 0,
            by_claims: 0,
            gaps: 0,
        });
    }

    fn is_up(&self) -> bool {
        self.now_ms >= self.redis.away_until
    }

    fn executes(&self) -> bool {
        self.is_up() && self.now_ms >= self.redis.stalled_until
    }

    fn run(&mut self) -> Result<usize, String> {
        for tick in 0..TICKS + REST_TICKS {
            self.now_ms += TICK_MS;
            if tick < TICKS {
                self.publish();
                self.fault();
            } else if tick == TICKS {
                self.heal();
            }
            self.execute();
            let mut order: Vec<usize> = (0..self.hosts.len()).collect();
            for at in (1..order.len()).rev() {
                order.swap(at, self.random.random_range(0..=at));
            }
            for host in order {
                self.step(host);
            }
            if self.executes() && tick % 8 == 0 {
                self.redis.remember(self.now_ms);
            }
        }
        self.judge()
    }

    fn publish(&mut self) {
        if !self.executes() {
            return;
        }
        for _ in 0..*[0, 0, 1, 2, 5].get(self.random.random_range(0..5)).expect("an index") {
            let id = match self.random.random_ratio(1, 30) && self.next_id > 20 {
                // A copy by the publisher, well within the window.
                true => {
                    let id = self.next_id - self.random.random_range(1..5);
                    self.copied.insert(id);
                    id
                }
                false => {
                    self.next_id += 1;
                    self.next_id
                }
            };
            self.redis.log().push(Event::Message(id));
        }
    }

    fn execute(&mut self) {
        if !self.executes() {
            return;
        }
        let now_ms = self.now_ms;
        let (mut due, later): (Vec<Sent>, Vec<Sent>) =
            std::mem::take(&mut self.sent).into_iter().partition(|sent| sent.execute_at <= now_ms);
        self.sent = later;
        due.sort_by_key(|sent| sent.execute_at);
        for sent in due {
            // What was sent to a server that is gone is gone.
            if sent.identity != self.redis.identity {
                continue;
            }
            let what = match sent.what {
                What::Mark { host, former, wish } => {
                    let announcement = self.redis.mark(&host, former.as_deref(), wish, now_ms);
                    Answered::Marked(announcement, ReplicationId(self.redis.identity))
                }
                What::Watch => Answered::Listed(self.redis.data.covered.clone(), self.redis.data.version),
                What::Append { .. } if now_ms < self.redis.full_until => Answered::Refused,
                What::Append { watched, messages, covered } => {
                    let is_appended = self.redis.append(watched, &messages, &covered, now_ms);
                    Answered::Appended(is_appended, self.redis.data.covered.clone(), self.redis.data.version)
                }
            };
            let arrives_at = now_ms + self.random.random_range(0..60);
            self.replies.push(Reply { host: sent.host, connection: sent.connection, arrives_at, what });
        }
    }

    fn step(&mut self, index: usize) {
        let (now, now_ms, is_up) = (self.now(), self.now_ms, self.is_up());
        let host = &mut self.hosts[index];
        if !host.is_alive || host.is_stopped || now_ms < host.paused_until {
            return;
        }
        if host.renamed_at.take_if(|at| *at <= now_ms).is_some() {
            host.name = format!("{}-again", host.name).into();
            host.protocol.known_as(&host.name, false);
        }
        // Subscriptions.
        for stream in &mut host.streams {
            if now_ms < stream.silent_until {
                continue;
            }
            if stream.demoted_at.is_some_and(|at| at <= now_ms) {
                (stream.demoted_at, stream.log) = (None, self.redis.logs.len() - 1);
                stream.next = self.redis.logs[stream.log].len();
            }
            let arrived = match stream.at_replica && stream.log + 1 == self.redis.logs.len() {
                true => self.redis.replica(now_ms).map_or(stream.next, |replica| replica.events),
                false => self.redis.logs[stream.log].len(),
            };
            let most = self.random.random_range(0..60);
            for event in self.redis.logs[stream.log][stream.next..].iter().take(most.min(arrived - stream.next)) {
                match event {
                    Event::Message(id) => {
                        let text = id.to_string();
                        host.heard.insert(*id);
                        host.protocol.messages(stream.id, [text.as_bytes()].into_iter(), now);
                    }
                    Event::Mark(announcement) => host.protocol.mark(stream.id, announcement, now),
                }
                stream.next += 1;
            }
        }
        host.protocol.tend(now);
        if let Some(id) = host.protocol.useless_subscription(now) {
            host.protocol.closed(id, now);
            host.streams.retain(|stream| stream.id != id);
        }
        match host.opening_at {
            _ if host.is_told_to_stop => host.opening_at = None,
            Some(at) if at <= now_ms && is_up && now_ms >= self.redis.stalled_until => {
                host.opening_at = None;
                host.opened += 1;
                let log = self.redis.logs.len() - 1;
                let replicated = self.redis.replica(now_ms).map(|replica| replica.events);
                let at_replica = replicated.is_some() && self.random.random_ratio(1, AT_REPLICA);
                let identity = self.redis.identity;
                let next = replicated.filter(|_| at_replica).unwrap_or(self.redis.logs[log].len());
                host.streams.push(Subscribed {
                    id: host.opened,
                    log,
                    next,
                    silent_until: 0,
                    at_replica,
                    demoted_at: None,
                });
                host.protocol.opened(
                    host.opened,
                    Beginning { is_at_replica: at_replica, data: ReplicationId(identity) },
                    now,
                );
            }
            None if host.streams.len() < 2 && host.protocol.wants_subscription(now) => {
                host.opening_at = Some(now_ms + self.random.random_range(0..200));
            }
            _ => {}
        }
        if host.stopping {
            // Everything that was published before the end of the subscription has arrived.
            let has_all = host.streams.iter().all(|stream| stream.next == self.redis.logs[stream.log].len());
            if has_all {
                for stream in host.streams.drain(..) {
                    host.protocol.closed(stream.id, now);
                }
                host.protocol.stop();
                host.stopping = false;
            }
        }
        // Answers.
        let (due, later): (Vec<Reply>, Vec<Reply>) = std::mem::take(&mut self.replies)
            .into_iter()
            .partition(|reply| reply.host == index && reply.arrives_at <= now_ms);
        self.replies = later;
        for reply in due.into_iter().filter(|reply| reply.connection == host.connection && host.connected) {
            host.is_waiting = false;
            host.wake_at = None;
            match reply.what {
                Answered::Marked(announcement, data) => host.protocol.announced(&announcement, data, now),
                Answered::Listed(covered, version) => {
                    host.watched = version;
                    host.protocol.listed(covered);
                }
                Answered::Appended(is_appended, covered, version) => {
                    host.watched = version;
                    host.protocol.appended(is_appended, covered);
                }
                Answered::Refused => drop(host.protocol.refused(now)),
            }
        }
        let counted = host.protocol.take_counted();
        host.lost += counted.shed + counted.too_old;
        host.by_claims += counted.by_claims;
        host.gaps += counted.gaps.len();
        // The connection that appends.
        if !host.connected {
            if is_up && self.random.random_ratio(1, 4) {
                host.connected = true;
                host.connection += 1;
                host.is_waiting = false;
            }
            return;
        }
        if host.is_waiting {
            return;
        }
        let what = match host.protocol.next(now) {
            Step::Mark(wish) => {
                What::Mark { host: host.name.clone(), former: host.protocol.former_id().cloned(), wish }
            }
            Step::Watch => What::Watch,
            Step::Append => What::Append {
                watched: host.watched,
                messages: host
                    .protocol
                    .round()
                    .map(|payload| str::from_utf8(payload).expect("text").parse().expect("a number"))
                    .collect(),
                covered: host.protocol.list_then().clone(),
            },
            Step::Wait(_) => return,
            Step::Reconnect => {
                self.cut_writes(index);
                return;
            }
            Step::Done => {
                host.is_stopped = true;
                return;
            }
        };
        host.is_waiting = true;
        let execute_at = now_ms + self.random.random_range(0..60);
        let (connection, identity) = (host.connection, self.redis.identity);
        self.sent.push(Sent { host: index, connection, identity, execute_at, what });
    }

    fn judge(&self) -> Result<usize, String> {
        let mut problems = Vec::new();
        let appended = &self.redis.data.appended;
        let mut heard: HashSet<u32> = HashSet::new();
        for host in self.hosts.iter().filter(|host| host.is_alive && !host.is_stopped) {
            heard.extend(&host.heard);
        }
        let lost: usize = self.hosts.iter().map(|host| host.lost).sum();
        let missing: Vec<&u32> = heard.iter().filter(|id| !appended.contains_key(id)).collect();
        if missing.len() > lost {
            problems.push(format!(
                "{} messages are missing, {lost} were counted: {:?}",
                missing.len(),
                &missing[..missing.len().min(5)]
            ));
        }
        // A copy that waits for longer than the dedup window, because Redis is away, is none any more.
        let twice: Vec<(&u32, &u32)> =
            appended.iter().filter(|(id, count)| **count > 1 && !self.copied.contains(id)).collect();
        // Nobody knows whether what was heard without a mark has been appended before: claims tell, as long as they last.
        let by_claims: usize = self.hosts.iter().map(|host| host.by_claims).sum();
        if twice.len() > by_claims {
            problems.push(format!("{} messages came twice: {:?}", twice.len(), &twice[..twice.len().min(5)]));
        }
        // What has no id has no claim, and only its position keeps it from coming twice.
        let again: Vec<&u32> = self.redis.data.again.difference(&self.copied).collect();
        if self.has_only_joins && !again.is_empty() {
            problems.push(format!(
                "{} messages were appended by their claims: {:?}",
                again.len(),
                &again[..again.len().min(5)]
            ));
        }
        let running = self.hosts.iter().filter(|host| host.is_alive && !host.is_stopped);
        let active = running.clone().filter(|host| host.protocol.state(self.now()) == State::Active).count();
        if active != 1 {
            let states: Vec<State> = running.clone().map(|host| host.protocol.state(self.now())).collect();
            problems.push(format!("{active} intakes are active: {states:?}"));
        }
        let lag: usize = running.map(|host| host.protocol.lag()).sum();
        if lag > 0 {
            problems.push(format!("{lag} messages wait"));
        }
        if problems.is_empty() { Ok(heard.len()) } else { Err(problems.join("; ")) }
    }
}

#[test]
fn every_message_that_a_living_host_has_heard_is_appended_once_whatever_happens() {
    // The same in every test run, so that a failure comes from a change.
    let seeds = std::env::var("HOST_SIMULATION_SEEDS").unwrap_or_else(|_| "0..2000".to_owned());
    let (first, end) = seeds.split_once("..").expect("FIRST..END");
    let (first, end): (u64, u64) = (first.parse().expect("a number"), end.parse().expect("a number"));
    let mut heard = 0;
    let mut failures = Vec::new();
    for seed in first..end {
        let mut world = World::new(seed);
        match world.run() {
            Ok(messages) => heard += messages,
            Err(problem) => failures.push(format!("seed {seed}: {problem}\n  {}", world.story.join("\n  "))),
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {seeds} failed; {}",
        failures.len(),
        failures[..failures.len().min(4)].join("\n")
    );
    assert!(heard > 0, "nothing was published");
}
