//! Clients of the HTTP listener that are slow on purpose, or gone without a word: none of them keeps a connection.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Map, Value, json};

use crate::support::http::{Answer, Request, address};
use crate::support::{Host, Publisher, Redis, message, wait_until};

/// Outcomes that may be followed at the same time.
const TAILS: usize = 16;

/// A host that waits no longer than this for a client, and whose clients a test can exhaust.
fn impatient(redis: &Redis) -> (Host, SocketAddr) {
    let host = Host::on(redis).arg("--http", "127.0.0.1:0").arg("--http-timeout", "1s");
    let host = host.arg("--max-http-connections", "40").arg("--max-plugin-time", "1m").ready(redis, 1);
    let address = address(&host);
    (host, address)
}

/// A connection that says this, and whose reads and writes do not wait.
fn say(address: SocketAddr, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(words.as_bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

fn is_cut(result: &io::Result<usize>) -> bool {
    matches!(result, Err(error) if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()))
}

/// Says one more byte each time, until there is an answer or an end. Returns the answer.
fn drip(stream: &mut TcpStream, byte: &[u8; 1]) -> Vec<u8> {
    let mut answer = Vec::new();
    wait_until("the end of a connection that is slow to speak", || {
        let said = stream.write(byte);
        stream.read_to_end(&mut answer).is_ok() || is_cut(&said)
    });
    answer
}

#[test]
fn a_client_that_takes_little_or_nothing_of_its_answers_loses_its_connection() {
    let redis = Redis::start();
    let (host, address) = impatient(&redis);
    let request = "GET /page/page.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    for takes in [0, 1] {
        let mut stream = say(address, request);
        let mut asked = 0;
        wait_until("the end of a connection whose client takes little", || {
            // A request is written in parts when the host reads no more.
            let said = stream.write(&request.as_bytes()[asked % request.len()..]);
            asked += said.as_ref().copied().unwrap_or_default();
            let took = stream.read(&mut vec![0; takes]);
            is_cut(&said) || takes > 0 && is_cut(&took)
        });
    }
    host.stop();
}

#[test]
fn a_client_that_takes_its_answers_slowly_and_steadily_gets_them() {
    let redis = Redis::start();
    let (host, address) = impatient(&redis);
    let head = "GET /page/vendor/uPlot.js HTTP/1.1\r\nHost: 127.0.0.1\r\n";
    let requests = format!("{head}\r\n").repeat(40) + head + "Connection: close\r\n\r\n";
    let (mut stream, mut answers, mut step) = (say(address, &requests), Vec::new(), [0; 8 << 10]);
    // Two megabytes take four seconds and more.
    wait_until("the end of the answers", || match stream.read(&mut step) {
        Ok(length) => {
            answers.extend_from_slice(&step[..length]);
            length == 0
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "after {} bytes", answers.len());
            false
        }
    });
    assert_eq!(answers.windows(15).filter(|bytes| bytes == b"HTTP/1.1 200 OK").count(), 41);
    host.stop();
}

#[test]
fn a_stream_of_events_that_nobody_reads_ends_and_leaves_its_place() {
    let redis = Redis::start();
    let (host, address) = impatient(&redis);
    let tail = || Request::get("/api/v1/tail?rate=1000");
    let readers: Vec<_> = (1..TAILS).map(|_| tail().follow(address)).collect();
    let stream = say(address, "GET /api/v1/tail?rate=1000 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    wait_until("no place", || tail().status(address) == 503);

    let large: Map<String, Value> = (0..8).map(|n| (format!("property-{n}"), json!("x".repeat(1_000)))).collect();
    let (mut publisher, mut number) = (Publisher::new(&redis), 0);
    wait_until("the end of a stream that nobody reads", || {
        number += 1;
        publisher.publish(message(&format!("m-{number}"), Value::Object(large.clone())));
        stream.take_error().unwrap().is_some_and(|error| error.kind() == ErrorKind::ConnectionReset)
    });
    wait_until("a place", || tail().status(address) == 200);
    drop(readers);
    host.stop();
}

#[test]
fn a_client_that_is_slow_to_ask_loses_its_connection() {
    let redis = Redis::start();
    let (host, address) = impatient(&redis);
    // A head without an end.
    let mut head = say(address, "GET /health HTTP/1.1\r\nX: ");
    let answer = drip(&mut head, b"x");
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));

    // A body without an end, where it is read and where it is not.
    for (path, status) in [("/processMessage", 408), ("/api/v1/pause", 408), ("/nothing", 404), ("/health", 405)] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
        );
        let answer = Answer::read(&drip(&mut say(address, &head), b" "));
        assert_eq!(answer.status, status, "{path}");
        assert!(status != 408 || answer.text().contains("not complete within 1s"), "{}", answer.text());
    }
    host.stop();
}

#[test]
fn an_idle_connection_ends_after_its_answer() {
    let redis = Redis::start();
    let (host, address) = impatient(&redis);
    let mut idle = say(address, "GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    let (mut answer, mut end) = (Vec::new(), Ok(1));
    wait_until("the end of an idle connection", || {
        let mut bytes = [0; 1024];
        end = idle.read(&mut bytes);
        answer.extend_from_slice(&bytes[..end.as_ref().copied().unwrap_or_default()]);
        matches!(end, Ok(0))
    });
    assert_eq!(Answer::read(&answer).status, 200);
    host.stop();
}

#[test]
fn a_client_that_waits_for_a_slow_answer_gets_it() {
    let redis = Redis::start();
    let (host, address) = impatient(&redis);
    // The plugin takes longer than the host waits for a client.
    let body = message("slow", json!({"do": "wait", "ms": 2_500}));
    let body: Value = serde_json::from_str(&body).unwrap();
    let answer = Request::post("/processMessage", &body).send(address);
    assert_eq!((answer.status, &answer.json()["outcome"]), (200, &json!("emitted")), "{}", answer.text());
    host.stop();
}
