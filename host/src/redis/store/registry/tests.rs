//! The list of consumers under random heartbeats of hosts of this version and of the one before, on a real Redis.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::arbitrary::cases;
use crate::config::Config;
use crate::redis::client::connector::Connector;
use crate::redis::embedded::Embedded;
use crate::redis::store::remote::{register, unregister};

static PREVIOUS: LazyLock<Source> = LazyLock::new(|| Source::new(include_str!("previous_beat.lua")));

/// Long enough for all steps of a case.
const TTL: Duration = Duration::from_secs(600);

/// Something that happens to the registry.
#[derive(Clone, Debug)]
enum Step {
    /// A heartbeat of the host with this number; an even one is of the version before.
    Beat(usize, u32),
    Leave(usize),
    /// The host dies: its heartbeat expires.
    Die(usize),
    Register(usize, usize),
    Unregister(usize),
    /// Somebody takes an id off the list, puts one there, exchanges one, or deletes a key.
    Take(usize),
    Put(&'static str),
    Exchange(usize, &'static str),
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5_usize, 0..5_u32).prop_map(|(host, consumers)| Step::Beat(host, consumers)),
        1 => (0..5_usize).prop_map(Step::Leave),
        2 => (0..5_usize).prop_map(Step::Die),
        2 => (0..3_usize, 0..5_usize).prop_map(|(consumer, host)| Step::Register(consumer, host)),
        1 => (0..3_usize).prop_map(Step::Unregister),
        1 => (0..6_usize).prop_map(Step::Take),
        1 => prop::sample::select(&["h1-0/1", "h1-0/007", "h9-0/1", "x", ""][..]).prop_map(Step::Put),
        1 => (0..6_usize, prop::sample::select(&["h1-0/1", "h1-0/5", "x"][..])).prop_map(|(index, id)| Step::Exchange(index, id)),
        1 => (0..4_usize).prop_map(Step::Delete),
    ]
}

struct Scene<'a> {
    connection: LibraryConnection,
    keys: &'a Keys,
    /// Consumers of the hosts alive.
    alive: BTreeMap<usize, u32>,
    /// How often each host has died or left: an id is used once.
    ended: [u32; 5],
    remotes: BTreeMap<usize, usize>,
}

impl Scene<'_> {
    async fn beat(&mut self, host: usize, consumers: u32, kind: Beat) {
        let (host_id, keys) = (&*self.id(host), self.keys);
        if host % 2 == 1 {
            let presence = Presence { host_id, consumers, status: "{}", ttl: TTL };
            let reply = beat(&mut self.connection, keys, presence, kind).await.unwrap();
            assert!(matches!(reply, BeatReply::Alive { .. }), "{reply:?}");
            return;
        }
        let mut command = PREVIOUS.command(&[&keys.consumer_ids, &keys.heartbeat, &keys.hosts, &keys.remote]);
        let mode = if kind == Beat::Leave { "leave" } else { "join" };
        command.arg(host_id).arg(consumers).arg(TTL.as_millis().to_string()).arg(mode).arg("{}");
        PREVIOUS.run(&mut self.connection, &command).await.unwrap();
    }

    async fn run(&mut self, step: Step) {
        let keys = self.keys;
        match step {
            Step::Beat(host, consumers) => {
                let kind = if self.alive.insert(host, consumers).is_some() { Beat::Stay } else { Beat::Join };
                self.beat(host, consumers, kind).await;
            }
            Step::Leave(host) => {
                self.beat(host, 0, Beat::Leave).await;
                self.end(host);
            }
            Step::Die(host) => {
                if self.alive.contains_key(&host) {
                    let mut command = redis::cmd("ZADD");
                    command.arg(&keys.heartbeat).arg("XX").arg(1).arg(self.id(host));
                    self.end(host);
                    command.query_async::<()>(&mut self.connection).await.unwrap();
                }
            }
            Step::Register(consumer, host) if self.alive.contains_key(&host) => {
                let (host_id, consumer_id) = (self.id(host), format!("remote-{consumer}"));
                register(&mut self.connection, keys, &host_id, &consumer_id, 0).await.unwrap();
                self.remotes.insert(consumer, host);
            }
            Step::Register(..) => {}
            Step::Unregister(consumer) => {
                unregister(&mut self.connection, keys, &format!("remote-{consumer}")).await.unwrap();
                self.remotes.remove(&consumer);
            }
            Step::Take(index) => {
                let listed = self.listed().await;
                if let Some(id) = listed.get(index) {
                    let mut command = redis::cmd("LREM");
                    command.arg(&keys.consumer_ids).arg(0).arg(id);
                    command.query_async::<()>(&mut self.connection).await.unwrap();
                }
            }
            Step::Put(id) => {
                let mut command = redis::cmd("RPUSH");
                command.arg(&keys.consumer_ids).arg(id).arg("also-forged");
                command.query_async::<()>(&mut self.connection).await.unwrap();
            }
            Step::Exchange(index, id) => {
                if index < self.listed().await.len() {
                    let mut command = redis::cmd("LSET");
                    command.arg(&keys.consumer_ids).arg(index).arg(id);
                    command.query_async::<()>(&mut self.connection).await.unwrap();
                }
            }
            Step::Delete(number) => {
                let key = [&keys.consumer_ids, &keys.hosts, &keys.sizes, &keys.sizes][number];
                redis::cmd("DEL").arg(key).query_async::<()>(&mut self.connection).await.unwrap();
            }
        }
    }

    fn end(&mut self, host: usize) {
        self.alive.remove(&host);
        self.ended[host] += 1;
        self.remotes.retain(|_, home| *home != host);
    }

    /// The present id of a host.
    fn id(&self, host: usize) -> String {
        format!("h{host}-{}", self.ended[host])
    }

    async fn listed(&mut self) -> Vec<String> {
        let mut command = redis::cmd("LRANGE");
        command.arg(&self.keys.consumer_ids).arg(0).arg(-1).query_async(&mut self.connection).await.unwrap()
    }

    /// Requires that the list is right after one more heartbeat of each host, and that nothing is left without any.
    async fn expect_truth(&mut self) {
        for (host, consumers) in self.alive.clone() {
            self.beat(host, consumers, Beat::Stay).await;
        }
        let mut wanted: BTreeSet<String> = self.remotes.keys().map(|id| format!("remote-{id}")).collect();
        for (host, size) in &self.alive {
            wanted.extend((1..=*size).map(|number| format!("{}/{number}", self.id(*host))));
        }
        let listed = self.listed().await;
        let is_anybody = !self.alive.is_empty();
        assert!(!is_anybody || listed.len() == wanted.len(), "{listed:?} instead of {wanted:?}");
        assert!(!is_anybody || listed.into_iter().collect::<BTreeSet<_>>() == wanted);
    }
}

#[test]
fn the_list_is_true_after_a_heartbeat_of_each_host_of_both_versions() {
    let server = Embedded::start_on_loopback().unwrap();
    let mut config = Config::default();
    config.redis.url = server.url();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (connector, keys) = (Connector::new(&config.redis).unwrap(), Keys::new(config.keys.clone()));
    proptest!(cases(150), |(steps in vec(step(), 1..25))| {
        runtime.block_on(async {
            let mut connection = connector.connect().await.unwrap();
            redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.unwrap();
            let (alive, remotes) = (BTreeMap::new(), BTreeMap::new());
            let mut scene = Scene { connection, keys: &keys, alive, ended: [0; 5], remotes };
            for step in steps {
                scene.run(step).await;
            }
            scene.expect_truth().await;
        });
    });
}
