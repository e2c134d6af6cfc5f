//! Texts from elsewhere made fit for a log line or a sentence. It knows nobody.

use std::borrow::Cow;
use std::fmt::Write as _;

/// A guest's text made fit for one log line: at most `bytes_max` bytes of it, and control characters
/// written out, so that no plugin can forge a line or steer a terminal.
pub(super) fn printable(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let shown = &text[..text.floor_char_boundary(bytes_max)];
    if shown.len() == text.len() && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(shown.len() + 32);
    for char in shown.chars() {
        if char.is_control() {
            line.extend(char.escape_default());
        } else {
            line.push(char);
        }
    }
    if shown.len() < text.len() {
        // Writing to a string cannot fail.
        let _ = write!(line, " … ({} bytes)", text.len());
    }
    Cow::Owned(line)
}

/// An error with its causes. Wasmtime's have line breaks.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Names as an enumeration, the first few of them.
pub(super) fn list(names: &[String]) -> String {
    const NAMES_MAX: usize = 8;
    let mut shown = names.iter().take(NAMES_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_MAX {
        shown += &format!(" and {} more", names.len() - NAMES_MAX);
    }
    if shown.is_empty() { "nothing".into() } else { shown }
}

/// An optional reason as the tail of a sentence.
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
