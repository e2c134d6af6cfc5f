//! Versions of a plugin as bytes: as many as a test wants, each with a digest of its own.

use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::guests;

/// The slot of the guest `release` in its bytes, and the width of the words in the slot.
const MARKER: &[u8] = b"@@release:";
const WORD_BYTES: usize = 20;

/// A component that a test puts in the place of another one.
#[derive(Clone, Debug)]
pub struct Release {
    /// What the test calls it.
    pub name: String,
    pub bytes: Vec<u8>,
    /// SHA-256 of the bytes, 64 hexadecimal digits.
    pub digest: String,
}

impl Release {
    /// A version that does well. Its results have its name in `version`.
    pub fn new(name: &str) -> Release {
        Release::failing(name, "ok", 1)
    }

    /// A version that does this with about one message in so many, with 0 only when the message provokes it: see
    /// `tests/plugins/release` for what there is.
    pub fn failing(name: &str, mode: &str, every: u32) -> Release {
        assert!(name.len() <= WORD_BYTES && mode.len() <= WORD_BYTES, "{name:?} and {mode:?} fit the slot");
        let slot = format!(":{name:WORD_BYTES$}:{mode:WORD_BYTES$}:{every:010}:");
        let mut bytes = fs::read(guests::release()).expect("read the guest");
        let starts: Vec<usize> =
            (0..bytes.len() - MARKER.len()).filter(|start| bytes[*start..].starts_with(MARKER)).collect();
        let [start] = starts[..] else { panic!("one slot, not {}", starts.len()) };
        let start = start + MARKER.len() - 1;
        bytes[start..start + slot.len()].copy_from_slice(slot.as_bytes());
        Release::of(name, bytes)
    }

    /// Any bytes.
    pub fn of(name: &str, bytes: impl Into<Vec<u8>>) -> Release {
        let bytes = bytes.into();
        let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Release { name: name.to_owned(), bytes, digest }
    }

    /// The same component under another name and with another digest, because of bytes in a custom section, which nobody
    /// reads.
    pub fn with_section(&self, name: &str, content: &[u8]) -> Release {
        let section = [&[4], "note".as_bytes(), content].concat();
        // The section's length in LEB128, in five bytes whatever it is.
        let group = |shift: u32| u8::try_from(section.len() >> shift & 0x7f).expect("seven bits");
        let [a, b, c, d] = [0, 7, 14, 21].map(|shift| group(shift) | 0x80);
        let bytes = [self.bytes.as_slice(), &[0, a, b, c, d, group(28)], &section].concat();
        Release::of(name, bytes)
    }

    /// A component that no cache has seen.
    pub fn fresh(&self) -> Release {
        self.with_section(&self.name, &rand::random::<[u8; 16]>())
    }

    /// Writes it into a file, in place if there is one.
    pub fn write_to(&self, path: &Path) {
        fs::write(path, &self.bytes).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }
}
