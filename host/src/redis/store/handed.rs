//! A delivery together with the server that handed it out. A host may have moved to another server meanwhile, so everything
//! that is done with a delivery by the id of its entry asks here first.

use redis::RedisError;

use super::entry::{Delivery, read_entries};
use super::keys::{Keys, about};
use crate::redis::client::resp::{Commands, Cursor};
use crate::redis::client::shared::SharedConnection;

/// A delivery, and the server that handed it out.
#[derive(Clone, Copy, Debug)]
pub struct Handed<'a> {
    /// The delivery.
    pub delivery: &'a Delivery,
    /// Identity of the server.
    pub server: &'a str,
    /// Whether the server may have been given other data since.
    pub is_old: bool,
}

impl Handed<'_> {
    /// Whether the server at the other end has this delivery. Ids of entries follow the clocks of servers, so that after a
    /// failover another entry may have the same id. So what another server has handed out is compared with the entry, in
    /// which ids and tokens name the messages. A server that was restarted with its data has the same entry.
    ///
    /// # Errors
    /// Errors of the network or the server.
    pub(super) async fn is_known_to(self, connection: &SharedConnection, keys: &Keys) -> Result<bool, RedisError> {
        if connection.server() == self.server && !self.is_old {
            return Ok(true);
        }
        // Boxed, because this is rare and up to ten thousand consumers each hold this future.
        Box::pin(self.is_there(connection, keys)).await
    }

    async fn is_there(self, connection: &SharedConnection, keys: &Keys) -> Result<bool, RedisError> {
        let id = &self.delivery.entry_id;
        let mut commands = Commands::default();
        commands.command(&["XRANGE", &keys.inbox, id, id].map(str::as_bytes));
        let reply = connection.ask(commands).await?;
        let mut entries = Vec::new();
        read_entries(&mut Cursor::new(&reply, 0), &mut entries).map_err(|error| about(&keys.inbox, error))?;
        Ok(entries.first() == Some(self.delivery))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::redis::client::connector::Connector;
    use crate::redis::client::reconnecting::Connect as _;
    use crate::redis::embedded::Embedded;
    use crate::redis::store::claims::claim;
    use crate::redis::store::entry::{History, Message};
    use crate::redis::store::inbox::ensure_group;

    const WINDOW: Duration = Duration::from_secs(60);

    fn delivery(entry_id: &str, token: &str) -> Delivery {
        let history = History { attempt: 2, token: token.into(), crashes: 0 };
        let message = Message { id: "m".into(), body: "{}".into(), history: Some(Box::new(history)) };
        Delivery::new(entry_id.into(), vec![message])
    }

    /// A claim would keep the message out of the inbox when a host that has heard it appends it again.
    #[tokio::test]
    async fn what_another_server_has_handed_out_is_claimed_only_where_the_same_entry_is() {
        let redis = Embedded::start_on_loopback().unwrap();
        let mut config = Config::default();
        config.redis.url = redis.url();
        let connector = Connector::new(&config.redis).unwrap();
        let keys = Keys::new(config.keys.clone());
        let mut client = connector.connect().await.unwrap();
        ensure_group(&mut client, &keys).await.unwrap();
        // The field without a name is a note: the history of the message behind it.
        let add = ["XADD", &keys.inbox, "*", "", "2 5-a 0", "m", "{}"];
        let entry_id: String = redis::cmd(add[0]).arg(&add[1..]).query_async(&mut client).await.unwrap();
        let connection = SharedConnection::connect(&connector).await.unwrap();

        let (same, other) = (delivery(&entry_id, "5-a"), delivery(&entry_id, "6-b"));
        let absent = delivery("1-1", "5-a");
        let claimed = |delivery, server, is_old| {
            let (connection, keys) = (&connection, &keys);
            async move { claim(connection, keys, Handed { delivery, server, is_old }, &[0], WINDOW).await.unwrap() }
        };
        for unknown in [&other, &absent] {
            assert_eq!(claimed(unknown, "elsewhere", false).await, None);
            assert_eq!(claimed(unknown, connection.server(), true).await, None);
        }
        let claims: Vec<String> =
            redis::cmd("KEYS").arg(format!("{}*", keys.claim_prefix)).query_async(&mut client).await.unwrap();
        assert!(claims.is_empty(), "{claims:?}");
        assert_eq!(claimed(&same, "elsewhere", false).await, Some(vec![true]));
    }
}
