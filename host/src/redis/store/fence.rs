//! A key that a transaction watches, so that Redis discards the transaction when somebody has changed the key meanwhile,
//! however long ago and however late the bytes arrive. It knows nothing of what the transaction does.

use redis::RedisError;

use crate::redis::client::resp::{Commands, Cursor, Head};

/// A key whose value says that its holder may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The key.
    pub key: String,
    /// Its value as long as nobody has taken the right away.
    pub value: String,
}

impl Fence {
    /// Watches the key and reads it.
    pub(super) fn watch(&self, commands: &mut Commands) {
        commands.command(&["WATCH", &self.key].map(str::as_bytes));
        commands.command(&["GET", &self.key].map(str::as_bytes));
    }

    /// Whether the right was there when the watch began, by the replies to [`Fence::watch`].
    ///
    /// # Errors
    /// When the server refused one of the commands.
    pub(super) fn is_held(&self, replies: &mut Cursor<'_>) -> Result<bool, RedisError> {
        replies.value()?;
        Ok(self.is_value(replies.value()?))
    }

    /// Whether this is the value.
    pub(super) fn is_value(&self, head: Head<'_>) -> bool {
        head == Head::Bulk(self.value.as_bytes())
    }
}
