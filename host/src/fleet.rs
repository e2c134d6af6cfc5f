//! What other hosts of the group have to do with the versions of a host, as values and as sentences.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A version that is loaded and waits for the canary.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = WaitingVersion)]
pub struct Waiting {
    /// SHA-256 of the plugin's bytes.
    pub digest: String,
    /// The host that tries the version first; none while Redis cannot be asked.
    pub canary: Option<String>,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = self.digest.get(..12).unwrap_or(&self.digest);
        match &self.canary {
            Some(canary) => write!(f, "the version {digest} waits for the canary {canary}"),
            None => write!(f, "the version {digest} waits: Redis cannot be asked which host is the canary"),
        }
    }
}

/// What a host that rolled a version back says of the version.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
pub struct Verdict {
    /// SHA-256 of the plugin's bytes.
    pub digest: String,
    /// The host that rolled the version back.
    pub host: String,
    /// When the host did, by the server's clock, RFC 3339.
    pub time: String,
    /// Why, as a sentence.
    pub reason: String,
    /// When the verdict is forgotten, RFC 3339.
    pub until: String,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host {} rolled this version back at {}: {}", self.host, self.time, self.reason)
    }
}

/// What a version takes for a message, compared with the version before.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ComparedVersions)]
pub struct Compared {
    /// Time for a message, in percent of what the version before takes.
    pub time_percent: u64,
    /// Bytes of memory that instances grow by with each message.
    pub growth_bytes: u64,
    /// The same for the version before.
    pub growth_bytes_before: u64,
    /// Whether the version is so much slower that the host has warned.
    pub slow: bool,
    /// Whether the memory grows so much faster that the host has warned.
    pub leaking: bool,
}
