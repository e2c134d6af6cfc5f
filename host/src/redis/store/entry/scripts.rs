//! Tests of the scripts against `entry.rs` on a real Redis: each side reads what the other side writes.

use std::collections::{BTreeSet, HashSet};

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::arbitrary::cases;
use crate::config::Config;
use crate::dead_letter::Origin;
use crate::message::Reason;
use crate::redis::client::connection::Connection;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::client::resp::Commands;
use crate::redis::embedded::Embedded;
use crate::redis::store::claims::{Terms, write_deliveries};
use crate::redis::store::dead::replay;
use crate::redis::store::inbox::{ensure_group, fetch};
use crate::redis::store::keys::{GROUP, Keys};
use crate::redis::store::retries::forward;
use crate::redis::store::takeover::{SUSPECT_FROM, take_over};

/// A message with all facts of an entry: id, body, attempt, token, crashes.
type Known = (String, String, u32, String, u32);

/// A private Redis with a connection to it.
struct Server {
    runtime: Runtime,
    connector: Connector,
    keys: Keys,
    _redis: Embedded,
}

impl Server {
    fn start() -> Server {
        let redis = Embedded::start_on_loopback().unwrap();
        let mut config = Config::default();
        config.redis.url = redis.url();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connector = Connector::new(&config.redis).unwrap();
        Server { runtime, connector, keys: Keys::new(config.keys), _redis: redis }
    }

    /// Runs one case on an empty server.
    fn case<T>(&self, case: impl AsyncFnOnce(LibraryConnection, &Keys) -> T) -> T {
        self.runtime.block_on(async {
            let mut connection = self.connector.connect().await.unwrap();
            redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
            ensure_group(&mut connection, &self.keys).await.unwrap();
            case(connection, &self.keys).await
        })
    }
}

/// All entries of the inbox, as a host reads them.
async fn inbox(connection: &mut LibraryConnection, keys: &Keys) -> Vec<Delivery> {
    let entries: Vec<Value> =
        redis::cmd("XRANGE").arg(&keys.inbox).arg("-").arg("+").query_async(connection).await.unwrap();
    entries.into_iter().map(|entry| delivery(entry).unwrap()).collect()
}

fn known(deliveries: &[Delivery]) -> Vec<Known> {
    let of = |delivery: &Delivery, message: &Message| {
        let history = message.history.as_ref().expect("it carries its history");
        assert_eq!(
            (delivery.format, &delivery.claims),
            (FORMAT, &None),
            "it says its format, and has no claims of its own"
        );
        (message.id.clone(), message.body.clone(), history.attempt, history.token.clone(), history.crashes)
    };
    deliveries.iter().flat_map(|delivery| delivery.messages.iter().map(move |message| of(delivery, message))).collect()
}

/// Ids and bodies of any text, tokens in their usual form, and few different ids, so that some occur twice.
fn messages() -> impl Strategy<Value = Vec<Known>> {
    vec(("[ab\n ü]{1,3}", any::<String>(), 1..9_u32, "[0-9]{1,13}-[0-9a-f]{1,6}", 0..3_u32), 1..12)
}

#[test]
fn retries_come_back_as_they_were_put_off() {
    let server = Server::start();
    proptest!(cases(60), |(messages in messages(), format in 0..=FORMAT, in_one in 1..5_usize, rubbish in any::<bool>())| {
        let moved = server.case(async |mut connection, keys| {
            let mut put_off = redis::pipe();
            for (id, body, attempt, token, crashes) in &messages {
                let history = History { attempt: *attempt, token: token.clone(), crashes: *crashes };
                let member = retry_member(format, id, body, &history);
                // An entry of format 0 contains no format.
                let member = member.strip_prefix(b"v0 ").unwrap_or(&member).to_vec();
                put_off.cmd("ZADD").arg(&keys.retry).arg(1).arg(member);
            }
            let newer = retry_member(FORMAT + 1, "newer", "{}", &History { attempt: 1, token: "1-a".into(), crashes: 0 });
            put_off.cmd("ZADD").arg(&keys.retry).arg(0).arg(&newer);
            if rubbish {
                put_off.cmd("ZADD").arg(&keys.retry).arg(0).arg("not ours");
            }
            put_off.query_async::<()>(&mut connection).await.unwrap();
            let forwarded = forward(&mut connection, keys, in_one, 1 << 20, FORMAT).await.unwrap();
            assert_eq!((forwarded.next_due, forwarded.newer), (None, 1));
            let left: Vec<Vec<u8>> =
                redis::cmd("ZRANGE").arg(&keys.retry).arg(0).arg(-1).query_async(&mut connection).await.unwrap();
            assert_eq!(left, [newer], "what this program cannot read stays");
            inbox(&mut connection, keys).await
        });
        prop_assert!(moved.iter().all(|delivery| delivery.messages.len() <= in_one));
        let alone = |delivery: &&Delivery| delivery.crashes > 0;
        prop_assert!(moved.iter().filter(alone).all(|delivery| delivery.messages.len() == 1));
        prop_assert_eq!(known(&moved).into_iter().collect::<BTreeSet<_>>(), messages.into_iter().collect());
    });
}

#[test]
fn a_suspect_delivery_comes_apart_into_its_messages() {
    let server = Server::start();
    proptest!(cases(60), |(messages in messages(), format in 0..=FORMAT, claimed in any::<bool>())| {
        let (isolated, expected) = server.case(async |mut connection, keys| {
            let mut entries = Entries::default();
            match (format, claimed) {
                (0, true) => entries.field("", "7-own"),
                (0, false) => {}
                (_, true) => entries.field("", opening(format, "7-own", "1000")),
                (_, false) => entries.field("", opening(format, "-", "0")),
            }
            // The first half of the messages has no history.
            for (at, (id, body, attempt, token, crashes)) in messages.iter().enumerate() {
                if at >= messages.len() / 2 {
                    entries.field("", History { attempt: *attempt, token: token.clone(), crashes: *crashes }.note());
                }
                entries.field(id, body);
            }
            entries.finish();
            let mut add = redis::cmd("XADD");
            add.arg(&keys.inbox).arg("*");
            entries.iter().next().unwrap().for_each(|value| { add.arg(value); });
            let entry_id: String = add.query_async(&mut connection).await.unwrap();
            let mut reader = Connection::open(&server.connector).await.unwrap();
            fetch(&mut reader, keys, "dead", 1, Duration::from_millis(1)).await.unwrap();
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(&keys.inbox).arg(GROUP).arg("dead").arg(0).arg(&entry_id).arg("RETRYCOUNT").arg(SUSPECT_FROM).arg("JUSTID");
            claim.query_async::<Value>(&mut connection).await.unwrap();
            let taken = take_over(&mut connection, keys, "dead", "heir", 10, FORMAT).await.unwrap();
            assert_eq!((taken.deliveries.len(), taken.isolated), (0, 1));
            let own = if claimed { "7-own".to_owned() } else { entry_id };
            let mut seen = HashSet::new();
            let expected: Vec<Known> = messages.iter().enumerate().filter_map(|(at, message)| {
                let (id, body, attempt, token, crashes) = message.clone();
                let fresh = at < messages.len() / 2;
                let (attempt, token) = if fresh { (1, own.clone()) } else { (attempt, token) };
                let crashes = if fresh { SUSPECT_FROM } else { crashes.max(SUSPECT_FROM) };
                // A copy with the same token is the same message.
                seen.insert((id.clone(), token.clone())).then_some((id, body, attempt, token, crashes))
            }).collect();
            (inbox(&mut connection, keys).await, expected)
        });
        prop_assert!(isolated.iter().all(|delivery| delivery.messages.len() == 1));
        prop_assert_eq!(known(&isolated), expected);
    });
}

#[test]
fn a_dead_letter_is_put_back_as_a_message_that_was_never_tried() {
    let server = Server::start();
    proptest!(cases(40), |(messages in messages(), newer in any::<bool>())| {
        let (replayed, put_back) = server.case(async |mut connection, keys| {
            let mut entries = Entries::default();
            for (id, body, attempts, token, _) in &messages {
                let origin = Origin {
                    message_id: id, token, attempts: *attempts, consumer_id: "h/1", plugin_digest: "d", plugin_generation: 1,
                };
                let (payload, origin) = (body.as_bytes(), Some(origin));
                let letter = DeadLetter { payload, reason: Reason::PluginFailed, error: "e", host_id: "h", origin };
                write_dead_letter(&mut entries, if newer { FORMAT + 1 } else { FORMAT }, &letter);
            }
            let mut ids: Vec<String> = Vec::new();
            for values in entries.iter() {
                let mut add = redis::cmd("XADD");
                add.arg(&keys.dead).arg("*");
                values.for_each(|value| { add.arg(value); });
                ids.push(add.query_async(&mut connection).await.unwrap());
            }
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            (replay(&mut connection, keys, &ids).await.unwrap(), inbox(&mut connection, keys).await)
        });
        let count = messages.len() as u64;
        prop_assert_eq!((replayed.replayed, replayed.newer), if newer { (0, count) } else { (count, 0) });
        let expected: Vec<Known> =
            messages.into_iter().map(|(id, body, _, token, _)| (id, body, 1, token, 0)).take(if newer { 0 } else { usize::MAX }).collect();
        prop_assert_eq!(known(&put_back), expected);
    });
}

#[test]
fn an_entry_keeps_its_claims_and_loses_what_others_have_claimed() {
    let server = Server::start();
    proptest!(cases(60), |(messages in messages(), taken in vec(any::<bool>(), 12))| {
        let (appended, expected) = server.case(async |mut connection, keys| {
            let mut entries = Entries::default();
            messages.iter().for_each(|(id, body, ..)| entries.field(id, body));
            entries.finish();
            // The first copy in a list is kept, unless another delivery has claimed the id.
            let mut gone: HashSet<&str> = HashSet::new();
            for ((id, ..), _) in messages.iter().zip(&taken).filter(|(_, taken)| **taken) {
                let key = format!("{}{id}", keys.claim_prefix);
                redis::cmd("SET").arg(key).arg("another").query_async::<()>(&mut connection).await.unwrap();
                gone.insert(id);
            }
            let expected: Vec<(String, String)> = messages.iter().filter(|(id, ..)| gone.insert(id))
                .map(|(id, body, ..)| (id.clone(), body.clone())).collect();
            let mut commands = Commands::default();
            let terms = Terms { format: FORMAT, window_ms: "60000" };
            write_deliveries(&mut commands, keys, &entries, terms, || "5-token".to_owned());
            let mut writer = Connection::open(&server.connector).await.unwrap();
            let replies = writer.ask(&commands, Duration::ZERO).await.unwrap();
            let mut replies = Cursor::new(&replies, 0);
            (0..commands.len()).for_each(|_| { replies.value().unwrap(); });
            (inbox(&mut connection, keys).await, expected)
        });
        let kept: Vec<(String, String)> = appended.iter().flat_map(|delivery| &delivery.messages)
            .map(|message| (message.id.clone(), message.body.clone())).collect();
        prop_assert_eq!(kept, expected);
        let claims = Some(Claims { token: "5-token".into(), window: Duration::from_secs(60) });
        prop_assert!(appended.iter().all(|delivery| (delivery.format, &delivery.claims) == (FORMAT, &claims)));
    });
}
