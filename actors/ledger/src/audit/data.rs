//! Checking the log in a data directory, or in a copy of one, with no service running: nothing is written there.
//!
//! One thread reads, others hash and parse side by side, and the caller's thread puts the entries in their order and
//! compares the stored tree and the checkpoints.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use crossbeam_channel::bounded;
use diesel::{connection::SimpleConnection, prelude::*};
use opspilot_kernel::time::Timestamp;

use super::{
    entry::{Looked, Stored},
    note::{PublicKey, SignedNote},
    published::{self, PUBLISHED},
    signer::public_path,
    tree::Hash,
    verify::{Report, Verifier},
};
use crate::{
    error::LedgerError,
    open::{DATABASE, url_of},
    read::Reader,
    schema::{audit_head, audit_node},
    tables::audit::{
        checkpoints, load_head,
        read::{StoredEntry, rows},
    },
};

/// Entries that are handed on at a time.
const CHUNK: u64 = 2_000;
/// Rows of one level of the tree, or checkpoints, that are read at a time.
const AHEAD: i64 = 1_000;

/// A data directory, or a copy of one, opened for reading alone.
pub struct AuditData {
    dir: PathBuf,
    url: String,
    conn: SqliteConnection,
    clock: opspilot_kernel::clock::SharedClock,
}

impl std::fmt::Debug for AuditData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuditData({})", self.dir.display())
    }
}

pub(crate) fn connect(url: &str) -> Result<SqliteConnection, LedgerError> {
    let mut conn = SqliteConnection::establish(url)?;
    conn.batch_execute("PRAGMA busy_timeout=5000; PRAGMA query_only=1; PRAGMA trusted_schema=0; PRAGMA mmap_size=0;")?;
    Ok(conn)
}

impl AuditData {
    /// Opens the log in `dir`. Works beside a running service, and on a copy that cannot be written.
    pub fn open(dir: &Path, clock: opspilot_kernel::clock::SharedClock) -> Result<AuditData, LedgerError> {
        let path = dir.join(DATABASE);
        if !path.is_file() {
            return Err(LedgerError::NotFound(format!("the database {}", path.display())));
        }
        let mut wal = path.clone().into_os_string();
        wal.push("-wal");
        // without a write-ahead log nobody writes, and no file needs to be made beside the database
        let quiet = std::fs::metadata(&wal).map_or(0, |meta| meta.len()) == 0;
        let url = format!("{}?{}", url_of(&path, None), if quiet { "immutable=1" } else { "mode=ro" });
        let conn = connect(&url)?;
        Ok(AuditData { dir: dir.to_owned(), url, conn, clock })
    }

    /// Reads as the service does: one state, whatever a service writes meanwhile.
    pub fn read<T>(&mut self, query: impl FnOnce(&mut Reader<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let clock = &self.clock;
        self.conn.transaction(|conn| query(&mut Reader { conn, clock }))
    }

    /// The public key that lies in the directory itself.
    pub fn own_key(&self) -> Option<PublicKey> {
        let line = std::fs::read_to_string(public_path(&self.dir)).ok()?;
        PublicKey::parse(line.trim_end()).ok()
    }

    /// Checks the whole log: every entry, the stored tree, every checkpoint and signature, and what was published.
    pub fn verify(&mut self, keys: Vec<PublicKey>, held: Vec<SignedNote>, progress: impl FnMut(u64, u64)) -> Result<Report, LedgerError> {
        let origin = checkpoints::origin(&mut self.conn)?;
        let mut verifier = Verifier::new(&origin, keys);
        held.into_iter().for_each(|note| verifier.hold(note));
        let newest = published::newest(&self.dir.join(PUBLISHED)).ok().flatten();
        let head = match self.read(|reader| load_head(reader.conn)) {
            Ok(head) => head,
            Err(LedgerError::Damaged(what)) => {
                // what is there is looked at all the same, to say where it goes wrong
                let size: i64 = audit_head::table.select(audit_head::size).first(&mut self.conn).optional()?.unwrap_or(0);
                verifier.wrong(u64::try_from(size).unwrap_or(0), what);
                crate::tables::audit::AuditHead { size: u64::try_from(size).unwrap_or(0), ..Default::default() }
            }
            Err(error) => return Err(error),
        };
        newest.into_iter().for_each(|note| verifier.hold_published(note));
        self.walk(&mut verifier, head.size, progress)?;
        self.compare_head(&mut verifier, head.size)?;
        Ok(verifier.finish())
    }

    fn walk(&mut self, verifier: &mut Verifier, size: u64, mut progress: impl FnMut(u64, u64)) -> Result<(), LedgerError> {
        let mut stored = Tree::default();
        let mut fixed = Fixed { size, ..Fixed::default() };
        let (url, conn) = (&self.url, &mut self.conn);
        let lookers = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 8);
        let mut failed: Option<LedgerError> = None;
        std::thread::scope(|scope| {
            let (read, to_look) = bounded::<(u64, Result<Vec<StoredEntry>, LedgerError>)>(2 * lookers);
            let (looked, in_any_order) = bounded::<(u64, Result<Vec<Looked>, LedgerError>)>(2 * lookers);
            scope.spawn(move || read_all(url, size, &read));
            for _ in 0..lookers {
                let (to_look, looked) = (to_look.clone(), looked.clone());
                scope.spawn(move || {
                    for (number, entries) in to_look {
                        if looked.send((number, entries.map(|entries| entries.iter().map(look).collect()))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop((to_look, looked));
            let (mut next, mut early) = (0, BTreeMap::new());
            'all: for (number, entries) in in_any_order {
                early.insert(number, entries);
                while let Some(entries) = early.remove(&next) {
                    next += 1;
                    match entries.and_then(|entries| in_order(verifier, entries, conn, &mut stored, &mut fixed)) {
                        Ok(()) => progress(verifier.size(), size),
                        Err(error) => {
                            failed = Some(error);
                            break 'all;
                        }
                    }
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if verifier.size() < size {
            verifier.wrong(verifier.size() + 1, format!("entries are missing at the end: the head says {size}"));
        }
        for late in fixed.rest(&mut self.conn)? {
            verifier.wrong(verifier.size() + 1, format!("a checkpoint over {late} entries is out of its place"));
        }
        Ok(())
    }

    /// The root and the frontier that are stored with the head.
    fn compare_head(&mut self, verifier: &mut Verifier, size: u64) -> Result<(), LedgerError> {
        use audit_head::dsl as t;
        let row: Option<(i64, Vec<u8>, Vec<u8>, i64)> =
            t::audit_head.find(1).select((t::size, t::root, t::frontier, t::last_ts)).first(&mut self.conn).optional()?;
        // a service that runs may have gone on since
        let Some((_, root, frontier, last_ts)) = row.filter(|row| u64::try_from(row.0) == Ok(size) && verifier.size() == size) else {
            return Ok(());
        };
        if root != verifier.root() || frontier != verifier.frontier() {
            verifier.wrong(size, "the root or the frontier that is stored is not that of the entries");
        }
        if verifier.high_water() != Some(Timestamp::from_millis(last_ts)) {
            verifier.wrong(size, "the latest time that is stored is not that of the entries");
        }
        Ok(())
    }
}

fn look(entry: &StoredEntry) -> Looked {
    let payload = entry.payload.as_ref().map(|(salt, body)| (salt.as_slice(), body.as_slice()));
    Looked::at(&Stored { seq: entry.seq, leaf: &entry.leaf, hash: &entry.hash, payload })
}

/// Reads all entries in parts; ends early if nobody takes them any more.
fn read_all(url: &str, size: u64, read: &crossbeam_channel::Sender<(u64, Result<Vec<StoredEntry>, LedgerError>)>) {
    let mut conn = match connect(url) {
        Ok(conn) => conn,
        Err(error) => return drop(read.send((0, Err(error)))),
    };
    let (mut number, mut from) = (0, 1);
    loop {
        let entries = rows(&mut conn, from, i64::try_from(CHUNK).unwrap_or(i64::MAX)).map(|mut entries| {
            entries.retain(|entry| entry.seq <= size);
            entries
        });
        match entries.as_ref().map(|entries| entries.last().map(|last| last.seq)) {
            Ok(None) => return,
            Ok(Some(last)) => from = last.saturating_add(1),
            Err(_) => return drop(read.send((number, entries))),
        }
        if read.send((number, entries)).is_err() {
            return;
        }
        number += 1;
    }
}

fn in_order(
    verifier: &mut Verifier,
    entries: Vec<Looked>,
    conn: &mut SqliteConnection,
    stored: &mut Tree,
    fixed: &mut Fixed,
) -> Result<(), LedgerError> {
    for entry in entries {
        let mut complete: Vec<(u8, u64, Hash)> = Vec::new();
        verifier.take(entry, |level, index, hash| complete.push((level, index, *hash)));
        for (level, index, hash) in complete {
            if stored.next(conn, level, index)? != Some(hash) {
                // the last entry under it is where it was written
                let under = index.saturating_add(1).checked_shl(u32::from(level)).unwrap_or(u64::MAX);
                verifier.wrong(under, format!("the stored node {index} of level {level} is not that of the entries"));
            }
        }
        while let Some((size, root, note, at)) = fixed.next_at(conn, verifier.size())? {
            let note = match note.map(|text| SignedNote::parse(text.as_bytes())) {
                None => None,
                Some(Ok(note)) => Some(note),
                Some(Err(why)) => {
                    verifier.wrong(size, format!("the note over {size} entries: {why}"));
                    None
                }
            };
            if size == verifier.size() && verifier.last_at() != Some(at) {
                verifier.wrong(size, format!("the time of the checkpoint over {size} entries is not that of its entry"));
            }
            verifier.checkpoint(size, &root, note);
        }
    }
    Ok(())
}

/// The rows of one level that were read ahead.
type Level = VecDeque<(u64, Vec<u8>)>;

/// The stored tree, each level read in the order in which its nodes are complete.
#[derive(Default)]
struct Tree {
    levels: BTreeMap<u8, Level>,
}

impl Tree {
    fn next(&mut self, conn: &mut SqliteConnection, level: u8, index: u64) -> Result<Option<Hash>, LedgerError> {
        let ahead = self.levels.entry(level).or_default();
        if ahead.is_empty() {
            use audit_node::dsl as t;
            let from = i64::try_from(index).unwrap_or(i64::MAX);
            let rows: Vec<(i64, Vec<u8>)> = t::audit_node
                .filter(t::level.eq(i32::from(level)).and(t::idx.ge(from)))
                .order(t::idx)
                .limit(AHEAD)
                .select((t::idx, t::hash))
                .load(conn)?;
            ahead.extend(rows.into_iter().filter_map(|(index, hash)| Some((u64::try_from(index).ok()?, hash))));
        }
        while ahead.front().is_some_and(|(at, _)| *at < index) {
            ahead.pop_front();
        }
        let found = ahead.pop_front_if(|(at, _)| *at == index);
        Ok(found.and_then(|(_, hash)| hash.try_into().ok()))
    }
}

/// Size, root, note and time of a checkpoint.
type NextFixed = (u64, Hash, Option<String>, Timestamp);

/// The stored checkpoints, in order.
#[derive(Default)]
struct Fixed {
    ahead: VecDeque<crate::audit::StoredCheckpoint>,
    next: u64,
    size: u64,
    ended: bool,
}

impl Fixed {
    fn fill(&mut self, conn: &mut SqliteConnection) -> Result<(), LedgerError> {
        if self.ahead.is_empty() && !self.ended {
            let more = checkpoints::between(conn, self.next, self.size, AHEAD)?;
            self.ended = more.is_empty();
            self.next = more.last().map_or(self.next, |last| last.size + 1);
            self.ahead.extend(more);
        }
        Ok(())
    }

    /// The next one, if it covers as many entries or fewer.
    fn next_at(&mut self, conn: &mut SqliteConnection, size: u64) -> Result<Option<NextFixed>, LedgerError> {
        self.fill(conn)?;
        let next = self.ahead.pop_front_if(|checkpoint| checkpoint.size <= size);
        Ok(next.map(|checkpoint| (checkpoint.size, checkpoint.root, checkpoint.note, checkpoint.at)))
    }

    fn rest(&mut self, conn: &mut SqliteConnection) -> Result<Vec<u64>, LedgerError> {
        self.fill(conn)?;
        Ok(self.ahead.iter().map(|checkpoint| checkpoint.size).collect())
    }
}
