//! A host under steady traffic whose plugin changes, and the check at the end: every message exactly once, by which
//! version, and in which order each consumer used the versions.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use redis::cmd;
use serde_json::{Value, json};

use super::host::Launch;
use super::records::OUTPUT;
use super::{BOUND, Entry, Host, Redis, Release, Traffic, expect_each_once, wait_for};

/// Pace of the traffic.
pub const PER_SECOND: usize = 10_000;

/// Consumers of the host.
pub const CONSUMERS: usize = 4;

/// Log lines that hosts write.
pub const IN_USE: &str = "a new version of the plugin is in use";
pub const REFUSED: &str = "refused a new version of the plugin";
pub const ROLLED_BACK: &str = "rolled back the plugin";
pub const PROVED: &str = "the new version of the plugin has passed its probation";
pub const GONE: &str = "the plugin's file is gone";
pub const CONFIGURATION_REFUSED: &str = "refused a changed configuration";
pub const CONSUMERS_CHANGED: &str = "changed the number of consumers";

/// A host on a Redis of its own, with its plugin's file in a folder of its own, under steady traffic.
pub struct Flow {
    // In the order in which they are dropped.
    traffic: Option<Traffic>,
    pub host: Host,
    pub redis: Redis,
    /// Ids of earlier traffic that was stopped.
    published: Vec<String>,
    /// Ids of messages beside the traffic.
    besides: Vec<String>,
    /// Names of the versions that may write results, by digest.
    names: HashMap<String, String>,
}

/// The records after the end of the traffic.
#[derive(Debug)]
pub struct Account {
    /// How many results each version wrote, by name.
    pub by_version: HashMap<String, usize>,
    /// The output, in its order.
    pub output: Vec<Entry>,
    names: HashMap<String, String>,
}

impl Flow {
    /// A flow through this version.
    pub fn start(first: &Release) -> Flow {
        Flow::with(first, |launch| launch)
    }

    /// A flow through this version in a host with further options.
    pub fn with(first: &Release, options: impl FnOnce(Launch) -> Launch) -> Flow {
        Flow::on(Redis::start(), first, options)
    }

    /// A flow through this Redis.
    pub fn on(redis: Redis, first: &Release, options: impl FnOnce(Launch) -> Launch) -> Flow {
        fs::create_dir(plugin_folder(&redis)).expect("create the plugin's folder");
        first.write_to(&plugin_folder(&redis).join("plugin.wasm"));
        Flow::prepared(redis, first, options)
    }

    /// A flow whose plugin has been put into its place before.
    pub fn prepared(redis: Redis, first: &Release, options: impl FnOnce(Launch) -> Launch) -> Flow {
        let host = options(launch(&redis)).ready(&redis, CONSUMERS);
        Flow::through(redis, host, first)
    }

    /// A flow through a host that runs on this Redis.
    pub fn through(redis: Redis, host: Host, first: &Release) -> Flow {
        let (published, besides) = (Vec::new(), Vec::new());
        let mut flow = Flow { redis, host, traffic: None, published, besides, names: HashMap::new() };
        flow.expect(first);
        flow.resume();
        flow.wait_for_more(PER_SECOND / 10);
        flow
    }

    /// The folder of the plugin's file.
    pub fn folder(&self) -> PathBuf {
        plugin_folder(&self.redis)
    }

    /// The plugin's file.
    pub fn plugin(&self) -> PathBuf {
        self.folder().join("plugin.wasm")
    }

    /// Allows this version to write results from now on.
    pub fn expect(&mut self, version: &Release) {
        self.names.insert(version.digest.clone(), version.name.clone());
    }

    /// Writes this version into the plugin's file, in one step.
    pub fn deploy(&mut self, version: &Release) {
        self.expect(version);
        let new = self.folder().join("new");
        version.write_to(&new);
        fs::rename(new, self.plugin()).expect("rename the new version");
    }

    /// Writes this version and waits until it is in use.
    pub fn change_to(&mut self, version: &Release) {
        self.deploy(version);
        self.wait_for_results_of(version);
    }

    /// Waits until this version has written the newest result.
    pub fn wait_for_results_of(&self, version: &Release) {
        wait_for(&format!("results of version {}", version.name), BOUND, || {
            let newest = self.newest_digest();
            if newest.as_ref() == Some(&version.digest) {
                return Ok(());
            }
            let name = newest.as_ref().and_then(|digest| self.names.get(digest));
            Err(format!("the newest result is of {name:?} ({newest:?}); log:\n{}", self.host.log()))
        });
    }

    /// These messages were published besides the traffic.
    pub fn also_published(&mut self, ids: impl IntoIterator<Item = String>) {
        self.besides.extend(ids);
    }

    /// Which version wrote the newest result.
    fn newest_digest(&self) -> Option<String> {
        let mut range = cmd("XREVRANGE");
        range.arg(OUTPUT).arg("+").arg("-").arg("COUNT").arg(1);
        let entries: Vec<(String, HashMap<String, String>)> = self.redis.run(&range);
        let (_, mut fields) = entries.into_iter().next()?;
        fields.remove("plugin_digest")
    }

    /// Waits until so many more messages have been published.
    pub fn wait_for_more(&self, messages: usize) {
        self.traffic().wait_for_more(messages);
    }

    /// How many messages have been published.
    pub fn published(&self) -> usize {
        self.published.len() + self.traffic.as_ref().map_or(0, Traffic::published)
    }

    /// Log lines that begin with this text.
    pub fn logged(&self, text: &str) -> Vec<Value> {
        let log = self.host.log();
        let lines = log.lines().map(|line| -> Value { serde_json::from_str(line).unwrap_or(json!({"message": line})) });
        lines.filter(|line| line["message"].as_str().is_some_and(|message| message.starts_with(text))).collect()
    }

    /// Waits until so many log lines begin with this text, and gives them.
    pub fn wait_for_logged(&self, text: &str, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} × {text:?} in the log"), BOUND, || {
            let lines = self.logged(text);
            if lines.len() >= count { Ok(lines) } else { Err(self.host.log()) }
        })
    }

    /// Stops the traffic; gives how many messages were published.
    pub fn stop(&mut self) -> usize {
        let ids = self.traffic.take().expect("traffic that flows").finish();
        self.published.extend(ids);
        self.published.len()
    }

    /// Stops the traffic and waits until every message of it has a result or is a dead letter.
    pub fn pause(&mut self) {
        let published = self.stop();
        self.redis.wait_for_settled(published);
    }

    /// Continues after a pause.
    pub fn resume(&mut self) {
        self.traffic = Some(Traffic::start_at(self.published.len(), &self.redis, PER_SECOND, json!({})));
    }

    /// Stops the traffic and waits for all results: exactly one for every message, no dead letter, every result of a
    /// known version and at the first attempt.
    pub fn finish(self) -> (Account, Host) {
        let (account, host) = self.finish_at_any_attempt();
        for entry in &account.output {
            assert_eq!(entry.bytes("attempt").unwrap_or(b"1"), b"1", "{entry:?}");
        }
        (account, host)
    }

    /// The same for messages of which some may have needed several attempts.
    pub fn finish_at_any_attempt(mut self) -> (Account, Host) {
        self.wait_for_more(PER_SECOND / 10);
        self.stop();
        self.published.append(&mut self.besides);
        expect_each_once(&self.redis, self.published.iter().cloned());
        (Account::of(self.redis.output(), self.names), self.host)
    }

    /// Finishes and requires that the versions took turns in this order.
    pub fn finish_with_turns(self, names: &[&str]) {
        self.finish().0.expect_turns(names);
    }

    fn traffic(&self) -> &Traffic {
        self.traffic.as_ref().expect("traffic that flows")
    }
}

impl Account {
    /// Sorts these entries by the versions with these digests; requires that there are no others, and that each says
    /// the name itself where it says one.
    pub fn of(output: Vec<Entry>, names: HashMap<String, String>) -> Account {
        let mut account = Account { by_version: HashMap::new(), output, names };
        let mut by_version = HashMap::new();
        for entry in &account.output {
            let name = account.name(entry);
            assert!(
                entry.bytes("version").is_none_or(|own| own == name.as_bytes()),
                "{name:?} did not write {entry:?}"
            );
            assert_eq!(entry.names()[2], "plugin_digest", "{entry:?}");
            *by_version.entry(name.to_owned()).or_insert(0) += 1;
        }
        account.by_version = by_version;
        account
    }

    /// The version that wrote this entry.
    pub fn name(&self, entry: &Entry) -> &str {
        let digest = entry.text("plugin_digest");
        self.names.get(digest).unwrap_or_else(|| panic!("{digest} is the digest of no version in use: {entry:?}"))
    }

    /// Requires that every consumer went through the versions in this order. It may have left some out, but none was
    /// left out by all, and none came back.
    pub fn expect_turns(&self, names: &[&str]) {
        let mut places: HashMap<&str, usize> = HashMap::new();
        for entry in &self.output {
            let (consumer, name) = (entry.text("consumer_id"), self.name(entry));
            let place = places.entry(consumer).or_insert(0);
            let step = names[*place..].iter().position(|turn| *turn == name);
            let step = step.unwrap_or_else(|| {
                panic!("{consumer} wrote a result of {name} after turn {place} of {names:?}: {entry:?}")
            });
            *place += step;
        }
        for name in names {
            assert!(self.by_version.contains_key(*name), "no result of {name}: {:?}", self.by_version);
        }
        let furthest = places.values().max().copied();
        assert_eq!(furthest, Some(names.len() - 1), "somebody came to the end of {names:?}: {places:?}");
    }

    /// Requires that these messages of the traffic have results of this version only.
    pub fn expect_all_of(&self, messages: Range<usize>, name: &str) {
        for entry in &self.output {
            let number = entry.text("message_id").strip_prefix("t-").and_then(|number| number.parse().ok());
            if number.is_some_and(|number: usize| messages.contains(&number)) {
                assert_eq!(self.name(entry), name, "{entry:?}");
            }
        }
    }
}

/// A host for a flow, before it is started.
pub fn launch(redis: &Redis) -> Launch {
    let launch = Host::on(redis).arg("--plugin", plugin_folder(redis).join("plugin.wasm"));
    launch.switch("--output-plugin-digest").arg("--log-format", "json").arg("--report-interval", "200ms")
}

/// Where the plugin of a flow through this Redis lies.
pub fn plugin_folder(redis: &Redis) -> PathBuf {
    redis.folder().join("plugin")
}
