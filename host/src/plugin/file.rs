//! Reads the file of a plugin, which need not be one: nothing but a regular file of bounded length is read, and nothing
//! waits for a file system without an end. This file knows no engine.

use std::collections::BTreeSet;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid};
use tokio::time::timeout;

use super::error::LoadError;

/// A binary begins with these bytes.
pub(super) const MAGIC: &[u8] = b"\0asm";

/// Length up to which also a file without the magic bytes is read whole, so that its digest can be told.
const OTHER_BYTES_MAX: u64 = 1 << 20;

/// Time after which a read that still lasts is warned of, and time after which nobody waits for it any more.
const READ_TIMES: ReadTimes = ReadTimes { warn: Duration::from_secs(5), give_up: Duration::from_secs(120) };

/// Permission bits that allow the group, and everybody, to write.
const GROUP_WRITES: u32 = 0o020;
const ALL_WRITE: u32 = 0o002;
/// In a folder with this bit, only the owner of a file may replace it.
const STICKY: u32 = 0o1000;

#[derive(Clone, Copy)]
struct ReadTimes {
    warn: Duration,
    give_up: Duration,
}

/// The bytes of the file, read on a blocking thread.
pub(super) async fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>, LoadError> {
    let owned_path = path.to_owned();
    in_time(path, READ_TIMES, move || contents(&owned_path, bytes_max)).await
}

/// Waits for a read, for a bounded time. A thread that a file system blocks stays behind.
async fn in_time<T: Send + 'static>(
    path: &Path,
    times: ReadTimes,
    read: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, LoadError> {
    let mut reading = tokio::task::spawn_blocking(read);
    let read = match timeout(times.warn, &mut reading).await {
        Ok(read) => Ok(read),
        Err(_) => {
            tracing::warn!(
                plugin = %path.display(),
                "reading the plugin takes long; the file system does not answer, or is slow"
            );
            timeout(times.give_up.saturating_sub(times.warn), reading).await
        }
    };
    match read {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => Err(LoadError::Unreadable { path: path.to_owned(), source: io::Error::other(error) }),
        Err(_) => Err(LoadError::SlowFile { path: path.to_owned(), time: times.give_up }),
    }
}

/// Reads a regular file. The beginning decides whether the rest is read.
fn contents(path: &Path, bytes_max: usize) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    // Before the file is opened, because opening a device may have an effect.
    regular(path, &path.metadata().map_err(unreadable)?)?;
    // Without blocking: the path may lead to something else by now.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let mut file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path).map_err(unreadable)?;
    let before = file.metadata().map_err(unreadable)?;
    regular(path, &before)?;
    warn_of_others(path, &before);
    let too_long = |bytes| LoadError::TooLong { path: path.to_owned(), bytes, bytes_max };
    if before.len() > bytes_max as u64 {
        return Err(too_long(before.len()));
    }
    let mut bytes = Vec::new();
    take(&mut file, MAGIC.len() as u64, &mut bytes).map_err(unreadable)?;
    if bytes != MAGIC && before.len() > OTHER_BYTES_MAX {
        return Err(LoadError::NotWasm { path: path.to_owned() });
    }
    bytes.reserve_exact(usize::try_from(before.len()).unwrap_or_default().saturating_sub(bytes.len()));
    let rest = (bytes_max as u64).saturating_add(1).saturating_sub(bytes.len() as u64);
    take(&mut file, rest.min(before.len().saturating_add(1)), &mut bytes).map_err(unreadable)?;
    let after = file.metadata().map_err(unreadable)?;
    let stamp = |metadata: &Metadata| (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    if stamp(&before) != stamp(&after) || bytes.len() as u64 != after.len() {
        return Err(LoadError::Changing { path: path.to_owned() });
    }
    Ok(bytes)
}

fn take(file: &mut File, bytes_max: u64, bytes: &mut Vec<u8>) -> io::Result<usize> {
    file.take(bytes_max).read_to_end(bytes)
}

fn regular(path: &Path, metadata: &Metadata) -> Result<(), LoadError> {
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "something else",
    };
    Err(LoadError::NotAFile { path: path.to_owned(), what })
}

/// Paths that were warned of, with their permissions.
static WARNED_OF: Mutex<BTreeSet<(PathBuf, u32)>> = Mutex::new(BTreeSet::new());

/// Warns once of a file, or of a folder in which it can be replaced, that others may write to.
fn warn_of_others(path: &Path, metadata: &Metadata) {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folders = [path, target.as_path()].into_iter().filter_map(Path::parent).map(|folder| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
    });
    let folders = folders.filter_map(|folder| Some((folder.metadata().ok()?, folder)));
    for (metadata, path) in std::iter::once((metadata.clone(), target.clone())).chain(folders) {
        let Some(who) = others_who_write(&metadata) else { continue };
        let mode = metadata.mode() & 0o7777;
        if WARNED_OF.lock().unwrap_or_else(PoisonError::into_inner).insert((path.clone(), mode)) {
            tracing::warn!(
                path = %path.display(),
                mode = format!("{mode:04o}"),
                "{who} may change the plugin, and with it what becomes of messages; take that right away: chmod {} {}",
                if who == ALL { "o-w" } else { "g-w" },
                path.display()
            );
        }
    }
}

const ALL: &str = "every user of this machine";
const GROUP: &str = "another group";

/// Who else may write, judged by the permissions alone. The own group is often that of one user.
fn others_who_write(metadata: &Metadata) -> Option<&'static str> {
    let mode = metadata.mode();
    if metadata.is_dir() && mode & STICKY != 0 {
        return None;
    }
    let is_own_group = metadata.gid() == getegid().as_raw() || (metadata.gid() == 0 && geteuid().is_root());
    match () {
        () if mode & ALL_WRITE != 0 => Some(ALL),
        () if mode & GROUP_WRITES != 0 && !is_own_group => Some(GROUP),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Short enough for a test, and far apart.
    const SHORT: ReadTimes = ReadTimes { warn: Duration::from_millis(1), give_up: Duration::from_millis(20) };

    #[tokio::test]
    async fn a_file_system_that_does_not_answer_is_given_up_on() {
        let (answer, asked) = std::sync::mpsc::channel::<()>();
        let blocked = in_time(Path::new("p.wasm"), SHORT, move || {
            let _ = asked.recv();
            Ok(())
        });
        let error = blocked.await.unwrap_err().to_string();
        assert!(error.contains("p.wasm") && error.contains("20ms"), "{error}");
        drop(answer);
        let patient = ReadTimes { warn: Duration::ZERO, ..READ_TIMES };
        assert_eq!(in_time(Path::new("p.wasm"), patient, || Ok(7)).await.unwrap(), 7);
    }

    #[test]
    fn a_file_that_has_another_length_than_its_system_says_is_refused() {
        // Files of /proc have no length, and contents.
        let error = contents(Path::new("/proc/self/status"), 1 << 20).unwrap_err();
        assert!(matches!(error, LoadError::Changing { .. }), "{error}");
    }
}
