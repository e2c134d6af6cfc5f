//! What the intake encodes is what a consumer decodes, and nothing that Redis may say breaks the decoding.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::cases;

/// An inbox entry as Redis hands it out.
fn entry(id: &str, values: impl Iterator<Item = Vec<u8>>) -> Value {
    Value::Array(vec![Value::BulkString(id.as_bytes().to_vec()), Value::Array(values.map(Value::BulkString).collect())])
}

/// Anything that the protocol can say, as far as it matters here.
fn reply() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Nil),
        Just(Value::Okay),
        any::<i64>().prop_map(Value::Int),
        ".{0,8}".prop_map(Value::SimpleString),
        vec(any::<u8>(), 0..8).prop_map(Value::BulkString),
    ];
    scalar.prop_recursive(3, 24, 6, |inner| vec(inner, 0..6).prop_map(Value::Array))
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn what_is_encoded_is_decoded(messages in vec((".{1,12}", any::<String>()), 1..20)) {
        let mut entries = Entries::default();
        for (id, body) in &messages {
            entries.field(id, body);
        }
        entries.finish();
        let values = entries.iter().next().expect("an entry was finished").map(<[u8]>::to_vec);
        let delivery = delivery(entry("1-0", values)).expect("an entry is a delivery");
        prop_assert_eq!(delivery.entry_id, "1-0");
        let decoded: Vec<_> = delivery.messages.into_iter().map(|message| (message.id, message.body)).collect();
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn bytes_of_anybody_else_become_text(
        pairs in vec((vec(any::<u8>(), 1..12), vec(any::<u8>(), 0..12)), 0..5), odd: bool,
    ) {
        let values = pairs.iter().flat_map(|(id, body)| [id.clone(), body.clone()]);
        // Redis never gives a name without a value; if it did, it would be no message.
        let delivery = delivery(entry("1-0", values.chain(odd.then(|| b"odd".to_vec())))).expect("an entry is a delivery");
        prop_assert_eq!(delivery.messages.len(), pairs.len());
        for (message, (id, body)) in delivery.messages.iter().zip(&pairs) {
            prop_assert_eq!(message.id.as_str(), &*String::from_utf8_lossy(id));
            prop_assert_eq!(message.body.as_str(), &*String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn no_reply_breaks_the_decoding(reply in reply()) {
        let parts = match &reply {
            Value::Array(parts) => parts.len(),
            _ => 0,
        };
        let second_is_list = matches!(&reply, Value::Array(parts) if matches!(parts.get(1), Some(Value::Array(_))));
        prop_assert_eq!(delivery(reply).is_some(), parts >= 2 && second_is_list);
    }
}
