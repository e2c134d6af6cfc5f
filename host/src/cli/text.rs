//! Text for people: one line whatever is in it, shortened, in columns, with colours.

use std::fmt::Write as _;

use crate::printable::escaped;

/// Share of the beginning in a shortened text; the rest is the end. The first words of an error say where the error
/// happened, and the last words say what went wrong.
const HEAD_PERCENT: usize = 30;

/// Text on one line, whatever a message or a plugin has put into it.
pub(super) fn line(value: &[u8]) -> String {
    escaped(&String::from_utf8_lossy(value))
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

/// A colour or weight on a terminal. None carries a meaning that the text does not also say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Paint {
    /// The text in this colour, if there are to be colours.
    pub(super) fn on(self, text: &str, with_colours: bool) -> String {
        let code = match self {
            Paint::Plain => return text.to_owned(),
            _ if !with_colours || text.is_empty() => return text.to_owned(),
            Paint::Bold => 1,
            Paint::Dim => 2,
            Paint::Red => 31,
            Paint::Green => 32,
            Paint::Yellow => 33,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// A cell of a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    paint: Paint,
    is_number: bool,
}

impl Cell {
    /// Text, to the left.
    pub(super) fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), paint: Paint::Plain, is_number: false }
    }

    /// A number, to the right.
    pub(super) fn number(text: impl Into<String>) -> Cell {
        Cell { is_number: true, ..Cell::text(text) }
    }

    pub(super) fn paint(mut self, paint: Paint) -> Cell {
        self.paint = paint;
        self
    }
}

/// A table of aligned columns with two blanks between them.
pub(super) fn columns(rows: &[Vec<Cell>], with_colours: bool) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let padding = widths[at] - cell.text.chars().count();
            let (left, right) = if cell.is_number { (padding, 0) } else { (0, padding) };
            let painted = cell.paint.on(&cell.text, with_colours);
            // Writing into a text cannot fail.
            let _ = write!(line, "{}{:left$}{painted}{:right$}", if at > 0 { "  " } else { "" }, "", "");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A whole number with commas between thousands.
pub(super) fn grouped(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}

/// A number of messages a second: a tenth is shown only of small numbers.
pub(super) fn rate(rate: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is not negative, and saturates"
    )]
    match rate < 10.0 {
        true => format!("{rate:.1}"),
        false => grouped(rate.round() as u64),
    }
}

/// A duration with the precision in which people read it: 180ms, 1.2s, 3m 20s.
pub(super) fn age(ms: u64) -> String {
    match ms {
        ..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{}.{}s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{}m {}s", ms / 60_000, ms % 60_000 / 1_000),
        3_600_000..86_400_000 => format!("{}h {}m", ms / 3_600_000, ms % 3_600_000 / 60_000),
        _ => format!("{}d {}h", ms / 86_400_000, ms % 86_400_000 / 3_600_000),
    }
}

/// A size in bytes.
pub(super) fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

/// The part of a digest that people compare.
pub(super) fn short_digest(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_has_its_beginning_and_its_end() {
        assert_eq!(cut("é".repeat(10), 10), "é".repeat(10));
        assert_eq!(cut("0123456789x".into(), 10), "012…56789x");
    }

    #[test]
    fn columns_are_aligned_also_in_colour() {
        let row = |id: &str, count: &str| vec![Cell::text(id).paint(Paint::Red), Cell::number(count)];
        let rows = [row("é", "1"), row("long", "200")];
        assert_eq!(columns(&rows, false), "é       1\nlong  200\n");
        assert_eq!(columns(&rows, true), "\u{1b}[31mé\u{1b}[0m       1\n\u{1b}[31mlong\u{1b}[0m  200\n");
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([rate(0.0), rate(9.5), rate(12_345.6)], ["0.0", "9.5", "12,346"]);
        assert_eq!(
            [age(180), age(1_250), age(200_000), age(3_700_000), age(90_000_000)],
            ["180ms", "1.2s", "3m 20s", "1h 1m", "1d 1h"]
        );
    }
}
