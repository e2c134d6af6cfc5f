//! The state of plugins in the script that settles a delivery, on a real Redis: compared and written with everything else, once.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::arbitrary::cases;
use crate::config::Config;
use crate::effects::{Change, Expected, number};
use crate::redis::client::connector::Connector;
use crate::redis::embedded::Embedded;
use crate::redis::store::entry::{Delivery, History};
use crate::redis::store::inbox::ensure_group;

/// Values that are numbers, and values that only look like some.
fn value() -> impl Strategy<Value = String> {
    "-?[0-9]{1,3}|0|-0|00|[1-9][0-9]{17}|-[1-9][0-9]{17}|[1-9][0-9]{18}|1e3|0x1| 1|1\\.0|\\+1|\u{e9}|"
}

fn effect(name: String) -> impl Strategy<Value = Effect> {
    let bytes = || value().prop_map(Bytes::from);
    let expected = prop_oneof![
        3 => Just(Expected::Anything),
        1 => Just(Expected::Absent),
        1 => bytes().prop_map(Expected::Value),
    ];
    let change = prop_oneof![
        bytes().prop_map(Change::Set),
        Just(Change::Delete),
        prop_oneof![-9_i64..9, Just(999_999_999_999_999_999)].prop_map(Change::Add),
    ];
    (expected, prop::option::of(change), prop::option::of(Just(60_000)))
        .prop_map(move |(expected, change, ttl_ms)| Effect { name: name.clone(), expected, change, ttl_ms })
}

/// What is there before, and the effects. Every third value is expected as it is.
fn worlds() -> impl Strategy<Value = (BTreeMap<String, String>, Vec<Effect>)> {
    let effects = (effect("b:x".into()), effect("b:y".into()), effect("c:x".into()));
    (btree_map("b:[xy]|c:x", value(), 0..4), effects, vec(any::<bool>(), 3)).prop_map(
        |(before, effects, is_as_read)| {
            let mut effects = vec![effects.0, effects.1, effects.2];
            for (effect, _) in effects.iter_mut().zip(is_as_read).filter(|(_, is_as_read)| *is_as_read) {
                let found = before.get(&effect.name).map(|value| Bytes::from(value.clone()));
                effect.expected = found.map_or(Expected::Absent, Expected::Value);
            }
            (before, effects)
        },
    )
}

/// What is there afterwards; `None` for a conflict.
fn model(before: &BTreeMap<String, String>, effects: &[Effect]) -> Option<BTreeMap<String, String>> {
    let mut after = before.clone();
    for Effect { name, expected, change, .. } in effects {
        let found = before.get(name);
        let fits = match expected {
            Expected::Anything => true,
            Expected::Absent => found.is_none(),
            Expected::Value(value) => found.is_some_and(|found| found.as_bytes() == &**value),
        };
        let count = found.map_or(Some(0), |found| number(found.as_bytes()));
        match change {
            _ if !fits => return None,
            None => {}
            Some(Change::Set(value)) => drop(after.insert(name.clone(), String::from_utf8_lossy(value).into_owned())),
            Some(Change::Delete) => drop(after.remove(name)),
            Some(Change::Add(delta)) => drop(after.insert(name.clone(), (count? + delta).to_string())),
        }
    }
    Some(after)
}

#[test]
fn state_is_written_with_everything_else_once_or_not_at_all() {
    let server = Embedded::start_on_loopback().unwrap();
    let mut config = Config::default();
    config.redis.url = server.url();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connector = Connector::new(&config.redis).unwrap();
    let keys = Keys::new(config.keys.clone());
    let streams =
        Streams { keys: &keys, output: &config.output, outputs: &config.outputs, trimmed: &Trimmed::default() };

    proptest!(cases(300), |((before, effects) in worlds(), has_retry: bool, is_waiting: bool)| {
        let expected = model(&before, &effects);
        let (mut results, dead_letters, mut retries, rest) =
            (Results::default(), Entries::default(), Retries::default(), Entries::default());
        results.main.field("value", "x");
        results.main.finish();
        if has_retry {
            let history = History { attempt: 2, token: "5-a".into(), crashes: 0 };
            retries.push(1, "m", "{}", history, Duration::ZERO);
        }
        runtime.block_on(async {
            let mut connection = connector.connect().await.unwrap();
            redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
            ensure_group(&mut connection, &keys).await.unwrap();
            for (name, value) in &before {
                let key = format!("{}{name}", keys.state_prefix);
                redis::cmd("SET").arg(key).arg(value).query_async::<()>(&mut connection).await.unwrap();
            }
            let entry_id: String =
                redis::cmd("XADD").arg(&keys.inbox).arg("*").arg("m").arg("{}").query_async(&mut connection).await.unwrap();
            let read = ["GROUP", GROUP, "h", "STREAMS", &keys.inbox, ">"];
            redis::cmd("XREADGROUP").arg(&read).query_async::<redis::Value>(&mut connection).await.unwrap();
            redis::cmd("ZADD").arg("waiting").arg(1).arg("member").query_async::<()>(&mut connection).await.unwrap();
            redis::cmd("SCRIPT").arg("LOAD").arg(include_str!("../scripts/settle.lua"))
                .query_async::<String>(&mut connection).await.unwrap();
            let delivery = Delivery::new(entry_id, Vec::new());
            let fence = match is_waiting {
                true => Fenced { key: "waiting", group: "", name: b"member" },
                false => Fenced { key: &keys.inbox, group: GROUP, name: delivery.entry_id.as_bytes() },
            };
            let writes = Writes { results: &results, dead_letters: &dead_letters, retries: &retries, rest: &rest, effects: &effects };
            let mut raw = Connection::open(&connector).await.unwrap();
            let commands = settlement(streams, Duration::from_secs(60), fence, writes);
            let mut answers = Vec::new();
            for _ in 0..2 {
                let reply = raw.ask(&commands, Duration::ZERO).await.unwrap();
                answers.push(match Cursor::new(&reply, 0).value().unwrap() {
                    Head::Array(_) => "written",
                    Head::Line(b"+CONFLICT") => "conflict",
                    Head::Line(b":0") => "settled before",
                    other => panic!("{other:?}"),
                });
            }
            let names = ["b:x", "b:y", "c:x"];
            let mut after = BTreeMap::new();
            for name in names {
                let key = format!("{}{name}", keys.state_prefix);
                let found: Option<String> = redis::cmd("GET").arg(&key).query_async(&mut connection).await.unwrap();
                let ttl: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
                let effect = effects.iter().find(|effect| effect.name == name).unwrap();
                let is_written = matches!(effect.change, Some(Change::Set(_) | Change::Add(_))) && expected.is_some();
                assert_eq!(ttl > 0, is_written && effect.ttl_ms.is_some(), "{name}: {ttl}");
                after.extend(found.map(|value| (name.to_owned(), value)));
            }
            let results: usize = redis::cmd("XLEN").arg(&keys.output).query_async(&mut connection).await.unwrap();
            let retried: usize = redis::cmd("ZCARD").arg(&keys.retry).query_async(&mut connection).await.unwrap();
            match expected {
                Some(expected) => {
                    assert_eq!(answers, ["written", "settled before"]);
                    assert_eq!((after, results, retried), (expected, 1, usize::from(has_retry)));
                }
                None => {
                    assert_eq!(answers, ["conflict", "conflict"]);
                    assert_eq!((after, results, retried), (before, 0, 0));
                }
            }
        });
    });
}
