//! A fence: a key that a transaction watches. Redis discards the transaction if the key was changed in the meantime,
//! however long ago, and however late the bytes arrive. This file does not know what the transaction does.

use redis::RedisError;

use crate::redis::client::resp::{Commands, Cursor, Head};

/// A key whose value gives its holder a right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The key.
    pub key: String,
    /// The value of the key while the holder has the right.
    pub value: String,
}

impl Fence {
    /// Watches the key and reads it.
    pub(super) fn watch(&self, commands: &mut Commands) {
        commands.command(&["WATCH", &self.key].map(str::as_bytes));
        commands.command(&["GET", &self.key].map(str::as_bytes));
    }

    /// Whether the holder had the right when the watch began, from the replies to [`Fence::watch`].
    ///
    /// # Errors
    /// When the server refused one of the commands.
    pub(super) fn is_held(&self, replies: &mut Cursor<'_>) -> Result<bool, RedisError> {
        replies.value()?;
        Ok(self.is_value(replies.value()?))
    }

    /// Whether this reply is the value.
    pub(super) fn is_value(&self, head: Head<'_>) -> bool {
        head == Head::Bulk(self.value.as_bytes())
    }
}
