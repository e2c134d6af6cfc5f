//! The names of all keys in Redis. The names come from the configuration; no other file spells a key.

use redis::RedisError;

use crate::config::KeysConfig;
use crate::redis::client::resp::server_error;

/// The configured names, shared by every part that uses Redis.
pub type Keys = std::sync::Arc<KeysConfig>;

/// The Redis consumer group on the inbox. Its consumers are host ids.
pub const GROUP: &str = "host";

/// Adds the name of the key to an error: for a key of a wrong type, Redis itself does not name the key.
pub(super) fn about(key: &str, error: RedisError) -> RedisError {
    if error.code() != Some("WRONGTYPE") || error.detail().is_some_and(|detail| detail.contains(key)) {
        return error;
    }
    server_error(format!("-WRONGTYPE {key} holds data of another type; rename or delete it").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_about_a_wrong_type_names_the_key() {
        let error = |line: &str| about("a:key", server_error(line.as_bytes()));
        let wrong = error("-WRONGTYPE Operation against a key holding the wrong kind of value");
        assert_eq!(wrong.code(), Some("WRONGTYPE"));
        assert!(wrong.to_string().contains("a:key holds data of another type"), "{wrong}");
        let named = "-WRONGTYPE a:key is a list, not a stream";
        assert!(error(named).to_string().contains("is a list"), "{}", error(named));
        assert_eq!(error("-OOM full").code(), Some("OOM"));
    }
}
