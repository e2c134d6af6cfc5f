//! The address of a remote consumer, which is its id: a name or an IP address with a port, and nothing else. Requests go nowhere
//! else, so this file decides what a registration can make a host connect to.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::uri::Authority;

use crate::config::Endpoint;

/// Maximum length of an address, in bytes: that of a name in DNS, and a port.
const BYTES_MAX: usize = 253 + 6;

/// A valid address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<str>);

impl Address {
    /// Reads `name:port`, `1.2.3.4:port` or `[::1]:port`.
    ///
    /// # Errors
    /// A sentence that begins with "it".
    pub fn read(text: &str) -> Result<Address, String> {
        let wanted =
            || "it must be an IP address or a name with a port, such as 10.0.0.7:8080 or worker-1:8080".to_owned();
        if text.len() > BYTES_MAX {
            return Err(wanted());
        }
        let authority: Authority = text.parse().map_err(|_| wanted())?;
        let host = authority.host();
        let is_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
        let is_plain = host.starts_with('[') || (!host.is_empty() && host.chars().all(is_name));
        let port = authority.port_u16().filter(|port| *port > 0);
        if !is_plain || text.contains('@') || port.is_none() {
            return Err(wanted());
        }
        Ok(Address(text.into()))
    }

    /// Reads `http://ADDRESS`, the address of a group.
    ///
    /// # Errors
    /// A sentence that begins with "it".
    pub fn of_url(text: &str) -> Result<Address, String> {
        let address = text.strip_prefix("http://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
        let address = address.ok_or_else(|| "it must begin with http://".to_owned())?;
        Address::read(address)
            .map_err(|_| "it must be http:// with a name or an IP address and a port, and no path".to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    #[must_use]
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

/// The address of a collector, which the settings have checked.
impl From<&Endpoint> for Address {
    fn from(endpoint: &Endpoint) -> Address {
        Address(endpoint.address().into())
    }
}

/// The address of a socket.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address(address.to_string().into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_name_with_a_port_and_nothing_else() {
        for right in ["127.0.0.1:80", "[::1]:8080", "worker-1.example:65535", "a_b:1"] {
            assert_eq!(Address::read(right).map(|address| address.to_string()), Ok(right.to_owned()));
        }
        let long = format!("{}:80", "a".repeat(300));
        for wrong in [
            "",
            "80",
            ":80",
            "a",
            "a:",
            "a:0",
            "a:70000",
            "u@a:80",
            "u:p@a:80",
            "a:80/x",
            "http://a:80",
            "a b:80",
            "a:80?x",
            &long,
        ] {
            assert!(Address::read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Address::of_url("http://a:80/"), Address::read("a:80"));
        for wrong in ["a:80", "https://a:80", "http://a", "http://a:80/x", "http://u@a:80"] {
            assert!(Address::of_url(wrong).is_err(), "{wrong}");
        }
    }
}
