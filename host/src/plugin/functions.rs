//! Compiled functions of the versions before. An edit of a plugin in TypeScript or Python changes data, and not the megabytes
//! of code of the interpreter, so that hardly anything is left to compile: QuickJS is loaded in 0.7 s instead of 3 s on a
//! busy machine with two processors. Only for development: to a host the functions would be useless.
//!
//! A file keeps them from one process that compiles to the next.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use wasmtime::CacheStore;

/// Maximum length of all keys and functions. Beyond it all of them are forgotten, and kept anew.
const BYTES_MAX: usize = 512 << 20;

/// Compiled functions by the digest of what they were compiled from.
#[derive(Default)]
pub(super) struct Functions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    functions: HashMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
    /// Whether there is something that the file does not have.
    is_new: bool,
}

impl Functions {
    /// Those of a file. A file that is not there, or damaged, has fewer.
    pub(super) fn read(path: &Path) -> Functions {
        let functions = Functions::default();
        let file = fs::read(path).unwrap_or_default();
        let mut rest = file.as_slice();
        while let (Some(key), Some(function)) = (part(&mut rest), part(&mut rest)) {
            functions.insert(key, function.to_vec());
        }
        functions.0.lock().unwrap_or_else(PoisonError::into_inner).is_new = false;
        functions
    }

    /// Replaces the file, if there is anything new.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !kept.is_new {
            return Ok(());
        }
        let new = path.with_extension("new");
        let mut file = io::BufWriter::new(fs::File::create(&new)?);
        for part in kept.functions.iter().flat_map(|(key, function)| [key, function]) {
            file.write_all(&(part.len() as u64).to_le_bytes())?;
            file.write_all(part)?;
        }
        file.into_inner()?;
        fs::rename(new, path)
    }
}

/// The next part of a file: its length, and its bytes.
fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let (part, after) = after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    *rest = after;
    Some(part)
}

impl CacheStore for Functions {
    fn get(&self, key: &[u8]) -> Option<Cow<'_, [u8]>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.functions.get(key).map(|function| Cow::Owned(function.clone()))
    }

    fn insert(&self, key: &[u8], function: Vec<u8>) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes > BYTES_MAX {
            *kept = Kept::default();
        }
        kept.bytes += key.len() + function.len();
        kept.functions.insert(key.to_owned(), function);
        kept.is_new = true;
        true
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "{} functions, {} bytes", kept.functions.len(), kept.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_come_back_from_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("functions");
        let functions = Functions::read(&path);
        functions.insert(b"one", vec![1; 10]);
        functions.insert(b"two", Vec::new());
        functions.write(&path).unwrap();
        let again = Functions::read(&path);
        assert_eq!(again.get(b"one").as_deref(), Some(&[1; 10][..]));
        assert_eq!(again.get(b"two").as_deref(), Some(&[][..]));
        assert!(again.get(b"three").is_none());
        // A damaged file.
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(format!("{:?}", Functions::read(&path)).starts_with("1 functions"));
    }
}
