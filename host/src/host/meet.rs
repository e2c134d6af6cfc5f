//! What a host checks before it works: whether it fits into its group, and whether its settings are wise.

use std::sync::Arc;

use tracing::{info, warn};

use super::RunError;
use crate::config::Config;
use crate::group::Group;
use crate::redis::client::reconnecting::Reconnecting;
use crate::redis::store::buffer_limit::{BufferLimit, SETTING as BUFFER_LIMIT};
use crate::redis::store::checks;
use crate::redis::store::group::{Misfit, in_other_databases, unversioned};
use crate::redis::store::inbox::ensure_group;
use crate::redis::store::registry::{hosts_alive, statuses};
use crate::registry::Registry;

/// Logs settings that may lead to loss or to a full Redis.
pub(super) fn advise(config: &Config, checked: &checks::Checked) {
    if config.output.length_max == 0 {
        info!(
            "results are never trimmed from the stream {}; let its reader trim the stream, or set --max-output-length N",
            config.keys.output
        );
    }
    let BufferLimit { hard_bytes, .. } = checked.buffer_limit;
    if checked.buffer_limit.near_bytes().is_some_and(|near| config.message.bytes_max as u64 >= near) {
        warn!(
            max_message_bytes = config.message.bytes_max,
            hard_bytes,
            "one or two messages as long as --max-message-bytes make Redis cut this subscriber off; raise \
             {BUFFER_LIMIT} pubsub on the server, or lower --max-message-bytes"
        );
    }
    if let Some(policy) = &checked.evicting_policy {
        warn!(
            policy,
            "Redis may evict claims under this maxmemory-policy, and then a message may be processed twice; use noeviction"
        );
    }
}

/// Creates the inbox, and joins the group of running hosts. The error says why this host must not join.
pub(super) async fn meet(
    group: &Arc<Group>,
    connection: &Reconnecting,
    registry: &Registry,
    config: &Config,
) -> Result<(), RunError> {
    let keys = &group.keys;
    let (alive, statuses) = connection
        .repeat("look for the other hosts of the group", move |mut connection| async move {
            ensure_group(&mut connection, keys).await?;
            Ok((hosts_alive(&mut connection, keys).await?, statuses(&mut connection, keys).await?))
        })
        .await;
    let hosts = unversioned(&alive, &statuses);
    if !hosts.is_empty() {
        return Err(Misfit::Unversioned { list: keys.consumer_ids.clone(), hosts }.into());
    }
    let agreed = registry.join_group().await?;
    if agreed.dedup_window > config.dedup_window {
        warn!(
            group = ?agreed.dedup_window,
            here = ?config.dedup_window,
            "other hosts of the group have a longer dedup window; the window of the host that receives a message counts \
             for that message"
        );
    }
    let databases = in_other_databases(&group.connector, keys).await;
    if !databases.is_empty() {
        warn!(
            channel = keys.channel,
            ?databases,
            "hosts in other databases of this server receive the same channel and also process every message: a database \
             does not separate Pub/Sub; use another --channel"
        );
    }
    Ok(())
}
