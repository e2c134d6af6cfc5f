//! The plugin of tests/conformance.rs in Rust: the property `do` of a message says what. README.md lists the words.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use indexmap::IndexMap;
use serde_json::value::RawValue;
use serde_json::{Value, json};

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome, Output};
use host::plugin::context;
use wasi::config::store;
use wasi::logging::logging::{Level, log};

/// The tests write another number into the component.
const VERSION: &str = "rust-version-1";

/// Messages of this instance that asked for its state.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// An object whose values stay as they were written.
type Exact<'a> = IndexMap<String, &'a RawValue>;

struct Conformance;

export!(Conformance);

impl Guest for Conformance {
    fn process(message: Message) -> Result<Outcome, String> {
        process(&message).map_err(|error| error.to_string())
    }
}

fn process(message: &Message) -> Result<Outcome, Box<dyn std::error::Error>> {
    let asked: Exact = serde_json::from_str(&message.body)?;
    let text = |name: &str| asked.get(name).map(|value| serde_json::from_str::<String>(value.get())).transpose();
    let number = |name: &str| asked.get(name).map(|value| serde_json::from_str::<u32>(value.get())).transpose();
    Ok(match text("do")?.as_deref() {
        None => emit(json!({ "version": VERSION })),
        Some("echo") => Outcome::Emit(message.body.clone()),
        Some("add") => {
            let name = text("name")?.ok_or("no name")?;
            let mut changed = asked.clone();
            changed.insert(name, asked["value"]);
            Outcome::Emit(serde_json::to_string(&changed)?)
        }
        Some("exact") => emit(json!({ "text": exact(asked["value"].get())? })),
        Some("ordinary") => {
            let value: Value = serde_json::from_str(asked["value"].get())?;
            emit(json!({ "text": serde_json::to_string(&value)? }))
        }
        Some("id") => emit(json!({ "id": message.id })),
        Some("attempt") if message.attempt < number("until")?.unwrap_or(1) => Outcome::Retry(number("delay")?),
        Some("attempt") => emit(json!({ "attempt": message.attempt })),
        Some("random") => emit(json!({ "random": format!("{:016x}", rand::random::<u64>()) })),
        Some("many-randoms") => {
            let values: Vec<f64> = (0..20_000).map(|_| rand::random()).collect();
            let different = values.iter().map(|value| value.to_bits()).collect::<HashSet<_>>().len();
            let inside = values.iter().all(|value| (0.0..1.0).contains(value));
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            emit(json!({ "different": different, "inside": inside, "mean": (mean * 10.0).round() / 10.0 }))
        }
        Some("time") => {
            let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
            emit(json!({ "ms": u64::try_from(since.as_millis())? }))
        }
        Some("config") => {
            let value = store::get(&text("key")?.ok_or("no key")?).map_err(|error| format!("{error:?}"))?;
            emit(json!({ "value": value }))
        }
        Some("context") => emit(json!({
            "channel": context::channel(),
            "consumer": context::consumer_id(),
            "received": context::received_ms(),
            "generation": context::generation(),
        })),
        Some("log") => {
            for (level, name) in [
                (Level::Trace, "trace"),
                (Level::Debug, "debug"),
                (Level::Info, "info"),
                (Level::Warn, "warn"),
                (Level::Error, "error"),
                (Level::Critical, "critical"),
            ] {
                log(level, "", &format!("to {name}: é😀"));
            }
            Outcome::Drop
        }
        Some("print") => {
            println!("to stdout: é😀");
            eprintln!("to stderr: é😀");
            Outcome::Drop
        }
        Some("several") => Outcome::EmitAll(vec![output(None, r#"{"n": 1}"#), output(None, r#"{"n": 2.0}"#)]),
        Some("outputs") => Outcome::EmitAll(vec![
            output(Some("audit"), r#"{"n": 1}"#),
            output(None, r#"{"n": 2}"#),
            output(Some("fraud"), r#"{"n": 3}"#),
            output(Some("audit"), r#"{"n": 4}"#),
        ]),
        Some("unknown-output") => Outcome::EmitAll(vec![output(Some("nowhere"), "{}")]),
        Some("none") => Outcome::EmitAll(Vec::new()),
        Some("raw") => Outcome::Emit(text("result")?.ok_or("no result")?),
        Some("drop") => Outcome::Drop,
        Some("retry") => Outcome::Retry(number("delay")?),
        Some("reject") => Outcome::Reject("asked for: é😀".to_owned()),
        Some("fail") => return Err("asked for: é😀".into()),
        Some("throw") => panic!("asked for: é😀"),
        Some("state") => emit(json!({ "calls": CALLS.fetch_add(1, Ordering::Relaxed) + 1 })),
        Some("loop") => loop {
            black_box(());
        },
        Some("eat") => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
        Some(other) => return Err(format!("unknown: {other}").into()),
    })
}

/// The value as it was written; of an object, after its properties have been read.
fn exact(value: &str) -> serde_json::Result<String> {
    if !value.starts_with('{') {
        return Ok(value.to_owned());
    }
    serde_json::to_string(&serde_json::from_str::<Exact>(value)?)
}

fn emit(result: Value) -> Outcome {
    Outcome::Emit(result.to_string())
}

fn output(to: Option<&str>, body: &str) -> Output {
    Output { to: to.map(str::to_owned), body: body.to_owned() }
}
