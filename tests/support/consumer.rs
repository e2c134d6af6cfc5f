//! A plain consumer that speaks HTTP, and a plain client: what a program of somebody else's would be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::BOUND;

/// A plain client: posts a body and reads status and JSON.
pub fn post_as(kind: &str, address: SocketAddr, path: &str, extra: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(BOUND)).expect("bound the read");
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{kind}{extra}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

/// Posts JSON.
pub fn post(address: SocketAddr, path: &str, body: &str) -> (u16, Value) {
    post_as("Content-Type: application/json\r\n", address, path, "", body)
}

/// What a plain consumer was asked: the head of the request and its body.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A plain consumer: healthy, and answers each message with the status that `answer` gives, or not at all.
pub struct Consumer {
    pub address: SocketAddr,
    asked: Asked,
}

impl Consumer {
    pub fn start(answer: impl Fn(&str) -> Option<u16> + Send + Sync + 'static) -> Consumer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, asked) = (listener.local_addr().expect("an address"), Asked::default());
        let (seen, answer) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (seen.clone(), answer.clone());
                thread::spawn(move || serve(stream.expect("a connection"), &seen, &*answer));
            }
        });
        Consumer { address, asked }
    }

    /// Its id.
    pub fn id(&self) -> String {
        self.address.to_string()
    }

    /// Health checks so far.
    pub fn checks(&self) -> usize {
        self.asked
            .lock()
            .expect("nobody panics with the lock")
            .iter()
            .filter(|(head, _)| head.starts_with("GET /health "))
            .count()
    }

    /// Messages so far: the head of the request and the message.
    pub fn messages(&self) -> Vec<(String, String)> {
        let asked = self.asked.lock().expect("nobody panics with the lock");
        asked.iter().filter(|(head, _)| head.starts_with("POST /processMessage ")).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, seen: &Asked, answer: &(dyn Fn(&str) -> Option<u16> + Send + Sync)) {
    let mut bytes = Vec::new();
    let (head, body) = loop {
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
            _ => return,
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let length: usize = header.map_or(0, |length| length.parse().expect("a length"));
        if body.len() >= length {
            break (head.to_owned(), body.to_owned());
        }
    };
    let status = if head.starts_with("GET /health ") { Some(200) } else { answer(&body) };
    seen.lock().expect("nobody panics with the lock").push((head, body));
    match status {
        Some(status) => {
            let line =
                format!("HTTP/1.1 {status} as the test says\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}");
            let _ = stream.write_all(line.as_bytes());
        }
        // Holds the connection until the other side gives up.
        None => drop(stream.read(&mut [0])),
    }
}
