//! Formats dead letters as text and as JSON.

use serde_json::{Map, Value, json};

use crate::cli::text::{cut, line};
use crate::dead_letters::Letter;
use crate::printable::{escaped_lines, is_hidden};

/// Characters of a message id, and of an error, in the table.
const ID_CHARS_MAX: usize = 40;
const ERROR_CHARS_MAX: usize = 120;

/// Fields that are numbers in JSON.
const NUMBERS: [&str; 3] = ["attempts", "payload_bytes", "plugin_generation"];

/// A dead letter in the table.
#[derive(Debug)]
pub(super) struct Row([String; 6]);

const HEAD: [&str; 6] = ["ENTRY", "TIME", "REASON", "ATTEMPTS", "MESSAGE", "ERROR"];

impl Row {
    pub(super) fn of(letter: &Letter) -> Row {
        let cell = |name| line(letter.get(name).unwrap_or(b"-"));
        Row([
            letter.entry_id.clone(),
            cell("time"),
            cell("reason"),
            cell("attempts"),
            cut(cell("message_id"), ID_CHARS_MAX),
            cut(cell("error"), ERROR_CHARS_MAX),
        ])
    }
}

/// A table with a head, or an empty text without rows.
pub(super) fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.0[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let mut text = String::new();
    let mut push = |cells: [&str; 6]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    };
    push(HEAD);
    for row in rows {
        push(std::array::from_fn(|column| row.0[column].as_str()));
    }
    text
}

/// All fields. The payload comes last: raw, as it was published, or with everything escaped on which a terminal could act.
pub(super) fn whole(letter: &Letter, is_raw: bool) -> Vec<u8> {
    let mut text = format!("entry: {}\n", letter.entry_id);
    for (name, value) in letter.fields.iter().filter(|(name, _)| name != "payload") {
        text += &format!("{}: {}\n", line(name.as_bytes()), line(value));
    }
    let mut text = text.into_bytes();
    if let Some(payload) = letter.get("payload") {
        text.extend_from_slice(b"payload:\n");
        match is_raw {
            true => text.extend_from_slice(payload),
            false => text.extend_from_slice(escaped_lines(&String::from_utf8_lossy(payload)).as_bytes()),
        }
        text.push(b'\n');
    }
    text
}

/// All fields as one line of JSON. Bytes that are not UTF-8 are replaced; then `payload_is_text` is false.
pub(super) fn json(letter: &Letter) -> String {
    let mut object = Map::new();
    object.insert("entry".into(), json!(letter.entry_id));
    for (name, value) in &letter.fields {
        let text = String::from_utf8_lossy(value);
        let number = NUMBERS.contains(&name.as_str()).then(|| text.parse::<u64>().ok()).flatten();
        object.insert(name.clone(), number.map_or_else(|| json!(text), |number| json!(number)));
    }
    let is_text = letter.get("payload").is_none_or(|payload| std::str::from_utf8(payload).is_ok());
    object.insert("payload_is_text".into(), json!(is_text));
    // JSON leaves some characters as they are on which a terminal acts; escaped they mean the same.
    let text = Value::Object(object).to_string();
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        match is_hidden(c) {
            true => line += &format!("\\u{:04x}", u32::from(c)),
            false => line.push(c),
        }
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(fields: &[(&str, &[u8])]) -> Letter {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
        Letter { entry_id: "5-0".into(), fields }
    }

    #[test]
    fn a_table_has_a_line_for_each_whatever_is_in_it() {
        let long = format!("{}: the last words", "x".repeat(200));
        let letter = letter(&[("message_id", b"a\nb\x1b[2J"), ("reason", b"bad-id"), ("error", long.as_bytes())]);
        let text = table(&[Row::of(&letter), Row::of(&letter)]);
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(
            text.contains("a\\nb\\u{1b}[2J")
                && text.contains("x…x")
                && text.contains("xx: the last words")
                && !text.contains(&long),
            "{text}"
        );
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn a_payload_is_raw_only_when_that_is_wanted() {
        let letter = letter(&[("error", b"no\n"), ("payload", "{\n\"a\":\"\x1b[2J\u{202e}\"}".as_bytes())]);
        let text = |is_raw| String::from_utf8(whole(&letter, is_raw)).unwrap();
        assert_eq!(text(true), "entry: 5-0\nerror: no\\n\npayload:\n{\n\"a\":\"\x1b[2J\u{202e}\"}\n");
        assert_eq!(text(false), "entry: 5-0\nerror: no\\n\npayload:\n{\n\"a\":\"\\u{1b}[2J\\u{202e}\"}\n");
        let json = json(&letter);
        assert!(json.is_ascii() && json.contains("\\u001b[2J\\u202e"), "{json}");
    }

    #[test]
    fn json_has_numbers_and_says_when_a_payload_is_no_text() {
        let value: Value = serde_json::from_str(&json(&letter(&[("attempts", b"5"), ("payload", b"\xff")]))).unwrap();
        assert_eq!(value, json!({"entry": "5-0", "attempts": 5, "payload": "\u{fffd}", "payload_is_text": false}));
    }
}
