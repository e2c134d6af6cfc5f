//! Generators for the property tests: valid and invalid JSON texts of every kind, and a reader for the contents. The
//! reader is written from the grammar and shares nothing with the parser that the host uses.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Number of random cases in each run. A failure prints the smallest failing case; no file is kept.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(count) }
}

/// A JSON value, with the original text of each value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node<'a> {
    pub(crate) raw: &'a str,
    pub(crate) kind: Kind<'a>,
}

/// The contents of a JSON string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    /// Text with U+FFFD in place of each half of a surrogate pair.
    pub(crate) lossy: String,
    /// Whether the string has no half of a surrogate pair.
    pub(crate) is_exact: bool,
}

impl Text {
    /// Whether the contents are this text.
    pub(crate) fn is(&self, text: &str) -> bool {
        self.is_exact && self.lossy == text
    }
}

/// The kinds of JSON values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind<'a> {
    Word,
    Number,
    Text(Text),
    Array(Vec<Node<'a>>),
    Object(Vec<(Text, Node<'a>)>),
}

impl Node<'_> {
    /// Nesting depth of objects and arrays.
    pub(crate) fn depth(&self) -> u32 {
        match &self.kind {
            Kind::Array(items) => 1 + items.iter().map(Node::depth).max().unwrap_or(0),
            Kind::Object(members) => 1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

/// Reads a JSON text; `None` if the text is not JSON.
pub(crate) fn read(text: &str) -> Option<Node<'_>> {
    let mut reader = Reader { text, at: 0 };
    let node = reader.value()?;
    reader.blank();
    (reader.at == text.len()).then_some(node)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    /// Steps over `token` if it comes next.
    fn skip(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Steps over digits, and returns whether there was at least one.
    fn digits(&mut self) -> bool {
        let rest = self.rest();
        let count = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        self.at += count;
        count > 0
    }

    fn value(&mut self) -> Option<Node<'a>> {
        self.blank();
        let begin = self.at;
        let kind = match self.rest().chars().next()? {
            '{' => self.object()?,
            '[' => self.array()?,
            '"' => Kind::Text(self.string()?),
            '-' | '0'..='9' => self.number()?,
            _ => ["null", "true", "false"].into_iter().any(|word| self.skip(word)).then_some(Kind::Word)?,
        };
        Some(Node { raw: &self.text[begin..self.at], kind })
    }

    fn number(&mut self) -> Option<Kind<'a>> {
        self.skip("-");
        let whole = self.skip("0") || self.digits();
        let fraction = !self.skip(".") || self.digits();
        let exponent = !(self.skip("e") || self.skip("E")) || {
            let _ = self.skip("+") || self.skip("-");
            self.digits()
        };
        (whole && fraction && exponent).then_some(Kind::Number)
    }

    /// The text of a string, from the UTF-16 units of its characters and escapes.
    fn string(&mut self) -> Option<Text> {
        self.at += 1;
        let mut units = Vec::new();
        loop {
            let c = self.rest().chars().next()?;
            self.at += c.len_utf8();
            match c {
                '"' => {
                    let is_exact = String::from_utf16(&units).is_ok();
                    return Some(Text { lossy: String::from_utf16_lossy(&units), is_exact });
                }
                '\\' => {
                    let escape = self.rest().chars().next()?;
                    self.at += escape.len_utf8();
                    units.push(match escape {
                        '"' | '\\' | '/' => escape as u16,
                        'b' => 8,
                        't' => 9,
                        'n' => 10,
                        'f' => 12,
                        'r' => 13,
                        'u' => {
                            let digits = self.rest().get(..4)?;
                            self.at += 4;
                            let is_hex = digits.chars().all(|digit| digit.is_ascii_hexdigit());
                            is_hex.then(|| u16::from_str_radix(digits, 16).ok())??
                        }
                        _ => return None,
                    });
                }
                '\0'..='\x1f' => return None,
                c => units.extend_from_slice(c.encode_utf16(&mut [0; 2])),
            }
        }
    }

    fn array(&mut self) -> Option<Kind<'a>> {
        let mut items = Vec::new();
        self.at += 1;
        self.blank();
        if self.skip("]") {
            return Some(Kind::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.blank();
            if self.skip("]") {
                return Some(Kind::Array(items));
            }
            self.skip(",").then_some(())?;
        }
    }

    fn object(&mut self) -> Option<Kind<'a>> {
        let mut members = Vec::new();
        self.at += 1;
        self.blank();
        if self.skip("}") {
            return Some(Kind::Object(members));
        }
        loop {
            self.blank();
            let name = self.rest().starts_with('"').then(|| self.string())??;
            self.blank();
            self.skip(":").then_some(())?;
            members.push((name, self.value()?));
            self.blank();
            if self.skip("}") {
                return Some(Kind::Object(members));
            }
            self.skip(",").then_some(())?;
        }
    }
}

/// The JSON of a string: as short as possible, or all in escapes.
pub(crate) fn json_string(text: &str, escaped: bool) -> String {
    if !escaped {
        return serde_json::to_string(text).unwrap();
    }
    let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
    format!("\"{units}\"")
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => select(vec![" ", "\n\t", "\r  "])]
}

/// Strings of JSON with halves of surrogate pairs, in any order, between other parts.
pub(crate) fn json_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => select(vec!["\\ud800", "\\uDBFF", "\\udc00", "\\uDfFf", "\\ud83d\\ude00", "\\u0041", "\\n", "\\\\", "\\\"", "ud800"])
            .prop_map(str::to_owned),
        1 => any::<String>().prop_map(|text| {
            let json = json_string(&text, false);
            json[1..json.len() - 1].to_owned()
        }),
    ];
    vec(part, 0..6).prop_map(|parts| format!("\"{}\"", parts.concat()))
}

/// Names that matter to the host come often, and often twice.
fn name() -> impl Strategy<Value = String> {
    let known = vec!["message_id", "consumer_id", "message_ic", "a", "b", "", "json"];
    let text = prop_oneof![3 => select(known).prop_map(str::to_owned), 1 => any::<String>()];
    let text = (text, prop::bool::weighted(0.1)).prop_map(|(text, escaped)| json_string(&text, escaped));
    prop_oneof![9 => text, 1 => json_text()]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        select(vec!["null", "true", "false", "\"\"", "0", "-0", "1e400", r#""\ud800""#, r#""\ud83d\ude00""#])
            .prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        (any::<String>(), any::<bool>()).prop_map(|(text, escaped)| json_string(&text, escaped)),
        json_text(),
        "[a-z{}\\[\\]:,]{1,12}".prop_map(|text| json_string(&text, false)),
    ]
}

/// JSON texts of up to about eight levels.
fn json() -> impl Strategy<Value = String> {
    scalar().prop_recursive(8, 48, 5, |inner| {
        prop_oneof![
            (vec(inner.clone(), 0..5), blank()).prop_map(|(items, blank)| format!("[{blank}{}]", items.join(","))),
            object_of(inner),
        ]
    })
}

fn object_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let member = (blank(), name(), blank(), value)
        .prop_map(|(before, name, after, value)| format!("{before}{name}{after}:{value}"));
    (vec(member, 0..7), blank()).prop_map(|(members, blank)| format!("{{{}{blank}}}", members.join(",")))
}

/// Texts of JSON objects, with everything that the grammar allows.
pub(crate) fn json_object() -> impl Strategy<Value = String> {
    (blank(), object_of(json()), blank()).prop_map(|(before, object, after)| format!("{before}{object}{after}"))
}

/// Any texts: JSON, JSON with a mistake, a mix of JSON tokens, arbitrary text.
pub(crate) fn almost_json() -> impl Strategy<Value = String> {
    let tokens =
        vec!["{", "}", "[", "]", "\"", "\\", ":", ",", "\"message_id\"", "\"a\"", "1", "-", "e", ".", "nul", "\\u"];
    prop_oneof![
        3 => json_object(),
        1 => json(),
        3 => (json_object(), any::<prop::sample::Index>(), select(tokens.clone()), any::<bool>()).prop_map(mistaken),
        2 => vec(select(tokens), 0..16).prop_map(|tokens| tokens.concat()),
        1 => any::<String>(),
    ]
}

/// The text with an inserted token, in place of a character or between two characters.
fn mistaken((text, place, token, instead): (String, prop::sample::Index, &'static str, bool)) -> String {
    let mut characters: Vec<String> = text.chars().map(String::from).collect();
    let place = place.index(characters.len());
    characters.splice(place..place + usize::from(instead), [token.to_owned()]);
    characters.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest! {
        #![proptest_config(cases(1_000))]

        #[test]
        fn what_serde_reads_is_read_the_same(text in almost_json()) {
            let node = read(&text);
            // serde_json's own tree takes neither numbers out of range nor halves of surrogate pairs.
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(&text) {
                let node = node.expect("a valid text");
                prop_assert_eq!(value.is_object(), matches!(node.kind, Kind::Object(_)));
                prop_assert_eq!(value.as_str(), if let Kind::Text(text) = &node.kind { Some(text.lossy.as_str()) } else { None });
            } else if let Some(node) = node {
                prop_assert!(node.raw.contains('e') || node.raw.contains('E') || node.raw.contains("\\u") || node.raw.len() > 300);
            }
        }

        #[test]
        fn json_that_is_made_is_json(text in json_object()) {
            prop_assert!(matches!(read(&text), Some(Node { kind: Kind::Object(_), .. })), "{}", text);
        }
    }
}

/// Replies of a real Redis to this program, as they came over the connection: a fetch with entries of each form and one without, a
/// list of entries, a settling and an appending transaction, errors, `INFO` and others, and what is published.
pub(crate) const REPLIES: [&[u8]; 8] = [
    include_bytes!("redis/client/corpus/fetch.resp"),
    include_bytes!("redis/client/corpus/nothing.resp"),
    include_bytes!("redis/client/corpus/entries.resp"),
    include_bytes!("redis/client/corpus/settle.resp"),
    include_bytes!("redis/client/corpus/append.resp"),
    include_bytes!("redis/client/corpus/errors.resp"),
    include_bytes!("redis/client/corpus/server.resp"),
    include_bytes!("redis/client/corpus/published.resp"),
];

/// What may be put into a reply, or in the place of a byte.
const PIECES: [&str; 24] = [
    "\r\n",
    "\r",
    "\n",
    "*",
    "$",
    "+",
    "-",
    ":",
    "0",
    "1",
    "9",
    " ",
    "-1",
    "*-1\r\n",
    "$-1\r\n",
    "*0\r\n",
    "$0\r\n\r\n",
    "*1\r\n",
    "*3\r\n",
    "18446744073709551615",
    "9223372036854775808",
    "4294967296",
    "v1 - 0",
    "é",
];

/// A change of some bytes.
#[derive(Clone, Debug)]
enum Edit {
    Put(&'static str),
    Replace(&'static str),
    Flip(u8),
    Remove(usize),
    Repeat(usize),
    Cut,
}

/// One of the replies, changed in up to eight places.
pub(crate) fn almost_a_reply() -> impl Strategy<Value = Vec<u8>> {
    let edit = prop_oneof![
        4 => select(&PIECES[..]).prop_map(Edit::Put),
        4 => select(&PIECES[..]).prop_map(Edit::Replace),
        2 => any::<u8>().prop_map(Edit::Flip),
        2 => (1_usize..40).prop_map(Edit::Remove),
        2 => (1_usize..200).prop_map(Edit::Repeat),
        1 => Just(Edit::Cut),
    ];
    (select(&REPLIES[..]), vec((any::<prop::sample::Index>(), edit), 0..8)).prop_map(|(reply, edits)| {
        edits.into_iter().fold(reply.to_vec(), |mut bytes, (place, edit)| {
            if bytes.is_empty() {
                return bytes;
            }
            let at = place.index(bytes.len());
            let until = |length: usize| (at + length).min(bytes.len());
            match edit {
                Edit::Put(piece) => drop(bytes.splice(at..at, piece.bytes())),
                Edit::Replace(piece) => drop(bytes.splice(at..=at, piece.bytes())),
                Edit::Flip(bits) => bytes[at] ^= bits,
                Edit::Remove(length) => drop(bytes.drain(at..until(length))),
                Edit::Repeat(length) => {
                    let again = bytes[at..until(length)].to_vec();
                    drop(bytes.splice(at..at, again));
                }
                Edit::Cut => bytes.truncate(at),
            }
            bytes
        })
    })
}
