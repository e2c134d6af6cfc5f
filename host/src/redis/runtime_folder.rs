//! The user's folder for sockets of private Redis servers, which no other user may enter, and its contents. This file
//! knows files and owners, and no server.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
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
    pub(super) path: String,
    pub(super) problem: String,
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

/// The socket of the server with this folder.
pub(super) fn socket_in(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

/// A URL with the path of a socket.
pub(super) fn url_of(socket: &Path) -> String {
    let mut url = String::from("unix://");
    for byte in socket.as_os_str().as_encoded_bytes() {
        match byte {
            byte if is_plain_in_path(*byte) => url.push(char::from(*byte)),
            byte => url += &format!("%{byte:02X}"),
        }
    }
    url
}

/// Whether the byte stands for itself in a URL's path and in a shell's word.
pub(super) fn is_plain_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._-".contains(&byte)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_its_url() {
        use redis::IntoConnectionInfo as _;
        for path in ["/run/user/1000/host/redis-a/redis.sock", "/tmp/a b%20?#ü/redis.sock"] {
            let info = url_of(Path::new(path)).as_str().into_connection_info().unwrap();
            assert_eq!(info.addr().to_string(), path);
        }
    }
}
