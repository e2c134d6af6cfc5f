//! The message as JSON. Every value stays as it was written.

use indexmap::IndexMap;
use serde_json::value::RawValue;

type Properties<'a> = IndexMap<String, &'a RawValue>;

/// The value of the property, as a key; `None` if there is none, or it is neither text nor a number.
pub fn key(body: &str, by: &str) -> Option<String> {
    let properties: Properties<'_> = serde_json::from_str(body).ok()?;
    let value = properties.get(by)?.get();
    let key = match value.as_bytes().first()? {
        b'"' => serde_json::from_str(value).ok()?,
        b'-' | b'0'..=b'9' => value.to_owned(),
        _ => return None,
    };
    Some(key).filter(|key| !key.is_empty())
}

/// The message with `count`, and with `first_seen_ms`.
pub fn with_properties(body: &str, count: u64, first_seen_ms: &str) -> serde_json::Result<String> {
    let (count, first_seen_ms): (Box<RawValue>, Box<RawValue>) =
        (serde_json::from_str(&count.to_string())?, serde_json::from_str(first_seen_ms)?);
    let mut properties: Properties<'_> = serde_json::from_str(body)?;
    properties.insert("count".to_owned(), &count);
    properties.insert("first_seen_ms".to_owned(), &first_seen_ms);
    serde_json::to_string(&properties)
}
