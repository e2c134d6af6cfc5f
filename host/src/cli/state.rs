//! `host state`: reads and writes the state of a group, for operators. This file knows no plugin.

use std::io::{self, BufRead as _, Write as _};
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::observed::{GroupArgs, Observed, unreadable};
use super::{Exit, Failure, Flags, print};
use crate::config::is_bucket_name;
use crate::redis::RedisError;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::store::state::{self, Kept};
use crate::time::millis;

/// Arguments of `host state`.
#[derive(Args, Debug)]
#[command(long_about = "\
Read and write the state that plugins of a group keep in buckets.

The settings for Redis and the keys are those of a host. The command needs no plugin, no grant and no running host. A \
message in process that has read what the command changes is processed again.")]
#[command(after_long_help = "\
Exit codes:
  0    done
  1    get: the key has no value; import: a line is wrong
  2    wrong usage
  3    Redis cannot be used")]
pub(super) struct StateArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the value of a key to standard output, byte for byte
    Get {
        #[command(flatten)]
        of: BucketArgs,
        /// The key
        key: String,
    },
    /// Set the value of a key
    Set {
        #[command(flatten)]
        of: BucketArgs,
        /// The key
        key: String,
        /// The value
        value: String,
        /// How long the key lives, such as 7d [default: as the bucket is granted here, or for ever]
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        ttl: Option<Duration>,
    },
    /// Print the keys of a bucket, one a line as JSON text, in no order
    List {
        #[command(flatten)]
        of: BucketArgs,
    },
    /// Print keys and values, one JSON object a line
    Export {
        #[command(flatten)]
        of: BucketArgs,
    },
    /// Set keys and values from lines of `host state export` on standard input
    Import {
        #[command(flatten)]
        of: BucketArgs,
    },
}

#[derive(Args, Debug)]
struct BucketArgs {
    /// The bucket
    bucket: String,

    #[command(flatten)]
    group: GroupArgs,
}

/// One key with its value, as a line of an export.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// A value that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
}

/// A bucket of a group that can be reached.
struct Bucket {
    name: String,
    observed: Observed,
    connection: LibraryConnection,
}

/// Runs `host state`.
pub(super) fn execute(before: Flags, args: StateArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Get { of, key } => of.open(before).await?.get(&key).await,
            Command::Set { of, key, value, ttl } => {
                let mut bucket = of.open(before).await?;
                let granted = bucket.observed.config.allow.keyvalue.get(&bucket.name).and_then(|granted| granted.ttl);
                bucket.set(&key, value.as_bytes(), ttl.or(granted).map(millis)).await
            }
            Command::List { of } => of.open(before).await?.list().await,
            Command::Export { of } => of.open(before).await?.export().await,
            Command::Import { of } => of.open(before).await?.import().await,
        }
    })
}

impl BucketArgs {
    async fn open(self, before: Flags) -> Result<Bucket, Failure> {
        if !is_bucket_name(&self.bucket) {
            let error = anyhow!(
                "{:?} is no name of a bucket: it has 1 to 64 lower-case letters, digits, hyphens and underscores",
                self.bucket
            );
            return Err(Failure { exit: Exit::Usage, error });
        }
        let observed = self.group.find(before)?;
        let connection = observed.connector.connect().await;
        let connection = connection.map_err(|error| unreadable(observed.connector.address(), &error))?;
        Ok(Bucket { name: self.bucket, observed, connection })
    }
}

impl Bucket {
    fn failed(&self) -> impl Fn(RedisError) -> Failure + use<> {
        let address = self.observed.connector.address().to_owned();
        move |error| unreadable(&address, &error)
    }

    fn name(&self, key: &str) -> String {
        format!("{}:{key}", self.name)
    }

    async fn get(mut self, key: &str) -> Result<(), Failure> {
        let (name, failed) = (self.name(key), self.failed());
        match state::get(&mut self.connection, &self.observed.keys, &name).await.map_err(failed)? {
            Some(Kept { value, .. }) => Ok(print(&value)?),
            None => Err(anyhow!("the bucket {} has no value for the key {key:?}", self.name).into()),
        }
    }

    async fn set(&mut self, key: &str, value: &[u8], ttl_ms: Option<u64>) -> Result<(), Failure> {
        let (name, failed) = (self.name(key), self.failed());
        state::set(&mut self.connection, &self.observed.keys, &name, value, ttl_ms).await.map_err(failed)
    }

    /// A page of the keys, and where the next one begins.
    async fn page(&mut self, cursor: u64) -> Result<(Vec<String>, Option<u64>), Failure> {
        let failed = self.failed();
        state::keys(&mut self.connection, &self.observed.keys, &self.name, cursor).await.map_err(failed)
    }

    async fn list(mut self) -> Result<(), Failure> {
        let mut next = Some(0);
        while let Some(cursor) = next {
            let (keys, after) = self.page(cursor).await?;
            let mut text = String::new();
            for key in keys {
                text += &serde_json::to_string(&key).map_err(anyhow::Error::from)?;
                text.push('\n');
            }
            print(text.as_bytes())?;
            next = after;
        }
        Ok(())
    }

    async fn export(mut self) -> Result<(), Failure> {
        let mut next = Some(0);
        while let Some(cursor) = next {
            let (keys, after) = self.page(cursor).await?;
            for key in keys {
                let (name, failed) = (self.name(&key), self.failed());
                let found = state::get(&mut self.connection, &self.observed.keys, &name).await.map_err(failed)?;
                // A key that was deleted meanwhile is none.
                let Some(Kept { value, ttl_ms }) = found else { continue };
                let (value, value_hex) = match String::from_utf8(value) {
                    Ok(text) => (Some(text), None),
                    Err(error) => (None, Some(hex(error.as_bytes()))),
                };
                let line =
                    serde_json::to_string(&Line { key, value, value_hex, ttl_ms }).map_err(anyhow::Error::from)?;
                print(format!("{line}\n").as_bytes())?;
            }
            next = after;
        }
        Ok(())
    }

    async fn import(mut self) -> Result<(), Failure> {
        let mut imported = 0_usize;
        for (number, line) in io::stdin().lock().lines().enumerate() {
            let line = line.map_err(anyhow::Error::from)?;
            if line.trim().is_empty() {
                continue;
            }
            let wrong =
                |problem: String| anyhow!("line {}: {problem}; {imported} keys were imported before it", number + 1);
            let Line { key, value, value_hex, ttl_ms } =
                serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
            let value = match (value, value_hex) {
                (Some(text), None) => Some(text.into_bytes()),
                (None, Some(digits)) => bytes(&digits),
                _ => None,
            };
            let problem = "it needs a key, and value or value_hex";
            let value = value.filter(|_| !key.is_empty()).ok_or_else(|| wrong(problem.to_owned()))?;
            self.set(&key, &value, ttl_ms).await?;
            imported += 1;
        }
        // Nobody depends on the line.
        let _ = writeln!(io::stderr(), "imported {imported} keys");
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let is_hex = digits.len().is_multiple_of(2) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    if is_hex { (0..digits.len()).step_by(2).map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_their_digits() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&hex(&all)), Some(all));
        for digits in ["0", "0g", "+1"] {
            assert_eq!(bytes(digits), None, "{digits}");
        }
    }
}
