//! Counts the outcomes of the demo's messages in Redis at the end.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use indicatif::HumanCount;
use uuid::Uuid;

use crate::cli::Failure;
use crate::cli::publish::Published;
use crate::config::Config;
use crate::host::Summary;
use crate::output;
use crate::redis::client::connector::LibraryConnection;
use crate::redis::store::census;

/// The demo's messages, counted.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// Ids that were published.
    published: u64,
    /// Published ids with a result.
    processed: u64,
    /// Second and further results of an id.
    twice: u64,
    /// Published ids with a dead letter.
    pub dead: u64,
    /// Published ids with neither a result nor a dead letter.
    missing: u64,
    /// Deliveries that are not processed yet.
    waiting: u64,
    /// Results of published ids by the digest of the plugin, if the output contains the digest.
    pub by_digest: HashMap<String, u64>,
}

impl Account {
    /// Reads the output stream and the dead letters.
    pub async fn take(connection: &mut LibraryConnection, config: &Config, ids: &[Uuid]) -> Result<Account> {
        let keys = Arc::new(config.keys.clone());
        let published: HashSet<&Uuid> = ids.iter().collect();
        // A user may have published other ids by hand.
        let ours = |id: &str| Uuid::parse_str(id).ok().filter(|id| published.contains(id));
        let (mut results, mut dead) = (HashSet::new(), HashSet::new());
        let mut account = Account { published: ids.len() as u64, ..Account::default() };
        census::message_ids(connection, &keys.output, |id, digest| {
            let Some(id) = ours(id) else { return };
            account.twice += u64::from(!results.insert(id));
            if let Some(digest) = digest {
                *account.by_digest.entry(digest).or_default() += 1;
            }
        })
        .await?;
        census::message_ids(connection, &keys.dead, |id, _| dead.extend(ours(id))).await?;
        account.processed = results.len() as u64;
        account.dead = dead.len() as u64;
        account.missing = account.published - results.union(&dead).count() as u64;
        account.waiting = census::progress(connection, &keys).await?.inbox;
        Ok(account)
    }

    /// Results of published ids.
    pub fn results(&self) -> u64 {
        self.processed + self.twice
    }

    /// Lost messages. A message that the plugin dropped on purpose has no result either, and is not lost.
    fn lost(&self, summary: &Summary) -> u64 {
        if self.waiting > 0 { 0 } else { self.missing.saturating_sub(summary.dropped) }
    }

    pub fn print(&self, published: &Published, summary: &Summary) {
        let ids = format!("messages, with {} different ids", HumanCount(self.published));
        line("published", published.received.messages, &ids);
        line("processed", self.processed, "ids with a result in messages:processed");
        line("duplicates", summary.duplicates, "messages dropped because they repeat an earlier id");
        if summary.dropped > 0 {
            line("dropped", summary.dropped, "messages that the plugin dropped on purpose");
        }
        if self.dead > 0 {
            line("dead letters", self.dead, "ids in the stream of dead letters");
        }
        if self.waiting > 0 {
            line("waiting", self.missing, "ids not processed yet: the rate is higher than the plugin can process");
        }
        line("processed twice", self.twice, "");
        line("lost", self.lost(summary), "");
    }

    /// An error if a message was lost or processed twice.
    pub fn judge(&self, summary: &Summary) -> Result<(), Failure> {
        let lost = self.lost(summary);
        if lost == 0 && self.twice == 0 {
            return Ok(());
        }
        Err(anyhow::anyhow!("{lost} messages were lost and {} were processed twice", self.twice).into())
    }
}

/// One line of the summary.
pub(super) fn line(what: &str, number: u64, note: &str) {
    let number = HumanCount(number).to_string();
    output::stdout().line(format!("{what:<20}{number:>12}  {note}").trim_end());
}
