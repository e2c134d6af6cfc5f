//! Counts messages by one of their properties, and adds to each message how many there were and when the first one came.

mod count;

wit_bindgen::generate!({
    path: "wit",
    // The contract, and state beside it.
    inline: "
        package my:count;
        world with-state {
            include host:plugin/plugin@1.0.0;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
        }",
    world: "my:count/with-state",
    generate_all,
});

use exports::host::plugin::processor::{Guest, Message, Outcome};
use host::plugin::context;
use wasi::keyvalue::atomics::increment;
use wasi::keyvalue::store::{Bucket, Error, open};

/// The buckets: `--allow-keyvalue counts,first-seen`.
const COUNTS: &str = "counts";
const FIRST_SEEN: &str = "first-seen";

/// The property by which messages are counted, unless the configuration has a key `by`.
const BY: &str = "user_id";

struct Count;

impl Guest for Count {
    fn process(message: Message) -> Result<Outcome, String> {
        let by = wasi::config::store::get("by").ok().flatten().unwrap_or_else(|| BY.to_owned());
        let Some(key) = count::key(&message.body, &by) else {
            return Ok(Outcome::Reject(format!("there is no property {by}, or it is neither text nor a number")));
        };
        let count = counted(&key).map_err(|error| words(COUNTS, &error))?;
        let first_seen = first_seen(&key).map_err(|error| words(FIRST_SEEN, &error))?;
        count::with_properties(&message.body, count, &first_seen).map(Outcome::Emit).map_err(|error| error.to_string())
    }
}

/// Counts one more, and returns the number of this message.
fn counted(key: &str) -> Result<u64, Error> {
    let counts = open(COUNTS)?;
    increment(&counts, key, 1)?;
    // What `increment` returns is not compared when the message is settled; what is read is, so each message has a number of its
    // own. Without this line messages of the same key never disturb each other.
    let count = text(&counts, key)?;
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

/// When the first message of this key came, in ms since 1970.
fn first_seen(key: &str) -> Result<String, Error> {
    let bucket = open(FIRST_SEEN)?;
    if let Some(before) = text(&bucket, key)? {
        return Ok(before);
    }
    let now = context::received_ms().to_string();
    bucket.set(key, now.as_bytes())?;
    Ok(now)
}

fn text(bucket: &Bucket, key: &str) -> Result<Option<String>, Error> {
    let value = bucket.get(key)?;
    value.map(|value| String::from_utf8(value).map_err(|_| Error::Other("the value is no text".to_owned()))).transpose()
}

fn words(bucket: &str, error: &Error) -> String {
    match error {
        Error::NoSuchStore => format!("there is no bucket {bucket}"),
        Error::AccessDenied => {
            format!("the bucket {bucket} is not granted; run the host with --allow-keyvalue {COUNTS},{FIRST_SEEN}")
        }
        Error::Other(sentence) => format!("the bucket {bucket}: {sentence}"),
    }
}

export!(Count);
