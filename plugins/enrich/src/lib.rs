//! Adds `random_property` to every message and leaves everything else exactly as it was.

use indexmap::IndexMap;
use serde_json::value::{RawValue, to_raw_value};

wit_bindgen::generate!({ path: "../../wit", world: "plugin", generate_all });

use exports::host::plugin::processor::{Guest, Message, Outcome};

struct Enrich;

impl Guest for Enrich {
    fn process(message: Message) -> Result<Outcome, String> {
        enrich(&message.body).map(Outcome::Emit).map_err(|error| error.to_string())
    }
}

/// Values stay raw JSON text: 1.0 does not become 1, and no large number loses a digit.
fn enrich(body: &str) -> serde_json::Result<String> {
    let mut event: IndexMap<String, &RawValue> = serde_json::from_str(body)?;
    let random = getrandom::u64().expect("the host provides randomness");
    let random = to_raw_value(&format!("{random:016x}"))?;
    event.insert("random_property".to_owned(), &random);
    serde_json::to_string(&event)
}

export!(Enrich);
