//! The user's folder for sockets of private Redis servers, which no other user may enter, and what lies in it.
//! It knows files, their owners and their names, and no server.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Folder of the user for whatever lives as long as a session.
const VARIABLE: &str = "XDG_RUNTIME_DIR";

/// What the name of a server's folder begins with.
pub(super) const PREFIX: &str = "redis-";

/// Name of a server's socket in its folder.
const SOCKET: &str = "redis.sock";

/// Longest path of a socket that every system takes: 104 bytes on macOS, with a zero at the end.
const SOCKET_PATH_BYTES_MAX: usize = 100;

/// Bytes that a server's folder and socket add to the path of the runtime folder.
const SOCKET_SUFFIX_BYTES: usize = "/redis-123456/redis.sock".len();

/// A folder that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the folder {path} {problem}; remove it, or set {VARIABLE} to a folder that only this user can enter")]
pub struct FolderError {
    pub(super) path: String,
    pub(super) problem: String,
}

/// The runtime folder, made if it is not there: `$XDG_RUNTIME_DIR/host`, or else `host-UID` among the temporary files.
pub(super) fn folder() -> Result<PathBuf, FolderError> {
    let path = path();
    let wrong = |problem: String| FolderError { path: path.display().to_string(), problem };
    match DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(wrong(format!("cannot be made: {error}"))),
    }
    // Of a symbolic link itself: another user may have put it there.
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
