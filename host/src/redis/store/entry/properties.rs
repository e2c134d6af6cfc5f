//! A consumer decodes exactly what the intake encodes, and no reply of Redis breaks the decoder.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::{almost_a_reply, cases};
use crate::dead_letter::Origin;
use crate::message::Reason;

/// An inbox entry in a reply of Redis.
fn entry(id: &str, values: impl Iterator<Item = Vec<u8>>) -> Value {
    Value::Array(vec![Value::BulkString(id.as_bytes().to_vec()), Value::Array(values.map(Value::BulkString).collect())])
}

fn history() -> impl Strategy<Value = History> {
    (any::<u32>(), "[0-9]{1,13}-[0-9]{1,3}", any::<u32>()).prop_map(|(attempt, token, crashes)| History {
        attempt,
        token,
        crashes,
    })
}

/// Any value of the protocol that matters here.
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
    #![proptest_config(cases(4_000))]

    #[test]
    fn what_is_encoded_is_decoded(
        messages in vec((".{1,12}", any::<String>(), prop::option::weighted(0.3, history())), 1..20),
        claims in prop::option::of(("[0-9]{1,13}-[0-9a-f]{1,20}", 1_u64..1_000_000)),
        format in 0..=FORMAT,
    ) {
        let mut entries = Entries::default();
        match (&claims, format) {
            (Some((token, _)), 0) => entries.field("", token),
            (None, 0) => {}
            (Some((token, window_ms)), _) => entries.field("", opening(format, token, &window_ms.to_string())),
            (None, _) => entries.field("", format!("v{format} - 0")),
        }
        for (id, body, history) in &messages {
            if let Some(history) = history {
                // The note that `forward.lua` and `take_over.lua` put in front.
                entries.field("", history.note());
            }
            entries.field(id, body);
        }
        entries.finish();
        let values = entries.iter().next().expect("an entry was finished").map(<[u8]>::to_vec);
        let delivery = delivery(entry("1-0", values)).expect("an entry is a delivery");
        prop_assert_eq!(&delivery.entry_id, "1-0");
        prop_assert_eq!((delivery.format, delivery.is_readable()), (format, true));
        let window = |(token, window_ms): &(String, u64)| {
            // Format 0 does not contain the validity of claims.
            Claims { token: token.clone(), window: Duration::from_millis(if format == 0 { 0 } else { *window_ms }) }
        };
        prop_assert_eq!(&delivery.claims, &claims.as_ref().map(window));
        let histories = || messages.iter().map(|(_, _, history)| history.as_ref());
        prop_assert_eq!(delivery.crashes, histories().flatten().map(|history| history.crashes).max().unwrap_or(0));
        prop_assert_eq!(delivery.messages.len(), messages.len());
        for (decoded, (id, body, history)) in delivery.messages.iter().zip(&messages) {
            prop_assert_eq!((&decoded.id, &decoded.body, decoded.history.as_deref()), (id, body, history.as_ref()));
            prop_assert_eq!(decoded.attempt(), history.as_ref().map_or(1, |history| history.attempt));
            let own = claims.as_ref().map_or("1-0", |(token, _)| token);
            prop_assert_eq!(delivery.token(decoded), history.as_ref().map_or(own, |history| &history.token));
        }
    }

    #[test]
    fn the_rest_of_a_delivery_is_what_it_was(
        messages in vec((".{1,12}", any::<String>(), prop::option::weighted(0.3, history())), 1..20),
        claims in prop::option::of("[0-9]{1,13}-[0-9a-f]{1,20}"), done in any::<prop::sample::Index>(),
    ) {
        let messages: Vec<Message> =
            messages.into_iter().map(|(id, body, history)| Message { id, body, history: history.map(Box::new) }).collect();
        let mut before = Delivery::new("1-0".into(), messages);
        before.claims = claims.map(|token| Claims { token, window: Duration::from_secs(1) });
        let done = done.index(before.messages.len());
        let places: Vec<usize> = (done..before.messages.len()).collect();
        let mut entries = Entries::default();
        write_rest(&mut entries, FORMAT, &before, &places);
        let values = entries.iter().next().expect("an entry was finished").map(<[u8]>::to_vec);
        let after = delivery(entry("2-0", values)).expect("an entry is a delivery");
        prop_assert_eq!((after.format, &after.claims), (FORMAT, &None), "the claims are older than the entry");
        let known = |delivery: &Delivery, from: usize| -> Vec<_> {
            let crashes = |message: &Message| message.history.as_ref().map_or(0, |history| history.crashes);
            let of = |message: &Message| {
                let token = delivery.token(message).to_owned();
                (message.id.clone(), message.body.clone(), message.attempt(), token, crashes(message))
            };
            delivery.messages[from..].iter().map(of).collect()
        };
        prop_assert_eq!(known(&after, 0), known(&before, done));
    }

    #[test]
    fn of_a_newer_format_nothing_is_read(newer in 1..1_000_u32, rest in ".{0,20}", pairs in vec((".{0,6}", ".{0,6}"), 0..5)) {
        let format = FORMAT + newer;
        let values = pairs.into_iter().flat_map(|(name, value)| [name.into_bytes(), value.into_bytes()]);
        let opening = [Vec::new(), format!("v{format} {rest}").into_bytes()];
        let delivery = delivery(entry("1-0", opening.into_iter().chain(values))).expect("an entry is a delivery");
        prop_assert_eq!((delivery.format, delivery.is_readable(), delivery.messages.len()), (format, false, 0));
    }

    #[test]
    fn a_history_is_what_it_says_or_nothing(
        header in prop_oneof![
            "[0-9+]{0,11} [0-9-]{0,5} [0-9]{0,11}( )?".prop_map(String::into_bytes),
            vec(any::<u8>(), 0..20),
        ],
        id in ".{1,12}",
    ) {
        let entry = entry("1-0", [Vec::new(), header.clone(), id.clone().into_bytes(), b"{}".to_vec()].into_iter());
        let delivery = delivery(entry).expect("an entry is a delivery");
        prop_assert_eq!(delivery.messages.len(), 1);
        prop_assert_eq!(&delivery.messages[0].id, &id);
        if let Some(history) = &delivery.messages[0].history {
            let words: Vec<_> = std::str::from_utf8(&header).expect("it was read as text").split(' ').collect();
            prop_assert_eq!(words[0].parse(), Ok(history.attempt));
            prop_assert_eq!((words.len(), words[1]), (3, history.token.as_str()));
            prop_assert_eq!(words[2].parse(), Ok(history.crashes));
        }
    }

    #[test]
    fn bytes_of_anybody_else_become_text(
        pairs in vec((vec(any::<u8>(), 1..12), vec(any::<u8>(), 0..12)), 0..5), odd: bool,
    ) {
        let values = pairs.iter().flat_map(|(id, body)| [id.clone(), body.clone()]);
        // Redis never returns a name without a value. Such a name would not be a message.
        let delivery = delivery(entry("1-0", values.chain(odd.then(|| b"odd".to_vec())))).expect("an entry is a delivery");
        prop_assert_eq!(delivery.messages.len(), pairs.len());
        for (message, (id, body)) in delivery.messages.iter().zip(&pairs) {
            prop_assert_eq!(message.id.as_str(), &*String::from_utf8_lossy(id));
            prop_assert_eq!(message.body.as_str(), &*String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn no_reply_breaks_the_decoding(reply in reply()) {
        let is_entry = matches!(&reply, Value::Array(parts) if matches!(&parts[..], [Value::BulkString(_), Value::Array(_)]));
        let bytes = encoded(&Value::Array(vec![Value::Array(vec![
            Value::BulkString(b"inbox".to_vec()),
            Value::Array(vec![reply.clone()]),
        ])]));
        // The buffer may contain nonsense, which then is an error.
        let _ = fetched(&mut Cursor::new(&bytes, 0));
        let _ = fetched(&mut Cursor::new(&encoded(&reply), 0));
        prop_assert_eq!(delivery(reply).is_some(), is_entry);
    }

    #[test]
    fn what_is_made_of_a_forged_entry_is_within_bounds(bytes in almost_a_reply()) {
        // The reply to a fetch begins with the permit.
        let mut replies = Cursor::new(&bytes, 0);
        let _ = replies.value();
        let mut deliveries = fetched(&mut replies).unwrap_or_default();
        let _ = read_entries(&mut Cursor::new(&bytes, 0), &mut deliveries);
        let taken_apart = redis::parse_redis_value(&bytes).ok();
        if let Some(Value::Array(entries)) = taken_apart {
            deliveries.extend(entries.into_iter().filter_map(delivery));
        }
        for delivery in &deliveries {
            prop_assert!(delivery.claims.as_ref().is_none_or(|claims| claims.window <= WINDOW_MAX));
            for message in &delivery.messages {
                let (message_id, token) = (message.id.as_str(), delivery.token(message));
                let origin =
                    Origin { message_id, token, attempts: message.attempt(), consumer_id: "c", plugin_digest: "d", plugin_generation: 1 };
                let (payload, reason) = (message.body.as_bytes(), Reason::HostKiller);
                let letter = DeadLetter { payload, reason, error: "", host_id: "h", origin: Some(origin) };
                let mut entries = Entries::default();
                write_dead_letter(&mut entries, FORMAT, &letter);
                prop_assert_eq!(entries.iter().count(), 1);
            }
        }
    }

    #[test]
    fn a_reply_in_the_buffer_and_one_taken_apart_are_the_same(
        entries in vec(vec((vec(any::<u8>(), 0..12), vec(any::<u8>(), 0..12)), 0..5), 0..4),
    ) {
        let values = |pairs: &Vec<(Vec<u8>, Vec<u8>)>| pairs.clone().into_iter().flat_map(|(id, body)| [id, body]);
        let entries: Vec<Value> = entries.iter().map(|pairs| entry("1-0", values(pairs))).collect();
        let stream = Value::Array(vec![Value::BulkString(b"inbox".to_vec()), Value::Array(entries.clone())]);
        let fetched = fetched(&mut Cursor::new(&encoded(&Value::Array(vec![stream])), 0)).expect("a reply of XREADGROUP");
        let taken_apart: Vec<Delivery> = entries.into_iter().filter_map(delivery).collect();
        prop_assert_eq!(format!("{fetched:?}"), format!("{taken_apart:?}"));
    }
}

/// The encoded value, as on the connection.
fn encoded(value: &Value) -> Vec<u8> {
    match value {
        Value::Int(number) => format!(":{number}\r\n").into_bytes(),
        Value::SimpleString(text) => format!("+{}\r\n", text.replace('\r', "")).into_bytes(),
        Value::Okay => b"+OK\r\n".to_vec(),
        Value::BulkString(bytes) => [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat(),
        Value::Array(values) => {
            let head = format!("*{}\r\n", values.len()).into_bytes();
            values.iter().map(encoded).fold(head, |all, value| [all, value].concat())
        }
        _ => b"$-1\r\n".to_vec(),
    }
}
