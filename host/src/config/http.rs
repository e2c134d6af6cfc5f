//! Values of the settings of the HTTP listener. This file opens no socket.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::redis_url::MASK;
use super::value::{Kind, Value};

/// Minimum number of characters of a token, so that nobody finds it by trying.
const TOKEN_CHARS_MIN: usize = 16;

/// A secret that every request carries. No output shows it.
#[derive(Clone, PartialEq, PartialOrd)]
pub struct Token(String);

impl Token {
    /// Reads a token: printable ASCII without spaces, as it stands in the header `Authorization`.
    ///
    /// # Errors
    /// A sentence that begins with "it" and does not contain the text.
    pub fn read(text: &str) -> Result<Token, String> {
        if text == MASK {
            return Ok(Token(text.to_owned()));
        }
        if text.chars().count() < TOKEN_CHARS_MIN {
            return Err(format!(
                "it must have at least {TOKEN_CHARS_MIN} characters; `openssl rand -hex 32` makes one"
            ));
        }
        if !text.chars().all(|character| character.is_ascii_graphic()) {
            return Err("it must consist of printable ASCII characters without spaces".to_owned());
        }
        Ok(Token(text.to_owned()))
    }

    /// Whether `host config` has printed this text in place of the token.
    pub(super) fn is_masked(&self) -> bool {
        self.0 == MASK
    }

    /// The first line of a file.
    ///
    /// # Errors
    /// A clause with the reason.
    pub fn from_file(path: &Path) -> Result<Token, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        let token = Token::read(text.lines().next().unwrap_or_default().trim());
        token.map_err(|problem| format!("its first line is no token: {problem}"))
    }

    /// The value of the header `Authorization`.
    #[must_use]
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether `given` is this token. The time does not depend on where the texts differ.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        let own = self.0.as_bytes();
        let differences = own.iter().zip(given).fold(0, |differences, (a, b)| differences | (a ^ b));
        own.len() == given.len() && differences == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Value for Option<Token> {
    const KIND: Kind = Kind::Token;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { Token::read(text).map(Some) }
    }

    fn text(&self) -> Option<String> {
        self.as_ref().map(|token| token.0.clone())
    }
}

/// A port alone means the loopback address.
impl Value for Option<SocketAddr> {
    const KIND: Kind = Kind::Address;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(None);
        }
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let port = text.strip_prefix("localhost:").unwrap_or(text).parse().ok();
        let address = port.map(|port| SocketAddr::new(loopback, port)).or_else(|| text.parse().ok());
        let wanted =
            "it must be an address with a port such as 127.0.0.1:9090 or [::1]:9090, or only a port for 127.0.0.1";
        address.map(Some).ok_or_else(|| wanted.to_owned())
    }

    fn text(&self) -> Option<String> {
        self.as_ref().map(SocketAddr::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_be_a_port() {
        let read = |text| <Option<SocketAddr>>::parse(text).map(|address| address.text().unwrap_or_default());
        assert_eq!(read("9090"), Ok("127.0.0.1:9090".to_owned()));
        assert_eq!(read("localhost:9090"), Ok("127.0.0.1:9090".to_owned()));
        assert_eq!(read("[::]:80"), Ok("[::]:80".to_owned()));
        for wrong in ["host:80", ":80", "70000", "127.0.0.1", "::1:80x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_long_and_is_never_shown() {
        let secret = "0123456789abcdef";
        let token = Token::read(secret).expect("long enough");
        assert!(token.is(secret.as_bytes()) && !token.is(b"0123456789abcdeg") && !token.is(b"") && !token.is(b"0"));
        assert_eq!(format!("{token:?}"), "***");
        for wrong in ["short", "0123456789 abcdef", "0123456789abcdé\u{e9}"] {
            assert!(!Token::read(wrong).expect_err(wrong).contains(wrong));
        }
    }
}
