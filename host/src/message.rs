//! A published payload: whether it is a message, and its id. This file knows JSON, and neither source nor destination
//! of the bytes.

mod delay;
pub(crate) mod json;
mod property;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

pub use self::delay::Delays;
use self::property::{Property, find};
use crate::config::{MessageConfig, PropertyPath};

/// The property with the id, unless the configuration names another one.
pub const ID_PROPERTY: &str = "message_id";

/// Maximum length of a message id, in bytes.
pub const ID_BYTES_MAX: usize = 512;

/// Reason why a message was given up. The names are a contract with readers of dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Longer than the limit.
    TooBig,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON.
    NotJson,
    /// JSON, but not an object.
    NotAnObject,
    /// Deeper nesting of objects and arrays than the limit.
    TooDeep,
    /// No property with the id.
    NoId,
    /// An id that is empty, is neither a string nor a number, or occurs twice.
    BadId,
    /// An id longer than [`ID_BYTES_MAX`] bytes.
    IdTooLong,
    /// A time before which the message is not processed that cannot be read, or is too far ahead.
    BadDelay,
    /// The plugin returned an error.
    PluginFailed,
    /// The plugin trapped.
    PluginTrapped,
    /// The plugin took longer than its limit.
    PluginTimedOut,
    /// The plugin asked for more memory than its limit.
    PluginMemory,
    /// The plugin rejected the message.
    PluginRejected,
    /// The plugin asked for another attempt, and no attempt is left.
    PluginRetried,
    /// The plugin's result is not a JSON object, or too large.
    BadResult,
    /// Other messages changed what the plugin had read of its state, again and again.
    StateConflict,
    /// Several hosts died while processing the message.
    HostKiller,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Reason; 18] = [
        Reason::TooBig,
        Reason::NotUtf8,
        Reason::NotJson,
        Reason::NotAnObject,
        Reason::TooDeep,
        Reason::NoId,
        Reason::BadId,
        Reason::IdTooLong,
        Reason::BadDelay,
        Reason::PluginFailed,
        Reason::PluginTrapped,
        Reason::PluginTimedOut,
        Reason::PluginMemory,
        Reason::PluginRejected,
        Reason::PluginRetried,
        Reason::BadResult,
        Reason::StateConflict,
        Reason::HostKiller,
    ];

    /// The reason with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Reason> {
        Reason::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The name in a dead letter.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::TooBig => "too-big",
            Reason::NotUtf8 => "not-utf8",
            Reason::NotJson => "not-json",
            Reason::NotAnObject => "not-an-object",
            Reason::TooDeep => "too-deep",
            Reason::NoId => "no-id",
            Reason::BadId => "bad-id",
            Reason::IdTooLong => "id-too-long",
            Reason::BadDelay => "bad-delay",
            Reason::PluginFailed => "plugin-failed",
            Reason::PluginTrapped => "plugin-trapped",
            Reason::PluginTimedOut => "plugin-timed-out",
            Reason::PluginMemory => "plugin-memory",
            Reason::PluginRejected => "plugin-rejected",
            Reason::PluginRetried => "plugin-retried",
            Reason::StateConflict => "state-conflict",
            Reason::BadResult => "bad-result",
            Reason::HostKiller => "host-killer",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A payload that is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// The reason.
    pub reason: Reason,
    /// A sentence with the problem and the valid form.
    pub sentence: String,
}

fn refuse(reason: Reason, sentence: impl Into<String>) -> Refusal {
    Refusal { reason, sentence: sentence.into() }
}

/// Finds the id of a message, and checks whether the payload is a message.
///
/// # Errors
/// A [`Refusal`] when the payload is not a JSON object with a usable id.
pub fn read_id<'a>(payload: &'a [u8], config: &MessageConfig) -> Result<Cow<'a, str>, Refusal> {
    if payload.len() > config.bytes_max {
        let sentence = format!("the message has {} bytes; the limit is {}", payload.len(), config.bytes_max);
        return Err(refuse(Reason::TooBig, sentence));
    }
    let text = std::str::from_utf8(payload).map_err(|error| {
        let at = error.valid_up_to();
        refuse(Reason::NotUtf8, format!("the message is not UTF-8: byte {at} does not begin a character"))
    })?;
    if depth_exceeds(payload, config.depth_max) {
        let sentence = format!("the message has more than {} nested objects and arrays", config.depth_max);
        return Err(refuse(Reason::TooDeep, sentence));
    }
    // The usual property has a reader of its own, which compares names with a constant.
    let path = &config.id_property;
    let property = if path.is(ID_PROPERTY) {
        match serde_json::from_str(text).map_err(|_| not_an_object(text, path))? {
            Envelope { id: None, .. } => Property::Absent,
            Envelope { id: Some(id), ids: 1 } => Property::Once(id.get()),
            Envelope { .. } => Property::Ambiguous,
        }
    } else {
        find(text, path).map_err(|_| not_an_object(text, path))?
    };
    match property {
        Property::Once(json) => id_text(json, path),
        Property::Absent => Err(refuse(Reason::NoId, format!("the message has no property {}", path.as_str()))),
        Property::Ambiguous => {
            Err(refuse(Reason::BadId, format!("the message has the property {} more than once", path.as_str())))
        }
    }
}

/// Why a text is not the JSON of an object. For a string or a number the parser may report a syntax error before it
/// reports that the value is no object, and for an array it reports the type before it has read the array.
fn not_an_object(text: &str, path: &PropertyPath) -> Refusal {
    if text.starts_with(json::BYTE_ORDER_MARK) {
        let sentence = "the message begins with a byte order mark (U+FEFF); publish the JSON without it";
        return refuse(Reason::NotJson, sentence);
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => {
            let example =
                path.names().iter().rev().fold("…".to_owned(), |value, name| format!("{{\"{name}\": {value}, …}}"));
            refuse(Reason::NotAnObject, format!("the message is JSON but not an object; publish {example}"))
        }
        Err(error) => refuse(Reason::NotJson, format!("the message is not JSON: {error}")),
    }
}

/// The text of an id: the characters of a string, or a number as it was written.
fn id_text<'a>(json: &'a str, path: &PropertyPath) -> Result<Cow<'a, str>, Refusal> {
    let name = path.as_str();
    let id = match json.as_bytes().first() {
        Some(b'"') => json::decode(json).map_err(|_| {
            let sentence = format!(
                "{name} has half of a surrogate pair, such as \\ud800, without the other half: it was cut within a character"
            );
            refuse(Reason::BadId, sentence)
        })?,
        Some(b'-' | b'0'..=b'9') => Cow::Borrowed(json),
        _ => {
            return Err(refuse(Reason::BadId, format!("{name} must be a string or a number")));
        }
    };
    if id.is_empty() {
        return Err(refuse(Reason::BadId, format!("{name} is empty")));
    }
    if id.len() > ID_BYTES_MAX {
        let sentence = format!("{name} has {} bytes; the limit is {ID_BYTES_MAX}", id.len());
        return Err(refuse(Reason::IdTooLong, sentence));
    }
    Ok(id)
}

/// Whether objects and arrays are nested deeper than `depth_max`. Correct for valid JSON. Invalid JSON is detected by
/// the parser, which skips values without recursion.
fn depth_exceeds(json: &[u8], depth_max: u32) -> bool {
    let opening = |byte: &u8| matches!(byte, b'{' | b'[');
    if json.len() <= depth_max as usize || json.iter().filter(|byte| opening(byte)).count() <= depth_max as usize {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > depth_max {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The property [`ID_PROPERTY`] of a message. All other properties are checked for syntax and skipped.
struct Envelope<'a> {
    id: Option<&'a RawValue>,
    ids: u32,
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Properties;

        impl<'de> Visitor<'de> for Properties {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut envelope = Envelope { id: None, ids: 0 };
                while let Some(name) = map.next_key::<&RawValue>()? {
                    if is_id(name.get()) {
                        envelope.id = Some(map.next_value()?);
                        envelope.ids += 1;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(envelope)
            }
        }

        deserializer.deserialize_map(Properties)
    }
}

/// Whether this is the name `message_id`. The name is raw JSON, because the parser rejects half of a surrogate pair.
fn is_id(name: &str) -> bool {
    name == "\"message_id\"" || (name.contains('\\') && json::decode(name).as_deref() == Ok("message_id"))
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn config(id_property: &str) -> MessageConfig {
        MessageConfig {
            id_property: PropertyPath::read(id_property).unwrap(),
            bytes_max: 4096,
            depth_max: 8,
            ..Config::default().message
        }
    }

    fn id(json: &str) -> Result<String, Reason> {
        let ids = ["message_id", "/message_id"].map(|path| read_id(json.as_bytes(), &config(path)));
        assert_eq!(
            ids[0],
            ids[1].clone().map_err(|refusal| Refusal {
                sentence: refusal.sentence.replace("/message_id", "message_id"),
                ..refusal
            })
        );
        let [id, _] = ids;
        id.map(Cow::into_owned).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn a_refusal_names_the_property_that_was_looked_for() {
        let sentence = |json: &str| read_id(json.as_bytes(), &config("event.id")).unwrap_err().sentence;
        assert_eq!(sentence(r#"{"message_id":"1"}"#), "the message has no property event.id");
        assert_eq!(
            sentence(r#"{"event":{"id":1},"event":{}}"#),
            "the message has the property event.id more than once"
        );
        assert_eq!(sentence(r#"{"event":{"id":{}}}"#), "event.id must be a string or a number");
        assert_eq!(sentence(r#"{"event":{"id":""}}"#), "event.id is empty");
        assert!(sentence("[]").ends_with(r#"publish {"event": {"id": …, …}, …}"#), "{}", sentence("[]"));
        assert_eq!(read_id(br#"{"event":{"id":"\u0061"}}"#, &config("/event/id")).as_deref(), Ok("a"));
    }

    #[test]
    fn strings_and_numbers_are_ids() {
        assert_eq!(id(r#"{"message_id":"a:b{c}d"}"#), Ok("a:b{c}d".into()));
        assert_eq!(id(r#"{"x":[1,{"message_id":"inner"}],"message_id":"a\"\u00e9"}"#), Ok("a\"é".into()));
        assert_eq!(id(r#" { "message_id" : 7 } "#), Ok("7".into()));
        assert_eq!(id(r#"{"message_id":-1.50e3}"#), Ok("-1.50e3".into()));
        assert_eq!(id(r#"{"message\u005fid":"escaped name"}"#), Ok("escaped name".into()));
        assert_eq!(id(&format!(r#"{{"message_id":"{}"}}"#, "x".repeat(512))), Ok("x".repeat(512)));
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        assert_eq!(id(""), Err(Reason::NotJson));
        assert_eq!(id("{"), Err(Reason::NotJson));
        assert_eq!(id(r#"{"message_id":"1"} x"#), Err(Reason::NotJson));
        assert_eq!(id(r#"{"message_id":"1","x":01}"#), Err(Reason::NotJson));
        for json in ["", " [", "[1,", "[nonsense]", "\"", "truth", "1e"] {
            assert_eq!(id(json), Err(Reason::NotJson), "{json}");
        }
        for json in ["[]", "1", "null", "\"message_id\"", "true", r#""\ud800""#, "1e400", r#"["\ud800", 1e400]"#] {
            assert_eq!(id(json), Err(Reason::NotAnObject), "{json}");
        }
        assert_eq!(id("{}"), Err(Reason::NoId));
        for json in ["\"\"", "null", "true", "{}", "[\"1\"]", r#""\ud800""#] {
            assert_eq!(id(&format!("{{\"message_id\":{json}}}")), Err(Reason::BadId), "{json}");
        }
        assert_eq!(id(r#"{"message_id":"1","message_id":"2"}"#), Err(Reason::BadId));
        assert_eq!(id(&format!(r#"{{"message_id":"{}"}}"#, "x".repeat(513))), Err(Reason::IdTooLong));
        assert_eq!(id(&format!(r#"{{"message_id":"{}"}}"#, "x".repeat(5000))), Err(Reason::TooBig));
        assert_eq!(read_id(b"{\"message_id\":\"\xff\"}", &config("message_id")).unwrap_err().reason, Reason::NotUtf8);
    }

    #[test]
    fn half_of_a_surrogate_pair_matters_in_the_id_only() {
        for json in [r#""x":"\ud800""#, r#""x":["\udc00", {"\ud800":1}]"#, r#""\ud800":1"#, r#""message_id\ud800":1"#] {
            assert_eq!(id(&format!(r#"{{{json},"message_id":"1"}}"#)), Ok("1".into()), "{json}");
            assert_eq!(id(&format!(r#"{{"message_id":"1",{json}}}"#)), Ok("1".into()), "{json}");
        }
        let refusal = read_id(br#"{"message_id":"1\ud83d"}"#, &config("message_id")).unwrap_err();
        assert_eq!(refusal.reason, Reason::BadId);
        assert!(refusal.sentence.contains("half of a surrogate pair"), "{refusal}");
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        let refusal = read_id("\u{feff}{\"message_id\":\"1\"}".as_bytes(), &config("message_id")).unwrap_err();
        assert_eq!(refusal.reason, Reason::NotJson);
        assert!(refusal.sentence.contains("byte order mark (U+FEFF)"), "{refusal}");
    }

    #[test]
    fn the_list_of_reasons_has_each_once() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
            assert_eq!(Reason::named(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::named("nope"), None);
    }

    #[test]
    fn depth_counts_objects_and_arrays_but_not_brackets_in_strings() {
        let nested = |depth: usize| format!(r#"{{"message_id":"1","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert_eq!(id(&nested(7)), Ok("1".into()));
        assert_eq!(id(&nested(8)), Err(Reason::TooDeep));
        assert_eq!(id(r#"{"message_id":"1","x":"[[[[[[[[[[\"[[[["}"#), Ok("1".into()));
        assert_eq!(id(r#"{"message_id":"1","x":[[],[],[],[],[],[],[],[],[]]}"#), Ok("1".into()));
    }
}
