//! Reads from one file: opens it when needed, sets copies and compressed files aside, deals with truncation.

use std::{os::unix::fs::FileExt, path::Path, time::Duration};

use opspilot_kernel::{
    codec::Labels,
    signal::{Severity, SignalRef},
};
use rustix::io::Errno;

use super::{
    engine::{Counts, Engine},
    interpret,
    lines::{Position, Rules, Tally},
    open::{FileId, Refused},
    tail::{Outcome, Tail},
};

const NOTHING: Outcome = Outcome::Read { bytes: 0, end: true };

impl Engine {
    /// Reads from one file and flushes what is due; says how many bytes it took.
    pub(super) fn advance(&mut self, id: FileId, budget: usize, emit: &mut dyn FnMut(&SignalRef<'_>)) -> usize {
        let now = self.clock.elapsed();
        let mut taken = 0;
        if self.tails.get(&id).is_some_and(Tail::wants_reading) {
            match self.read(id, budget, emit, now) {
                Ok(Outcome::Read { bytes, end }) => {
                    self.more |= !end;
                    self.counts.bytes += u64::try_from(bytes).unwrap_or(0);
                    taken = bytes.max(1);
                }
                Ok(Outcome::Replaced) => {
                    self.replaced(id, emit);
                    self.more = true;
                    taken = 1;
                }
                // It went away since the folder was looked through; the next look will show where to.
                Err(why) if why.is_absence() => {}
                Err(why) => {
                    self.counts.read_errors += 1;
                    if let Some(tail) = self.tails.get_mut(&id) {
                        tail.file = None;
                        self.failing.insert(tail.path.clone(), why.to_string());
                    }
                }
            }
        }
        let due = self.tails.get(&id).and_then(|tail| self.flush_due(tail)).is_some_and(|due| due <= now);
        if due {
            self.with_voice(id, emit, |tail, rules, sink| {
                if tail.lines.has_partial() { tail.lines.flush_all(false, rules, sink) } else { tail.lines.flush_record(sink) }
            });
        }
        taken
    }

    fn read(&mut self, id: FileId, budget: usize, emit: &mut dyn FnMut(&SignalRef<'_>), now: Duration) -> Result<Outcome, Refused> {
        let Some(tail) = self.tails.get_mut(&id) else { return Ok(NOTHING) };
        if tail.file.is_none() {
            let Some(entry) = self.entries.get_mut(tail.entry) else { return Ok(NOTHING) };
            let (file, facts) = entry.root.folder(&tail.below)?.open(&tail.name)?;
            if facts.id != id {
                // Renamed a moment ago; the next look at the folders will show how.
                return Ok(NOTHING);
            }
            tail.file = Some(file);
        }
        tail.turn = self.turn;
        if self.set_aside(id) {
            return Ok(NOTHING);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.with_voice(id, emit, |tail, rules, sink| tail.read(budget, &mut buffer, rules, sink, now));
        self.buffer = buffer;
        if let (Some(Ok(_)), Some(tail)) = (&outcome, self.tails.get(&id)) {
            self.failing.remove(&tail.path);
        }
        outcome.unwrap_or(Ok(NOTHING)).map_err(|error| Refused::System(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
    }

    /// Whether a file about to be begun is not to be read: because it is compressed, or because it is a copy of one that
    /// is followed. A copy matters only when the original is truncated, for what was not read of the original by then.
    fn set_aside(&mut self, id: FileId) -> bool {
        let Some(tail) = self.tails.get(&id) else { return false };
        let Some(file) = tail.file.as_ref().filter(|_| tail.is_untouched()) else { return false };
        let original = self.tails.iter().find(|(other, original)| {
            **other != id && original.entry == tail.entry && may_be_copy(&tail.below, &tail.name, original) && original.head.matches(file)
        });
        if let Some((original, _)) = original {
            self.copies.insert(id, *original);
        } else if is_compressed(file) {
            self.compressed.insert(id);
        } else {
            return false;
        }
        self.tails.remove(&id);
        true
    }

    /// What lies there is another file now, or the same after a truncation.
    fn replaced(&mut self, id: FileId, emit: &mut dyn FnMut(&SignalRef<'_>)) {
        let now = self.clock.elapsed();
        self.counts.truncated += 1;
        let copy = self.find_copy(id);
        if copy.is_none() {
            self.with_voice(id, emit, |tail, rules, sink| tail.lines.flush_all(true, rules, sink));
        }
        let Some(tail) = self.tails.get_mut(&id) else { return };
        let (lines, head) = tail.start_over();
        let (old_path, entry, below) = (tail.path.clone(), tail.entry, tail.below.clone());
        if !tail.rotated
            && let Some(entry) = self.entries.get(entry)
        {
            tail.path = entry.pattern.base().join(&tail.below).join(&tail.name);
        }
        self.copies.retain(|_, original| *original != id);
        if let Some((copy, name)) = copy {
            // What is left to read of it is read as if the original had been renamed to it.
            let mut rest = Tail::new(entry, old_path, below, name, Position::default(), now);
            (rest.lines, rest.head, rest.rotated) = (lines, head, true);
            self.tails.insert(copy, rest);
            self.look_for(copy, &[], now);
        }
    }

    /// The copy that a rotation made before it truncated the file.
    fn find_copy(&mut self, id: FileId) -> Option<(FileId, String)> {
        let tail = self.tails.get(&id)?;
        let folder = self.entries.get_mut(tail.entry)?.root.folder(&tail.below).ok()?;
        folder.list().ok()?.names.into_iter().find_map(|listed| {
            if !may_be_copy(&tail.below, &listed.name, tail) {
                return None;
            }
            let (file, facts) = folder.open(&listed.name).ok()?;
            let unused = self.tails.get(&facts.id).is_none_or(Tail::is_untouched);
            let usable = unused && facts.id != id && facts.size >= tail.lines.read() && tail.head.matches(&file);
            usable.then_some((facts.id, listed.name))
        })
    }

    /// Lets `work` put records together and gives them out as signals of the file's source.
    pub(super) fn with_voice<T>(
        &mut self,
        id: FileId,
        emit: &mut dyn FnMut(&SignalRef<'_>),
        work: impl FnOnce(&mut Tail, &Rules, &mut dyn FnMut(&[u8])) -> T,
    ) -> Option<T> {
        let received_at = self.clock.now();
        let tail = self.tails.get_mut(&id)?;
        let entry = self.entries.get(tail.entry)?;
        let path = tail.path.display().to_string();
        let stem = tail.path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let source = entry.config.source.as_deref().unwrap_or(&stem);
        let mut labels: Vec<(&str, &str)> = entry.config.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if !entry.config.labels.contains_key("file") {
            labels.push(("file", &path));
        }
        let counts = &mut self.counts;
        let before = tail.lines.tally;
        let done = work(tail, &entry.rules, &mut |record| {
            let text = String::from_utf8_lossy(record);
            counts.records += 1;
            counts.lossy += u64::from(matches!(text, std::borrow::Cow::Owned(_)));
            let at = interpret::timestamp(&text).unwrap_or(received_at);
            let severity = entry.config.severity.or_else(|| interpret::severity(&text)).unwrap_or(Severity::Info);
            emit(&SignalRef { severity, labels: Labels::Pairs(&labels), ..SignalRef::log(at, source, &text) });
        });
        let after = tail.lines.tally;
        counts.add(Tally { cut: after.cut - before.cut, split: after.split - before.split });
        Some(done)
    }
}

impl Counts {
    fn add(&mut self, tally: Tally) {
        self.cut += tally.cut;
        self.split += tally.split;
    }
}

/// The least of a file's beginning by which a copy is recognised.
const COPY_HEAD: u64 = 64;

/// Whether the name is one that a rotation would give to a copy of `original`: `app.log.1`, `app.log-20261122`, `app.1.log`.
fn may_be_copy(below: &Path, name: &str, original: &Tail) -> bool {
    let stem = original.name.split('.').find(|part| !part.is_empty()).unwrap_or_default();
    below == original.below && name != original.name && name.starts_with(stem) && original.head.len >= COPY_HEAD
}

/// Rotated logs are often compressed under a name that the pattern still matches.
fn is_compressed(file: &std::fs::File) -> bool {
    const MAGIC: [&[u8]; 6] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh", b"\x04\x22\x4d\x18", b"PK\x03\x04"];
    let mut start = [0; 6];
    file.read_at(&mut start, 0).is_ok_and(|got| MAGIC.iter().any(|magic| start.get(..got).is_some_and(|start| start.starts_with(magic))))
}
