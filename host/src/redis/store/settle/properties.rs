//! The script that settles a delivery, on a real Redis: everything is written once, or nothing at all.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::cases;
use crate::config::{Config, NamedOutput};
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::embedded::Embedded;
use crate::redis::store::entry::{Delivery, History};
use crate::redis::store::inbox::ensure_group;

/// What a delivery writes: results as the number of their output, 0 for the main one, with their values; dead letters;
/// ids of retries; entries that go back to the inbox.
type Written = (Vec<(usize, Vec<u8>)>, Vec<Vec<u8>>, Vec<String>, Vec<Vec<u8>>);

fn writes() -> impl Strategy<Value = Written> {
    let value = || vec(any::<u8>(), 0..9);
    (vec((0..4_usize, value()), 0..9), vec(value(), 0..3), vec("[a-z]{1,4}", 0..3), vec(value(), 0..4))
}

/// The values of a stream's entries, none for a key of another type.
async fn values(connection: &mut LibraryConnection, stream: &str) -> Vec<Vec<u8>> {
    type Entry = (String, Vec<(String, Vec<u8>)>);
    let entries: redis::RedisResult<Vec<Entry>> =
        redis::cmd("XRANGE").arg(stream).arg("-").arg("+").query_async(connection).await;
    entries.unwrap_or_default().into_iter().map(|(_, mut fields)| fields.remove(0).1).collect()
}

fn add(entries: &mut Entries, value: &[u8]) {
    entries.field("value", value);
    entries.finish();
}

#[test]
fn a_delivery_is_written_to_all_streams_once_or_to_none() {
    let server = Embedded::start_on_loopback().unwrap();
    let mut config = Config::default();
    config.redis.url = server.url();
    config.outputs =
        (1..4).map(|n| NamedOutput { name: format!("o{n}"), key: format!("s:{n}"), length_max: 0 }).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connector = Connector::new(&config.redis).unwrap();
    let keys = Keys::new(config.keys.clone());
    let streams =
        Streams { keys: &keys, output: &config.output, outputs: &config.outputs, trimmed: &Trimmed::default() };
    // The outputs, the dead letters and the retries, each of which may be spoilt.
    let named = [keys.output.as_str(), "s:1", "s:2", "s:3", keys.dead.as_str(), keys.retry.as_str()];

    proptest!(cases(80), |((results, dead, retried, back) in writes(), spoilt in prop::option::of(0..named.len()))| {
        let mut written = Results::default();
        for (number, value) in &results {
            add(written.of(number.checked_sub(1)), value);
        }
        let (mut dead_letters, mut retries, mut rest) = (Entries::default(), Retries::default(), Entries::default());
        back.iter().for_each(|value| add(&mut rest, value));
        dead.iter().for_each(|value| add(&mut dead_letters, value));
        for id in &retried {
            let history = History { attempt: 2, token: "5-a".into(), crashes: 0 };
            retries.push(1, id, "{}", history, Duration::ZERO);
        }
        let is_used = |place: usize| match place {
            0 | 4 => true,
            5 => !retried.is_empty(),
            number => results.iter().any(|(other, _)| *other == number),
        };
        let fails = spoilt.is_some_and(is_used);

        runtime.block_on(async {
            let mut connection = connector.connect().await.unwrap();
            redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
            ensure_group(&mut connection, &keys).await.unwrap();
            let entry_id: String =
                redis::cmd("XADD").arg(&keys.inbox).arg("*").arg("m").arg("{}").query_async(&mut connection).await.unwrap();
            let read = ["GROUP", GROUP, "h", "STREAMS", &keys.inbox, ">"];
            redis::cmd("XREADGROUP").arg(&read).query_async::<redis::Value>(&mut connection).await.unwrap();
            if let Some(place) = spoilt {
                redis::cmd("SET").arg(named[place]).arg("text").query_async::<()>(&mut connection).await.unwrap();
            }
            redis::cmd("SCRIPT").arg("LOAD").arg(include_str!("../scripts/settle.lua"))
                .query_async::<String>(&mut connection).await.unwrap();
            let delivery = Delivery::new(entry_id, Vec::new());
            let handed = Handed { delivery: &delivery, server: "", is_old: false };
            let fence = Fenced { key: &keys.inbox, group: GROUP, name: handed.delivery.entry_id.as_bytes() };
            let writes = Writes { results: &written, dead_letters: &dead_letters, retries: &retries, rest: &rest, effects: &[] };
            let mut raw = Connection::open(&connector).await.unwrap();
            let mut answers = Vec::new();
            for _ in 0..2 {
                let reply = raw.ask(&settlement(streams, Duration::from_secs(60), fence, writes), Duration::ZERO).await.unwrap();
                answers.push(Cursor::new(&reply, 0).value().map(|head| matches!(head, Head::Array(_))).map_err(|error| error.to_string()));
            }
            let inbox = values(&mut connection, &keys.inbox).await;
            if fails {
                let key = named[spoilt.unwrap()];
                assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(|text| text.contains(key))), "{answers:?}");
            } else {
                assert_eq!(answers, [Ok(true), Ok(false)]);
            }
            // The rest is there once, in its order, and the delivery is not.
            assert_eq!(inbox, if fails { vec![b"{}".to_vec()] } else { back });
            for (number, key) in named[..5].iter().enumerate() {
                let expected: Vec<Vec<u8>> = match number {
                    _ if fails => Vec::new(),
                    4 => dead.clone(),
                    _ => results.iter().filter(|(to, _)| *to == number).map(|(_, value)| value.clone()).collect(),
                };
                assert_eq!(values(&mut connection, key).await, expected, "{key}");
            }
            let waiting: usize = redis::cmd("ZCARD").arg(&keys.retry).query_async(&mut connection).await.unwrap_or(0);
            let mut different = retried.clone();
            different.sort();
            different.dedup();
            assert_eq!(waiting, if fails { 0 } else { different.len() });
        });
    });
}
