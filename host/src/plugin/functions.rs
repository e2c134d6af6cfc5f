//! Compiled functions of the versions before, in memory. An edit of a plugin in TypeScript or Python changes data, and not
//! the megabytes of code of the interpreter, so that hardly anything is left to compile: QuickJS is loaded in 0.7 s instead
//! of 3 s on a busy machine with two processors. Only for development: to a host the memory would be useless.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use wasmtime::CacheStore;

/// Maximum length of all keys and functions. Beyond it all of them are forgotten, and kept anew.
const BYTES_MAX: usize = 512 << 20;

/// Compiled functions by the digest of what they were compiled from.
#[derive(Default)]
pub struct Functions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    functions: HashMap<Vec<u8>, Vec<u8>>,
    bytes: usize,
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
        true
    }
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "{} functions, {} bytes", kept.functions.len(), kept.bytes)
    }
}
