//! A TCP proxy in front of Redis that can go silent: connections stay open and nothing comes through, as when
//! a cable is pulled or a firewall forgets.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
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
    /// One switch for each connection: it swallows everything once it is set.
    silent: Mutex<Vec<Arc<AtomicBool>>>,
}

impl Proxy {
    /// Forwards to this Redis.
    pub fn start(redis: &Redis) -> Proxy {
        let target = redis.port();
        Proxy::listen(TcpListener::bind("127.0.0.1:0").expect("bind a port"), move |client, silent| {
            let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
            forward(&client, &server, &silent);
            forward(&server, &client, &silent);
        })
    }

    /// Takes the place of a Redis that is away: accepts connections and hangs up.
    pub fn hanging_up(port: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("bind the port of the Redis that is away");
        Proxy::listen(listener, |client, _| drop(client))
    }

    fn listen(listener: TcpListener, serve: impl Fn(TcpStream, Arc<AtomicBool>) + Send + 'static) -> Proxy {
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                let silent = Arc::new(AtomicBool::new(false));
                shared.silent.lock().expect("nobody panics with the lock").push(silent.clone());
                serve(client, silent);
                shared.accepted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Proxy { port, state }
    }

    /// Where hosts find it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on nothing comes through on the connections that exist. New ones work.
    pub fn silence(&self) {
        for silent in self.state.silent.lock().expect("nobody panics with the lock").iter() {
            silent.store(true, Ordering::SeqCst);
        }
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

fn forward(from: &TcpStream, to: &TcpStream, silent: &Arc<AtomicBool>) {
    let mut from = from.try_clone().expect("share a connection");
    let mut to = to.try_clone().expect("share a connection");
    let silent = silent.clone();
    thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !silent.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}
