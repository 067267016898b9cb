//! Looks through the folders: which files are new, which were renamed, which are gone.

use std::{collections::BTreeSet, os::unix::fs::FileExt, time::Duration};

use super::{
    config::StartAt,
    engine::{Engine, entry_key},
    lines::Position,
    open::{self, FileId, Folder, Found, Refused, Walk},
    tail::{Tail, key_of},
};

impl Engine {
    /// Brings the list of files up to date.
    pub(super) fn survey(&mut self) {
        let now = self.clock.elapsed();
        self.surveyed_at = Some(now);
        self.refused.clear();
        self.beyond = 0;
        let mut seen = BTreeSet::new();
        let mut unknown = Vec::new();
        let mut cut = BTreeSet::new();
        for index in 0..self.entries.len() {
            let Some(entry) = self.entries.get_mut(index) else { continue };
            let Walk { found, refused, is_cut } = open::walk(&mut entry.root, &entry.pattern);
            if is_cut {
                cut.insert(index);
            }
            for (path, why) in refused {
                self.refused.insert(path, why.to_string());
            }
            for found in found {
                // Several names of one file, and several entries with one file: the first counts.
                if seen.insert(found.facts.id) {
                    match self.tails.contains_key(&found.facts.id) {
                        true => self.found_again(index, found),
                        false => unknown.push((index, found)),
                    }
                }
            }
        }
        // what was not looked at is not missing
        let missing = self.tails.iter().filter(|(id, tail)| !seen.contains(id) && !cut.contains(&tail.entry));
        let missing: Vec<FileId> = missing.map(|(id, _)| *id).collect();
        for id in missing {
            self.look_for(id, &unknown, now);
        }
        self.compressed.retain(|id| seen.contains(id));
        self.copies.retain(|copy, original| seen.contains(copy) && self.tails.contains_key(original));
        for (index, found) in unknown {
            self.begin(index, found, now);
        }
        for entry in &mut self.entries {
            if entry.fresh {
                entry.fresh = false;
                self.savings.push((entry_key(&entry.config.path), b"seen".to_vec()));
            }
        }
        let tails = &self.tails;
        self.failing.retain(|path, _| tails.values().any(|tail| tail.path == *path));
    }

    /// A followed file is there under a configured name, perhaps another than before.
    fn found_again(&mut self, index: usize, found: Found) {
        let Some(tail) = self.tails.get_mut(&found.facts.id) else { return };
        let base = |index: usize| self.entries.get(index).map(|entry| entry.pattern.base());
        if base(index) != base(tail.entry) {
            tail.entry = index;
        }
        self.counts.rotated += u64::from(tail.name != found.name && !tail.rotated);
        (tail.below, tail.name, tail.rotated) = (found.below, found.name, false);
        tail.seen = Some(found.facts);
    }

    /// A followed file is not where it was: it was renamed out of the pattern, or deleted.
    pub(super) fn look_for(&mut self, id: FileId, unknown: &[(usize, Found)], now: Duration) {
        let Some(tail) = self.tails.get_mut(&id) else { return };
        if let Some(file) = &tail.file {
            tail.seen = open::facts_of(file).ok();
            if !tail.rotated {
                tail.rotated = true;
                tail.grew_at = tail.grew_at.max(now);
                self.counts.rotated += 1;
            }
            return;
        }
        let Some(entry) = self.entries.get_mut(tail.entry) else { return };
        let Ok(folder) = entry.root.folder(&tail.below) else { return };
        match find_by_inode(&folder, id) {
            Ok(Some(found)) => {
                (tail.name, tail.seen) = (found.0, Some(found.1));
                self.counts.rotated += u64::from(!tail.rotated);
                tail.rotated = true;
            }
            // After a reboot a device may have another number: then the same inode begins with the same bytes
            // (see `begin`). And where nothing is mounted, nothing can be missed.
            Ok(None) if tail.seen.is_none() && unknown.iter().any(|(_, found)| found.facts.id.inode == id.inode) => {}
            Ok(None) if folder.device() != Some(id.device) => {}
            Ok(None) => {
                let behind = tail.behind();
                if behind > 0 {
                    self.counts.lost_bytes += behind;
                    self.loss =
                        Some((format!("{}: deleted while {behind} bytes of it were unread; they are lost", tail.path.display()), now));
                }
                self.forget(id);
            }
            Err(_) => {}
        }
    }

    /// A file that was not known before.
    fn begin(&mut self, index: usize, found: Found, now: Duration) {
        if self.copies.contains_key(&found.facts.id) || self.compressed.contains(&found.facts.id) {
            return;
        }
        let Some(entry) = self.entries.get_mut(index) else { return };
        let Found { below, name, path, facts } = found;
        let moved = self.tails.iter().find(|(id, tail)| id.inode == facts.id.inode && tail.seen.is_none() && tail.head.len > 0);
        let moved = moved.and_then(|(id, tail)| {
            let (file, _) = entry.root.folder(&below).and_then(|folder| folder.open(&name)).ok()?;
            tail.head.matches(&file).then_some(*id)
        });
        if let Some(old) = moved
            && let Some(mut tail) = self.tails.remove(&old)
        {
            self.savings.push((key_of(old), Vec::new()));
            (tail.below, tail.name, tail.seen, tail.saved) = (below, name, Some(facts), None);
            self.tails.insert(facts.id, tail);
            return;
        }
        // What was restored and not found yet does not count.
        let limit = usize::try_from(self.config.max_files).unwrap_or(usize::MAX);
        if self.tails.len() >= limit && self.tails.values().filter(|tail| tail.seen.is_some()).count() >= limit {
            self.beyond += 1;
            return;
        }
        let mut position = Position::default();
        if entry.fresh && entry.config.start_at == StartAt::End {
            let last = facts.size.checked_sub(1).and_then(|last| {
                let (file, _) = entry.root.folder(&below).and_then(|folder| folder.open(&name)).ok()?;
                let mut byte = [0];
                file.read_exact_at(&mut byte, last).ok().map(|()| byte)
            });
            position = Position { offset: facts.size, skipping: last.is_some_and(|byte| byte != *b"\n") };
        }
        let mut tail = Tail::new(index, path, below, name, position, now);
        tail.seen = Some(facts);
        self.tails.insert(facts.id, tail);
    }

    /// Drops a file and its checkpoint.
    pub(super) fn forget(&mut self, id: FileId) {
        if let Some(tail) = self.tails.remove(&id)
            && tail.saved.is_some()
        {
            self.savings.push((key_of(id), Vec::new()));
        }
    }
}

/// The name that the file has in the folder now, if any.
fn find_by_inode(folder: &Folder, id: FileId) -> Result<Option<(String, open::Facts)>, Refused> {
    let listing = folder.list()?;
    let names = listing.names.into_iter().filter(|listed| listed.inode == id.inode);
    let found =
        names.filter_map(|listed| Some((listed.name.clone(), folder.look_at(&listed.name).ok()?))).find(|(_, facts)| facts.id == id);
    if found.is_none() && listing.is_cut { Err(Refused::Names) } else { Ok(found) }
}
