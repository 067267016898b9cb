//! One followed file: reads on where it stopped, and notices when the file is no longer the one it was.

use std::{fs::File, io, os::unix::fs::FileExt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    lines::{Assembler, Position, Rules, Sink},
    open::{Facts, FileId, facts_of},
};

/// How many bytes at the beginning of a file tell it from another that has its inode.
const HEAD: u64 = 1024;
/// How much is read at once.
pub(crate) const CHUNK: usize = 64 << 10;

/// The beginning of a file, remembered as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Head {
    /// How many bytes it covers; 0 matches every file.
    pub(crate) len: u64,
    hash: u64,
}

/// FNV-1a; the bytes are not secret and who writes the file may confuse only the reading of that file.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

impl Head {
    /// Whether the file begins as remembered; if so, remembers more of it, up to `known` bytes.
    fn check(&mut self, file: &File, known: u64) -> io::Result<bool> {
        let want = known.clamp(self.len, HEAD.max(self.len));
        if want == 0 {
            return Ok(true);
        }
        let mut bytes = vec![0; usize::try_from(want).unwrap_or(0)];
        let got = read_at_most(file, &mut bytes, 0)?;
        bytes.truncate(got);
        let same =
            self.len == 0 || usize::try_from(self.len).ok().and_then(|len| bytes.get(..len)).is_some_and(|head| hash(head) == self.hash);
        if same {
            *self = Head { len: u64::try_from(got).unwrap_or(self.len), hash: hash(&bytes) };
        }
        Ok(same)
    }

    /// Whether the file begins as remembered.
    pub(crate) fn matches(mut self, file: &File) -> bool {
        self.check(file, self.len).unwrap_or(false)
    }
}

/// Fills `bytes` from `offset`, fewer only at the file's end.
fn read_at_most(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while let Some(room) = bytes.get_mut(got..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset.saturating_add(u64::try_from(got).unwrap_or(0))) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// What the ledger keeps of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// The path under which it was first found; decides entry and source.
    pub(crate) path: PathBuf,
    /// The folder and name under which it was last seen, below the entry's base.
    pub(crate) below: PathBuf,
    pub(crate) name: String,
    pub(crate) offset: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) skipping: bool,
    pub(crate) head: Head,
}

/// The key of a file's checkpoint.
pub(crate) fn key_of(id: FileId) -> String {
    format!("file/{:x}:{:x}", id.device, id.inode)
}

/// The file whose checkpoint has this key.
pub(crate) fn id_of(key: &str) -> Option<FileId> {
    let (device, inode) = key.strip_prefix("file/")?.split_once(':')?;
    Some(FileId { device: u64::from_str_radix(device, 16).ok()?, inode: u64::from_str_radix(inode, 16).ok()? })
}

/// What reading came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// So many bytes; `end` if there was nothing more.
    Read { bytes: usize, end: bool },
    /// What lies there is not what was read before: it was truncated, overwritten, or has a predecessor's inode.
    Replaced,
}

/// A file being followed.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Which entry of the configuration it belongs to.
    pub(crate) entry: usize,
    /// The path under which it was first found.
    pub(crate) path: PathBuf,
    /// Where it was last seen.
    pub(crate) below: PathBuf,
    pub(crate) name: String,
    pub(crate) file: Option<File>,
    pub(crate) lines: Assembler,
    pub(crate) head: Head,
    /// Size and time of change when it was last seen or read; `None`: look at it.
    pub(crate) seen: Option<Facts>,
    /// Size and time of change when it was last read to its end.
    done: Option<(u64, i128)>,
    /// When it last gave bytes, on the monotonic clock.
    pub(crate) grew_at: Duration,
    /// The step in which it was last read: who waited longest is read first.
    pub(crate) turn: u64,
    /// It is no longer found under a configured name.
    pub(crate) rotated: bool,
    /// What the ledger has.
    pub(crate) saved: Option<Checkpoint>,
}

impl Tail {
    /// A file to be read from `position`.
    pub(crate) fn new(entry: usize, path: PathBuf, below: PathBuf, name: String, position: Position, now: Duration) -> Tail {
        Tail {
            entry,
            path,
            below,
            name,
            file: None,
            lines: Assembler::at(position),
            head: Head::default(),
            seen: None,
            done: None,
            grew_at: now,
            turn: 0,
            rotated: false,
            saved: None,
        }
    }

    /// A file as the ledger knows it.
    pub(crate) fn restored(entry: usize, saved: Checkpoint, now: Duration) -> Tail {
        let position = Position { offset: saved.offset, skipping: saved.skipping };
        Tail { head: saved.head, saved: Some(saved.clone()), ..Tail::new(entry, saved.path, saved.below, saved.name, position, now) }
    }

    /// What the ledger should have once all that was given out is stored.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        let Position { offset, skipping } = self.lines.position();
        Checkpoint { path: self.path.clone(), below: self.below.clone(), name: self.name.clone(), offset, skipping, head: self.head }
    }

    /// Whether it may have something to read.
    pub(crate) fn wants_reading(&self) -> bool {
        match (self.seen, self.done) {
            (Some(seen), Some(done)) => (seen.size, seen.changed) != done || seen.size < self.lines.read(),
            (Some(seen), None) => seen.size > 0 || self.lines.read() > 0,
            (None, _) => self.file.is_some(),
        }
    }

    /// Whether nothing of it was read or stored yet.
    pub(crate) fn is_untouched(&self) -> bool {
        self.saved.is_none() && self.lines.read() == 0
    }

    /// How many bytes are known to wait.
    pub(crate) fn behind(&self) -> u64 {
        self.seen.map_or(0, |seen| seen.size.saturating_sub(self.lines.read()))
    }

    /// Reads at most `budget` bytes (rounded up to whole chunks) of the open file.
    pub(crate) fn read(&mut self, budget: usize, buffer: &mut [u8], rules: &Rules, sink: Sink<'_>, now: Duration) -> io::Result<Outcome> {
        let Some(file) = &self.file else { return Ok(Outcome::Read { bytes: 0, end: true }) };
        let mut bytes = 0;
        while bytes < budget.max(1) {
            let at = self.lines.read();
            // First the facts, then the content: a change in between is seen the next time.
            let facts = facts_of(file).map_err(|refused| io::Error::other(refused.to_string()))?;
            let got = read_at_most(file, buffer, at)?;
            let end = at.saturating_add(u64::try_from(got).unwrap_or(0));
            // Only now is it known whether these bytes continue the ones before: had the file been truncated and
            // rewritten in the meantime, its size or its beginning would show it.
            let size = facts_of(file).map_err(|refused| io::Error::other(refused.to_string()))?.size;
            let known = if at == 0 { 0 } else { at };
            if size < end || !self.head.check(file, known)? {
                return Ok(Outcome::Replaced);
            }
            self.seen = Some(facts);
            if got == 0 {
                self.done = Some((facts.size, facts.changed));
                return Ok(Outcome::Read { bytes, end: true });
            }
            self.grew_at = now;
            self.lines.feed(buffer.get(..got).unwrap_or_default(), rules, &mut *sink);
            self.head.check(file, end)?;
            bytes += got;
        }
        Ok(Outcome::Read { bytes, end: false })
    }

    /// Begins again at the start, as another file with the same name.
    pub(crate) fn start_over(&mut self) -> (Assembler, Head) {
        self.done = None;
        (std::mem::take(&mut self.lines), std::mem::take(&mut self.head))
    }
}
