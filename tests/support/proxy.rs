//! A TCP proxy in front of Redis that can go silent: connections stay open and no bytes arrive, as with a pulled cable
//! or a forgetful firewall. The proxy can also delay bytes, like a congested network.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use super::Redis;

/// A listening proxy; ends with its value.
pub struct Proxy {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    closed: AtomicBool,
    accepted: AtomicUsize,
    /// Port of the server to which new connections lead.
    target: AtomicU16,
    /// One for each connection.
    gates: Mutex<Vec<Arc<Gate>>>,
}

/// Treatment of the bytes on a connection.
#[derive(Default)]
struct Gate {
    /// Bytes are dropped.
    silent: AtomicBool,
    held: Mutex<Held>,
    released: Condvar,
}

#[derive(Default)]
struct Held {
    /// Bytes to the server are delayed.
    requests: bool,
    /// Bytes to the client are delayed.
    replies: bool,
    /// The connection has ended, and what was delayed never arrives.
    lost: bool,
    /// The delayed bytes.
    bytes: Vec<u8>,
}

/// A direction of bytes.
#[derive(Clone, Copy)]
enum Way {
    Request,
    Reply,
}

impl Proxy {
    /// Forwards to this Redis.
    pub fn start(redis: &Redis) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
        let proxy = Proxy::listen(listener, |client, target, gate| {
            let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
            forward(&client, &server, &gate, Way::Request);
            forward(&server, &client, &gate, Way::Reply);
        });
        proxy.lead_to(redis);
        proxy
    }

    /// From now on new connections lead to this Redis, like a name that was moved to another server.
    pub fn lead_to(&self, redis: &Redis) {
        self.state.target.store(redis.port(), Ordering::SeqCst);
    }

    /// Takes the place of a Redis that is away: accepts connections and hangs up.
    pub fn hanging_up(port: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind the port of the Redis that is away");
        Proxy::listen(listener, |client, _, _| drop(client))
    }

    fn listen(listener: TcpListener, serve: impl Fn(TcpStream, u16, Arc<Gate>) + Send + 'static) -> Proxy {
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                let gate = Arc::new(Gate::default());
                shared.gates.lock().expect("nobody panics with the lock").push(gate.clone());
                serve(client, shared.target.load(Ordering::SeqCst), gate);
                shared.accepted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Proxy { port, state }
    }

    /// The TCP port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where hosts find it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on the existing connections drop all bytes. New connections work.
    pub fn silence(&self) {
        self.gates().iter().for_each(|gate| gate.silent.store(true, Ordering::SeqCst));
    }

    /// From now on the existing connections delay all bytes. New connections work.
    pub fn hold(&self) {
        self.gates().iter().for_each(|gate| (gate.held().requests, gate.held().replies) = (true, true));
    }

    /// From now on the server gets everything over the existing connections, and its replies are delayed.
    pub fn hold_replies(&self) {
        self.gates().iter().for_each(|gate| gate.held().replies = true);
    }

    /// Whether the delayed bytes contain these bytes.
    pub fn holds(&self, bytes: &str) -> bool {
        let bytes = bytes.as_bytes();
        self.gates().iter().any(|gate| gate.held().bytes.windows(bytes.len()).any(|window| window == bytes))
    }

    /// Delivers all delayed bytes, even when their sender has gone.
    pub fn release(&self) {
        for gate in self.gates() {
            (gate.held().requests, gate.held().replies) = (false, false);
            gate.released.notify_all();
        }
    }

    /// Ends the existing connections. What was delayed never arrives.
    pub fn lose(&self) {
        for gate in self.gates() {
            gate.held().lost = true;
            gate.released.notify_all();
        }
    }

    fn gates(&self) -> Vec<Arc<Gate>> {
        self.state.gates.lock().expect("nobody panics with the lock").clone()
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // Wakes the listener, which then goes away.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Gate {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().expect("nobody panics with the lock")
    }

    /// Waits with what is on its way until it may come through. `false` when it is lost.
    fn pass(&self, bytes: &[u8], way: Way) -> bool {
        let is_held = |held: &Held| match way {
            Way::Request => held.requests,
            Way::Reply => held.replies,
        };
        let mut held = self.held();
        if is_held(&held) {
            held.bytes.extend_from_slice(bytes);
        }
        let wait = |held: &mut Held| is_held(held) && !held.lost;
        !self.released.wait_while(held, wait).expect("nobody panics with the lock").lost
    }
}

fn forward(from: &TcpStream, to: &TcpStream, gate: &Arc<Gate>, way: Way) {
    let mut from = from.try_clone().expect("share a connection");
    let mut to = to.try_clone().expect("share a connection");
    let gate = gate.clone();
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !gate.pass(&buffer[..count], way) {
                break;
            }
            if !gate.silent.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
