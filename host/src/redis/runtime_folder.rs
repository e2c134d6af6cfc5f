//! The user's folder for sockets of private Redis servers, which no other user may enter, and its contents. This file
//! knows files and owners, and no server.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// Variable with the user's folder for the files of a session.
const VARIABLE: &str = "XDG_RUNTIME_DIR";

/// Prefix of a server's folder.
pub(super) const PREFIX: &str = "redis-";

/// Name of the socket in a server's folder.
const SOCKET: &str = "redis.sock";

/// Maximum length of a socket's path on every system: 104 bytes on macOS, including a zero at the end.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Length that a server's folder and socket add to the path of the runtime folder.
const SOCKET_SUFFIX_BYTES: usize = "/redis-123456/redis.sock".len();

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the folder {path} {problem}; remove it, or set {VARIABLE} to a folder that only this user can enter")]
pub struct FolderError {
    path: String,
    problem: String,
}

/// The runtime folder, created on demand: `$XDG_RUNTIME_DIR/host`, or else `host-UID` among the temporary files.
pub(super) fn folder() -> Result<PathBuf, FolderError> {
    let path = path();
    let wrong = |problem: String| FolderError { path: path.display().to_string(), problem };
    match DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(wrong(format!("cannot be made: {error}"))),
    }
    // The metadata of a symbolic link itself, because another user may have created the link.
    match fs::symlink_metadata(&path) {
        Ok(metadata) if !metadata.is_dir() => Err(wrong("is no folder".to_owned())),
        Ok(metadata) if !is_own(&metadata) => Err(wrong("belongs to another user".to_owned())),
        Ok(metadata) if !is_private(&metadata) => Err(wrong("is open to other users".to_owned())),
        Ok(_) => Ok(path),
        Err(error) => Err(wrong(format!("cannot be looked at: {error}"))),
    }
}

/// Sockets of running servers. Folders of servers that were killed together with their host are removed.
pub(super) fn running() -> Result<Vec<PathBuf>, FolderError> {
    let folder = folder()?;
    let entries = fs::read_dir(&folder).map_err(|error| FolderError {
        path: folder.display().to_string(),
        problem: format!("cannot be read: {error}"),
    })?;
    let mut sockets = Vec::new();
    for entry in entries.flatten() {
        let socket = socket_in(&entry.path());
        let is_server = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if !is_server || !fs::symlink_metadata(&socket).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            continue;
        }
        match UnixStream::connect(&socket) {
            Ok(_) => sockets.push(socket),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // Another process may be removing the folder at the same time.
                let _ = fs::remove_dir_all(entry.path());
            }
            Err(_) => {}
        }
    }
    sockets.sort();
    Ok(sockets)
}

/// The socket of the server with this folder.
pub(super) fn socket_in(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

fn path() -> PathBuf {
    let session = std::env::var_os(VARIABLE).map(PathBuf::from).filter(|folder| {
        let usable = fs::metadata(folder).is_ok_and(|it| it.is_dir() && is_own(&it) && is_private(&it));
        let length = folder.join("host").as_os_str().len() + SOCKET_SUFFIX_BYTES;
        folder.is_absolute() && usable && length <= SOCKET_PATH_BYTES_MAX
    });
    match session {
        Some(folder) => folder.join("host"),
        None => std::env::temp_dir().join(format!("host-{}", rustix::process::geteuid().as_raw())),
    }
}

fn is_own(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

fn is_private(metadata: &Metadata) -> bool {
    metadata.mode() & 0o077 == 0
}
