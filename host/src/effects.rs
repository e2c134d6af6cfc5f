//! What messages do to the state of a plugin, as values: what was read, and what is to be written. Both become part of the
//! step that settles the messages.

use bytes::Bytes;

/// One key of a plugin's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// Bucket, colon and key.
    pub name: String,
    /// What was read, and must still be there.
    pub expected: Expected,
    /// What is written; `None` leaves the key as it is.
    pub change: Option<Change>,
    /// Lifetime of a written value in ms; `None` keeps the value.
    pub ttl_ms: Option<u64>,
}

/// What must be there when the effect is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nobody has read the key.
    Anything,
    /// There was no value.
    Absent,
    /// This value.
    Value(Bytes),
}

/// The change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new value.
    Set(Bytes),
    /// No value any more.
    Delete,
    /// This much is added to a number; nothing counts as 0.
    Add(i64),
}

/// Largest magnitude of a number that is counted, and of what is added to it. Sums stay far from 64 bits, and Lua can tell by
/// the number of digits.
pub const NUMBER_MAX: i64 = 999_999_999_999_999_999;

/// The number in a value, in the only form that Redis takes for a number.
#[must_use]
pub fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    ((-NUMBER_MAX..=NUMBER_MAX).contains(&number) && number.to_string() == text).then_some(number)
}
