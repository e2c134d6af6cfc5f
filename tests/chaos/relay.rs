//! The way of one host to Redis: a TCP relay that stalls, delays, cuts, hands on tiny pieces, or leads new connections to
//! another server while old ones stay. It also writes down which published messages it has handed to the host.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::clock::{Clock, NEVER};
use crate::ear::Ear;

/// What the relay does with what is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// Hands it on.
    Pass,
    /// Keeps it, in both directions.
    Stall,
    /// Keeps what comes from the host.
    StallUp,
    /// Keeps what comes from Redis.
    StallDown,
    /// Hands each piece on after up to so many milliseconds.
    Delay(u64),
    /// Hands it on in pieces of up to 900 bytes.
    Tiny,
    /// Hands on a part of each reply and closes the connection.
    Cut,
    /// Hands on so many bytes a second from the host.
    SlowUp(u64),
}

/// A published message that was handed to the host.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    pub message: u32,
    pub at: u32,
    /// Index of the connection.
    pub line: u32,
}

/// A listening relay; ends with its value.
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    /// Port of the server that new connections lead to.
    target: AtomicU16,
    /// New connections are closed at once.
    refusing: AtomicBool,
    ended: AtomicBool,
    way: Mutex<Way>,
    changed: Condvar,
    lines: Mutex<Vec<Arc<Line>>>,
    heard: Mutex<Vec<Heard>>,
}

/// One connection of the host.
struct Line {
    index: u32,
    host: TcpStream,
    server: TcpStream,
    /// When it was closed by any side.
    closed: AtomicU32,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Up,
    Down,
}

impl Relay {
    pub fn start(clock: Clock, target: u16) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let shared = Arc::new(Shared {
            clock,
            target: AtomicU16::new(target),
            refusing: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            way: Mutex::new(Way::Pass),
            changed: Condvar::new(),
            lines: Mutex::default(),
            heard: Mutex::default(),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for host in listener.incoming().flatten() {
                if serving.ended.load(Ordering::SeqCst) {
                    return;
                }
                if !serving.refusing.load(Ordering::SeqCst) {
                    serving.open(host);
                }
            }
        });
        Relay { port, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn set(&self, way: Way) {
        *self.shared.way() = way;
        self.shared.changed.notify_all();
    }

    /// Whether new connections are refused.
    pub fn refuse(&self, refusing: bool) {
        self.shared.refusing.store(refusing, Ordering::SeqCst);
    }

    /// Leads new connections to this port. Old ones stay.
    pub fn lead_to(&self, port: u16) {
        self.shared.target.store(port, Ordering::SeqCst);
    }

    /// Closes all connections; what is on its way on them is lost.
    pub fn break_all(&self) {
        for line in self.shared.lines().iter() {
            self.shared.close(line);
        }
        self.shared.changed.notify_all();
    }

    /// The messages handed to the host so far, in order.
    pub fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().expect("nobody panics with the lock").clone()
    }

    /// When the last message was handed to the host.
    pub fn last_heard(&self) -> Option<u32> {
        self.shared.heard.lock().expect("nobody panics with the lock").last().map(|heard| heard.at)
    }

    /// When each connection was closed; [`NEVER`] if it is open.
    pub fn closed(&self) -> Vec<u32> {
        self.shared.lines().iter().map(|line| line.closed.load(Ordering::SeqCst)).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.break_all();
        // Wakes the listener, which then goes away.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().expect("nobody panics with the lock")
    }

    fn lines(&self) -> MutexGuard<'_, Vec<Arc<Line>>> {
        self.lines.lock().expect("nobody panics with the lock")
    }

    fn open(self: &Arc<Shared>, host: TcpStream) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target.load(Ordering::SeqCst))) else { return };
        for stream in [&host, &server] {
            stream.set_nodelay(true).expect("a TCP stream has the option");
        }
        let mut lines = self.lines();
        let index = u32::try_from(lines.len()).expect("fewer connections than that");
        let line = Arc::new(Line { index, host, server, closed: AtomicU32::new(NEVER) });
        lines.push(line.clone());
        drop(lines);
        for direction in [Direction::Up, Direction::Down] {
            let (shared, line) = (self.clone(), line.clone());
            thread::spawn(move || {
                shared.pump(&line, direction);
                shared.close(&line);
                shared.changed.notify_all();
            });
        }
    }

    fn close(&self, line: &Line) {
        let now = self.clock.now();
        let _ = line.closed.compare_exchange(NEVER, now, Ordering::SeqCst, Ordering::SeqCst);
        let _ = line.host.shutdown(Shutdown::Both);
        let _ = line.server.shutdown(Shutdown::Both);
    }

    /// Hands on what comes until the connection ends.
    fn pump(&self, line: &Line, direction: Direction) {
        let (mut from, mut to) = match direction {
            Direction::Up => (&line.host, &line.server),
            Direction::Down => (&line.server, &line.host),
        };
        let (mut buffer, mut ear) = (vec![0; 64 << 10], Ear::new());
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let way = self.pass(line, direction);
            if line.closed.load(Ordering::SeqCst) != NEVER {
                return;
            }
            let bytes = match way {
                Way::Cut if direction == Direction::Down => &buffer[..rand::random_range(0..count)],
                _ => &buffer[..count],
            };
            for piece in pieces(way, direction, bytes) {
                if to.write_all(piece).is_err() {
                    return;
                }
                if direction == Direction::Down {
                    self.hear(&mut ear, line, piece);
                }
                pause(way, direction, piece.len());
            }
            if way == Way::Cut && direction == Direction::Down {
                return;
            }
        }
    }

    /// Waits until something may come through this way.
    fn pass(&self, line: &Line, direction: Direction) -> Way {
        let stalled = |way: Way| {
            way == Way::Stall || way == if direction == Direction::Up { Way::StallUp } else { Way::StallDown }
        };
        let wait = |way: &mut Way| stalled(*way) && line.closed.load(Ordering::SeqCst) == NEVER;
        let way = *self.changed.wait_while(self.way(), wait).expect("nobody panics with the lock");
        if let Way::Delay(most_ms) = way {
            thread::sleep(Duration::from_millis(rand::random_range(0..=most_ms)));
        }
        way
    }

    fn hear(&self, ear: &mut Ear, line: &Line, piece: &[u8]) {
        let mut complete = Vec::new();
        ear.hear(piece, |message| complete.push(message));
        if !complete.is_empty() {
            let (at, line) = (self.clock.now(), line.index);
            let mut heard = self.heard.lock().expect("nobody panics with the lock");
            heard.extend(complete.into_iter().map(|message| Heard { message, at, line }));
        }
    }
}

/// The pieces in which something is handed on.
fn pieces(way: Way, direction: Direction, bytes: &[u8]) -> Vec<&[u8]> {
    match way {
        Way::Tiny => {
            let (mut rest, mut pieces) = (bytes, Vec::new());
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rand::random_range(1..=900).min(rest.len()));
                pieces.push(piece);
                rest = later;
            }
            pieces
        }
        Way::SlowUp(_) if direction == Direction::Up => bytes.chunks(4096).collect(),
        _ => vec![bytes],
    }
}

fn pause(way: Way, direction: Direction, bytes: usize) {
    if let Way::SlowUp(bytes_per_second) = way
        && direction == Direction::Up
    {
        thread::sleep(Duration::from_micros(bytes as u64 * 1_000_000 / bytes_per_second));
    }
}
