//! A plugin that uses the state of its buckets as the message says.
//!
//! `calls` is a list of arrays: the name of a call, and its arguments. `bucket` is the bucket, by default `accounts`. The result has
//! the `answers`, in their order. `then` says what comes after the calls: `retry`, `reject`, `fail`, `trap`, or nothing for a result;
//! at another attempt than the first one always a result.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "
        package test:bank;
        world bank {
            include host:plugin/plugin@1.0.0;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
            import wasi:keyvalue/batch@0.2.0-draft2;
        }",
    world: "test:bank/bank",
    generate_all,
});

use exports::host::plugin::processor::{Guest, Message, Outcome};
use wasi::clocks::monotonic_clock::subscribe_duration;
use wasi::keyvalue::atomics::{Cas, CasError, increment, swap};
use wasi::keyvalue::batch::{delete_many, get_many, set_many};
use wasi::keyvalue::store::{Bucket, Error, open};

struct Bank;

export!(Bank);

impl Guest for Bank {
    fn process(message: Message) -> Result<Outcome, String> {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        CALLS.fetch_add(1, Ordering::Relaxed);
        let order: Value = serde_json::from_str(&message.body).map_err(|error| error.to_string())?;
        let bucket = match open(order["bucket"].as_str().unwrap_or("accounts")) {
            Ok(bucket) => bucket,
            Err(error) => return Ok(Outcome::Emit(json!({"error": words(&error)}).to_string())),
        };
        let calls = order["calls"].as_array().cloned().unwrap_or_default();
        let answers: Vec<Value> = calls.iter().map(|call| answer(&bucket, call)).collect();
        match order["then"].as_str() {
            Some(then) if message.attempt == 1 => match then {
                "retry" => Ok(Outcome::Retry(Some(1))),
                "reject" => Ok(Outcome::Reject("no".into())),
                "fail" => Err("no".into()),
                "trap" => std::process::abort(),
                _ => Ok(Outcome::Emit("no object".into())),
            },
            _ => Ok(Outcome::Emit(json!({"answers": answers}).to_string())),
        }
    }
}

fn words(error: &Error) -> String {
    match error {
        Error::NoSuchStore => "no such store".into(),
        Error::AccessDenied => "access denied".into(),
        Error::Other(sentence) => sentence.clone(),
    }
}

fn answer(bucket: &Bucket, call: &Value) -> Value {
    match attempt(bucket, call) {
        Ok(value) => value,
        Err(error) => json!({"error": words(&error)}),
    }
}

fn text(value: Option<Vec<u8>>) -> Value {
    value.map_or(Value::Null, |value| String::from_utf8_lossy(&value).into())
}

fn attempt(bucket: &Bucket, call: &Value) -> Result<Value, Error> {
    let word = |at: usize| call[at].as_str().unwrap_or_default().to_owned();
    let number = |at: usize| call[at].as_i64().unwrap_or_default();
    let words = |at: usize| -> Vec<String> {
        call[at].as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    Ok(match word(0).as_str() {
        "get" => text(bucket.get(&word(1))?),
        "set" => json!(bucket.set(&word(1), word(2).as_bytes())?),
        "set-long" => json!(bucket.set(&word(1), &vec![b'x'; number(2) as usize])?),
        "long-key" => json!(bucket.set(&"k".repeat(number(1) as usize), b"")?),
        "delete" => json!(bucket.delete(&word(1))?),
        "exists" => json!(bucket.exists(&word(1))?),
        "add" => json!(increment(bucket, &word(1), number(2))?),
        "get-many" => {
            let found = get_many(bucket, &words(1))?;
            found.into_iter().map(|(key, value)| json!([key, text(value)])).collect()
        }
        "set-many" => {
            let pairs: Vec<_> = words(1).into_iter().map(|key| (key, word(2).into_bytes())).collect();
            json!(set_many(bucket, &pairs)?)
        }
        "delete-many" => json!(delete_many(bucket, &words(1))?),
        "list" => {
            let (mut keys, mut cursor) = (Vec::new(), None);
            loop {
                let page = bucket.list_keys(cursor.as_deref())?;
                keys.extend(page.keys);
                cursor = page.cursor;
                if cursor.is_none() {
                    break;
                }
            }
            keys.sort();
            keys.dedup();
            json!(keys)
        }
        // Replaces a value that this message has changed since it was read, and then the new one.
        "swap" => {
            let stale = Cas::new(bucket, &word(1))?;
            bucket.set(&word(1), word(2).as_bytes())?;
            match swap(stale, b"too late") {
                Ok(()) => json!("swapped a stale value"),
                Err(CasError::StoreError(error)) => return Err(error),
                Err(CasError::CasFailed(fresh)) => {
                    let current = text(fresh.current()?);
                    json!([current, swap(fresh, word(3).as_bytes()).is_ok()])
                }
            }
        }
        "transfer" => {
            let balance = |key: &str| -> Result<i64, Error> {
                Ok(bucket.get(key)?.and_then(|value| String::from_utf8(value).ok()?.parse().ok()).unwrap_or(0))
            };
            let (from, to, amount) = (word(1), word(2), number(3));
            let (before, there) = (balance(&from)?, balance(&to)?);
            bucket.set(&from, (before - amount).to_string().as_bytes())?;
            bucket.set(&to, (there + amount).to_string().as_bytes())?;
            json!([before - amount, there + amount])
        }
        "wait" => {
            subscribe_duration(number(1) as u64 * 1_000_000).block();
            Value::Null
        }
        "flood" => {
            let mut error = Value::Null;
            for n in 0..number(1) {
                if let Err(refused) = bucket.set(&format!("flood-{}", n % number(2)), b"x") {
                    error = json!(self::words(&refused));
                }
            }
            error
        }
        "open" => match open(&word(1)) {
            Ok(_) => json!("opened"),
            Err(error) => json!(self::words(&error)),
        },
        other => json!(format!("unknown call {other}")),
    })
}
