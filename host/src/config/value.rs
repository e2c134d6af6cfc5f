//! The text form of values: the same for flags, variables, files, defaults and bounds.
//! This file knows types and units, and no setting.

use std::path::PathBuf;
use std::time::Duration;

use super::{LogFormat, OnOff, OutputFormat, Watch};

/// Form of a value, as a user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A whole number without a unit.
    Number,
    /// A number with a unit of time: `250ms`, `3s`, `5m`.
    Duration,
    /// A number of bytes, with or without a unit: `1048576`, `64KiB`, `1MiB`.
    Size,
    /// An IP address with a port. The setting may be absent.
    Address,
    /// A number that need not be whole.
    Ratio,
    /// An address that begins with `http://`. The setting may be absent.
    Endpoint,
    /// A secret, which no output shows. The setting may be absent.
    Token,
    /// A property of a message: names with dots between them, or a JSON pointer. The setting may be absent.
    Property,
    /// A secret of another program, which no output shows. The setting may be absent.
    Password,
    /// A path to a file. The setting may be absent.
    File,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Texts: in the file a list in square brackets, elsewhere with commas between them. The setting may be absent.
    List,
    /// `true` or `false`. The flag without a value means `true`.
    Switch,
}

/// A type that a setting can have.
pub(super) trait Value: Sized + PartialOrd {
    /// Form of the values of this type.
    const KIND: Kind;

    /// Parses a value. The error completes the sentence "`…` is not valid: …".
    fn parse(text: &str) -> Result<Self, String>;

    /// Formats the value so that `parse` gives the same value again. `None` if the setting is absent.
    fn text(&self) -> Option<String>;
}

impl Value for String {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn text(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for Option<PathBuf> {
    const KIND: Kind = Kind::File;

    fn parse(text: &str) -> Result<Self, String> {
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn text(&self) -> Option<String> {
        self.as_ref().map(|path| path.to_string_lossy().into_owned())
    }
}

macro_rules! number {
    ($($type:ty),+) => {$(
        impl Value for $type {
            const KIND: Kind = Kind::Number;

            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| "it must be a whole number such as 10".to_owned())
            }

            fn text(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}
number!(u32, u64);

impl Value for f64 {
    const KIND: Kind = Kind::Ratio;

    fn parse(text: &str) -> Result<Self, String> {
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.ok_or_else(|| "it must be a number such as 0.01".to_owned())
    }

    fn text(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for Duration {
    const KIND: Kind = Kind::Duration;

    fn parse(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text)
            .map_err(|_| "it must be a number with a unit of time such as 250ms, 3s or 5m".to_owned())
    }

    fn text(&self) -> Option<String> {
        Some(humantime::format_duration(*self).to_string())
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Switch;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| "it must be true or false".to_owned())
    }

    fn text(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// Settings of type `usize` are numbers of bytes.
impl Value for usize {
    const KIND: Kind = Kind::Size;

    fn parse(text: &str) -> Result<Self, String> {
        parse_size(text).ok_or_else(|| "it must be a number of bytes such as 1048576, 64KiB, 1MiB or 2GiB".to_owned())
    }

    fn text(&self) -> Option<String> {
        Some(format_size(*self))
    }
}

/// Units of size, largest first.
const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

fn parse_size(text: &str) -> Option<usize> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(end) => (&text[..end], text[end..].trim_start()),
        None => (text, "B"),
    };
    let factor = match unit {
        "B" => 1,
        _ => UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// The shortest exact form: `1048577` stays as it is, `1048576` becomes `1MiB`.
fn format_size(bytes: usize) -> String {
    match UNITS.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

macro_rules! choice {
    ($type:ident { $($variant:ident = $word:literal),+ }) => {
        impl Value for $type {
            const KIND: Kind = Kind::Choice(&[$($word),+]);

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($type::$variant),)+
                    _ => Err(format!("it must be one of {}", [$($word),+].join(", "))),
                }
            }

            fn text(&self) -> Option<String> {
                Some(match self { $($type::$variant => $word),+ }.to_owned())
            }
        }
    };
}
choice!(LogFormat { Text = "text", Json = "json" });
choice!(OutputFormat { Fields = "fields", Json = "json" });
choice!(OnOff { On = "on", Off = "off" });
choice!(Watch { Events = "events", Poll = "poll", Off = "off" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_or_without_a_binary_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("17B", 17),
            ("64KiB", 64 << 10),
            ("64 KiB", 64 << 10),
            ("1mib", 1 << 20),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn a_size_in_another_form_is_refused() {
        for text in ["", "KiB", "-1", "1.5MiB", "1MB", "1M", "1 MiB x", "99999999999GiB", "0x10"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn a_size_is_written_in_the_largest_exact_unit() {
        for (bytes, text) in [(0, "0"), (1023, "1023"), (1024, "1KiB"), (1 << 20, "1MiB"), ((1 << 20) + 1, "1048577")] {
            assert_eq!(format_size(bytes), text);
            assert_eq!(parse_size(text), Some(bytes));
        }
    }

    #[test]
    fn a_duration_needs_a_unit() {
        assert_eq!(Duration::parse("250ms"), Ok(Duration::from_millis(250)));
        assert!(Duration::parse("3").is_err());
        assert!(Duration::parse("-3s").is_err());
        assert_eq!(Duration::from_millis(1500).text().as_deref(), Some("1s 500ms"));
    }
}
