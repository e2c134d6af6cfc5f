//! Converts a plugin's result into the fields of an output entry. This file knows JSON, and the fields that the host
//! writes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::OutputFormat;
use crate::message::json::{BYTE_ORDER_MARK, decode_lossy};
use crate::redis::store::entries::Entries;

/// Maximum number of properties of a result that is written as fields. A script writes results beside dead letters, and
/// Redis's Lua passes at most about 8,000 values to one command (LUAI_MAXCSTACK): two for each field, and some others.
/// A larger result fits with `--output-format json`, which makes it one field.
pub const PROPERTIES_MAX: usize = 3_500;

/// The fields of an output entry that the host writes.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Id of the message.
    pub message_id: &'a str,
    /// Id of the consumer that processed the message.
    pub consumer_id: &'a str,
    /// Digest of the plugin version, if it is written.
    pub plugin_digest: Option<&'a str>,
}

impl Own<'_> {
    /// Whether a property of this name would replace one of these fields.
    fn has(&self, name: &str) -> bool {
        matches!(name, "message_id" | "consumer_id") || (name == "plugin_digest" && self.plugin_digest.is_some())
    }
}

/// Adds one result as an output entry: first the host's fields, which a plugin cannot forge, then one field for each
/// top-level property. A string is written as its text, any other value as its JSON text, unchanged to the last digit.
/// Half of a surrogate pair, which no text can contain, becomes U+FFFD in a name and in a top-level string. The last
/// value of a repeated property counts, as in JavaScript; names are compared as they are written.
///
/// # Errors
/// A sentence about the problem with the result. The caller must truncate an unfinished entry.
pub fn write_result(entries: &mut Entries, own: Own<'_>, result: &str, format: OutputFormat) -> Result<(), String> {
    let properties: Properties = serde_json::from_str(result).map_err(|error| match error.classify() {
        _ if result.starts_with(BYTE_ORDER_MARK) => {
            "the plugin's result begins with a byte order mark (U+FEFF); return the JSON without it".to_string()
        }
        serde_json::error::Category::Data => "the plugin's result is JSON but not an object".to_string(),
        _ => format!("the plugin's result is not JSON: {error}"),
    })?;
    entries.field("message_id", own.message_id);
    entries.field("consumer_id", own.consumer_id);
    if let Some(digest) = own.plugin_digest {
        entries.field("plugin_digest", digest);
    }
    match format {
        OutputFormat::Json => entries.field("json", result),
        OutputFormat::Fields => write_fields(entries, own, &properties.0)?,
    }
    entries.finish();
    Ok(())
}

fn write_fields(entries: &mut Entries, own: Own<'_>, properties: &[(Cow<'_, str>, &RawValue)]) -> Result<(), String> {
    if properties.len() > PROPERTIES_MAX {
        let count = properties.len();
        return Err(format!(
            "the plugin's result has {count} properties, and an output entry holds {PROPERTIES_MAX} at most; \
             --output-format json writes a result of any size as one field"
        ));
    }
    // Pairwise comparison is faster for the few properties of most results, and too slow for thousands.
    let last: Option<HashMap<&Cow<'_, str>, usize>> = (properties.len() > 32)
        .then(|| properties.iter().enumerate().map(|(index, (name, _))| (name, index)).collect());
    for (index, (name, value)) in properties.iter().enumerate() {
        let repeated = match &last {
            Some(last) => last[name] != index,
            None => properties[index + 1..].iter().any(|(later, _)| later == name),
        };
        if repeated || own.has(name) {
            continue;
        }
        let json = value.get();
        match json.as_bytes() {
            [b'"', inner @ .., b'"'] if !inner.contains(&b'\\') => entries.field(name, inner),
            [b'"', ..] => entries.field(name, decode_lossy(json).as_bytes()),
            _ => entries.field(name, json),
        }
    }
    Ok(())
}

/// Top-level properties in order.
struct Properties<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Properties<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Properties<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut properties = Vec::with_capacity(8);
                // Raw, because the parser rejects half of a surrogate pair.
                while let Some(name) = map.next_key::<&RawValue>()? {
                    properties.push((decode_lossy(name.get()), map.next_value()?));
                }
                Ok(Properties(properties))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Own<'static> = Own { message_id: "id", consumer_id: "me/1", plugin_digest: None };

    fn fields(result: &str) -> Result<Vec<String>, String> {
        let mut entries = Entries::default();
        write_result(&mut entries, OWN, result, OutputFormat::Fields)?;
        Ok(entries.texts().remove(0))
    }

    #[test]
    fn strings_are_plain_and_everything_else_keeps_its_json() {
        let result = r#" {"s":"a\"é\u00e9","i":1,"f":1.0,"e":1E400,"big":12345678901234567890123,
            "o": { "a" : [ 1, 2 ] },"n":null,"t":true,"":"empty name","x":""} "#;
        let expected = [
            "message_id",
            "id",
            "consumer_id",
            "me/1",
            "s",
            "a\"éé",
            "i",
            "1",
            "f",
            "1.0",
            "e",
            "1E400",
            "big",
            "12345678901234567890123",
            "o",
            r#"{ "a" : [ 1, 2 ] }"#,
            "n",
            "null",
            "t",
            "true",
            "",
            "empty name",
            "x",
            "",
        ];
        assert_eq!(fields(result).unwrap(), expected);
    }

    #[test]
    fn the_hosts_own_fields_cannot_be_forged() {
        let forged = r#"{"message_id":"x","consumer_id":"y","message\u005fid":"z","a":1}"#;
        assert_eq!(fields(forged).unwrap(), ["message_id", "id", "consumer_id", "me/1", "a", "1"]);
    }

    #[test]
    fn the_digest_of_the_plugin_is_the_hosts_own_where_it_is_written() {
        let result = r#"{"plugin_digest":"forged","a":1}"#;
        assert_eq!(fields(result).unwrap()[4..], ["plugin_digest", "forged", "a", "1"]);
        let mut entries = Entries::default();
        let own = Own { plugin_digest: Some("abc"), ..OWN };
        write_result(&mut entries, own, result, OutputFormat::Fields).unwrap();
        assert_eq!(entries.texts()[0][4..], ["plugin_digest", "abc", "a", "1"]);
    }

    #[test]
    fn of_a_repeated_property_the_last_value_counts() {
        assert_eq!(fields(r#"{"a":1,"b":2,"a":3}"#).unwrap()[4..], ["b", "2", "a", "3"]);
        let many: Vec<String> = (0..40).map(|n| format!("\"p{}\":{n}", n % 39)).collect();
        let fields = fields(&format!("{{{}}}", many.join(","))).unwrap();
        assert_eq!(fields.len(), 4 + 2 * 39);
        assert_eq!(fields[fields.len() - 2..], ["p0", "39"]);
    }

    #[test]
    fn half_of_a_surrogate_pair_is_replaced_in_names_and_texts_and_kept_in_values() {
        let result = r#"{"a":"x\ud800","\udc00":"\ud83d\ude00","v":["\ud800"],"message_id\ud800":1}"#;
        let expected = ["a", "x\u{fffd}", "\u{fffd}", "😀", "v", r#"["\ud800"]"#, "message_id\u{fffd}", "1"];
        assert_eq!(fields(result).unwrap()[4..], expected);
        // As they are written these names are one, and an entry has each once.
        assert_eq!(fields(r#"{"\ud800":1,"\ud801":2,"\ufffd":3}"#).unwrap()[4..], ["\u{fffd}", "3"]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let mut entries = Entries::default();
        for result in ["", "nonsense", "[]", "1", "null", r#"{"a":1"#, "\u{feff}{}"] {
            assert!(write_result(&mut entries, OWN, result, OutputFormat::Fields).is_err(), "{result}");
            entries.truncate(0);
        }
        let many: Vec<String> = (0..=PROPERTIES_MAX).map(|n| format!("\"p{n}\":1")).collect();
        let error = write_result(&mut entries, OWN, &format!("{{{}}}", many.join(",")), OutputFormat::Fields);
        let error = error.unwrap_err();
        assert!(["3501 properties", "3500 at most", "--output-format json"].iter().all(|part| error.contains(part)));
        assert!(entries.is_empty());
    }

    #[test]
    fn the_whole_result_can_stand_in_one_field() {
        let mut entries = Entries::default();
        write_result(&mut entries, OWN, r#"{"a": 1}"#, OutputFormat::Json).unwrap();
        assert_eq!(entries.texts()[0][4..], ["json", r#"{"a": 1}"#]);
    }
}
