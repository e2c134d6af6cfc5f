//! JSON for comparisons in tests: numbers are compared by their text, because 1.0 is not 1 for a reader of the output,
//! and objects without regard to the order of properties. This file knows no cases and no plugin.

use std::collections::HashMap;
use std::fmt::{self, Write as _};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::json::{Part, decode, decode_lossy, parts};
use crate::printable::is_hidden;

/// Deeper values are compared as text, because a plugin's result may have as many levels as bytes.
const DEPTH_MAX: usize = 128;

/// A JSON value.
#[derive(Clone, Debug)]
pub(crate) enum Json {
    /// The original text of `null`, `true`, `false` or a number, of a value deeper than [`DEPTH_MAX`], or of a string
    /// below the top level with half of a surrogate pair. Such a string has no text form, and the host writes its JSON.
    Plain(String),
    Text(String),
    List(Vec<Json>),
    Object(Object),
}

/// Properties in order. Each name occurs once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Object {
    properties: Vec<(String, Json)>,
    /// Index of each name, because a plugin may make an object with very many properties.
    places: HashMap<String, usize>,
}

impl Json {
    /// Reads a JSON text.
    ///
    /// # Errors
    /// When it is not JSON.
    pub(crate) fn parse(text: &str) -> serde_json::Result<Json> {
        Json::read(serde_json::from_str(text)?, 0)
    }

    fn read(raw: &RawValue, depth: usize) -> serde_json::Result<Json> {
        let text = raw.get();
        Ok(match text.as_bytes().first() {
            Some(b'"') => match decode(text) {
                Ok(exact) => Json::Text(exact.into_owned()),
                // The host writes such a property in the same way.
                Err(lossy) if depth <= 1 => Json::Text(lossy),
                Err(_) => Json::Plain(requoted(text)),
            },
            Some(b'[') if depth < DEPTH_MAX => {
                let items: Vec<&RawValue> = serde_json::from_str(text)?;
                Json::List(items.into_iter().map(|item| Json::read(item, depth + 1)).collect::<Result<_, _>>()?)
            }
            Some(b'{') if depth < DEPTH_MAX => {
                let properties = properties(text)?.into_iter();
                let properties = properties.map(|(name, value)| Ok((name, Json::read(value, depth + 1)?)));
                Json::Object(properties.collect::<serde_json::Result<_>>()?)
            }
            _ => Json::Plain(text.to_owned()),
        })
    }
}

/// The top-level properties of an object's text, in order, including repeated names.
///
/// # Errors
/// When the text is not an object.
pub(crate) fn properties(text: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    Ok(serde_json::from_str::<Properties<'_>>(text)?.0)
}

impl Object {
    /// The object without some of its properties.
    pub(crate) fn without(self, names: &[&str]) -> Object {
        self.properties.into_iter().filter(|(name, _)| !names.contains(&name.as_str())).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Json> {
        self.places.get(name).map(|place| &self.properties[*place].1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.properties.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// The last value of a repeated name counts, as in the output.
impl FromIterator<(String, Json)> for Object {
    fn from_iter<T: IntoIterator<Item = (String, Json)>>(properties: T) -> Object {
        let mut object = Object::default();
        for (name, value) in properties {
            match object.places.get(&name) {
                Some(place) => object.properties[*place].1 = value,
                None => {
                    object.places.insert(name.clone(), object.properties.len());
                    object.properties.push((name, value));
                }
            }
        }
        object
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Plain(text) => f.write_str(text),
            Json::Text(text) => f.write_str(&quoted(text)),
            Json::List(items) => {
                f.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { ", " })?;
                    item.fmt(f)?;
                }
                f.write_char(']')
            }
            Json::Object(object) => object.fmt(f),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        for (index, (name, value)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}: {value}", quoted(name))?;
        }
        f.write_char('}')
    }
}

/// A JSON string with everything escaped that must not be shown as it is, also what JSON allows.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    quote(text, &mut quoted);
    quoted.push('"');
    quoted
}

fn quote(text: &str, quoted: &mut String) {
    for char in text.chars() {
        match char {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // Hidden characters lie in the first plane, so four digits are enough.
            char if is_hidden(char) => quoted.push_str(&format!("\\u{:04x}", u32::from(char))),
            char => quoted.push(char),
        }
    }
}

/// The same string with each half of a surrogate pair in one canonical escape.
fn requoted(json: &str) -> String {
    let mut inner = String::with_capacity(json.len());
    for part in parts(json) {
        match part {
            Part::Plain(plain) => quote(plain, &mut inner),
            Part::Character(character) => quote(character.encode_utf8(&mut [0; 4]), &mut inner),
            Part::Half(unit) => inner.push_str(&format!("\\u{unit:04x}")),
        }
    }
    format!("\"{inner}\"")
}

struct Properties<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Properties<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Properties<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut properties = Vec::new();
                // Names in the form that the host writes.
                while let Some(name) = map.next_key::<&RawValue>()? {
                    properties.push((decode_lossy(name.get()).into_owned(), map.next_value()?));
                }
                Ok(Properties(properties))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::{almost_json, cases, read};

    #[test]
    fn what_is_written_is_what_was_read() {
        let text = r#"{"a": 1.0, "b": [1E400, -0, {"c": null}], "": "q\"\\\n\u001bé", "e": {}}"#;
        assert_eq!(Json::parse(text).unwrap().to_string(), text);
        assert_eq!(Json::parse(r#"{"a":1,"b":2,"\u0061":3}"#).unwrap().to_string(), r#"{"a": 3, "b": 2}"#);
    }

    #[test]
    fn half_of_a_surrogate_pair_is_what_the_host_writes() {
        let shown = |text: &str| Json::parse(text).unwrap().to_string();
        assert_eq!(shown(r#"{"a":"\ud800","\udc00":1}"#), "{\"a\": \"\u{fffd}\", \"\u{fffd}\": 1}");
        assert_eq!(shown(r#"{"a":["x\"\uD800\n","\ud83d\ude00"]}"#), r#"{"a": ["x\"\ud800\n", "😀"]}"#);
    }

    proptest! {
        #![proptest_config(cases(1_000))]

        #[test]
        fn what_is_shown_is_read_the_same(text in almost_json()) {
            let json = Json::parse(&text);
            prop_assert_eq!(json.is_ok(), read(&text).is_some());
            if let Ok(json) = json {
                let shown = json.to_string();
                prop_assert_eq!(Json::parse(&shown).unwrap().to_string(), shown);
            }
        }
    }

    #[test]
    fn no_control_character_reaches_a_terminal() {
        for code in (0..0x20).chain(0x7f..0xa0) {
            let char = char::from(code);
            let quoted = quoted(&char.to_string());
            assert!(!quoted.contains(char::is_control), "{quoted}");
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), char.to_string());
        }
    }

    #[test]
    fn very_many_levels_are_no_danger() {
        let text = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(Json::parse(&text).unwrap().to_string(), text);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in ["", "{", "{} x", r#"["\ud8"]"#, r#"{"a":01}"#] {
            assert!(Json::parse(text).is_err(), "{text}");
        }
    }
}
