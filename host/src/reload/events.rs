//! Events of the system about changes in folders. They only bring the next look at the files forward.

use std::path::Path;
use std::sync::Arc;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Tells `changed` of every event in these folders, without those below them, as long as the watcher exists.
///
/// # Errors
/// When the system cannot watch a folder.
pub fn watch<'a>(folders: impl Iterator<Item = &'a Path>, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        // Reads by this process are no change. An error, such as lost events, may hide a change.
        if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
            changed.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(tell)?;
    for folder in folders {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
