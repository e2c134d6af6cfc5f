//! Text for people: one line whatever is in it, and shortened.

/// Share of the beginning in a shortened text; the rest is the end. The first words of an error say where the error
/// happened, and the last words say what went wrong.
const HEAD_PERCENT: usize = 30;

/// Text on one line: control characters from a message or a plugin are escaped.
pub(super) fn line(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let escaped = |c: char| match c.is_control() {
        true => c.escape_default().collect::<String>(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// Shortens a text that is too long to its beginning and its end.
pub(super) fn cut(text: String, chars_max: usize) -> String {
    let count = text.chars().count();
    if count <= chars_max {
        return text;
    }
    let head = chars_max * HEAD_PERCENT / 100;
    let tail = chars_max - head - 1;
    text.chars().take(head).chain(['…']).chain(text.chars().skip(count - tail)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_has_its_beginning_and_its_end() {
        assert_eq!(cut("é".repeat(10), 10), "é".repeat(10));
        assert_eq!(cut("0123456789x".into(), 10), "012…56789x");
    }
}
