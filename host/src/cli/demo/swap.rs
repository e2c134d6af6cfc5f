//! `host demo --swap`: a better version of the plugin replaces the first one while messages flow. Later a broken version
//! follows, which the host rolls back by itself. All facts come from the status that the host writes to Redis.

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

/// Minimum rate: a new version must process a thousand messages before its probation ends.
const RATE_MIN: u32 = 100;

/// Longest probation of the better version: short, because the broken version comes next.
const PROBATION_TIME_MAX: Duration = Duration::from_secs(5);

/// Maximum time of the host for one step.
const STEP_TIME_MAX: Duration = Duration::from_secs(60);

/// The three versions, and the plugin file that they replace in turn.
pub(super) struct Swap {
    first: Version,
    better: Version,
    broken: Version,
    /// The folder of the plugin file; removed at the end.
    folder: TempDir,
}

struct Version {
    path: PathBuf,
    digest: String,
}

impl Version {
    async fn read(path: PathBuf) -> Result<Version, Failure> {
        require(&path, "")?;
        let digest = Binary::read(&path, Config::default().load.plugin_bytes_max).await?.digest().to_owned();
        Ok(Version { path, digest })
    }

    /// Number of results from this version.
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
    /// Puts the first version in use. The later versions lie in the same folder as the first one.
    pub async fn prepare(first: &Path, rate: u32) -> Result<Swap, Failure> {
        if rate < RATE_MIN {
            let error = anyhow!("--swap needs a --rate of {RATE_MIN} or more, because a probation needs many messages");
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

    /// Adjusts the host's configuration, so that all steps fit into `time`.
    pub fn configure(&self, config: &mut Config, time: Duration) {
        config.plugin = Some(self.plugin());
        config.output.plugin_digest = true;
        config.reload.probation_time = (time / 6).min(PROBATION_TIME_MAX);
    }

    /// Copies the better version into place after a third of `time`, and the broken version after two thirds. Prints
    /// what the host does, and fails if the host does not do what it should.
    pub async fn play(&self, connection: &mut LibraryConnection, config: &Config, time: Duration) -> Result<()> {
        let start = Instant::now();
        let (better, broken) = (&self.better, &self.broken);
        let mut host = Observed { connection, keys: Arc::new(config.keys.clone()) };

        sleep_until(start + time / 3).await;
        let dropped_in = self.drop_in(better)?;
        say(format_args!("copied {better} into place, a later version that adds one more property"));
        let now = host.wait_until(better, "use", |now| now.digest == better.digest).await?;
        let after_ms = ms_between(dropped_in, &now)?;
        say(format_args!("in use {after_ms} ms later, as generation {}; on probation", now.generation));
        let now = host.wait_until(better, "trust", |now| now.state != State::Probation).await?;
        ensure!(now.digest == better.digest, "the host rolled back {better}, which is no worse than {}", self.first);
        say(format_args!("the probation of {better} has ended; a rollback will return to this version"));

        sleep_until(start + time / 3 * 2).await;
        let dropped_in = self.drop_in(broken)?;
        say(format_args!("copied {broken} into place, a version that panics at one id in sixteen"));
        let is_over = |now: &Status| now.rollbacks > 0 || now.digest == broken.digest && now.state == State::Steady;
        let now = host.wait_until(broken, "roll back", is_over).await?;
        ensure!(now.digest == better.digest, "the host did not roll back {broken}");
        let after_ms = ms_between(dropped_in, &now)?;
        say(format_args!(
            "rolled back by the host {after_ms} ms later: {better} is in use again, as generation {}",
            now.generation
        ));
        Ok(())
    }

    /// Copies a version over the plugin file, like an operator with `cp`. Returns the time when the copy is complete.
    fn drop_in(&self, version: &Version) -> Result<SystemTime> {
        let (from, to) = (&version.path, self.plugin());
        fs::copy(from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(SystemTime::now())
    }

    /// Prints how many messages each version has processed.
    pub fn print(&self, account: &Account) {
        output::stdout().line("\nresults by plugin version, from the field plugin_digest:");
        for version in self.versions() {
            line(&version.to_string(), version.results(account), &version.digest[..12]);
        }
        line("total", self.results(account), "");
    }

    /// An error if there are dead letters, or results from none of the three versions.
    pub fn judge(&self, account: &Account) -> Result<(), Failure> {
        let (own, all) = (self.results(account), account.results());
        if own == all && account.dead == 0 {
            return Ok(());
        }
        let dead = account.dead;
        Err(anyhow!("{dead} messages became dead letters, and {own} of {all} results are from the three versions")
            .into())
    }

    fn versions(&self) -> [&Version; 3] {
        [&self.first, &self.better, &self.broken]
    }

    fn results(&self, account: &Account) -> u64 {
        self.versions().iter().map(|version| version.results(account)).sum()
    }
}

/// The demo's host, observed through its status in Redis.
struct Observed<'a> {
    connection: &'a mut LibraryConnection,
    keys: Keys,
}

impl Observed<'_> {
    /// Waits until `is_over` holds for the host's status. Fails if the host refuses `version` or takes too long.
    async fn wait_until(
        &mut self,
        version: &Version,
        what_it_should: &str,
        is_over: impl Fn(&Status) -> bool,
    ) -> Result<Status> {
        let deadline = Instant::now() + STEP_TIME_MAX;
        while Instant::now() < deadline {
            if let Some(now) = self.look().await.context("cannot read the host's status")? {
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
        // The demo has one host.
        Ok(statuses.values().next().map(|status| serde_json::from_str(status)).transpose()?)
    }
}

/// Time from copying a version into place until the present version came into use.
fn ms_between(dropped_in: SystemTime, now: &Status) -> Result<u128> {
    let since = humantime::parse_rfc3339(&now.since).context("cannot read the time in the host's status")?;
    Ok(since.duration_since(dropped_in).unwrap_or_default().as_millis())
}

/// Prints a line that stands out between the report lines.
fn say(text: fmt::Arguments<'_>) {
    output::stdout().line(&format!("== {text}"));
}
