//! Wasmtime's cache of compiled plugins, in a folder that belongs to the user alone. A cache that cannot be used leads
//! to a warning, never to a failure.
//!
//! The contents of the cache run as machine code, unchecked. So only users who could also change the host itself may
//! write to the folder. The folder is created for the owner only, and a folder that others may write to is not used.

use std::ffi::OsString;
use std::fs::{DirBuilder, Metadata};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use wasmtime::{Cache, CacheConfig, Engine};

/// Size of the folder above which wasmtime removes the least recently used files.
const FOLDER_BYTES_MAX: u64 = 512 << 20;
/// Number of files above which wasmtime does the same.
const FOLDER_FILES_MAX: u64 = 1_000;
/// Permission bits that allow others to write.
const OTHERS_WRITE: u32 = 0o022;

/// The cache in the user's cache folder, if it can be used.
pub(super) fn open() -> Option<Cache> {
    let Some(folder) = folder(|name| std::env::var_os(name)) else {
        tracing::warn!(
            "compiled plugins are not cached, because the user has no cache folder; set XDG_CACHE_HOME, or use --no-cache"
        );
        return None;
    };
    open_in(&folder)
        .inspect_err(|reason| {
            tracing::warn!(
                "compiled plugins are not cached in {}: {reason}; make this folder accessible to this user only, or use \
                 --no-cache",
                folder.display()
            );
        })
        .ok()
}

/// The folder of compiled plugins: `host/compiled` in the user's cache folder.
fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // The XDG specification says that relative paths are ignored.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let in_home = if cfg!(target_os = "macos") { "Library/Caches" } else { ".cache" };
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(in_home)))?;
    Some(base.join("host/compiled"))
}

/// The cache in this folder. A missing folder is created.
fn open_in(folder: &Path) -> Result<Cache, String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| format!("cannot create the folder: {error}"))?;
    let metadata = std::fs::metadata(folder).map_err(|error| format!("cannot inspect the folder: {error}"))?;
    // A new file shows whether this process may write, and as which user.
    let own = tempfile::tempfile_in(folder).and_then(|file| file.metadata());
    let own = own.map_err(|error| format!("cannot write to the folder: {error}"))?;
    private(&metadata, &own)?;

    let mut config = CacheConfig::new();
    config
        .with_directory(folder)
        .with_files_total_size_soft_limit(FOLDER_BYTES_MAX)
        .with_file_count_soft_limit(FOLDER_FILES_MAX);
    Cache::new(config).map_err(|error| format!("{error:#}"))
}

/// Whether the cache has this component, compiled for this engine.
///
/// Wasmtime does not tell, so its name for the file is made here once more. If another release of wasmtime has other
/// names, nothing is found, and a test fails.
pub(super) fn has(cache: &Cache, engine: &Engine, bytes: &[u8]) -> bool {
    let mut hash = Name(Sha256::new());
    let debug_information: Option<&[u8]> = None;
    let intrinsics: Option<&str> = None;
    (engine.precompile_compatibility_hash(), bytes, debug_information, intrinsics).hash(&mut hash);
    let name = base64url(&hash.0.finalize());
    let Ok(folders) = std::fs::read_dir(cache.directory().join("modules")) else { return false };
    folders.flatten().any(|folder| folder.path().join(&name).is_file())
}

/// Wasmtime hashes all values into one digest.
struct Name(Sha256);

impl Hasher for Name {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not asked for: the digest has 256 bits.
    fn finish(&self) -> u64 {
        0
    }
}

/// Base64 with the alphabet for file names, without padding.
fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = |group: &[u8]| {
        let bits = group.iter().chain([0, 0].iter()).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        let digits = [18, 12, 6, 0].map(|shift| char::from(DIGITS[bits >> shift & 63]));
        digits.into_iter().take(group.len() + 1)
    };
    bytes.chunks(3).flat_map(digits).collect()
}

fn private(folder: &Metadata, own: &Metadata) -> Result<(), String> {
    if folder.uid() != own.uid() {
        return Err("the folder belongs to another user".into());
    }
    if folder.mode() & OTHERS_WRITE != 0 {
        return Err("other users may write to the folder".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_cache_lies_in_the_users_cache_folder() {
        let folder_for = |xdg: Option<&str>, home: Option<&str>| {
            folder(|name| if name == "HOME" { home } else { xdg }.map(OsString::from))
        };
        assert_eq!(folder_for(Some("/x"), Some("/h")), Some("/x/host/compiled".into()));
        assert_eq!(folder_for(Some("relative"), None), None);
        assert_eq!(folder_for(None, None), None);
        assert!(folder_for(None, Some("/h")).is_some_and(|folder| folder.starts_with("/h")));
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open_in(folder.path()).is_ok());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(open_in(folder.path()).unwrap_err(), "other users may write to the folder");
    }

    #[test]
    fn the_cache_is_asked_for_a_component_by_the_name_that_wasmtime_gives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let cache = open_in(folder.path()).unwrap();
        let mut config = wasmtime::Config::new();
        let engine = Engine::new(config.cache(Some(cache.clone()))).unwrap();
        let [known, unknown] = ["(component)", "(component (core module))"].map(|text| wat::parse_str(text).unwrap());
        assert!(!has(&cache, &engine, &known));
        wasmtime::component::Component::from_binary(&engine, &known).unwrap();
        assert!(has(&cache, &engine, &known));
        assert!(!has(&cache, &engine, &unknown));
        // Compiled with other settings.
        let other = Engine::new(config.epoch_interruption(true)).unwrap();
        assert!(!has(&cache, &other, &known));
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = open_in(&file.path().join("compiled")).unwrap_err();
        assert!(error.starts_with("cannot create the folder:"), "{error}");
    }
}
