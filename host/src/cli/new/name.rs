//! The name of a new plugin: what a name may be, and the places in an example that name the project.

/// Maximum length of a name, so that every file system and every package format takes the name.
const NAME_LENGTH_MAX: usize = 64;

/// Files that name their project, and the text around the name, which is `{}`. Code is never changed.
const PLACES: [(&str, &str); 8] = [
    ("Cargo.toml", "\nname = \"{}\"\n"),
    ("Cargo.lock", "\nname = \"{}\"\n"),
    ("package.json", "\n  \"name\": \"{}\","),
    ("package-lock.json", "\n  \"name\": \"{}\","),
    ("package-lock.json", "\n      \"name\": \"{}\","),
    ("pyproject.toml", "\nname = \"{}\"\n"),
    ("README.md", "# {}\n"),
    ("README.md", " {}.wasm"),
];

/// A file whose comments stand in one column.
const COMMENTED: &str = "README.md";

/// Beginning of a comment behind a command.
const COMMENT: &str = "  # ";

/// A checked name of a plugin.
#[derive(Debug)]
pub(super) struct Name(String);

impl Name {
    /// Checks a name. A name is also the name of a package in Rust, npm and Python, which differ in what they accept.
    pub(super) fn read(name: &str) -> Result<Name, String> {
        let rule = "a name has lower-case letters, digits and hyphens, begins with a letter, does not end with a hyphen, \
                    and has at most 64 characters, such as order-filter";
        let fits = name.len() <= NAME_LENGTH_MAX
            && name.starts_with(|char: char| char.is_ascii_lowercase())
            && !name.ends_with('-')
            && name.chars().all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-');
        if fits { Ok(Name(name.to_owned())) } else { Err(format!("{name:?} cannot be the name of a plugin: {rule}")) }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The content of an example's file with this name in place of the example's name.
    pub(super) fn put_into(&self, before: &str, path: &str, content: &[u8]) -> Vec<u8> {
        let places = PLACES.iter().filter(|(file, _)| *file == path).map(|(_, place)| place);
        let Ok(mut text) = str::from_utf8(content).map(str::to_owned) else { return content.to_owned() };
        for place in places {
            text = text.replace(&place.replace("{}", before), &place.replace("{}", &self.0));
        }
        if path == COMMENTED { aligned(&text).into_bytes() } else { text.into_bytes() }
    }
}

/// Puts the comments behind commands into one column.
fn aligned(text: &str) -> String {
    let split = |line: &'_ str| {
        let command = line.starts_with("    ").then_some(line)?;
        let (before, after) = command.split_once(COMMENT)?;
        Some((before.trim_end().to_owned(), after.to_owned()))
    };
    let column = text.lines().filter_map(split).map(|(before, _)| before.chars().count()).max().unwrap_or(0);
    let align = |line: &str| match split(line) {
        Some((before, after)) => format!("{before:<column$}{COMMENT}{after}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(align).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_every_package_format() {
        for name in ["a", "hello", "order-2-filter", &"a".repeat(64)] {
            assert!(Name::read(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "2a", "A", "a_b", "a.b", "a/b", "..", "ä", "a b", &"a".repeat(65)] {
            let problem = Name::read(name).unwrap_err();
            assert!(problem.contains("lower-case letters"), "{problem}");
        }
    }

    #[test]
    fn only_the_name_of_the_project_is_replaced() {
        let name = Name::read("hello").unwrap();
        let put = |path, text: &str| String::from_utf8(name.put_into("route", path, text.as_bytes())).unwrap();
        assert_eq!(put("package.json", "{\n  \"name\": \"route\",\n"), "{\n  \"name\": \"hello\",\n");
        let code = "route(\"route\"); // \"name\": \"route\", route.wasm\n";
        assert_eq!(put("src/plugin.ts", code), code);
        let readme = "# route\n\nA route.\n\n    ./build          # makes route.wasm\n    host x route.wasm  # tests\n";
        let renamed =
            "# hello\n\nA route.\n\n    ./build            # makes hello.wasm\n    host x hello.wasm  # tests\n";
        assert_eq!(put("README.md", readme), renamed);
    }
}
