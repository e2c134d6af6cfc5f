//! Finds the private Redis of this user that runs already, for commands that work on what a host has. It starts none.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use super::embedded::WORD;
use super::runtime_folder::{self, FolderError, url_of};
use crate::config::RedisConfig;

/// Why no private Redis is found.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The folder for sockets cannot be used.
    #[error("cannot use a private Redis: {0}")]
    Folder(FolderError),
    /// There is none.
    #[error(
        "no private Redis of this user is running; start one with `host --redis embedded`, or name another Redis with \
         --redis URL"
    )]
    NoneRuns,
    /// There are several, with these URLs.
    #[error("several private Redis servers of this user are running; name one with --redis: {}", .0.join(", "))]
    SeveralRun(Vec<String>),
}

/// Puts the URL of the private Redis that runs into `config`, if it asks for a private one.
///
/// # Errors
/// When none runs, or more than one.
pub fn find_if_named(config: &mut RedisConfig) -> Result<(), FindError> {
    if config.url != WORD {
        return Ok(());
    }
    match sockets().map_err(FindError::Folder)?.as_slice() {
        [] => return Err(FindError::NoneRuns),
        [socket] => config.url = url_of(socket),
        several => return Err(FindError::SeveralRun(several.iter().map(|socket| url_of(socket)).collect())),
    }
    Ok(())
}

/// Sockets of the servers that run. Folders of servers that were killed together with their host are removed.
pub(super) fn sockets() -> Result<Vec<PathBuf>, FolderError> {
    let folder = runtime_folder::folder()?;
    let entries = fs::read_dir(&folder).map_err(|error| FolderError {
        path: folder.display().to_string(),
        problem: format!("cannot be read: {error}"),
    })?;
    let mut sockets = Vec::new();
    for entry in entries.flatten() {
        let socket = runtime_folder::socket_in(&entry.path());
        let is_server = entry.file_name().to_string_lossy().starts_with(runtime_folder::PREFIX);
        if !is_server || !fs::symlink_metadata(&socket).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            continue;
        }
        match UnixStream::connect(&socket) {
            Ok(_) => sockets.push(socket),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                // Somebody else may be removing it at the same time.
                let _ = fs::remove_dir_all(entry.path());
            }
            Err(_) => {}
        }
    }
    sockets.sort();
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::embedded::Embedded;

    #[test]
    fn several_run_side_by_side_and_all_are_found() {
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(|| Embedded::start().unwrap())).collect();
        let servers: Vec<Embedded> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let found: Vec<String> = sockets().unwrap().iter().map(|socket| url_of(socket)).collect();
        assert!(servers.iter().all(|server| found.contains(&server.url())), "{found:?}");
    }
}
