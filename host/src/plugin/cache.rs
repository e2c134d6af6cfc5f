//! Wasmtime's cache of compiled plugins, in a folder that belongs to the user alone: the way by which the code comes back from
//! the process that compiles. A cache that cannot be used leads to a warning, never to a failure: then the code comes back
//! through a private folder that is gone once the code is loaded.
//!
//! The contents of the cache run as machine code, unchecked. So only users who could also change the host itself may
//! write to the folder, or put another one in its place. The folder is created for the owner only, and it is used only if
//! it and every folder above it pass the rule that sshd has for authorized_keys.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs::{self, DirBuilder, Metadata};
use std::hash::{Hash, Hasher};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::sync::{Mutex, OwnedMutexGuard};
use wasmtime::{Cache, CacheConfig, Engine};

/// Size of the folder above which the least recently used files are removed.
const FOLDER_BYTES_MAX: u64 = 512 << 20;
/// Number of compiled plugins above which the same is done.
const FOLDER_FILES_MAX: usize = 1_000;
/// What is left of a folder that was too large, in percent.
const LEFT_PERCENT: u64 = 70;
/// Permission bits that allow others to write.
const OTHERS_WRITE: u32 = 0o022;
/// Permission bit of a folder in which everybody may change only what belongs to them.
const STICKY: u32 = 0o1000;
const ROOT: u32 = 0;

/// Whether the folders above the cache are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parents {
    /// They are.
    Checked,
    /// They are not: nobody else can reach them.
    Trusted,
}
/// How often the removal of a folder is tried.
const REMOVALS_MAX: u32 = 100;
/// The folder for compiled code in a cache folder, as wasmtime names it. A folder for each release lies in it.
const CODE: &str = "modules";
/// Extension of wasmtime's notes about a file, written anew whenever the file is used.
const NOTES: &str = "stats";
/// Beginning of the names of folders in which a process leaves what it compiles.
const ORDER: &str = "compiling-";
/// Age at which such a folder belongs to a host that was killed: no order lasts that long.
const ORDER_AGE_MAX: Duration = Duration::from_secs(2 * 3_600);

/// Where engines find compiled code.
pub(super) struct Store {
    pub(super) cache: Cache,
    /// If the user has no cache, the folder exists only while a plugin is loaded, one at a time.
    passing: Option<Arc<Mutex<()>>>,
}

impl Store {
    /// The user's cache, or else a private folder.
    ///
    /// # Errors
    /// When there is no place for a private folder either.
    pub(super) fn open(no_cache: bool, parents: Parents) -> Result<Store, String> {
        if let Some(cache) = Some(()).filter(|()| !no_cache).and_then(|()| open(parents)) {
            return Ok(Store { cache, passing: None });
        }
        let temporary = std::env::temp_dir();
        let cannot = |error: &dyn Display| {
            format!(
                "cannot make a folder for compiled code in {}: {error}; name another one with TMPDIR",
                temporary.display()
            )
        };
        // Wasmtime wants to see the folder.
        let folder = tempfile::Builder::new().prefix("host-").tempdir_in(&temporary).map_err(|error| cannot(&error))?;
        let cache = in_folder(folder.path()).map_err(|error| cannot(&error))?;
        Ok(Store { cache, passing: Some(Arc::default()) })
    }

    /// Makes sure that the folder exists for as long as the value.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(super) async fn in_use(&self) -> io::Result<InUse> {
        let Some(passing) = &self.passing else { return Ok(InUse { passing: None }) };
        let alone = passing.clone().lock_owned().await;
        let folder = self.cache.directory().clone();
        // Fails if it exists: then somebody else has made it.
        DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(InUse { passing: Some((folder, alone)) })
    }

    /// A folder in which a process leaves what it compiles.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(super) fn order(&self) -> io::Result<TempDir> {
        tempfile::Builder::new().prefix(ORDER).tempdir_in(self.cache.directory())
    }

    /// Takes what a process has left in its folder, as the code of this component for these engines.
    ///
    /// # Errors
    /// When a file cannot be moved.
    pub(super) fn take<'a>(
        &self,
        order: &Path,
        engines: impl Iterator<Item = &'a Engine>,
        bytes: &[u8],
    ) -> io::Result<()> {
        let Some(code) = code(order).into_iter().next() else { return Ok(()) };
        let release = code.parent().and_then(Path::file_name).unwrap_or_default();
        let folder = self.cache.directory().join(CODE).join(release);
        fs::create_dir_all(&folder)?;
        for engine in engines {
            let (file, new) = (folder.join(name(engine, bytes)), order.join("new"));
            // A name of its own for each engine; usually the names are the same.
            fs::hard_link(&code, &new).or_else(|_| fs::copy(&code, &new).map(drop))?;
            fs::rename(&new, file)?;
        }
        clean(self.cache.directory(), FOLDER_BYTES_MAX, FOLDER_FILES_MAX);
        Ok(())
    }
}

/// A folder of compiled code that exists.
pub(super) struct InUse {
    passing: Option<(PathBuf, OwnedMutexGuard<()>)>,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let Some((folder, _)) = &self.passing else { return };
        // Wasmtime's own thread may add its notes meanwhile.
        let removed = (0..REMOVALS_MAX).any(|_| fs::remove_dir_all(folder).is_ok());
        if !removed {
            tracing::debug!(folder = %folder.display(), "cannot remove a folder of compiled code");
        }
    }
}

/// The cache in the user's cache folder, if it can be used.
fn open(parents: Parents) -> Option<Cache> {
    let Some(folder) = folder(|name| std::env::var_os(name)) else {
        tracing::warn!(
            "compiled plugins are not cached, because the user has no cache folder; set XDG_CACHE_HOME, or use --no-cache"
        );
        return None;
    };
    open_in(&folder, parents)
        .inspect_err(|reason| {
            tracing::warn!(
                "compiled plugins are not cached in {}: {reason}; let only this user write there, set XDG_CACHE_HOME to another \
                 folder, or use --no-cache",
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
fn open_in(folder: &Path, parents: Parents) -> Result<Cache, String> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| format!("cannot create the folder: {error}"))?;
    // From here on under the name without symbolic links: others may change a link, but not what was checked.
    let folder = &folder.canonicalize().map_err(|error| format!("cannot inspect the folder: {error}"))?;
    // A new file shows whether this process may write, and as which user.
    let own = tempfile::tempfile_in(folder).and_then(|file| file.metadata());
    let user = own.map_err(|error| format!("cannot write to the folder: {error}"))?.uid();
    private(&inspect(folder)?, user)?;
    if parents == Parents::Checked {
        for parent in folder.ancestors().skip(1) {
            guarded(&inspect(parent)?, user).map_err(|reason| format!("{reason} {}", parent.display()))?;
        }
    }

    forget_orders(folder);
    in_folder(folder)
}

/// The cache in a folder that is there.
pub(super) fn in_folder(folder: &Path) -> Result<Cache, String> {
    let mut config = CacheConfig::new();
    config.with_directory(folder);
    Cache::new(config).map_err(|error| format!("{error:#}"))
}

/// Whether compiled code lies in this cache folder.
pub(super) fn holds_code(folder: &Path) -> bool {
    !code(folder).is_empty()
}

/// The files of compiled code in a cache folder. Wasmtime's notes about a file have an extension.
fn code(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = entries(&folder.join(CODE)).flat_map(|release| entries(&release).collect::<Vec<_>>());
    files.filter(|file| file.extension().is_none() && file.is_file()).collect()
}

/// Removes the folders of orders that hosts did not live to remove.
fn forget_orders(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ORDER_AGE_MAX));
        if is_old && entry.file_name().to_string_lossy().starts_with(ORDER) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes the least recently used code from a cache folder that has become too large.
fn clean(folder: &Path, bytes_max: u64, files_max: usize) {
    let used = |file: &Path| {
        let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
        modified(file).max(modified(&file.with_added_extension(NOTES))).unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let length = |file: &Path| file.metadata().map_or(0, |metadata| metadata.len());
    let mut files: Vec<_> = code(folder).into_iter().map(|file| (used(&file), length(&file), file)).collect();
    let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
    if bytes <= bytes_max && files.len() <= files_max {
        return;
    }
    files.sort();
    let (bytes_left, files_left) = (bytes_max / 100 * LEFT_PERCENT, files_max as u64 * LEFT_PERCENT / 100);
    let mut count = files.len() as u64;
    for (_, length, file) in files {
        if bytes <= bytes_left && count <= files_left {
            return;
        }
        let _ = fs::remove_file(&file);
        let _ = fs::remove_file(file.with_added_extension(NOTES));
        (bytes, count) = (bytes - length, count - 1);
    }
}

/// The name of the file in which wasmtime looks for this component, compiled for this engine.
///
/// Wasmtime does not tell the name. If another release has other names, no plugin can be loaded, and every test fails.
fn name(engine: &Engine, bytes: &[u8]) -> String {
    let mut hash = Name(Sha256::new());
    let debug_information: Option<&[u8]> = None;
    let intrinsics: Option<&str> = None;
    (engine.precompile_compatibility_hash(), bytes, debug_information, intrinsics).hash(&mut hash);
    base64url(&hash.0.finalize())
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

fn inspect(folder: &Path) -> Result<Metadata, String> {
    folder.metadata().map_err(|error| format!("cannot inspect {}: {error}", folder.display()))
}

/// Whether the folder is this user's alone.
fn private(folder: &Metadata, user: u32) -> Result<(), String> {
    if folder.uid() != user {
        return Err("the folder belongs to another user".into());
    }
    if folder.mode() & OTHERS_WRITE != 0 {
        return Err("other users may write to the folder".into());
    }
    Ok(())
}

/// Whether only this user and root can exchange what lies in a folder above. In a sticky folder others cannot exchange what
/// belongs to this user or to root, and what lies below has been found to belong to one of them.
fn guarded(folder: &Metadata, user: u32) -> Result<(), &'static str> {
    if ![user, ROOT].contains(&folder.uid()) {
        return Err("another user owns the folder above,");
    }
    if folder.mode() & OTHERS_WRITE != 0 && folder.mode() & STICKY == 0 {
        return Err("other users may write to the folder above,");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

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
        assert!(open_in(folder.path(), Parents::Checked).is_ok());
        set_permissions(folder.path(), Permissions::from_mode(0o770)).unwrap();
        for parents in [Parents::Checked, Parents::Trusted] {
            assert_eq!(open_in(folder.path(), parents).unwrap_err(), "other users may write to the folder");
        }
    }

    #[test]
    fn a_folder_that_others_may_exchange_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        let (open, link) = (base.path().join("open"), base.path().join("link"));
        create_dir(&open).unwrap();
        symlink(open.join("to"), &link).unwrap();
        let given = |mode| set_permissions(&open, Permissions::from_mode(mode)).unwrap();
        let error = format!("other users may write to the folder above, {}", open.canonicalize().unwrap().display());
        create_dir(open.join("to")).unwrap();
        for folder in [open.join("to/compiled"), link.join("compiled")] {
            given(0o700);
            let cache = open_in(&folder, Parents::Checked).unwrap();
            assert_eq!(cache.directory(), &folder.canonicalize().unwrap());
            for mode in [0o702, 0o720] {
                given(mode);
                assert_eq!(open_in(&folder, Parents::Checked).unwrap_err(), error);
                assert!(open_in(&folder, Parents::Trusted).is_ok());
            }
            given(0o1777);
            assert!(open_in(&folder, Parents::Checked).is_ok(), "others can remove only what is theirs");
        }
    }

    #[test]
    fn a_folder_in_that_of_another_user_is_not_used() {
        let base = tempfile::tempdir().unwrap();
        let owner = base.path().metadata().unwrap().uid();
        // What root owns is everybody's to trust, so the tests of root give the folder away.
        let owner = if owner == ROOT { 4_711 } else { owner };
        std::os::unix::fs::chown(base.path(), Some(owner), None).unwrap();
        let folder = base.path().metadata().unwrap();
        assert_eq!(guarded(&folder, owner), Ok(()));
        assert_eq!(guarded(&folder, owner + 1), Err("another user owns the folder above,"));
        assert_eq!(guarded(&Path::new("/").metadata().unwrap(), owner), Ok(()));
    }

    #[test]
    fn the_least_recently_used_code_is_removed_from_a_folder_that_is_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join(CODE).join("wasmtime-1");
        fs::create_dir_all(&release).unwrap();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let write = |name: &str, seconds| {
            let path = release.join(name);
            fs::write(&path, [0; 100]).unwrap();
            fs::File::options().append(true).open(path).unwrap().set_modified(at(seconds)).unwrap();
        };
        for (name, seconds) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
            write(name, seconds);
        }
        let left = || -> Vec<String> {
            let mut names: Vec<_> =
                code(folder.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
            names.sort();
            names.into_iter().map(|name| name.into_string().unwrap()).collect()
        };
        clean(folder.path(), 400, 4);
        assert_eq!(left(), ["a", "b", "c", "d"]);
        // Used after all others.
        write("a.stats", 5);
        clean(folder.path(), 300, 4);
        assert_eq!(left(), ["a", "d"]);
        assert!(release.join("a.stats").exists());
        clean(folder.path(), 400, 1);
        assert!(left().is_empty() && !release.join("a.stats").exists());
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = open_in(&file.path().join("compiled"), Parents::Checked).unwrap_err();
        assert!(error.starts_with("cannot create the folder:"), "{error}");
    }
}
