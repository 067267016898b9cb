//! The system's notices that something changed in a folder: a hint that makes reading prompt, never relied upon.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Watches folders, as far as the system lets it.
pub(crate) struct Hints {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    changed: Arc<Notify>,
}

impl Hints {
    /// Watches nothing yet. Where there is no inotify (left), polling alone must do.
    pub(crate) fn new(log: &slog::Logger) -> Hints {
        let changed = Arc::new(Notify::new());
        let hint = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own reading is no news.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                hint.notify_one();
            }
        });
        let watcher = watcher.inspect_err(|error| slog::info!(log, "files are followed by polling alone"; "reason" => %error)).ok();
        Hints { watcher, watched: BTreeSet::new(), changed }
    }

    /// Watches these folders and no others. One that cannot be watched is tried again at the next call. `true` if there
    /// are new ones among them: what happened in those before now was not noticed.
    pub(crate) fn update(&mut self, folders: BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        for gone in self.watched.difference(&folders) {
            // It may have been deleted, which ends the watch by itself.
            drop(watcher.unwatch(gone));
        }
        self.watched.retain(|folder| folders.contains(folder));
        let kept = self.watched.len();
        for folder in folders {
            if !self.watched.contains(&folder) && watcher.watch(&folder, RecursiveMode::NonRecursive).is_ok() {
                self.watched.insert(folder);
            }
        }
        self.watched.len() > kept
    }

    /// Returns when something changed since the last time.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
