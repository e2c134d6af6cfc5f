//! What holds for whatever is published.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::{Kind, Node, almost_json, cases, json_object, json_string, read};
use crate::config::Config;

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => almost_json().prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..80),
        1 => (almost_json(), any::<u8>(), any::<prop::sample::Index>()).prop_map(|(text, byte, place)| {
            let mut bytes = text.into_bytes();
            bytes.insert(place.index(bytes.len() + 1), byte);
            bytes
        }),
    ]
}

fn usual(bytes_max: usize, depth_max: u32) -> MessageConfig {
    MessageConfig {
        id_property: PropertyPath::read("message_id").unwrap(),
        bytes_max,
        depth_max,
        ..Config::default().message
    }
}

fn limits() -> impl Strategy<Value = MessageConfig> {
    (prop_oneof![1_000_usize..4_000, 0_usize..200], prop_oneof![1_u32..=8, Just(128)])
        .prop_map(|(bytes_max, depth_max)| usual(bytes_max, depth_max))
}

/// The id by the book: what JSON's grammar and the README say.
fn expected(node: &Node<'_>, limits: &MessageConfig) -> Result<String, Reason> {
    if node.depth() > limits.depth_max {
        return Err(Reason::TooDeep);
    }
    let Kind::Object(members) = &node.kind else {
        return Err(Reason::NotAnObject);
    };
    let mut ids = members.iter().filter(|(name, _)| name.is("message_id"));
    let (_, id) = ids.next().ok_or(Reason::NoId)?;
    let text = match &id.kind {
        _ if ids.next().is_some() => return Err(Reason::BadId),
        Kind::Text(text) if text.is_exact => text.lossy.clone(),
        Kind::Number => id.raw.to_owned(),
        _ => return Err(Reason::BadId),
    };
    match text.len() {
        0 => Err(Reason::BadId),
        1..=ID_BYTES_MAX => Ok(text),
        _ => Err(Reason::IdTooLong),
    }
}

proptest! {
    #![proptest_config(cases(1_000))]

    #[test]
    fn an_id_is_found_exactly_where_the_grammar_has_one(payload in payload(), limits in limits()) {
        let found = read_id(&payload, &limits).map(Cow::into_owned).map_err(|refusal| refusal.reason);
        if payload.len() > limits.bytes_max {
            prop_assert_eq!(found, Err(Reason::TooBig));
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(&payload) else {
            prop_assert_eq!(found, Err(Reason::NotUtf8));
            return Ok(());
        };
        match read(text) {
            Some(node) => prop_assert_eq!(found, expected(&node, &limits)),
            // Which mistake is seen first depends on where it is.
            None => prop_assert!(matches!(found, Err(Reason::NotJson | Reason::TooDeep)), "{:?}", found),
        }
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&payload)
            && let Ok(id) = read_id(&payload, &limits)
        {
            // Its tree keeps no number as it was written.
            prop_assert!(value["message_id"].is_number() || value["message_id"] == *id);
        }
    }

    #[test]
    fn any_text_of_the_right_length_is_an_id(
        id in "\\PC{0,30}|.{1,20}", filler in 0_usize..600, escaped: bool, other in json_object(), behind: bool,
    ) {
        let id = format!("{id}{}", "x".repeat(filler));
        let (own, limits) = (json_string(&id, escaped), usual(1 << 20, 128));
        let (first, second) = if behind { (format!("\"x\":{other}"), format!("\"message_id\":{own}")) }
            else { (format!("\"message_id\":{own}"), format!("\"x\":{other}")) };
        let found = read_id(format!("{{{first},{second}}}").as_bytes(), &limits).map(Cow::into_owned);
        match id.len() {
            0 => prop_assert_eq!(found.unwrap_err().reason, Reason::BadId),
            1..=ID_BYTES_MAX => prop_assert_eq!(found, Ok(id)),
            _ => prop_assert_eq!(found.unwrap_err().reason, Reason::IdTooLong),
        }
    }

    #[test]
    fn depth_is_what_recursion_finds(text in json_object(), depth_max in 0_u32..10) {
        let node = read(&text).expect("it was made from the grammar");
        prop_assert_eq!(depth_exceeds(text.as_bytes(), depth_max), node.depth() > depth_max);
    }
}
