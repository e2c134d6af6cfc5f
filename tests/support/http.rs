//! A plain HTTP client: one request, one connection, what the server said.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use serde_json::Value;

use super::{BOUND, Host, wait_for};

/// A request to a host, before it is sent.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn get(path: &str) -> Request {
        Request { method: "GET".to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn method(self, method: &str) -> Request {
        Request { method: method.to_owned(), ..self }
    }

    /// A POST with this JSON as its body.
    pub fn post(path: &str, body: &Value) -> Request {
        let request = Request { body: body.to_string().into_bytes(), ..Request::get(path).method("POST") };
        request.header("Content-Type", "application/json")
    }

    pub fn body(self, body: &[u8]) -> Request {
        Request { body: body.to_vec(), ..self }
    }

    /// A header, in place of one with the same name.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn token(self, token: &str) -> Request {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sends the request over a new connection and reads the whole answer.
    pub fn send(self, address: SocketAddr) -> Answer {
        let stream = TcpStream::connect(address).expect("connect to the listener");
        stream.set_read_timeout(Some(BOUND)).expect("bound the read");
        self.exchange(stream)
    }

    /// Sends the request over this connection and reads until its end.
    pub fn exchange(self, mut stream: impl Read + Write) -> Answer {
        self.write(&mut stream);
        let mut bytes = Vec::new();
        // A close without a farewell, as after a refused body, ends the answer as well.
        let _ = stream.read_to_end(&mut bytes);
        Answer::read(&bytes)
    }

    /// Sends the request, whose answer must be a stream of events.
    pub fn follow(self, address: SocketAddr) -> Events {
        let mut stream = TcpStream::connect(address).expect("connect to the listener");
        stream.set_read_timeout(Some(BOUND)).expect("bound the read");
        self.write(&mut stream);
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).expect("the head of an answer") > 0, "the answer ends: {head}");
        }
        let is_stream = head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream");
        assert!(is_stream, "no stream of events: {head}");
        Events { reader, text: String::new() }
    }

    /// Sends the request, and returns the status of the answer as soon as it is known.
    pub fn status(self, address: SocketAddr) -> u16 {
        let mut stream = TcpStream::connect(address).expect("connect to the listener");
        stream.set_read_timeout(Some(BOUND)).expect("bound the read");
        self.write(&mut stream);
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a status line");
        line.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a number")
    }

    fn write(mut self, stream: &mut impl Write) {
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            self = self.header("Host", "127.0.0.1");
        }
        let mut head = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\n\r\n", self.body.len());
        // A server may answer and close before it has read a large body.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&self.body));
    }
}

/// An answer that is a stream of events.
pub struct Events {
    reader: BufReader<TcpStream>,
    /// What was received and not read.
    text: String,
}

impl Events {
    /// The next event, with its name; `None` at the end of the stream.
    pub fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let (name, data) = (field("event:").unwrap_or_default().to_owned(), field("data:"));
                let data = serde_json::from_str(data.unwrap_or("null")).expect("JSON");
                self.text = rest.to_owned();
                return Some((name, data));
            }
            let mut length = String::new();
            self.reader.read_line(&mut length).expect("the length of a chunk in time");
            let length = usize::from_str_radix(length.trim(), 16).ok().filter(|length| *length > 0)?;
            let mut chunk = vec![0; length + 2];
            self.reader.read_exact(&mut chunk).expect("a chunk");
            self.text += std::str::from_utf8(&chunk[..length]).expect("text");
        }
    }

    /// The next event with this name.
    pub fn next_of(&mut self, name: &str) -> Value {
        loop {
            let (found, data) = self.next().unwrap_or_else(|| panic!("an event {name} before the end of the stream"));
            if found == name {
                return data;
            }
        }
    }

    /// The next event with this name for which the condition holds.
    pub fn wait_for(&mut self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let data = self.next_of(name);
            if is_it(&data) {
                return data;
            }
            assert!(start.elapsed() < BOUND, "no such event {name}: {data}");
        }
    }
}

impl Answer {
    pub fn read(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("the head of an answer");
        let head = std::str::from_utf8(&bytes[..end]).expect("a head of text");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let status = status.parse().expect("a number");
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(':').expect("a header"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let answer = Answer { status, headers, body: bytes[end + 4..].to_vec() };
        match answer.header("transfer-encoding") {
            Some("chunked") => Answer { body: unchunked(&answer.body), ..answer },
            _ => answer,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let length = std::str::from_utf8(&bytes[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let length = length.expect("the length of a chunk");
        let Some(chunk) = bytes.get(end + 2..end + 2 + length).filter(|chunk| !chunk.is_empty()) else { break };
        body.extend_from_slice(chunk);
        bytes = bytes.get(end + 4 + length..).unwrap_or_default();
    }
    body
}

/// The address at which this host listens for HTTP.
pub fn address(host: &Host) -> SocketAddr {
    wait_for("the address of the listener", BOUND, || {
        let log = host.log();
        let rest = log.split("listening for HTTP on ").nth(1).and_then(|rest| rest.split("://").nth(1));
        // In a log of JSON other fields may follow.
        let text = rest.and_then(|rest| rest.split([' ', '\n', '"']).next());
        text.and_then(|text| text.parse().ok()).ok_or(log)
    })
}
