//! The soak: an hour at half of what the machine can do, without faults. Every message comes through once, and memory,
//! handles, threads and the size of every key stay what they are. Here nobody stands between hosts and Redis.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use redis::cmd;

use crate::clock::wait;
use crate::ledger::number;
use crate::load::encode;
use crate::member::Use;
use crate::outcomes::{Entries, message_of};
use crate::support::host::Launch;
use crate::support::records::{DEAD, INBOX, OUTPUT};
use crate::support::{BOUND, Host, Redis, Signal, puppet};
use crate::world::connect;

const HOSTS: usize = 2;
const CONSUMERS: usize = 4;

/// Short, so that the number of ids that Redis remembers is the same after a minute.
const DEDUP_WINDOW: &str = "20s";

/// Messages by which the machine is measured.
const MEASURED: u64 = 400_000;

/// Messages sent at a time when that is as fast as Redis takes them.
const FLOOD: u64 = 500;

const TICK_MS: u32 = 10;

/// Samples of everything that is to stay flat.
const SAMPLES: u32 = 60;

/// Entries read at a time.
const PAGE: usize = 5_000;

/// What may grow from the second fifth of the samples to the last one: a tenth, and this much.
const KIB_MORE: u64 = 16 << 10;
const BYTES_MORE: u64 = 256 << 10;
const HANDLES_MORE: u64 = 3;

/// Figures by name, one of each sample.
type Samples = BTreeMap<String, Vec<u64>>;

struct Soak {
    redis: Redis,
    hosts: Vec<Host>,
    sent: AtomicU64,
    /// Answers that fewer than all hosts heard a message.
    unheard: AtomicU64,
    done: AtomicBool,
}

/// Results that were read.
struct Read {
    /// A bit of each message.
    seen: Vec<u64>,
    once: u64,
    twice: u64,
    last: String,
}

/// Runs for so long at this rate, or at half of what the machine can do; true if everything stayed flat.
pub fn run(program: &Path, minutes: f64, rate: Option<u64>, folder: &Path, bar: &ProgressBar) -> bool {
    let plugin = puppet();
    let redis = Redis::start();
    let start = |number: usize| {
        let file = |kind: &str| File::create(folder.join(format!("h{number}.{kind}"))).expect("create a log of a host");
        let launch = Launch::program(program).arg("--redis", redis.url()).arg("--plugin", &plugin);
        let launch = launch.arg("--dedup-window", DEDUP_WINDOW).arg("--log-format", "json");
        launch.stdout(file("out")).stderr(file("err")).ready(&redis, CONSUMERS)
    };
    let hosts = (1..=HOSTS).map(start).collect();
    let (sent, unheard) = (AtomicU64::new(0), AtomicU64::new(0));
    let soak = Soak { redis, hosts, sent, unheard, done: AtomicBool::new(false) };
    let mut read = Read { seen: Vec::new(), once: 0, twice: 0, last: "-".into() };

    bar.set_message("measuring the machine");
    let start = Instant::now();
    soak.publish(MEASURED, None).expect("publish the first messages");
    soak.read_until(&mut read, MEASURED);
    let half = MEASURED * 1_000 / (2 * millis(start.elapsed()));
    let per_second = rate.unwrap_or(half);
    bar.set_message(format!("soak at {per_second} messages/s"));

    let time = Duration::from_secs_f64(minutes * 60.0);
    let messages = millis(time) * per_second / 1_000;
    let mut samples = Samples::new();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| soak.publish(messages, Some(per_second)));
        let reader = scope.spawn(|| {
            while !soak.done.load(Ordering::SeqCst) {
                soak.read(&mut read);
                wait(20);
            }
        });
        let start = Instant::now();
        for number in 1..SAMPLES {
            let at = start + time * number / SAMPLES;
            thread::sleep(at.saturating_duration_since(Instant::now()));
            // A sample of a short soak takes longer than the time between two.
            if !publisher.is_finished() {
                soak.sample(&mut samples);
            }
        }
        publisher.join().expect("the publisher runs to its end").expect("publish");
        soak.done.store(true, Ordering::SeqCst);
        reader.join().expect("the reader runs to its end");
    });
    let total = MEASURED + messages;
    soak.read_until(&mut read, total - soak.unheard.load(Ordering::SeqCst));
    soak.account(&read, total, &samples, minutes, per_second)
}

impl Soak {
    /// Publishes so many messages at this rate, or as fast as Redis takes them.
    fn publish(&self, messages: u64, per_second: Option<u64>) -> io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.redis.port()))?;
        stream.set_nodelay(true)?;
        let replies = stream.try_clone()?;
        thread::scope(|scope| {
            let reader = scope.spawn(move || self.answers(replies, messages));
            let (start, mut sent, mut commands) = (Instant::now(), 0, Vec::new());
            let first = self.sent.load(Ordering::SeqCst);
            while sent < messages {
                let due = per_second.map_or(sent + FLOOD, |rate| millis(start.elapsed()) * rate / 1_000);
                commands.clear();
                let until = due.min(messages);
                for number in first + sent..first + until {
                    let message = format!(r#"{{"message_id":"c-{number}","padding":"xxxxxxxxxxxxxxxxxxxx"}}"#);
                    encode(message.as_bytes(), &mut commands);
                }
                stream.write_all(&commands)?;
                sent = until.max(sent);
                if per_second.is_some() {
                    wait(TICK_MS);
                }
            }
            self.sent.store(first + sent, Ordering::SeqCst);
            reader.join().expect("the reader of answers runs to its end")
        })
    }

    fn answers(&self, stream: TcpStream, messages: u64) -> io::Result<()> {
        let (mut replies, mut line) = (BufReader::new(stream), String::new());
        for _ in 0..messages {
            line.clear();
            replies.read_line(&mut line)?;
            if line.trim_end() != format!(":{HOSTS}") {
                self.unheard.fetch_add(1, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    /// Reads the results that are there and removes them; gives their number.
    fn read(&self, read: &mut Read) -> usize {
        let mut redis = connect(self.redis.port()).expect("connect to Redis");
        let start = if read.last == "-" { "-".into() } else { format!("({}", read.last) };
        let page: Entries = cmd("XRANGE")
            .arg(OUTPUT)
            .arg(start)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE)
            .query(&mut redis)
            .expect("read results");
        for (_, fields) in &page {
            read.count(number(message_of(fields)).expect("the id of a message") as usize);
        }
        if let Some((last, _)) = page.last() {
            read.last.clone_from(last);
            let trimmed: redis::RedisResult<u64> = cmd("XTRIM").arg(OUTPUT).arg("MINID").arg(last).query(&mut redis);
            trimmed.expect("remove what was read");
        }
        page.len()
    }

    fn read_until(&self, read: &mut Read, once: u64) {
        let (mut before, mut moved) = (read.once, Instant::now());
        while read.once < once && moved.elapsed() < BOUND {
            if self.read(read) == 0 {
                wait(5);
            }
            if read.once > before {
                (before, moved) = (read.once, Instant::now());
            }
        }
    }

    fn sample(&self, samples: &mut Samples) {
        let mut add = |name: String, value: u64| samples.entry(name).or_default().push(value);
        for (number, host) in self.hosts.iter().enumerate() {
            let Some(Use { memory_kib, files, threads }) = Use::of(host.process()) else { continue };
            let host = number + 1;
            add(format!("h{host} memory, KiB"), memory_kib);
            add(format!("h{host} open files"), files as u64);
            add(format!("h{host} threads"), threads as u64);
        }
        let mut redis = connect(self.redis.port()).expect("connect to Redis");
        let (mut cursor, mut claims) = (0_u64, 0);
        loop {
            let page: (u64, Vec<String>) =
                cmd("SCAN").arg(cursor).arg("COUNT").arg(2_000).query(&mut redis).expect("scan");
            let (claim, other): (Vec<String>, Vec<String>) =
                page.1.into_iter().partition(|key| key.contains(":claim:"));
            claims += claim.len() as u64;
            // Permits have the id of a host in their names.
            for key in other.iter().filter(|key| !key.contains(":permit:")) {
                let bytes: Option<u64> = cmd("MEMORY")
                    .arg("USAGE")
                    .arg(key)
                    .arg("SAMPLES")
                    .arg(0)
                    .query(&mut redis)
                    .expect("ask for a size");
                // Results and deliveries come and go in large pages.
                if key != OUTPUT && key != INBOX {
                    add(format!("{key}, bytes"), bytes.unwrap_or(0));
                }
            }
            cursor = page.0;
            if cursor == 0 {
                break;
            }
        }
        add("claims".into(), claims);
        let length: u64 = cmd("XLEN").arg(INBOX).query(&mut redis).expect("length of the inbox");
        add(format!("{INBOX}, deliveries"), length);
    }

    /// Prints what was measured; true if it is as it should be.
    fn account(mut self, read: &Read, total: u64, samples: &Samples, minutes: f64, per_second: u64) -> bool {
        let dead = self.redis.length(DEAD);
        let unheard = self.unheard.load(Ordering::SeqCst);
        println!("soak of {minutes} minutes with {HOSTS} hosts at {per_second} messages/s: {total} messages");
        println!("  {} once, {} twice, {dead} dead letters, {unheard} not heard by all hosts", read.once, read.twice);
        let mut good = read.once == total && read.twice == 0 && dead == 0;
        for (name, values) in samples {
            let (early, late) = (median(fifth(values, 1)), median(fifth(values, 4)));
            let more = match name.rsplit_once(' ').map_or("", |(_, unit)| unit) {
                "KiB" => KIB_MORE,
                "bytes" => BYTES_MORE,
                "claims" | "deliveries" => 5_000,
                _ => HANDLES_MORE,
            };
            let is_flat = late <= early + early / 10 + more;
            println!("  {name}: {early} early, {late} late{}", if is_flat { "" } else { " GROWS" });
            good &= is_flat;
        }
        for host in self.hosts.drain(..) {
            host.signal(Signal::Terminate);
            good &= host.ended().code == Some(0);
        }
        good
    }
}

impl Read {
    fn count(&mut self, number: usize) {
        let (word, bit) = (number / 64, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit == 0 {
            self.once += 1
        } else {
            self.twice += 1
        }
        self.seen[word] |= bit;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).expect("a soak is shorter than that")
}

/// One fifth of the samples.
fn fifth(values: &[u64], number: usize) -> &[u64] {
    let (from, to) = (values.len() * number / 5, values.len() * (number + 1) / 5);
    &values[from..to]
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}
