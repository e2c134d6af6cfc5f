//! Text from outside in a place where people read it: what could act on a terminal, begin a line of its own, or change the order of
//! what is shown is escaped. This file knows nobody.

/// Whether a character must not be shown as it is: control characters of both kinds (C0 with ESC, C1), the line and paragraph
/// separators, and the marks that change the direction of text, which make a text read differently from what it says.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with every such character in its escaped form, `\n` or `\u{202e}`.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    push_escaped(text, &mut shown);
    shown
}

/// Appends the escaped text to another.
pub fn push_escaped(text: &str, shown: &mut String) {
    for c in text.chars() {
        if is_hidden(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
}

/// The same for a text of several lines: line breaks and tabs stay.
#[must_use]
pub fn escaped_lines(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for part in text.split_inclusive(['\n', '\t']) {
        let words = part.trim_end_matches(['\n', '\t']);
        push_escaped(words, &mut shown);
        shown.push_str(&part[words.len()..]);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_or_on_the_order_of_text_is_escaped() {
        assert_eq!(escaped("plain é 語 \u{1f600}"), "plain é 語 \u{1f600}");
        assert_eq!(escaped("a\n\u{1b}[2J\u{9b}1m"), "a\\n\\u{1b}[2J\\u{9b}1m");
        assert_eq!(escaped("a\u{2028}b\u{202e}c\u{2066}\u{200f}"), "a\\u{2028}b\\u{202e}c\\u{2066}\\u{200f}");
        assert_eq!(escaped_lines("{\n\t\"a\": \"\u{1b}]0;x\u{7}\"\r\n}"), "{\n\t\"a\": \"\\u{1b}]0;x\\u{7}\"\\r\n}");
    }
}
