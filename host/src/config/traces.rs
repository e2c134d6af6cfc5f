//! Values of the settings of traces. This file opens no connection.

use axum::http::Uri;

use super::value::{Kind, Value};

/// Maximum length of an address, in bytes.
const BYTES_MAX: usize = 512;

/// Where spans go: `http://`, a name or an IP address, a port, and perhaps a path.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub struct Endpoint {
    address: String,
    path: String,
}

impl Endpoint {
    /// Reads an address; `None` if it is no such address.
    #[must_use]
    pub fn read(text: &str) -> Option<Endpoint> {
        let uri: Uri = text.parse().ok().filter(|_| text.len() <= BYTES_MAX)?;
        let (authority, path) = (uri.authority()?, uri.path().trim_end_matches('/'));
        let is_name = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '_');
        let host = authority.host();
        let is_plain = host.starts_with('[') || (!host.is_empty() && host.chars().all(is_name));
        let has_port = authority.port_u16().is_some_and(|port| port > 0);
        let has_more = authority.as_str().contains('@') || text.contains(['?', '#']);
        (uri.scheme_str() == Some("http") && is_plain && has_port && !has_more)
            .then(|| Endpoint { address: authority.to_string(), path: path.to_owned() })
    }

    /// Name or IP address with the port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The path, without a slash at its end.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Value for Option<Endpoint> {
    const KIND: Kind = Kind::Endpoint;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let wanted = "it must be http:// with a name or an IP address and a port, such as http://127.0.0.1:4318; neither https:// \
                      nor a login is supported: let a collector on this machine pass the spans on";
        Endpoint::read(text).map(Some).ok_or_else(|| wanted.to_owned())
    }

    fn text(&self) -> Option<String> {
        self.as_ref().map(|Endpoint { address, path }| format!("http://{address}{path}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_of_http_with_a_port() {
        let read = |text| <Option<Endpoint>>::parse(text).map(|endpoint| endpoint.text().unwrap_or_default());
        for (text, shown) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("http://[::1]:4318/", "http://[::1]:4318"),
            ("http://otel-collector.observe:4318/a/b/", "http://otel-collector.observe:4318/a/b"),
        ] {
            assert_eq!(read(text), Ok(shown.to_owned()));
        }
        for wrong in [
            "127.0.0.1:4318",
            "https://h:4318",
            "http://h",
            "http://h:0",
            "http://h:70000",
            "http://:4318",
            "http://user:secret@h:4318",
            "http://h:4318/?a=b",
            "http://h:4318/#a",
            "http://h h:4318",
            "grpc://h:4317",
        ] {
            assert!(!read(wrong).expect_err(wrong).contains("secret"), "{wrong}");
        }
    }
}
