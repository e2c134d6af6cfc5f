//! A server that lies: in front of a real Redis, it answers some requests with bytes of its own, without an end.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::Redis;

/// Bytes after which the listener has been fooled.
const BYTES_MAX: usize = 192 << 20;

/// Bytes that are written at once.
const PIECE_BYTES: usize = 64 << 10;

/// Bytes instead of the replies to a request.
#[derive(Clone, Copy, Debug)]
pub struct Lie {
    pub name: &'static str,
    /// What comes first.
    pub head: &'static str,
    /// What comes behind it, again and again.
    pub more: &'static str,
}

/// A listening server; ends with its value.
pub struct Liar {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_closed: AtomicBool,
    /// A word of the requests that get the lie, and the lie.
    lie: Mutex<Option<(&'static str, Lie)>>,
    clients: Mutex<Vec<TcpStream>>,
    /// How often the other side has hung up on a lie, and how often it has taken everything.
    seen_through: AtomicUsize,
    fooled: AtomicUsize,
}

impl Liar {
    /// Honest until it is told to lie.
    pub fn start(redis: &Redis) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let (state, target) = (Arc::new(State::default()), redis.port());
        let shared = state.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.is_closed.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                serve(&shared, client, server);
            }
        });
        Liar { port, state }
    }

    /// Where hosts find it.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From now on, requests with this word get the lie. Ends all connections.
    pub fn tell(&self, word: &'static str, lie: Lie) {
        self.turn_to(Some((word, lie)));
    }

    /// From now on, Redis answers. Ends all connections.
    pub fn be_honest(&self) {
        self.turn_to(None);
    }

    fn turn_to(&self, lie: Option<(&'static str, Lie)>) {
        *self.state.lie.lock().expect("nobody panics with the lock") = lie;
        self.state.seen_through.store(0, Ordering::SeqCst);
        for client in self.state.clients.lock().expect("nobody panics with the lock").drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// How often the other side has hung up on the present lie.
    pub fn seen_through(&self) -> usize {
        self.state.seen_through.load(Ordering::SeqCst)
    }

    /// How often the other side has taken megabytes of a lie.
    pub fn fooled(&self) -> usize {
        self.state.fooled.load(Ordering::SeqCst)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.state.is_closed.store(true, Ordering::SeqCst);
        self.be_honest();
        // Wakes the listener, which then goes away.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(state: &Arc<State>, client: TcpStream, server: TcpStream) {
    let share = |stream: &TcpStream| stream.try_clone().expect("share a connection");
    state.clients.lock().expect("nobody panics with the lock").push(share(&client));
    let lies = Arc::new(AtomicBool::new(false));
    let (mut from, mut to, is_lying) = (share(&server), share(&client), lies.clone());
    thread::spawn(move || {
        let mut buffer = [0; PIECE_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if is_lying.load(Ordering::SeqCst) {
                return;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let (state, mut from, mut to) = (state.clone(), client, server);
    thread::spawn(move || {
        let mut buffer = [0; PIECE_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let lie = *state.lie.lock().expect("nobody panics with the lock");
            let asks = |word: &str| buffer[..count].windows(word.len()).any(|window| window == word.as_bytes());
            if let Some((_, lie)) = lie.filter(|(word, _)| asks(word)) {
                lies.store(true, Ordering::SeqCst);
                let seen_through = tell(lie, &mut from);
                let count = if seen_through { &state.seen_through } else { &state.fooled };
                count.fetch_add(1, Ordering::SeqCst);
                break;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// Tells a lie until the other side hangs up. `false`: it has taken too much.
fn tell(lie: Lie, client: &mut TcpStream) -> bool {
    if client.write_all(lie.head.as_bytes()).is_err() {
        return true;
    }
    let piece = lie.more.repeat(PIECE_BYTES / lie.more.len().max(1)).into_bytes();
    let pieces = (0..BYTES_MAX / PIECE_BYTES).take_while(|_| !piece.is_empty());
    for _ in pieces {
        if client.write_all(&piece).is_err() {
            return true;
        }
    }
    // It has taken everything, or there was no more: hung up is who closes without another word.
    !matches!(client.read(&mut [0; 1]), Ok(1..)) && piece.is_empty()
}
