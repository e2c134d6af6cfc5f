//! The named outputs: streams beside the main one, to which a plugin may send single results. An open section, with a
//! section of its own for each name.

use super::setting::{Spec, flag};

/// Maximum number of named outputs.
pub(super) const OUTPUTS_MAX: usize = 64;
/// Maximum length of a name.
pub(super) const NAME_BYTES_MAX: usize = 64;
/// The name that stands for the main output in files of cases.
pub(crate) const MAIN: &str = "main";

/// The stream's name.
pub(super) const KEY: &str = "key";
/// The bound of its length.
pub(super) const LENGTH_MAX: &str = "length_max";
/// Values of `key`: any text.
pub(super) const NAME: Spec = flag(KEY);
/// Values of `length_max`: those of `output.length_max`.
pub(super) const LENGTH: Spec = flag(LENGTH_MAX).default("0").between("0", "1000000000000");

/// A named output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedOutput {
    /// The name in the plugin's results.
    pub name: String,
    /// Stream to which the results are appended.
    pub key: String,
    /// Approximate number of results to keep; 0 keeps all.
    pub length_max: u64,
}

/// The named outputs in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs(Vec<NamedOutput>);

impl Outputs {
    /// Heading in the file and in the handbook.
    pub const HEADING: &str = "Named outputs";
    /// Section of the file; a dot and the output's name follow.
    pub const SECTION: &str = "outputs";

    /// The outputs.
    pub fn iter(&self) -> impl Iterator<Item = &NamedOutput> {
        self.0.iter()
    }

    /// Index of the output with this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.0.binary_search_by(|output| output.name.as_str().cmp(name)).ok()
    }

    /// The output with this index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&NamedOutput> {
        self.0.get(index)
    }

    pub(super) fn insert(&mut self, output: NamedOutput) {
        let place = self.0.partition_point(|other| other.name < output.name);
        self.0.insert(place, output);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<NamedOutput> for Outputs {
    fn from_iter<T: IntoIterator<Item = NamedOutput>>(all: T) -> Outputs {
        let mut outputs = Outputs::default();
        all.into_iter().for_each(|output| outputs.insert(output));
        outputs
    }
}

/// Why a name is none for an output.
pub(super) fn name_problem(name: &str) -> Option<String> {
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_valid) {
        return Some(format!("a name has 1 to {NAME_BYTES_MAX} lower-case letters, digits and hyphens"));
    }
    (name == MAIN).then(|| "this name stands for the main output, whose stream is keys.output".to_owned())
}

/// Path of a value in the file.
pub(super) fn path(name: &str, key: &str) -> String {
    format!("{}.{name}.{key}", Outputs::SECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_found_by_its_name() {
        let output = |name: &str| NamedOutput { name: name.to_owned(), key: format!("s:{name}"), length_max: 0 };
        let outputs: Outputs = ["fraud", "audit", "z-9"].map(output).into_iter().collect();
        for name in ["fraud", "audit", "z-9"] {
            let found = outputs.position(name).and_then(|index| outputs.get(index));
            assert_eq!(found, Some(&output(name)), "{name}");
        }
        assert_eq!((outputs.position("frau"), outputs.position("")), (None, None));
    }

    #[test]
    fn a_name_is_short_and_plain() {
        for name in ["a", "fraud", "z-9", &"x".repeat(64)] {
            assert_eq!(name_problem(name), None, "{name}");
        }
        for name in ["", "Fraud", "a_b", "a.b", "é", " a", &"x".repeat(65), "main"] {
            assert!(name_problem(name).is_some(), "{name}");
        }
    }
}
