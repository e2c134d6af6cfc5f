//! Finds a property of a message by its path. Every value is raw JSON, as it was written. This file knows no id.

use std::borrow::Cow;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json;
use crate::config::PropertyPath;

/// A property that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property<'a> {
    /// The message has no such property.
    Absent,
    /// It stands once.
    Once(&'a str),
    /// Its name, or that of an object around it, stands more than once.
    Ambiguous,
}

/// Looks for a property of a JSON object. Each object on the path is read again for the next name, so that nothing is
/// kept of all others.
///
/// # Errors
/// When the text is not the JSON of an object.
pub fn find<'a>(text: &'a str, path: &PropertyPath) -> Result<Property<'a>, serde_json::Error> {
    let mut json = text;
    for (depth, name) in path.names().iter().enumerate() {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let found = match json.as_bytes().first() {
            _ if depth == 0 => deserializer.deserialize_map(Member { name })?,
            Some(b'{' | b'[') => Member { name }.deserialize(&mut deserializer)?,
            _ => return Ok(Property::Absent),
        };
        if depth == 0 {
            deserializer.end()?;
        }
        match found {
            Found { times: 0, .. } => return Ok(Property::Absent),
            Found { value: Some(value), times: 1 } => json = value.get(),
            _ => return Ok(Property::Ambiguous),
        }
    }
    Ok(Property::Once(json))
}

/// A member of an object with this name, or the element of an array with this number.
struct Member<'p> {
    name: &'p str,
}

#[derive(Default)]
struct Found<'a> {
    value: Option<&'a RawValue>,
    times: u32,
}

impl Member<'_> {
    /// `name` is raw JSON, because the parser rejects half of a surrogate pair.
    fn has_name(&self, name: &str) -> bool {
        json::decode(name).is_ok_and(|name: Cow<'_, str>| name == self.name)
    }

    /// A number without zeros in front.
    fn index(&self) -> Option<usize> {
        self.name.parse().ok().filter(|index: &usize| index.to_string() == self.name)
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Found<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found<'de>, A::Error> {
        let mut found = Found::default();
        while let Some(name) = map.next_key::<&RawValue>()? {
            if self.has_name(name.get()) {
                found.value = Some(map.next_value()?);
                found.times += 1;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Found<'de>, A::Error> {
        let (wanted, mut found) = (self.index(), Found::default());
        let mut index = 0;
        loop {
            if wanted == Some(index) {
                match elements.next_element()? {
                    Some(value) => found = Found { value: Some(value), times: 1 },
                    None => return Ok(found),
                }
            } else if elements.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<'a>(path: &str, text: &'a str) -> Property<'a> {
        find(text, &PropertyPath::read(path).unwrap()).unwrap()
    }

    #[test]
    fn a_property_is_found_where_its_path_leads() {
        for (path, text, value) in [
            ("id", r#"{"x":{"id":1},"id":"a"}"#, "\"a\""),
            ("event.id", r#" {"id":1,"event":{"n":{"id":2}, "id" : 3.0e1 },"z":[]} "#, "3.0e1"),
            ("/event.id", r#"{"event":{"id":1},"event.id":2}"#, "2"),
            ("/a~1b/~0", r#"{"a\/b":{"~":[1, 2]}}"#, "[1, 2]"),
            ("items.1.id", r#"{"items":[{"id":1},{"id":2},{"id":3}]}"#, "2"),
            ("items.1", r#"{"items":{"1":null}}"#, "null"),
            ("ev\u{e9}nement", r#"{"ev\u00e9nement":"\ud800"}"#, r#""\ud800""#),
        ] {
            assert_eq!(at(path, text), Property::Once(value), "{path}");
        }
    }

    #[test]
    fn what_the_path_does_not_lead_to_is_absent() {
        for (path, text) in [
            ("id", "{}"),
            ("event.id", r#"{"id":1,"event.id":2}"#),
            ("event.id", r#"{"event":"id"}"#),
            ("event.id", r#"{"event":null}"#),
            ("event.id", r#"{"event":["id"]}"#),
            ("items.2", r#"{"items":[0,1]}"#),
            ("items.01", r#"{"items":[0,1]}"#),
            ("items.-", r#"{"items":[0,1]}"#),
            ("id", r#"{"id\ud800":1}"#),
        ] {
            assert_eq!(at(path, text), Property::Absent, "{path}");
        }
    }

    #[test]
    fn a_name_on_the_path_must_not_stand_twice() {
        assert_eq!(at("id", r#"{"id":1,"\u0069d":1}"#), Property::Ambiguous);
        assert_eq!(at("event.id", r#"{"event":{"id":1},"event":{}}"#), Property::Ambiguous);
        assert_eq!(at("event.id", r#"{"event":{"id":1,"x":1,"x":2}}"#), Property::Once("1"));
    }

    #[test]
    fn the_whole_text_is_checked() {
        for text in ["", "{", "[]", "1", r#"{"id":1} x"#, r#"{"id":1,"x":01}"#, r#"{"id":1,}"#] {
            assert!(find(text, &PropertyPath::read("id").unwrap()).is_err(), "{text}");
        }
    }
}
