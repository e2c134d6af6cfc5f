//! Values of the settings that name a property of a message. This file reads no message.

use super::value::{Kind, Value};

/// Maximum length of the text, in bytes.
const BYTES_MAX: usize = 512;

/// Maximum number of names in a path.
const NAMES_MAX: usize = 16;

/// Where a value stands in a message: names with dots between them, or a JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd)]
pub struct PropertyPath {
    /// As it was written.
    text: String,
    /// From the outermost object inwards; at least one.
    names: Vec<String>,
}

impl PropertyPath {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn read(text: &str) -> Result<PropertyPath, String> {
        let names: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescaped).collect::<Result<_, _>>()?,
            None => text.split('.').map(str::to_owned).collect(),
        };
        let problem = if text.len() > BYTES_MAX {
            format!("it has more than {BYTES_MAX} bytes")
        } else if names.len() > NAMES_MAX {
            format!("it has more than {NAMES_MAX} names")
        } else if names.iter().any(String::is_empty) {
            "a name in it is empty; write names with dots between them, such as event.id, or a JSON pointer such as /event/id"
                .to_owned()
        } else if text.chars().any(char::is_control) {
            "it has a control character".to_owned()
        } else {
            return Ok(PropertyPath { text: text.to_owned(), names });
        };
        Err(problem)
    }

    /// The path as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names, from the outermost object inwards. There is at least one.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The path as a JSON pointer: the same text for both ways to write a path.
    #[must_use]
    pub fn pointer(&self) -> String {
        self.names.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect()
    }

    /// Whether this is the top-level property of this name.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        matches!(&self.names[..], [only] if only == name)
    }
}

/// A name of a JSON pointer without its escapes.
fn unescaped(name: &str) -> Result<String, String> {
    let mut text = String::new();
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        let escaped = if character == '~' { characters.next() } else { None };
        text.push(match (character, escaped) {
            ('~', Some('0')) => '~',
            ('~', Some('1')) => '/',
            ('~', _) => return Err("a ~ in a JSON pointer is written ~0, and a / in a name ~1".to_owned()),
            (character, _) => character,
        });
    }
    Ok(text)
}

impl Value for PropertyPath {
    const KIND: Kind = Kind::Property;

    fn parse(text: &str) -> Result<Self, String> {
        PropertyPath::read(text)
    }

    fn text(&self) -> Option<String> {
        Some(self.text.clone())
    }
}

impl Value for Option<PropertyPath> {
    const KIND: Kind = Kind::Property;

    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { PropertyPath::read(text).map(Some) }
    }

    fn text(&self) -> Option<String> {
        self.as_ref().map(|path| path.text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_pointer_or_names_with_dots() {
        for (text, names, pointer) in [
            ("message_id", &["message_id"][..], "/message_id"),
            ("/message_id", &["message_id"], "/message_id"),
            ("event.id", &["event", "id"], "/event/id"),
            ("/event/id", &["event", "id"], "/event/id"),
            ("/event.id", &["event.id"], "/event.id"),
            ("/a~1b/~0/~01", &["a/b", "~", "~1"], "/a~1b/~0/~01"),
            ("items.0.id", &["items", "0", "id"], "/items/0/id"),
            ("a/b", &["a/b"], "/a~1b"),
            ("Füße", &["Füße"], "/Füße"),
        ] {
            let path = PropertyPath::read(text).expect(text);
            assert_eq!(
                (path.names(), path.as_str()),
                (&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()[..], text)
            );
            assert_eq!(path.pointer(), pointer);
            assert_eq!(PropertyPath::read(pointer).expect(pointer).names(), path.names());
        }
        assert!(PropertyPath::read("/id").expect("valid").is("id"));
        assert!(!PropertyPath::read("event.id").expect("valid").is("id"));
    }

    #[test]
    fn what_names_no_property_is_refused() {
        for (text, words) in [
            ("", "is empty"),
            ("/", "is empty"),
            (".id", "is empty"),
            ("event..id", "is empty"),
            ("/event/", "is empty"),
            ("/a~2", "written ~0"),
            ("/a~", "written ~0"),
            ("a\nb", "control character"),
            ("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q", "more than 16 names"),
        ] {
            let problem = PropertyPath::read(text).expect_err(text);
            assert!(problem.contains(words), "{text:?}: {problem}");
        }
        assert!(PropertyPath::read(&"x".repeat(513)).expect_err("too long").contains("512 bytes"));
    }
}
