//! Detects changes of the files that a build reads.
//!
//! The contents of the files decide: a file that is saved without a change, or written again by the build with the same
//! content, has not changed. File system events only bring the next look forward.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::RecommendedWatcher;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::cli::note;
use crate::reload::events;

/// Time between two looks at the files when there is no event.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Time without an event after which a burst of changes is over.
const QUIET_TIME: Duration = Duration::from_millis(50);

/// Maximum length of a burst: a program may write without a pause.
const BURST_TIME_MAX: Duration = Duration::from_secs(1);

/// Maximum number of folders that are watched. A plugin has a few dozen.
const FOLDERS_MAX: usize = 5_000;

/// Files and folders that builds and editors make, beside hidden ones. `*` stands for any characters.
const IGNORED: [&str; 11] = [
    "*.wasm",
    "target",
    "node_modules",
    "__pycache__",
    // Cargo writes it again in a build.
    "Cargo.lock",
    "*~",
    "*.tmp",
    "*.bak",
    "#*",
    "4913",
    "*___jb_*",
];

/// The files of a folder that a build may read.
pub(super) struct Sources {
    root: PathBuf,
    known: Files,
    folders: BTreeSet<PathBuf>,
    hints: Arc<Notify>,
    /// A drop ends the watch.
    watcher: Option<RecommendedWatcher>,
    warned: bool,
}

/// Files by their path below the root.
type Files = BTreeMap<PathBuf, Source>;

#[derive(Clone)]
struct Source {
    /// Changes with every change of the file, and is cheaper than the content.
    stamp: [i64; 5],
    digest: [u8; 32],
}

impl Sources {
    /// Records the present contents of all sources.
    pub(super) fn watch(root: &Path) -> Sources {
        let mut sources = Sources {
            root: root.to_owned(),
            known: Files::new(),
            folders: BTreeSet::new(),
            hints: Arc::default(),
            watcher: None,
            warned: false,
        };
        sources.known = sources.look();
        sources
    }

    /// Waits until sources have changed since the last call, and returns their paths below the root.
    pub(super) async fn changed(&mut self) -> Vec<PathBuf> {
        let mut now = self.look();
        while differences(&self.known, &now).is_empty() {
            let _ = timeout(LOOK_INTERVAL, self.hints.notified()).await;
            now = self.look();
        }
        let start = Instant::now();
        while start.elapsed() < BURST_TIME_MAX && timeout(QUIET_TIME, self.hints.notified()).await.is_ok() {}
        let now = self.look();
        let changed = differences(&self.known, &now);
        self.known = now;
        changed
    }

    /// The present sources. Watches the folders in which they lie.
    fn look(&mut self) -> Files {
        let (mut files, mut folders, mut seen) = (Files::new(), BTreeSet::new(), BTreeSet::new());
        let ignored = Ignored::read(&self.root);
        let mut left = vec![PathBuf::new()];
        while let Some(folder) = left.pop().filter(|_| folders.len() < FOLDERS_MAX) {
            let path = self.root.join(&folder);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            // A symbolic link may lead back.
            if !seen.insert((metadata.dev(), metadata.ino())) {
                continue;
            }
            let Ok(entries) = fs::read_dir(&path) else { continue };
            folders.insert(path);
            for entry in entries.flatten() {
                let name = entry.file_name();
                if ignored.has(&name.to_string_lossy(), folder.as_os_str().is_empty()) {
                    continue;
                }
                let path = folder.join(name);
                let Ok(metadata) = fs::metadata(self.root.join(&path)) else { continue };
                if metadata.is_dir() {
                    left.push(path);
                } else if let Some(source) = self.source(&path, &metadata) {
                    files.insert(path, source);
                }
            }
        }
        self.watch_folders(folders);
        files
    }

    /// A file that is there and can be read.
    fn source(&self, path: &Path, metadata: &fs::Metadata) -> Option<Source> {
        let ino = i64::from_ne_bytes(metadata.ino().to_ne_bytes());
        let size = i64::try_from(metadata.size()).unwrap_or(i64::MAX);
        let stamp = [ino, size, metadata.mtime(), metadata.mtime_nsec(), metadata.ctime_nsec()];
        if let Some(known) = self.known.get(path).filter(|known| known.stamp == stamp) {
            return Some(known.clone());
        }
        if !metadata.is_file() {
            return None;
        }
        Some(Source { stamp, digest: Sha256::digest(fs::read(self.root.join(path)).ok()?).into() })
    }

    /// Asks the system for events of these folders, if the folders are not the watched ones.
    fn watch_folders(&mut self, folders: BTreeSet<PathBuf>) {
        if folders == self.folders {
            return;
        }
        let watcher = events::watch(folders.iter().map(PathBuf::as_path), self.hints.clone());
        if let Err(error) = &watcher
            && !std::mem::replace(&mut self.warned, true)
        {
            note(&format!("the system cannot watch the sources ({error}); they are checked every {LOOK_INTERVAL:?}"));
        }
        self.watcher = watcher.ok();
        self.folders = folders;
        // A file may have changed before the watch began.
        self.hints.notify_one();
    }
}

/// The paths that are new, gone, or have another content.
fn differences(before: &Files, now: &Files) -> Vec<PathBuf> {
    let digest = |files: &Files, path: &PathBuf| files.get(path).map(|source| source.digest);
    let paths: BTreeSet<&PathBuf> = before.keys().chain(now.keys()).collect();
    paths.into_iter().filter(|path| digest(before, path) != digest(now, path)).cloned().collect()
}

/// Names of files and folders that are no sources.
struct Ignored {
    /// Patterns, and whether a pattern holds in the root only.
    patterns: Vec<(String, bool)>,
}

impl Ignored {
    /// The names above, and the plain lines of the `.gitignore`: a name with at most one `*`, and `/` only at its ends.
    fn read(root: &Path) -> Ignored {
        let lines = fs::read_to_string(root.join(".gitignore")).unwrap_or_default();
        let own = lines.lines().map(str::trim_end).filter_map(|line| {
            let name = line.strip_suffix('/').unwrap_or(line);
            let (name, only_root) = name.strip_prefix('/').map_or((name, false), |name| (name, true));
            let is_plain = !name.is_empty() && !name.starts_with(['#', '!']) && !name.contains(['/', '?', '[', '\\']);
            (is_plain && name.matches('*').count() <= 1).then(|| (name.to_owned(), only_root))
        });
        Ignored { patterns: IGNORED.iter().map(|name| ((*name).to_owned(), false)).chain(own).collect() }
    }

    fn has(&self, name: &str, in_root: bool) -> bool {
        let fits = |(pattern, only_root): &(String, bool)| (in_root || !only_root) && fits(pattern, name);
        name.starts_with('.') || self.patterns.iter().any(fits)
    }
}

/// Whether a name fits a pattern, in which each `*` stands for any characters.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            let ends = name.char_indices().map(|(index, _)| index).chain([name.len()]);
            ends.into_iter().any(|index| fits(rest, &name[index..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(root: &Path) -> Vec<String> {
        Sources::watch(root).known.keys().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn what_builds_and_editors_make_is_no_source() {
        let root = tempfile::tempdir().unwrap();
        let made = ["a.wasm", "target/x", ".build/x", "bindings/x", "src/.a.rs.swp", "src/a.rs~", "src/4913", "#a#"];
        for path in made.into_iter().chain(["src/a.rs", "src/bindings/x", "a.log", "cases.jsonl"]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(root.path().join(".gitignore"), "# made\n/bindings/\n*.log\n!x\n").unwrap();
        assert_eq!(sources(root.path()), ["cases.jsonl", "src/a.rs", "src/bindings/x"]);
    }

    #[test]
    fn links_in_a_circle_come_to_an_end() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("a"), "").unwrap();
        std::os::unix::fs::symlink(".", root.path().join("again")).unwrap();
        assert_eq!(sources(root.path()), ["a"]);
    }

    #[test]
    fn only_another_content_is_a_change() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (root.path().join("a"), root.path().join("b"));
        fs::write(&a, "1").unwrap();
        let mut sources = Sources::watch(root.path());
        fs::remove_file(&a).unwrap();
        fs::write(&a, "1").unwrap();
        fs::write(&b, "").unwrap();
        let now = sources.look();
        assert_eq!(differences(&sources.known, &now), [Path::new("b")]);
    }
}
