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
