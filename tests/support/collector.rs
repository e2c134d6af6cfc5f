//! A collector that speaks OTLP over HTTP with JSON, and reads it strictly: unknown fields, wrong types and wrong ids are
//! problems, and the test that looks at the spans fails.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde::Deserialize;
use serde_json::Value;

use super::{BOUND, wait_for};

/// How it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It takes all spans.
    Takes,
    /// It takes all but so many spans of each request.
    TakesAllBut(usize),
    /// It answers with this status.
    Answers(u16),
    /// It reads and never answers.
    SaysNothing,
    /// Its answer begins and never ends.
    NeverEnds,
}

/// A span as it arrived.
#[derive(Clone, Debug)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: Option<String>,
    pub name: String,
    pub kind: u32,
    pub flags: u32,
    pub start: u64,
    pub end: u64,
    /// Texts and numbers, all as text.
    pub attributes: BTreeMap<String, String>,
    /// The error, if it has failed.
    pub error: Option<String>,
    pub resource: BTreeMap<String, String>,
}

impl Span {
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).unwrap_or_else(|| panic!("no attribute {name} in {self:?}"))
    }

    /// The id of the host that has sent it.
    pub fn host(&self) -> &str {
        &self.resource["service.instance.id"]
    }
}

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: usize,
    spans: Vec<Span>,
    problems: Vec<String>,
}

/// A collector on a port of its own.
pub struct Collector {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    manner: Arc<Mutex<Manner>>,
}

impl Collector {
    pub fn start(manner: Manner) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, manner) = (Arc::new(Mutex::new(Seen::default())), Arc::new(Mutex::new(manner)));
        let (all, present) = (seen.clone(), manner.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, manner) = (all.clone(), present.clone());
                seen.lock().expect("nobody panics with the lock").connections += 1;
                thread::spawn(move || serve(stream.expect("a connection"), &seen, &manner));
            }
        });
        Collector { address, seen, manner }
    }

    /// The value of `--trace-endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it answers like this.
    pub fn change_to(&self, manner: Manner) {
        *self.manner.lock().expect("nobody panics with the lock") = manner;
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().expect("nobody panics with the lock").connections
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().expect("nobody panics with the lock").requests
    }

    /// All spans so far. Each has an id of its own.
    pub fn spans(&self) -> Vec<Span> {
        let seen = self.seen.lock().expect("nobody panics with the lock");
        assert!(seen.problems.is_empty(), "{:#?}", seen.problems);
        let mut ids = HashSet::new();
        seen.spans.iter().for_each(|span| assert!(ids.insert(span.id.clone()), "twice: {span:?}"));
        seen.spans.clone()
    }

    /// Waits until there are so many spans of this message, and gives them in the order of their begin.
    pub fn wait_for_spans_of(&self, message_id: &str, count: usize) -> Vec<Span> {
        wait_for(&format!("{count} spans of {message_id}"), BOUND, || {
            let mut spans = self.spans();
            spans.retain(|span| span.attribute("messaging.message.id") == message_id);
            spans.sort_by_key(|span| span.start);
            if spans.len() >= count { Ok(spans) } else { Err(format!("{spans:#?}")) }
        })
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Seen>, manner: &Mutex<Manner>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut first, mut headers) = (String::new(), BTreeMap::new());
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let manner = *manner.lock().expect("nobody panics with the lock");
        let read = read(&first, &headers, &body);
        {
            let mut seen = seen.lock().expect("nobody panics with the lock");
            seen.requests += 1;
            match read {
                Ok(spans) if matches!(manner, Manner::Takes | Manner::TakesAllBut(_)) => seen.spans.extend(spans),
                Ok(_) => {}
                Err(problem) => seen.problems.push(format!("{problem}: {}", String::from_utf8_lossy(&body))),
            }
        }
        let (status, text) = match manner {
            Manner::Takes => (200, "{}".to_owned()),
            Manner::TakesAllBut(spans) => {
                (200, format!(r#"{{"partialSuccess":{{"rejectedSpans":"{spans}","errorMessage":"too many"}}}}"#))
            }
            Manner::Answers(status) => (status, "{}".to_owned()),
            Manner::SaysNothing => loop {
                thread::park();
            },
            Manner::NeverEnds => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000000\r\n\r\n";
                let _ = reader.get_mut().write_all(head);
                loop {
                    thread::park();
                }
            }
        };
        let answer = format!(
            "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Written>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    name: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    key: String,
    value: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: Option<String>,
    flags: u32,
    name: String,
    kind: u32,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    status: Status,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    #[serde(default)]
    code: u32,
    #[serde(default)]
    message: String,
}

fn read(first: &str, headers: &BTreeMap<String, String>, body: &[u8]) -> Result<Vec<Span>, String> {
    if first.trim_end() != "POST /v1/traces HTTP/1.1" {
        return Err(format!("a request of {first:?}"));
    }
    if headers.get("content-type").map(String::as_str) != Some("application/json") {
        return Err(format!("no JSON: {headers:?}"));
    }
    let request: Request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let mut spans = Vec::new();
    for ResourceSpans { resource, scope_spans } in request.resource_spans {
        let resource = attributes(resource.attributes)?;
        for ScopeSpans { scope, spans: written } in scope_spans {
            if scope.name != "host" || scope.version.is_empty() || written.is_empty() {
                return Err(format!("scope {:?} {:?}, {} spans", scope.name, scope.version, written.len()));
            }
            for one in written {
                spans.push(span(one, &resource)?);
            }
        }
    }
    if spans.is_empty() { Err("no spans".to_owned()) } else { Ok(spans) }
}

fn span(written: Written, resource: &BTreeMap<String, String>) -> Result<Span, String> {
    let id = |text: &str, length: usize| {
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() == length && is_hex && text.bytes().any(|byte| byte != b'0') {
            Ok(text.to_owned())
        } else {
            Err(format!("the id {text:?}"))
        }
    };
    let time = |text: &str| text.parse::<u64>().map_err(|_| format!("the time {text:?}"));
    let (start, end) = (time(&written.start_time_unix_nano)?, time(&written.end_time_unix_nano)?);
    if start > end || !(1..=5).contains(&written.kind) || written.status.code > 2 {
        return Err(format!("from {start} to {end}, kind {}, status {}", written.kind, written.status.code));
    }
    Ok(Span {
        trace: id(&written.trace_id, 32)?,
        id: id(&written.span_id, 16)?,
        parent: written.parent_span_id.as_deref().map(|parent| id(parent, 16)).transpose()?,
        name: written.name,
        kind: written.kind,
        flags: written.flags,
        start,
        end,
        attributes: attributes(written.attributes)?,
        error: (written.status.code == 2).then_some(written.status.message),
        resource: resource.clone(),
    })
}

fn attributes(all: Vec<Attribute>) -> Result<BTreeMap<String, String>, String> {
    let mut read = BTreeMap::new();
    for Attribute { key, value } in all {
        let entry = value.iter().next().filter(|_| value.len() == 1);
        let text = match entry {
            Some((kind, Value::String(text))) if kind == "stringValue" => text.clone(),
            // A number of 64 bits is written as text.
            Some((kind, Value::String(text))) if kind == "intValue" && text.parse::<i64>().is_ok() => text.clone(),
            _ => return Err(format!("the value of {key}: {value:?}")),
        };
        if read.insert(key.clone(), text).is_some() {
            return Err(format!("{key} twice"));
        }
    }
    Ok(read)
}
