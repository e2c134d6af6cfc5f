//! What the commands that look at a whole group have in common: which group, and how to reach its Redis.

use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;

use super::{Exit, Failure, Flags, load};
use crate::config::Config;
use crate::redis::RedisError;
use crate::redis::client::connector::Connector;
use crate::redis::running;
use crate::redis::store::keys::Keys;

/// Flags that choose a group.
#[derive(Args, Clone, Debug)]
pub(super) struct GroupArgs {
    /// Address of Redis; embedded is the private Redis of a running host [default: as for a host,
    /// redis://127.0.0.1:6379]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,

    /// Output stream of the group [default: as for a host, messages:processed]
    #[arg(long, value_name = "TEXT")]
    output_key: Option<String>,
}

/// A group that a command looks at.
pub(super) struct Observed {
    pub(super) config: Config,
    pub(super) connector: Connector,
    pub(super) keys: Keys,
}

impl GroupArgs {
    /// The group that these flags choose, together with the flags in front of the command, environment and file.
    pub(super) fn find(self, before: Flags) -> Result<Observed, Failure> {
        let mut given = before.overlaid_with(Flags::default());
        let own = [("redis", self.redis), ("output-key", self.output_key)];
        given.flags.extend(own.into_iter().filter_map(|(name, value)| Some((name, value?))));
        let mut config = load(&given)?.config;
        running::find_if_named(&mut config.redis)?;
        let connector =
            Connector::new(&config.redis).map_err(|error| Failure { exit: Exit::Usage, error: error.into() })?;
        let keys = Arc::new(config.keys.clone());
        Ok(Observed { config, connector, keys })
    }
}

/// The failure of a command that cannot look at the group.
pub(super) fn unreadable(address: &str, error: &RedisError) -> Failure {
    let advice = match error.code() {
        // The error names the key, and says what to do.
        Some("WRONGTYPE") => "",
        Some("NOPERM") => "; the handbook's chapter on operating names the rights that the user needs",
        _ => "; check that Redis runs and that --redis is right",
    };
    Failure { exit: Exit::Redis, error: anyhow!("cannot look at the group in Redis at {address}: {error}{advice}") }
}
