//! A plugin that does what the message says, so that a test can make it behave in every way there is.
//!
//! The message is an object with a property `do` (without one: `echo`). What it may say, with the
//! other properties that it reads:
//!
//! | `do` | reads | what happens |
//! | --- | --- | --- |
//! | `echo` | | the result is the message unchanged |
//! | `raw` | `result` | the result is the string `result`, whatever it is |
//! | `emit-all` | `results`, `ms` (optional) | sleeps, and then the results are these strings; `{"to": "name", "body": "text"}` is one for a named output |
//! | `drop` | | no result |
//! | `retry` | `delay_ms` (optional) | try again later |
//! | `reject` | `reason` | given up |
//! | `fail` | `reason` | returns an error |
//! | `succeed-at` | `attempt` | asks for a retry in `delay_ms` until this attempt, then echoes |
//! | `flaky` | | by chance: a trap, an error, a retry, or an echo |
//! | `attempt` | | the result has the number of the attempt in `attempt` |
//! | `state` | | the result has the number of calls of this instance in `calls` |
//! | `context` | `attempt` (optional) | asks for a retry in `delay_ms` until this attempt; then the result has what the host tells about the message and the consumer |
//! | `config` | `key` (optional) | the result has the key's configured `value`, or without a key all of them in `values` |
//! | `forge` | | the result carries a false `message_id` and `consumer_id` |
//! | `log` | `level`, `context`, `text` | writes a log line, then echoes |
//! | `print` | `text` | writes to stdout and stderr, then echoes |
//! | `wait` | `ms`, `text` (optional) | sleeps, writes a log line if there is a text, then echoes |
//! | `sleep` | | sleeps for an hour |
//! | `burn` | `ms` | computes for that long, then echoes |
//! | `count` | `millions` or `thousands` | computes so many steps, however long it takes, then echoes |
//! | `loop` | | computes for ever |
//! | `grow` | `bytes` | the result is a string property `filler` that long |
//! | `many-results` | `count` | so many results, each an empty object |
//! | `eat-memory` | | allocates until it is stopped |
//! | `eat-at-once` | `bytes` | allocates that much at once, then echoes |
//! | `recurse` | | calls itself until it is stopped |
//! | `leak-handles` | | opens pollables until it is stopped |
//! | `log-flood` | `lines` | writes so many log lines, then echoes |
//! | `log-rubbish` | `bytes` | writes so many bytes that are no text to stdout and stderr, then echoes |
//! | `try` | `what`, `target` | attempts something; the result has `granted` and what came of it in `answer` |
//! | `exit` | `code` | ends itself as a program does |
//! | `not-utf-8` | `place` | text that is not UTF-8 as a result, in `emit-all`, as a reason to `reject` or `fail`, or in a `log` line |
//! | `trap` | | executes `unreachable` |
//! | `panic` | `reason` | panics |

mod attempts;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::hint::black_box;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

wit_bindgen::generate!({ path: "../../../wit", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome, Output};
use host::plugin::context;
use wasi::clocks::monotonic_clock::subscribe_duration;
use wasi::config::store;
use wasi::logging::logging::{Level, log};

/// Calls of this instance.
static CALLS: AtomicU32 = AtomicU32::new(0);

struct Puppet;

export!(Puppet);

impl Guest for Puppet {
    fn process(message: Message) -> Result<Outcome, String> {
        let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        let order: Map<String, Value> = serde_json::from_str(&message.body).map_err(|error| error.to_string())?;
        match text(&order, "do", "echo") {
            "echo" => {}
            "raw" => return Ok(Outcome::Emit(text(&order, "result", "").to_owned())),
            "emit-all" => {
                if number(&order, "ms").is_some_and(|ms| ms > 0) {
                    std::thread::sleep(milliseconds(&order));
                }
                return Ok(Outcome::EmitAll(results(&order)));
            }
            "drop" => return Ok(Outcome::Drop),
            "retry" => return Ok(Outcome::Retry(number(&order, "delay_ms"))),
            "reject" => {
                return Ok(Outcome::Reject(text(&order, "reason", "rejected").to_owned()));
            }
            "fail" => return Err(text(&order, "reason", "failed").to_owned()),
            "succeed-at" if message.attempt < number(&order, "attempt").unwrap_or(2) => {
                return Ok(Outcome::Retry(number(&order, "delay_ms")));
            }
            "succeed-at" => {}
            "flaky" => match RandomState::new().build_hasher().finish() % 8 {
                0 => core::arch::wasm32::unreachable(),
                1 => return Err("bad luck".to_owned()),
                2 => return Ok(Outcome::Retry(Some(0))),
                3 => return Ok(Outcome::Retry(None)),
                _ => {}
            },
            "attempt" => return Ok(emit(json!({ "attempt": message.attempt }))),
            "state" => return Ok(emit(json!({ "calls": calls }))),
            "context" if message.attempt < number(&order, "attempt").unwrap_or(1) => {
                return Ok(Outcome::Retry(number(&order, "delay_ms")));
            }
            "context" => {
                return Ok(emit(json!({
                    "channel": context::channel(),
                    "received_ms": context::received_ms(),
                    "consumer": context::consumer_id(),
                    "generation": context::generation(),
                })));
            }
            "config" => return Ok(emit(configured(order.get("key").and_then(Value::as_str))?)),
            "forge" => {
                return Ok(emit(json!({ "message_id": "forged", "consumer_id": "forged", "kept": true })));
            }
            "log" => {
                let level = level(text(&order, "level", "info"))?;
                log(level, text(&order, "context", "puppet"), text(&order, "text", "a log line"));
            }
            "print" => {
                println!("{}", text(&order, "text", "a line"));
                eprintln!("{}", text(&order, "text", "a line"));
            }
            "wait" => {
                std::thread::sleep(milliseconds(&order));
                if let Some(text) = order.get("text").and_then(Value::as_str) {
                    log(Level::Info, "puppet", text);
                }
            }
            "sleep" => std::thread::sleep(Duration::from_secs(3600)),
            "burn" => burn(milliseconds(&order)),
            "count" => count(match number(&order, "thousands") {
                Some(thousands) => thousands * 1_000,
                None => number(&order, "millions").unwrap_or(1) * 1_000_000,
            }),
            "loop" => burn(Duration::MAX),
            "grow" => {
                let bytes = number(&order, "bytes").unwrap_or(0);
                return Ok(emit(json!({ "filler": "x".repeat(bytes as usize) })));
            }
            "many-results" => {
                let count = number(&order, "count").unwrap_or(0) as usize;
                return Ok(Outcome::EmitAll(vec![main_output("{}"); count]));
            }
            "eat-memory" => eat_memory(),
            "eat-at-once" => drop(black_box(vec![1_u8; number(&order, "bytes").unwrap_or(0) as usize])),
            "recurse" => drop(black_box(recurse(1))),
            "leak-handles" => loop {
                std::mem::forget(subscribe_duration(1));
            },
            "log-flood" => {
                for line in 0..number(&order, "lines").unwrap_or(0) {
                    log(Level::Info, "flood", &format!("line {line} of a flood"));
                }
            }
            "log-rubbish" => write_rubbish(number(&order, "bytes").unwrap_or(0))?,
            "try" => {
                let tried = attempts::attempt(text(&order, "what", ""), text(&order, "target", ""));
                let (granted, answer) = (tried.is_ok(), tried.unwrap_or_else(|error| error));
                return Ok(emit(json!({ "granted": granted, "answer": answer })));
            }
            "not-utf-8" => match text(&order, "place", "emit") {
                "emit-all" => return Ok(Outcome::EmitAll(vec![main_output("{}"), main_output(not_utf_8())])),
                "reject" => return Ok(Outcome::Reject(not_utf_8())),
                "fail" => return Err(not_utf_8()),
                "log" => log(Level::Info, "puppet", &not_utf_8()),
                _ => return Ok(Outcome::Emit(not_utf_8())),
            },
            "exit" => std::process::exit(number(&order, "code").unwrap_or(0) as i32),
            "trap" => core::arch::wasm32::unreachable(),
            "panic" => panic!("{}", text(&order, "reason", "panicked")),
            unknown => return Err(format!("the puppet cannot {unknown:?}")),
        }
        Ok(Outcome::Emit(message.body))
    }
}

fn emit(result: Value) -> Outcome {
    Outcome::Emit(result.to_string())
}

/// What no Rust program should have: a string of other bytes.
fn not_utf_8() -> String {
    // SAFETY: none. Guests in other languages return such text, and only the host looks at it.
    unsafe { String::from_utf8_unchecked(b"{\"text\":\"\xff\"}".to_vec()) }
}

fn text<'a>(order: &'a Map<String, Value>, key: &str, default: &'a str) -> &'a str {
    order.get(key).and_then(Value::as_str).unwrap_or(default)
}

fn number(order: &Map<String, Value>, key: &str) -> Option<u32> {
    order.get(key)?.as_u64()?.try_into().ok()
}

fn milliseconds(order: &Map<String, Value>) -> Duration {
    Duration::from_millis(number(order, "ms").unwrap_or(10).into())
}

fn results(order: &Map<String, Value>) -> Vec<Output> {
    let results = order.get("results").and_then(Value::as_array).map(Vec::as_slice);
    results.unwrap_or_default().iter().filter_map(result).collect()
}

fn result(result: &Value) -> Option<Output> {
    if let Some(body) = result.as_str() {
        return Some(main_output(body));
    }
    let text = |key| Some(result.get(key)?.as_str()?.to_owned());
    Some(Output { to: text("to"), body: text("body")? })
}

fn main_output(body: impl Into<String>) -> Output {
    Output { to: None, body: body.into() }
}

fn level(name: &str) -> Result<Level, String> {
    Ok(match name {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "critical" => Level::Critical,
        unknown => return Err(format!("there is no level {unknown:?}")),
    })
}

/// What the operator has configured for this plugin.
fn configured(key: Option<&str>) -> Result<Value, String> {
    let found = match key {
        Some(key) => store::get(key).map(|value| json!({ "value": value })),
        None => store::get_all().map(|pairs| {
            let values: Map<String, Value> = pairs.into_iter().map(|(key, value)| (key, value.into())).collect();
            json!({ "values": values })
        }),
    };
    found.map_err(|error| format!("{error:?}"))
}

/// Computes for that long by the clock.
fn burn(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        count(100_000);
    }
}

/// Computes without a single call to the host.
fn count(steps: u32) {
    let mut number = 0_u64;
    for _ in 0..steps {
        number = black_box(number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    }
}

/// For ever, and not as a loop.
fn recurse(depth: u64) -> u64 {
    if black_box(depth) == 0 { 0 } else { black_box(recurse(depth.wrapping_add(1))).wrapping_mul(3) }
}

/// Every byte there is, over and over, so without a character set and with few ends of lines.
fn write_rubbish(bytes: u32) -> Result<(), String> {
    let rubbish: Vec<u8> = (0..bytes).map(|n| (n.wrapping_mul(167) >> 3) as u8).collect();
    for mut stream in [Box::new(std::io::stdout()) as Box<dyn Write>, Box::new(std::io::stderr())] {
        stream.write_all(&rubbish).and_then(|()| stream.flush()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn eat_memory() {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![1_u8; 1 << 20]));
    }
}
