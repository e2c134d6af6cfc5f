//! Publishers: pipelined `PUBLISH` over plain sockets at a steady rate. They go on sending while Redis does not answer, as
//! real ones do, up to a bound.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::clock::{NEVER, wait};
use crate::ledger::ID_START;
use crate::setup::Setup;
use crate::world::World;

/// Pace of a publisher.
const TICK_MS: u32 = 10;

/// Messages sent and not answered, at most.
const UNANSWERED_MAX: usize = 20_000;

/// Messages of a burst that are sent at a time.
const BATCH: u32 = 100;

/// Copies are of the last messages of so much time, which is a small part of the dedup window.
const COPY_AGE_MS: u32 = 3_000;

/// A longer `write` than this means that Redis does not read.
const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

/// Messages that were sent on a connection and are not answered.
type Unanswered = Arc<Mutex<VecDeque<u32>>>;

/// A publisher in the background.
pub struct Publisher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A connection, read in a thread of its own.
struct Connection {
    port: u16,
    stream: TcpStream,
    unanswered: Unanswered,
    reader: JoinHandle<()>,
}

impl Publisher {
    pub fn start(world: &Arc<World>, seed: u64, per_second: u32) -> Publisher {
        let stop = Arc::new(AtomicBool::new(false));
        let (world, stopped) = (world.clone(), stop.clone());
        let thread = thread::spawn(move || publish(&world, &stopped, StdRng::seed_from_u64(seed), per_second));
        Publisher { stop, thread: Some(thread) }
    }

    /// Sends no more and waits for the last answers.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("a publisher finishes once").join().expect("the publisher runs to its end");
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn publish(world: &Arc<World>, stop: &AtomicBool, mut random: StdRng, per_second: u32) {
    let mut connection: Option<Connection> = None;
    let mut recent: VecDeque<(u32, u32)> = VecDeque::new();
    let (mut due, mut commands) = (world.clock.now(), Vec::new());
    while !stop.load(Ordering::SeqCst) {
        let now = world.clock.now();
        wait(due.saturating_sub(now));
        // What could not be sent while Redis was away is not made up for.
        due = due.max(now.saturating_sub(TICK_MS)) + TICK_MS;
        if world.publishing_paused() || connection.as_ref().is_some_and(|it| !it.is_good(world.primary_port())) {
            connection.take().into_iter().for_each(Connection::close);
            continue;
        }
        let Some(open) = connection.take().or_else(|| Connection::open(world).ok()) else { continue };
        if open.unanswered.lock().expect("nobody panics with the lock").len() < UNANSWERED_MAX {
            let now = world.clock.now();
            let count = (per_second * TICK_MS / 1000).max(1);
            commands.clear();
            let first = world.ledger.enter(count as usize, now);
            let mut numbers: Vec<u32> = (first..first + count).collect();
            while recent.front().is_some_and(|(_, sent)| sent + COPY_AGE_MS < now) {
                recent.pop_front();
            }
            if world.setup.copies && !recent.is_empty() {
                let copies = (0..count / 5).map(|_| recent[random.random_range(0..recent.len())].0);
                numbers.extend(copies.collect::<Vec<_>>());
            }
            recent.extend((first..first + count).map(|number| (number, now)));
            numbers.iter().for_each(|number| encode(&payload(&world.setup, *number), &mut commands));
            if open.send(&numbers, &commands).is_err() {
                open.close();
                continue;
            }
        }
        connection = Some(open);
    }
    connection.into_iter().for_each(Connection::finish);
}

impl Connection {
    fn open(world: &Arc<World>) -> io::Result<Connection> {
        let port = world.primary_port();
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let unanswered = Unanswered::default();
        let (world, waiting, replies) = (world.clone(), unanswered.clone(), stream.try_clone()?);
        let reader = thread::spawn(move || read(&world, &waiting, replies));
        Ok(Connection { port, stream, unanswered, reader })
    }

    /// It leads to this server, and the server has not closed it.
    fn is_good(&self, port: u16) -> bool {
        self.port == port && !self.reader.is_finished()
    }

    fn send(&self, numbers: &[u32], commands: &[u8]) -> io::Result<()> {
        self.unanswered.lock().expect("nobody panics with the lock").extend(numbers);
        (&self.stream).write_all(commands)
    }

    /// Waits for the answers to everything sent, with a bound.
    fn finish(self) {
        for _ in 0..1000 {
            if self.reader.is_finished() || self.unanswered.lock().expect("nobody panics with the lock").is_empty() {
                break;
            }
            wait(TICK_MS);
        }
        self.close();
    }

    fn close(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let _ = self.reader.join();
    }
}

/// Enters the answers into the ledger until the connection ends.
fn read(world: &World, unanswered: &Unanswered, stream: TcpStream) {
    let copy_ms_max = u32::try_from(world.setup.dedup_window.as_millis() / 2).unwrap_or(NEVER);
    let (mut replies, mut line) = (BufReader::new(stream), String::new());
    let mut answers = Vec::new();
    loop {
        line.clear();
        let complete = replies.read_line(&mut line).is_ok() && line.ends_with('\n');
        let mut waiting = unanswered.lock().expect("nobody panics with the lock");
        if !complete {
            waiting.drain(..).for_each(|number| world.ledger.copy_may_be_late(number));
            return;
        }
        let number = waiting.pop_front();
        drop(waiting);
        let receivers = line.strip_prefix(':').and_then(|count| count.trim_end().parse().ok());
        answers.extend(number.zip(receivers));
        if replies.buffer().is_empty() {
            world.ledger.answer(&answers, world.clock.now(), copy_ms_max);
            answers.clear();
        }
    }
}

/// The message with this number.
pub fn payload(setup: &Setup, number: u32) -> Vec<u8> {
    let mut text = format!("{ID_START}{number}\"");
    let order = match number % 400 {
        _ if !setup.mixed => "",
        0..6 => r#","do":"trap""#,
        6..12 => r#","do":"fail""#,
        12..24 => r#","do":"succeed-at","attempt":2,"delay_ms":150"#,
        24..30 => r#","do":"reject""#,
        30..40 => r#","do":"flaky""#,
        40..60 => r#","do":"wait","ms":15"#,
        _ => "",
    };
    let _ = write!(text, r#"{order},"padding":""#);
    let mut payload = text.into_bytes();
    let length = setup.message_bytes.max(payload.len() + 2);
    payload.resize(length - 2, b'x');
    payload.extend_from_slice(b"\"}");
    payload
}

/// Appends the command that publishes this.
pub fn encode(payload: &[u8], commands: &mut Vec<u8>) {
    let start = format!("*3\r\n$7\r\nPUBLISH\r\n$18\r\nmessages:published\r\n${}\r\n", payload.len());
    commands.extend_from_slice(start.as_bytes());
    commands.extend_from_slice(payload);
    commands.extend_from_slice(b"\r\n");
}

/// Publishes so many messages of this length, at a pace or as fast as Redis takes them; gives their numbers, as far as they
/// were sent.
pub fn burst(world: &Arc<World>, count: u32, bytes: usize, pace: Option<u32>) -> Vec<u32> {
    let setup = Setup { message_bytes: bytes, mixed: false, ..world.setup.clone() };
    let batch = pace.map_or(BATCH, |per_second| (per_second / 10).max(1));
    let mut sent = Vec::new();
    let Ok(connection) = Connection::open(world) else { return sent };
    while sent.len() < count as usize && connection.is_good(world.primary_port()) {
        let first = world.ledger.enter(batch as usize, world.clock.now());
        let numbers: Vec<u32> = (first..first + batch).collect();
        let mut commands = Vec::new();
        numbers.iter().for_each(|number| encode(&payload(&setup, *number), &mut commands));
        if connection.send(&numbers, &commands).is_err() {
            break;
        }
        sent.extend(numbers);
        if pace.is_some() {
            wait(100);
        }
    }
    connection.finish();
    sent
}
