//! Every part of a running host is killed on purpose: with a real Redis and a real guest, each in the place where it runs.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use redis::cmd;
use tokio::time::timeout;

use super::*;
use crate::config::Endpoint;
use crate::plugin::tests::guest;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::embedded::Embedded;
use crate::service_manager::ServiceManager;

/// Longest time for anything here.
const PATIENCE: Duration = Duration::from_secs(60);

/// Parts that keep nothing to themselves.
const KEPT: [&str; 10] = [
    "distribution",
    "fetching",
    "health",
    "heartbeat",
    "membership",
    "report",
    "retries",
    "traces",
    "trimming",
    "versions",
];

/// Parts that cannot be begun anew.
const ONCE: [&str; 6] = ["control", "http", "intake", "room", "settling", "watchdog"];

struct Scene {
    redis: Embedded,
    config: Config,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Scene {
        let redis = Embedded::start_on_loopback().unwrap();
        let mut config = Config::default();
        config.redis.url = redis.url();
        config.plugin = Some(guest("puppet"));
        config.consumers = 1;
        config.drain_timeout = Duration::ZERO;
        config.output.length_max = 1_000_000;
        config.registry.takeover_interval = Duration::from_millis(50);
        config.http.address = Some(([127, 0, 0, 1], 0).into());
        config.traces.endpoint = Endpoint::read("http://127.0.0.1:1");
        Scene { redis, config, folder: tempfile::tempdir().unwrap() }
    }

    /// A host with all of its parts, and a connection.
    async fn start(&self) -> (Running, LibraryConnection) {
        let socket = self.folder.path().join("manager");
        let _ = std::fs::remove_file(&socket);
        // What is told stays unread.
        let _manager = UnixDatagram::bind(&socket).unwrap();
        let named = |name: &str| (name == "NOTIFY_SOCKET").then(|| socket.clone().into());
        let control =
            Control { manager: ServiceManager::named_by(named).unwrap(), ..Control::fixed(self.config.clone()) };
        let running = start(self.config.clone(), control).await.unwrap();
        let connection = Connector::new(&self.config.redis).unwrap().connect().await.unwrap();
        (running, connection)
    }

    async fn listed(&self, connection: &mut LibraryConnection) -> Vec<String> {
        cmd("LRANGE").arg(&self.config.keys.consumer_ids).arg(0).arg(-1).query_async(connection).await.unwrap()
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

/// Waits for all parts, and lets one of them panic until it has failed. Never returns.
async fn kill(supervisor: &Supervisor, part: &str) {
    let mut all: Vec<&str> = [&KEPT[..], &ONCE[..], &["consumer"]].concat();
    all.sort_unstable();
    until("all parts", async || supervisor.parts() == all).await;
    while supervisor.failure().is_none() {
        let begun = supervisor.begun(part);
        supervisor.kill(part);
        until(part, async || supervisor.begun(part) > begun || supervisor.failure().is_some()).await;
    }
    std::future::pending().await
}

#[tokio::test]
async fn a_host_without_one_of_its_parts_begins_it_anew_or_ends_with_a_reason_and_is_not_listed() {
    let scene = Scene::new();
    for part in KEPT.into_iter().chain(ONCE) {
        let (running, mut connection) = scene.start().await;
        assert_eq!(scene.listed(&mut connection).await.len(), 1);
        let supervisor = running.group.supervisor.clone();
        let ended = tokio::select! {
            ended = timeout(PATIENCE, Box::pin(running.until(std::future::pending()))) => ended.unwrap(),
            () = kill(&supervisor, part) => unreachable!("{part}"),
        };
        let Err(RunError::Part(failed)) = ended else { panic!("{part}: {ended:?}") };
        assert_eq!(failed, Failed { part, reason: "killed on purpose".to_owned() });
        let times = if KEPT.contains(&part) { 3 } else { 1 };
        assert_eq!(supervisor.begun(part), times, "{part}");
        assert!(scene.listed(&mut connection).await.is_empty(), "{part}");
    }
    drop(scene.redis);
}

#[tokio::test]
async fn a_consumer_that_panics_is_replaced_and_a_message_that_is_to_blame_is_given_up() {
    let scene = Scene::new();
    let (running, mut connection) = scene.start().await;
    let (supervisor, keys) = (running.group.supervisor.clone(), scene.config.keys.clone());
    let listed = scene.listed(&mut connection).await;
    let killed = async {
        until("the intake", async || supervisor.parts().contains(&"watchdog")).await;
        let mut publish = async |text: &str| {
            cmd("PUBLISH").arg(&keys.channel).arg(text).query_async::<()>(&mut connection).await.unwrap();
        };
        publish(r#"{"message_id":"guilty","do":"wait","ms":50000}"#).await;
        until("a dead letter", async || {
            let given_up: usize = cmd("XLEN").arg(&keys.dead).query_async(&mut connection).await.unwrap();
            let pending: Result<(usize, redis::Value, redis::Value, redis::Value), _> =
                cmd("XPENDING").arg(&keys.inbox).arg("host").query_async(&mut connection).await;
            if given_up == 0 && pending.is_ok_and(|(pending, ..)| pending > 0) {
                let begun = supervisor.begun("consumer");
                supervisor.kill("consumer");
                until("another consumer", async || supervisor.begun("consumer") > begun).await;
            }
            given_up == 1
        })
        .await;
        let mut publish = async |text: &str| {
            cmd("PUBLISH").arg(&keys.channel).arg(text).query_async::<()>(&mut connection).await.unwrap();
        };
        publish(r#"{"message_id":"innocent","do":"state"}"#).await;
        until("a result", async || {
            cmd("XLEN").arg(&keys.output).query_async::<usize>(&mut connection).await.unwrap() == 1
        })
        .await;
        let letters: redis::streams::StreamRangeReply =
            cmd("XRANGE").arg(&keys.dead).arg("-").arg("+").query_async(&mut connection).await.unwrap();
        let field = |name: &str| letters.ids[0].get::<String>(name).unwrap();
        assert_eq!((field("message_id"), field("reason")), ("guilty".to_owned(), "host-killer".to_owned()));
        assert_eq!(scene.listed(&mut connection).await, listed);
        assert_eq!(supervisor.failure(), None);
    };
    tokio::select! {
        ended = Box::pin(running.until(std::future::pending())) => panic!("{ended:?}"),
        () = killed => {}
    }
}
