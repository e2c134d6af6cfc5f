//! How much the server keeps for a subscriber that reads slowly before it cuts the subscriber off.

use std::time::Duration;

use redis::{RedisError, cmd};

use crate::redis::client::connector::LibraryConnection;

/// Name of the setting.
pub const SETTING: &str = "client-output-buffer-limit";

/// The limits for a subscriber. 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimit {
    /// Bytes at which the subscriber is cut off.
    pub hard_bytes: u64,
    /// Bytes at which it is cut off when it has more for some time.
    pub soft_bytes: u64,
    /// That time.
    pub soft_time: Duration,
}

impl Default for BufferLimit {
    /// What a server is shipped with.
    fn default() -> BufferLimit {
        BufferLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_time: Duration::from_secs(60) }
    }
}

impl BufferLimit {
    /// Asks the server. A user without the right to ask, and a service that has no such command, get what a server is shipped with.
    ///
    /// # Errors
    /// Errors of the network.
    pub async fn read(connection: &mut LibraryConnection) -> Result<BufferLimit, RedisError> {
        let reply: Result<Vec<String>, _> = cmd("CONFIG").arg("GET").arg(SETTING).query_async(connection).await;
        match reply {
            Ok(words) => Ok(words.get(1).and_then(|value| parse(value)).unwrap_or_default()),
            Err(error) if error.is_io_error() || error.is_timeout() => Err(error),
            Err(_) => Ok(BufferLimit::default()),
        }
    }

    /// Half of the hard limit, from which on something comes near it; `None` without a limit.
    #[must_use]
    pub fn near_bytes(&self) -> Option<u64> {
        (self.hard_bytes > 0).then_some(self.hard_bytes / 2)
    }
}

/// Reads `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60`.
fn parse(value: &str) -> Option<BufferLimit> {
    let mut words = value.split_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    let mut number = || words.next()?.parse().ok();
    Some(BufferLimit { hard_bytes: number()?, soft_bytes: number()?, soft_time: Duration::from_secs(number()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_subscribers_is_read() {
        let shipped = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(parse(shipped), Some(BufferLimit::default()));
        let none = parse("normal 0 0 0 slave 0 0 0 pubsub 0 0 0").unwrap();
        assert_eq!((none.hard_bytes, none.near_bytes()), (0, None));
        for value in ["", "normal 0 0 0", "pubsub 1 2", "pubsub a 0 0"] {
            assert_eq!(parse(value), None, "{value}");
        }
    }
}
