//! A broken version of `enrich`, for the demo: its `shard` has a mistake, which one UUID in sixteen reveals.

use indexmap::IndexMap;
use serde_json::value::{RawValue, to_raw_value};

wit_bindgen::generate!({ path: "../../wit", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome};

struct Enrich;

impl Guest for Enrich {
    fn process(message: Message) -> Result<Outcome, String> {
        enrich(&message).map(Outcome::Emit).map_err(|error| error.to_string())
    }
}

fn enrich(message: &Message) -> serde_json::Result<String> {
    let mut event: IndexMap<String, &RawValue> = serde_json::from_str(&message.body)?;
    let random = to_raw_value(&format!("{:016x}", rand::random::<u64>()))?;
    let shard = to_raw_value(&shard(&message.id))?;
    event.insert("random_property".to_owned(), &random);
    event.insert("shard".to_owned(), &shard);
    serde_json::to_string(&event)
}

/// Derived from the last digit of the id. The mistake: base 15 has digits up to e, so an f is a panic.
fn shard(id: &str) -> u32 {
    id.chars().next_back().and_then(|digit| digit.to_digit(15)).expect("an id ends in a hexadecimal digit")
}

export!(Enrich);
