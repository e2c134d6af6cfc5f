//! The processing of a message, apart from the interface of a plugin.

use indexmap::IndexMap;
use serde_json::value::{RawValue, to_raw_value};

/// The JSON object `body` with the additional property `random_property`.
/// Values stay raw JSON text: 1.0 does not become 1, and no large number loses a digit.
pub fn enrich(body: &str, random: u64) -> serde_json::Result<String> {
    let mut event: IndexMap<String, &RawValue> = serde_json::from_str(body)?;
    let random = to_raw_value(&format!("{random:016x}"))?;
    event.insert("random_property".to_owned(), &random);
    serde_json::to_string(&event)
}
