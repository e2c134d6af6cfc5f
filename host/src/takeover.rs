//! The reaper. It finds fetched deliveries that no consumer works on: deliveries of dead hosts, and deliveries that
//! were lost between Redis and this host. This file does not process deliveries.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::{info, warn};

use crate::group::Group;
use crate::redis::RedisError;
use crate::redis::client::connector::{Connector, LibraryConnection};
use crate::redis::store::entry::Delivery;
use crate::redis::store::inbox::fetched_before;
use crate::redis::store::registry::hosts_alive;
use crate::redis::store::takeover::{is_newer, owners, take_over};

/// Takes deliveries over for one host.
#[derive(Debug)]
pub struct Reaper {
    group: Arc<Group>,
}

impl Reaper {
    /// A reaper for the host of this group.
    #[must_use]
    pub fn new(group: Arc<Group>) -> Reaper {
        Reaper { group }
    }

    /// Searches for at most `room` deliveries, and says which server had them. `in_work` are the deliveries that this host has
    /// fetched before the call.
    ///
    /// # Errors
    /// Errors of the network or the server. The search may be repeated.
    pub async fn left_behind(
        &self,
        connection: &mut LibraryConnection,
        in_work: &HashSet<String>,
        room: usize,
    ) -> Result<(Vec<Delivery>, Arc<str>), RedisError> {
        let found = self.search(connection, in_work, room).await?;
        if found.is_empty() {
            return Ok((found, Arc::default()));
        }
        // After an error, the next search finds these deliveries under this host's own name.
        let server = Connector::server_of(connection).await?;
        Ok((found, server))
    }

    async fn search(
        &self,
        connection: &mut LibraryConnection,
        in_work: &HashSet<String>,
        room: usize,
    ) -> Result<Vec<Delivery>, RedisError> {
        let keys = &self.group.keys;
        let own = self.group.identity.host_id();
        // Read owners before hosts: a host registers before it fetches, so every owner read here is already registered.
        let owners = match owners(connection, keys).await {
            Err(error) if matches!(error.code(), Some("NOGROUP" | "ERR")) => return Ok(Vec::new()),
            owners => owners?,
        };
        let alive = hosts_alive(connection, keys).await?;
        for owner in owners {
            if owner.name == *own {
                if owner.pending > in_work.len() {
                    let mut lost = fetched_before(connection, keys, &own).await?;
                    lost.retain(|delivery| !in_work.contains(&delivery.entry_id));
                    lost.truncate(room);
                    if !lost.is_empty() {
                        info!(deliveries = lost.len(), "found deliveries that were lost between Redis and this host");
                        return Ok(lost);
                    }
                }
            } else if !alive.contains(&owner.name) && !is_newer(&owner.name) {
                let taken = self.take_over(connection, &owner.name, &own, room).await?;
                if !taken.is_empty() {
                    return Ok(taken);
                }
            }
        }
        Ok(Vec::new())
    }

    /// Takes over deliveries of a dead host. A delivery with which several hosts have died returns to the inbox
    /// instead, with one entry for each of its messages.
    async fn take_over(
        &self,
        connection: &mut LibraryConnection,
        dead: &str,
        own: &str,
        room: usize,
    ) -> Result<Vec<Delivery>, RedisError> {
        loop {
            let taken = take_over(connection, &self.group.keys, dead, own, room, self.group.format()).await?;
            if taken.isolated > 0 {
                warn!(
                    deliveries = taken.isolated,
                    from = dead,
                    "isolated deliveries during which several hosts died; their messages are tried one at a time"
                );
            }
            if !taken.deliveries.is_empty() {
                info!(deliveries = taken.deliveries.len(), from = dead, "took over deliveries of a dead host");
                self.group.counters.taken_over.add(taken.deliveries.len());
                return Ok(taken.deliveries);
            }
            if taken.isolated == 0 {
                return Ok(Vec::new());
            }
        }
    }
}
