//! Strings of JSON as the host reads them. An escape such as `\ud800` may be half of a surrogate pair, which no text
//! can contain. This file detects such halves, in the same way for messages, results and cases. It knows no message and
//! no plugin.

use std::borrow::Cow;

/// Description of a byte order mark, which JSON does not allow and some editors write.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// A part of a JSON string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Characters without an escape.
    Plain(&'a str),
    /// The character of an escape, or of a pair of escapes.
    Character(char),
    /// Half of a surrogate pair without the other half.
    Half(u16),
}

/// The text of a JSON string, borrowed unless it contains escapes. Each half of a surrogate pair becomes U+FFFD; then
/// the text is in `Err`.
///
/// `json` is a string with its quotation marks, delimited and checked by a JSON parser.
pub(crate) fn decode(json: &str) -> Result<Cow<'_, str>, String> {
    let inner = inner(json);
    if !inner.as_bytes().contains(&b'\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let (mut text, mut is_exact) = (String::with_capacity(inner.len()), true);
    for part in parts(json) {
        match part {
            Part::Plain(plain) => text.push_str(plain),
            Part::Character(character) => text.push(character),
            Part::Half(_) => {
                text.push(char::REPLACEMENT_CHARACTER);
                is_exact = false;
            }
        }
    }
    if is_exact { Ok(Cow::Owned(text)) } else { Err(text) }
}

/// The same for a caller that accepts replaced text.
pub(crate) fn decode_lossy(json: &str) -> Cow<'_, str> {
    decode(json).unwrap_or_else(Cow::Owned)
}

/// The parts of a JSON string. [`decode`] states the requirements.
pub(crate) fn parts(json: &str) -> Parts<'_> {
    Parts { rest: inner(json) }
}

fn inner(json: &str) -> &str {
    json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or(json)
}

/// Iterator of [`parts`].
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    rest: &'a str,
}

impl Parts<'_> {
    /// Steps over `\u` and four digits, if they come next and `wanted` accepts their unit.
    fn unit(&mut self, wanted: impl Fn(u16) -> bool) -> Option<u16> {
        let unit =
            u16::from_str_radix(self.rest.strip_prefix("\\u")?.get(..4)?, 16).ok().filter(|unit| wanted(*unit))?;
        self.rest = &self.rest[6..];
        Some(unit)
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let plain = self.rest.find('\\').unwrap_or(self.rest.len());
        if plain > 0 {
            let (plain, rest) = self.rest.split_at(plain);
            self.rest = rest;
            return Some(Part::Plain(plain));
        }
        if let Some(unit) = self.unit(|_| true) {
            let low = (0xd800..0xdc00).contains(&unit).then(|| self.unit(|low| (0xdc00..0xe000).contains(&low)));
            let units = [unit, low.flatten().unwrap_or(0)];
            let character = char::decode_utf16(units).next()?;
            return Some(character.map_or(Part::Half(unit), Part::Character));
        }
        let mut characters = self.rest.chars();
        characters.next()?;
        let escape = characters.next()?;
        self.rest = characters.as_str();
        Some(Part::Character(match escape {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            itself => itself,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arbitrary::{Kind, cases, json_text, read};

    #[test]
    fn halves_are_replaced_and_pairs_are_not() {
        assert_eq!(decode(r#""plain é""#), Ok(Cow::Borrowed("plain é")));
        assert_eq!(decode(r#""\"\\\/\b\f\n\r\t\u00e9""#), Ok(Cow::Owned("\"\\/\u{8}\u{c}\n\r\té".into())));
        assert_eq!(decode(r#""\ud83e\udd80""#), Ok(Cow::Owned("🦀".into())));
        for (json, text) in [
            (r#""a\ud800""#, "a\u{fffd}"),
            (r#""\uDC00b""#, "\u{fffd}b"),
            (r#""\ud800\u0041""#, "\u{fffd}A"),
            (r#""\ud83e\ud83e\udd80""#, "\u{fffd}🦀"),
            (r#""\udd80\ud83e""#, "\u{fffd}\u{fffd}"),
            (r#""\ud83e\\udd80""#, "\u{fffd}\\udd80"),
        ] {
            assert_eq!(decode(json), Err(text.into()), "{json}");
        }
    }

    proptest! {
        #![proptest_config(cases(1_000))]

        #[test]
        fn a_string_is_decoded_as_the_grammar_says(json in json_text()) {
            let Kind::Text(text) = read(&json).expect("it was made from the grammar").kind else {
                panic!("{json} is a string");
            };
            prop_assert_eq!(decode(&json).is_ok(), text.is_exact);
            prop_assert_eq!(decode_lossy(&json), text.lossy);
        }
    }
}
