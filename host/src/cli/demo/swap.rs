//! `host demo --swap`: a better version of the plugin is dropped in while messages flow, and later a broken one, which the
//! host takes back by itself. What it tells was read from Redis, where every host says what it uses.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until};

use super::account::{Account, line};
use super::{POLL, require};
use crate::cli::{Exit, Failure};
use crate::config::Config;
use crate::output;
use crate::plugin::Binary;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::store::keys::Keys;
use crate::redis::store::registry;
use crate::version::{State, Status};

/// Messages a second at least: a new version has to process a thousand before it is trusted.
const RATE_MIN: u32 = 100;

/// Longest probation of the better version: short, because the broken one is to come after it.
const PROBATION_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the host may take for one step.
const STEP_TIME_MAX: Duration = Duration::from_secs(60);

/// The versions, and the file that is now one and now another of them.
pub(super) struct Swap {
    first: Version,
    better: Version,
    broken: Version,
    /// The folder of the plugin's file; removed in the end.
    folder: TempDir,
}

struct Version {
    path: PathBuf,
    digest: String,
}

impl Version {
    async fn read(path: PathBuf) -> Result<Version, Failure> {
        require(&path, "")?;
        let digest = Binary::read(&path).await?.digest().to_owned();
        Ok(Version { path, digest })
    }

    /// Results that it made.
    fn results(&self, account: &Account) -> u64 {
        account.by_digest.get(&self.digest).copied().unwrap_or_default()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path.file_name().unwrap_or_default().to_string_lossy())
    }
}

impl Swap {
    /// With the first version, whose successors lie beside it, in use.
    pub async fn prepare(first: &Path, rate: u32) -> Result<Swap, Failure> {
        if rate < RATE_MIN {
            let error =
                anyhow!("--swap needs a --rate of {RATE_MIN} or more, because a version proves itself on messages");
            return Err(Failure { exit: Exit::Usage, error });
        }
        let swap = Swap {
            first: Version::read(first.to_owned()).await?,
            better: Version::read(first.with_file_name("enrich-sharded.wasm")).await?,
            broken: Version::read(first.with_file_name("enrich-broken.wasm")).await?,
            folder: tempfile::Builder::new().prefix("host-demo-").tempdir()?,
        };
        swap.drop_in(&swap.first)?;
        Ok(swap)
    }

    /// The file that the host runs.
    pub fn plugin(&self) -> PathBuf {
        self.folder.path().join("plugin.wasm")
    }

    /// What the host needs for it to be shown within `time`.
    pub fn configure(&self, config: &mut Config, time: Duration) {
        config.plugin = Some(self.plugin());
        config.output.plugin_digest = true;
        config.reload.probation_time = (time / 6).min(PROBATION_TIME_MAX);
    }

    /// Drops the better version in after a third of `time`, and the broken one after two thirds. Tells what the host makes of
    /// them, and fails if that is not what it should.
    pub async fn play(&self, connection: &mut LibraryConnection, config: &Config, time: Duration) -> Result<()> {
        let start = Instant::now();
        let (better, broken) = (&self.better, &self.broken);
        let mut host = Observed { connection, keys: Arc::new(config.keys.clone()) };

        sleep_until(start + time / 3).await;
        let dropped_in = self.drop_in(better)?;
        say(format_args!("dropped in {better}, a later version that adds one property more"));
        let now = host.wait_until(better, "use", |now| now.digest == better.digest).await?;
        let after_ms = ms_between(dropped_in, &now)?;
        say(format_args!("in use {after_ms} ms later, as generation {}; on probation", now.generation));
        let now = host.wait_until(better, "trust", |now| now.state != State::Probation).await?;
        ensure!(now.digest == better.digest, "the host took {better} back, which is no worse than {}", self.first);
        say(format_args!("{better} has proved itself; it is the version to go back to from now on"));

        sleep_until(start + time / 3 * 2).await;
        let dropped_in = self.drop_in(broken)?;
        say(format_args!("dropped in {broken}, a version that panics at one id in sixteen"));
        let is_over = |now: &Status| now.rollbacks > 0 || now.digest == broken.digest && now.state == State::Steady;
        let now = host.wait_until(broken, "take back", is_over).await?;
        ensure!(now.digest == better.digest, "the host did not take {broken} back");
        let after_ms = ms_between(dropped_in, &now)?;
        say(format_args!(
            "rolled back by the host {after_ms} ms later: {better} is in use again, as generation {}",
            now.generation
        ));
        Ok(())
    }

    /// Puts a version into the plugin's file, as an operator would with `cp`. Gives the time at which it was there.
    fn drop_in(&self, version: &Version) -> Result<SystemTime> {
        let (from, to) = (&version.path, self.plugin());
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(SystemTime::now())
    }

    /// Prints how many messages each version has processed.
    pub fn print(&self, account: &Account) {
        output::stdout().line("\nby the version that made the result, after its plugin_digest:");
        for version in self.versions() {
            line(&version.to_string(), version.results(account), &version.digest[..12]);
        }
        line("together", self.results(account), "");
    }

    /// An error if there are dead letters, or results of no version.
    pub fn judge(&self, account: &Account) -> Result<(), Failure> {
        let (own, all) = (self.results(account), account.results());
        if own == all && account.dead == 0 {
            return Ok(());
        }
        let dead = account.dead;
        Err(anyhow!("{dead} messages became dead letters, and {own} of {all} results are of the three versions").into())
    }

    fn versions(&self) -> [&Version; 3] {
        [&self.first, &self.better, &self.broken]
    }

    fn results(&self, account: &Account) -> u64 {
        self.versions().iter().map(|version| version.results(account)).sum()
    }
}

/// The demo's host, as Redis knows it.
struct Observed<'a> {
    connection: &'a mut LibraryConnection,
    keys: Keys,
}

impl Observed<'_> {
    /// Waits until the host says that a step is over: that it did to `version` what it should, or will not.
    async fn wait_until(
        &mut self,
        version: &Version,
        what_it_should: &str,
        is_over: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let deadline = Instant::now() + STEP_TIME_MAX;
        while Instant::now() < deadline {
            if let Some(now) = self.look().await.context("cannot read what the host says about its plugin")? {
                if let Some(refused) = &now.refused {
                    bail!("the host refused {version}: {}", refused.reason);
                }
                if is_over(&now) {
                    return Ok(now);
                }
            }
            sleep(POLL).await;
        }
        bail!("the host did not {what_it_should} {version} within {}", humantime::format_duration(STEP_TIME_MAX));
    }

    async fn look(&mut self) -> Result<Option<Status>> {
        let statuses = registry::statuses(self.connection, &self.keys).await?;
        // There is one host.
        Ok(statuses.values().next().map(|status| serde_json::from_str(status)).transpose()?)
    }
}

/// From the moment at which a version was dropped in until the one in use now came into use.
fn ms_between(dropped_in: SystemTime, now: &Status) -> Result<u128> {
    let since = humantime::parse_rfc3339(&now.since).context("cannot read since when the plugin is in use")?;
    Ok(since.duration_since(dropped_in).unwrap_or_default().as_millis())
}

/// A line that stands out between the reports.
fn say(text: fmt::Arguments<'_>) {
    output::stdout().line(&format!("== {text}"));
}
