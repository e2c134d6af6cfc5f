//! A plugin in many versions. Which one it is stands in [`SLOT`], which a test overwrites in the component's bytes: a
//! label, what the version does with messages, and with how many of them. So a test has a new version in no time.
//!
//! The result of a message is `{"version":"<label>","attempt":1}`. What a version does instead with some messages:
//!
//! | mode | what happens |
//! | --- | --- |
//! | `ok` | nothing else |
//! | `trap` | executes `unreachable` |
//! | `fail` | returns an error |
//! | `loop` | computes for ever |
//! | `bad-result` | the result is no object |
//! | `retry` | asks for another attempt at the first one, at once |
//! | `reject` | gives the message up |
//! | `drop` | no result |
//! | `slow` | sleeps for 3 ms first |
//! | `leak` | keeps 16 KiB for ever |
//!
//! With which messages, a hash of label, id and attempt decides: two versions fail different messages, and a message may
//! come through at another attempt. What a message may ask for itself:
//!
//! | property | what happens |
//! | --- | --- |
//! | `ms` | sleeps for that long first |
//! | `provoke` | the version's mode, whatever the hash says |
//! | `do` | this mode, whatever the version's is |

use std::hint::black_box;
use std::time::Duration;

wit_bindgen::generate!({ path: "../../../wit", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome};

/// Label, mode, and a number: the mode is for one message in so many, for none if it is 0. Words are filled up with
/// blanks.
static SLOT: [u8; 65] = *b"@@release:unpatched           :ok                  :0000000001:@@";

struct Release;

export!(Release);

impl Guest for Release {
    fn process(message: Message) -> Result<Outcome, String> {
        let [label, mode, every] = slot()?;
        let every: u64 = every.parse().map_err(|_| format!("{every:?} is no number"))?;
        if let Some(ms) = property(&message.body, "ms") {
            std::thread::sleep(Duration::from_millis(ms.parse().map_err(|_| format!("{ms:?} is no number"))?));
        }
        let is_chosen = property(&message.body, "provoke").is_some() || hash(label, &message).is_multiple_of(every);
        let own_mode = if is_chosen { mode } else { "ok" };
        match property(&message.body, "do").unwrap_or(own_mode) {
            "ok" => {}
            "trap" => core::arch::wasm32::unreachable(),
            "fail" => return Err(format!("version {label} cannot do this")),
            "loop" => loop {
                black_box(());
            },
            "bad-result" => return Ok(Outcome::Emit("[]".to_owned())),
            "retry" if message.attempt == 1 => return Ok(Outcome::Retry(Some(0))),
            "retry" => {}
            "reject" => return Ok(Outcome::Reject(format!("version {label} does not want it"))),
            "drop" => return Ok(Outcome::Drop),
            "slow" => std::thread::sleep(Duration::from_millis(3)),
            "leak" => {
                black_box(vec![1_u8; 16 << 10].leak());
            }
            unknown => return Err(format!("there is no mode {unknown:?}")),
        }
        let attempt = message.attempt;
        Ok(Outcome::Emit(format!(r#"{{"version":"{label}","attempt":{attempt}}}"#)))
    }
}

/// Label, mode and number. Read from memory at every call: for the compiler the slot would be a constant.
fn slot() -> Result<[&'static str; 3], String> {
    let text = str::from_utf8(black_box(&SLOT)).map_err(|error| error.to_string())?;
    let mut parts = text.split(':').skip(1).map(str::trim_end);
    let mut next = || parts.next().ok_or_else(|| format!("no slot: {text:?}"));
    Ok([next()?, next()?, next()?])
}

/// A property of a message that is written without blanks, and simple words in it. A parser of JSON would be half of the
/// component, and tests have hundreds of versions compiled.
fn property<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, value) = body.split_once(&format!("\"{name}\":"))?;
    value.split([',', '}']).next().map(|value| value.trim_matches('"'))
}

/// The upper half of FNV-1a: the lower bits hardly differ between attempts.
fn hash(label: &str, message: &Message) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let attempt = message.attempt.to_le_bytes();
    message.id.bytes().chain(attempt).chain(label.bytes()).fold(0xcbf2_9ce4_8422_2325, step) >> 32
}
