//! Formats external texts for a log line or a sentence.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::printable::{is_hidden, push_escaped};

/// A guest's text for one log line: at most `bytes_max` bytes, and escaped, so that no plugin can forge a line or control a
/// terminal.
pub(super) fn printable(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let shown = &text[..text.floor_char_boundary(bytes_max)];
    if shown.len() == text.len() && !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(shown.len() + 32);
    push_escaped(shown, &mut line);
    if shown.len() < text.len() {
        // Writing to a string cannot fail.
        let _ = write!(line, " … ({} bytes)", text.len());
    }
    Cow::Owned(line)
}

/// An error with its causes, on one line. Wasmtime's errors contain line breaks.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first few names as an enumeration.
pub(super) fn list(names: &[String]) -> String {
    const NAMES_MAX: usize = 8;
    let mut shown = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX {
        shown += &format!(" and {} more", names.len() - NAMES_MAX);
    }
    if shown.is_empty() { "nothing".into() } else { shown }
}

/// An optional reason as the end of a sentence.
pub(super) fn because(reason: &Option<String>) -> String {
    reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_text_fits_one_line() {
        assert_eq!(printable("plain é", 100), "plain é");
        assert_eq!(printable("two\nlines\u{1b}[31m", 100), "two\\nlines\\u{1b}[31m");
        assert_eq!(printable("éé", 3), "é … (4 bytes)");
    }
}
