//! A password that is a setting of its own. This file logs in nowhere.

use std::fmt;
use std::fs;
use std::path::Path;

use super::redis_url::MASK;
use super::value::{Kind, Value};

/// A password. No output shows it.
#[derive(Clone, PartialEq, PartialOrd)]
pub struct Password(String);

impl Password {
    /// The first line of a file.
    ///
    /// # Errors
    /// A clause with the reason.
    pub fn from_file(path: &Path) -> Result<Password, String> {
        let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
        match text.lines().next().unwrap_or_default() {
            "" => Err("its first line, which must be the password, is empty".to_owned()),
            password => Ok(Password(password.to_owned())),
        }
    }

    /// The password itself, for a login.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }

    /// Whether `host config` has printed this text in place of the password.
    pub(super) fn is_masked(&self) -> bool {
        self.0 == MASK
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Value for Option<Password> {
    const KIND: Kind = Kind::Password;

    fn parse(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| Password(text.to_owned())))
    }

    fn text(&self) -> Option<String> {
        self.as_ref().map(|password| password.0.clone())
    }
}
