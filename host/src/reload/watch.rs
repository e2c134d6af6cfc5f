//! Detects that one of a few files has changed and then stayed unchanged for a while.
//!
//! The stamps of the files decide. File system events only bring the next look at the stamps forward, because events
//! get lost, arrive for unfinished files, and do not exist on every file system. This file reads no content.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::RecommendedWatcher;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::events;
use crate::config::{ReloadConfig, Watch};

/// Number of looks in a quiet time, while a file may still be changing.
const LOOKS: u32 = 5;

/// Minimum time between two looks, in case the folder is busy and there are many events.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Maximum number of links to follow, the same as on Linux.
const LINKS_MAX: usize = 40;

/// Time after which a file that still changes is warned of.
const PATIENCE: Duration = Duration::from_secs(30);

/// Identifies the state of a file without reading it. `None`: the file does not exist.
type Stamp = Option<[i128; 5]>;

/// A few watched files.
pub struct Watched {
    files: Vec<PathBuf>,
    config: ReloadConfig,
    /// The recorded stamps of the files.
    known: Vec<Stamp>,
    hints: Arc<Notify>,
    folders: Folders,
}

/// The folders that the system watches.
#[derive(Default)]
struct Folders {
    /// With device and inode, because a folder that was deleted and created again is a different folder.
    watched: BTreeSet<(PathBuf, u64, u64)>,
    /// A drop ends the watch.
    watcher: Option<RecommendedWatcher>,
    warned: bool,
}

impl Watched {
    /// Records the present stamps of the files.
    pub async fn new(files: Vec<PathBuf>, config: ReloadConfig) -> Watched {
        let known = stamps(&files).await;
        let mut watched = Watched { files, config, known, hints: Arc::default(), folders: Folders::default() };
        watched.set_up().await;
        watched
    }

    /// Changes the watched files or the way of watching. A file that was not watched before counts as changed.
    pub async fn watch(&mut self, files: Vec<PathBuf>, config: &ReloadConfig) {
        if self.files == files && self.config == *config {
            return;
        }
        let known = |file| self.files.iter().position(|before| before == file).and_then(|index| self.known[index]);
        self.known = files.iter().map(known).collect();
        self.files = files;
        self.config = config.clone();
        self.folders = Folders::default();
        self.set_up().await;
    }

    /// Waits until a file has changed and then stayed unchanged for the quiet time. The future may be dropped at any
    /// moment.
    pub async fn changed(&mut self) {
        if self.config.watch == Watch::Off {
            return std::future::pending().await;
        }
        loop {
            // A hint from before this look also leads to a look, which does no harm.
            let _ = timeout(self.config.interval, self.hints.notified()).await;
            self.set_up().await;
            if stamps(&self.files).await != self.known {
                self.known = self.settled().await;
                return;
            }
            sleep(LOOK_INTERVAL_MIN).await;
        }
    }

    /// Waits until the files have stayed unchanged for the quiet time, and records their stamps.
    pub async fn settle(&mut self) {
        self.known = self.settled().await;
    }

    /// Whether the files still have the recorded stamps.
    pub async fn is_true(&self) -> bool {
        stamps(&self.files).await == self.known
    }

    /// The stamps, after they have stayed the same for the quiet time.
    async fn settled(&self) -> Vec<Stamp> {
        let quiet = self.config.quiet;
        let begin = Instant::now();
        let (mut last, mut since) = (stamps(&self.files).await, begin);
        let mut warned = false;
        while since.elapsed() < quiet {
            sleep((quiet / LOOKS).max(Duration::from_millis(1))).await;
            let now = stamps(&self.files).await;
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if begin.elapsed() > PATIENCE && !std::mem::replace(&mut warned, true) {
                warn!(
                    "the plugin's file or the configuration file goes on changing; it is read when it is quiet for {quiet:?}"
                );
            }
        }
        last
    }

    /// Asks the system to watch the present folders of the files, if the folders have changed.
    async fn set_up(&mut self) {
        if self.config.watch != Watch::Events {
            return;
        }
        let files = self.files.clone();
        let folders = off_this_thread(move || files.iter().flat_map(|file| folders(file)).collect()).await;
        if self.folders.watched == folders {
            return;
        }
        let watcher = events::watch(folders.iter().map(|(folder, ..)| folder.as_path()), self.hints.clone());
        debug!(?folders, "watching");
        if let Err(error) = &watcher
            && !std::mem::replace(&mut self.folders.warned, true)
        {
            warn!(
                "the system cannot watch the plugin's folder ({error}); the host checks the files every {:?}",
                self.config.interval
            );
        }
        // A failed watch is tried again at the next look.
        self.folders.watched = if watcher.is_ok() { folders } else { BTreeSet::new() };
        self.folders.watcher = watcher.ok();
        // Look again at once, because a file may have changed before the watch began.
        self.hints.notify_one();
    }
}

/// The folders with an event when the file at this path is replaced: the file's own folder, and the folder of every
/// link on the path. A folder that does not exist is left out.
fn folders(path: &Path) -> Vec<(PathBuf, u64, u64)> {
    let mut folders = Vec::new();
    let mut next = Some(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    while let Some(path) = next.take().filter(|_| folders.len() < 2 * LINKS_MAX) {
        folders.extend(path.parent().map(Path::to_owned));
        let link = path.ancestors().find_map(|part| Some((part, part.read_link().ok()?)));
        if let Some((link, target)) = link
            && let (Some(folder), Ok(rest)) = (link.parent(), path.strip_prefix(link))
        {
            folders.push(folder.to_owned());
            let target = folder.join(target);
            // Joining an empty path would add a slash, and a link with a slash means its target.
            next = Some(if rest.as_os_str().is_empty() { target } else { target.join(rest) });
        }
    }
    let identified = |folder: PathBuf| {
        let metadata = folder.metadata().ok()?;
        Some((folder, metadata.dev(), metadata.ino()))
    };
    folders.into_iter().filter_map(identified).collect()
}

async fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let files = files.to_owned();
    off_this_thread(move || files.iter().map(|file| stamp(file)).collect()).await
}

/// The stamp of the file at a path, after following links.
fn stamp(file: &Path) -> Stamp {
    let metadata = file.metadata().ok()?;
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Some([
        metadata.dev().into(),
        metadata.ino().into(),
        metadata.size().into(),
        time(metadata.mtime(), metadata.mtime_nsec()),
        // A copy may keep the modification time of the original, but not this time.
        time(metadata.ctime(), metadata.ctime_nsec()),
    ])
}

/// Runs `look` on another thread: a file system may be slow, and this thread sends heartbeats.
async fn off_this_thread<T: Send + Default + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(look).await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_folder_of_every_link_on_the_way_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in ["plugins", "releases/v1"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("releases/v1/p.wasm"), "").unwrap();
        symlink("v1", root.join("releases/current")).unwrap();
        symlink("../releases/current/p.wasm", root.join("plugins/p.wasm")).unwrap();
        let found: BTreeSet<PathBuf> = folders(&root.join("plugins/p.wasm"))
            .into_iter()
            .map(|(folder, ..)| folder.canonicalize().unwrap())
            .collect();
        assert_eq!(found, ["plugins", "releases", "releases/v1"].map(|folder| root.join(folder)).into());
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let root = tempfile::tempdir().unwrap();
        symlink("b", root.path().join("a")).unwrap();
        symlink("a", root.path().join("b")).unwrap();
        assert!(folders(&root.path().join("a")).len() <= 2 * LINKS_MAX + 1);
    }
}
