//! Checking a whole log, entry by entry, as it is read: hashes, numbers, links, the tree, every checkpoint, signatures and
//! who vouches for their keys, payloads, and what entries say of each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use opspilot_kernel::time::Timestamp;
use serde::Serialize;

use super::{
    entry::{Looked, Said},
    note::{PublicKey, SignedNote},
    published,
    tree::{Frontier, Hash},
};

/// How many things that are wrong are listed; all are counted.
const LISTED: usize = 100;

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything is as it was written.
    Ok,
    /// Something is not.
    Tampered,
    /// It cannot be said.
    Unverifiable,
    /// Everything that is there is as it was written, and what is missing was deleted on record.
    OkWithDeletions,
}

impl Verdict {
    /// The exit code of the command line.
    pub const fn code(self) -> u8 {
        match self {
            Verdict::Ok => 0,
            Verdict::Tampered => 1,
            Verdict::Unverifiable => 2,
            Verdict::OkWithDeletions => 3,
        }
    }
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The entry, or the first of those among which it lies.
    pub seq: u64,
    /// What.
    pub what: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The outcome.
    pub verdict: Verdict,
    /// The first entry that is not as it was written, as far as that can be told.
    pub first_bad: Option<u64>,
    /// Which log.
    pub origin: String,
    /// How many entries it has.
    pub entries: u64,
    /// The root over them, hex.
    pub root: String,
    /// How many checkpoints are signed.
    pub checkpoints: u64,
    /// How many entries the newest of them covers.
    pub covered: u64,
    /// The keys that signed, as far as they are trusted.
    pub keys: Vec<String>,
    /// Entries whose payload was deleted on record.
    pub deleted: u64,
    /// What is wrong, the first by number first.
    pub findings: Vec<Finding>,
    /// How many things are wrong.
    pub wrong: u64,
    /// Why it cannot be said.
    pub unverifiable: Vec<String>,
    /// What a person may want to know, though nothing is wrong.
    pub warnings: Vec<String>,
}

/// A note of which somebody says that it was signed earlier.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) note: SignedNote,
    /// Found beside the log itself, where a restore may have gone back behind it.
    beside: bool,
    /// The entry from which on the log is another one.
    differs: Option<u64>,
}

/// What an entry says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyIs {
    /// It signs from here on.
    InUse,
    /// Another one signs from here on.
    Retired,
    /// Somebody else may have it.
    Revoked,
}

/// Checks a log as it is read.
#[derive(Debug, Clone)]
pub struct Verifier {
    pub(super) origin: String,
    pub(super) trusted: Vec<PublicKey>,
    pub(super) held: Vec<Held>,
    /// What restores went back behind.
    behind: HashSet<String>,
    tree: Frontier,
    prev: Hash,
    latest: String,
    /// The latest time since a clock that had been set back was accepted.
    high: String,
    /// The time of the last entry.
    last: String,
    /// How often time went back, and where first.
    back: (u64, u64),
    /// An entry is missing or changed, so that no root can be right.
    broken: bool,
    /// The last checkpoint that was right.
    good: u64,
    pub(super) notes: BTreeMap<u64, SignedNote>,
    said_checkpoints: Vec<u64>,
    /// What entries say of keys.
    pub(super) keys: Vec<(u64, [u8; 32], KeyIs)>,
    bare: Vec<(u64, u64)>,
    deleted: Vec<(u64, u64)>,
    /// The plan of each approval that was given.
    approved: HashMap<String, String>,
    used: HashSet<String>,
    tokens: HashSet<String>,
    started: HashSet<String>,
    findings: BTreeSet<Finding>,
    wrong: u64,
    pub(super) unverifiable: Vec<String>,
    warnings: Vec<String>,
}

impl Verifier {
    /// Begins with the log named `origin`, trusting these keys and what they vouch for.
    pub fn new(origin: &str, trusted: Vec<PublicKey>) -> Verifier {
        let mut verifier = Verifier {
            origin: origin.to_owned(),
            held: Vec::new(),
            behind: HashSet::new(),
            tree: Frontier::default(),
            prev: [0; 32],
            latest: String::new(),
            high: String::new(),
            last: String::new(),
            back: (0, 0),
            broken: false,
            good: 0,
            notes: BTreeMap::new(),
            said_checkpoints: Vec::new(),
            keys: Vec::new(),
            bare: Vec::new(),
            deleted: Vec::new(),
            approved: HashMap::new(),
            used: HashSet::new(),
            tokens: HashSet::new(),
            started: HashSet::new(),
            findings: BTreeSet::new(),
            wrong: 0,
            unverifiable: Vec::new(),
            warnings: Vec::new(),
            trusted: Vec::new(),
        };
        for key in trusted {
            if key.name() == origin {
                verifier.trusted.push(key);
            } else {
                verifier.unverifiable.push(format!("the key {} is for the log {}, and this one is {origin}", key.kid(), key.name()));
            }
        }
        verifier
    }

    /// The log must also continue this note, which somebody holds.
    pub fn hold(&mut self, note: SignedNote) {
        self.hold_with(note, false);
    }

    /// The log must also continue this note, which lies beside it, unless an entry says that a restore went back behind
    /// just that.
    pub(crate) fn hold_published(&mut self, note: SignedNote) {
        self.hold_with(note, true);
    }

    fn hold_with(&mut self, note: SignedNote, beside: bool) {
        if note.checkpoint().origin != self.origin {
            self.unverifiable.push(format!("a note is of the log {}, and this one is {}", note.checkpoint().origin, self.origin));
            return;
        }
        self.held.push(Held { note, beside, differs: None });
        self.meet();
    }

    #[cfg(test)]
    pub(crate) fn first_bad(&self) -> Option<u64> {
        self.findings.first().map(|finding| finding.seq)
    }

    pub(crate) fn root(&self) -> Hash {
        self.tree.root()
    }

    /// The clock's high-water mark, as the entries have it.
    pub(crate) fn high_water(&self) -> Option<Timestamp> {
        if self.tree.size() == 0 { Some(Timestamp::ZERO) } else { self.high.parse().ok() }
    }

    /// When the last entry was made.
    pub(crate) fn last_at(&self) -> Option<Timestamp> {
        self.last.parse().ok()
    }

    /// As the head stores it.
    pub(crate) fn frontier(&self) -> Vec<u8> {
        self.tree.packed()
    }

    /// How many entries were taken.
    pub fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Something is not as it was written.
    pub(crate) fn wrong(&mut self, seq: u64, what: impl Into<String>) {
        self.wrong += 1;
        self.findings.insert(Finding { seq, what: what.into() });
        if self.findings.len() > LISTED {
            self.findings.pop_last();
        }
    }

    /// A person may want to know.
    pub(crate) fn warn(&mut self, what: impl Into<String>) {
        self.warnings.push(what.into());
    }

    /// Takes the next entry. `complete` is told of the nodes that are complete with it.
    pub(crate) fn take(&mut self, entry: Looked, complete: impl FnMut(u8, u64, &Hash)) {
        let expected = self.tree.size() + 1;
        if entry.seq != expected {
            self.broken = true;
            self.wrong(expected, format!("the entry is missing or out of its place: number {} comes instead", entry.seq));
        } else if let Some(what) = entry.wrong {
            self.broken = true;
            self.wrong(expected, what);
        } else if entry.prev != self.prev {
            self.broken = true;
            self.wrong(expected, "it does not follow the entry before it: one of them was changed, added or taken away");
        }
        self.prev = entry.hash;
        if entry.wrong.is_none() {
            if entry.ts < self.latest {
                self.back = (self.back.0 + 1, if self.back.0 == 0 { expected } else { self.back.1 });
            } else {
                self.latest.clone_from(&entry.ts);
            }
            if entry.ts > self.high {
                self.high.clone_from(&entry.ts);
            }
            self.heed(expected, entry.said, &entry.ts);
            self.last = entry.ts;
        }
        if entry.bare {
            match self.bare.last_mut() {
                Some((_, last)) if *last + 1 == expected => *last = expected,
                _ => self.bare.push((expected, expected)),
            }
        }
        self.tree.push(entry.hash, complete);
        self.meet();
    }

    fn heed(&mut self, seq: u64, said: Said, ts: &String) {
        match said {
            Said::Nothing => {}
            Said::Checkpoint => self.said_checkpoints.push(seq),
            Said::KeyInUse(key) => self.keys.push((seq, key, KeyIs::InUse)),
            Said::KeyRetired(key) => self.keys.push((seq, key, KeyIs::Retired)),
            Said::KeyRevoked(key) => self.keys.push((seq, key, KeyIs::Revoked)),
            Said::WentBackBehind(digest) => {
                self.behind.insert(digest);
            }
            Said::Deleted(from, to) => self.deleted.push((from, to)),
            Said::ClockAccepted => self.high.clone_from(ts),
            Said::Approved { approval, plan } => {
                self.approved.insert(approval, plan);
            }
            Said::Started { execution, approval, token, plan } => {
                match self.approved.get(&approval) {
                    None => self.wrong(seq, format!("the execution {execution} has no approval before it")),
                    Some(approved) if *approved != plan => {
                        self.wrong(seq, format!("the execution {execution} is of another plan than the one that was approved"));
                    }
                    Some(_) => {}
                }
                if !self.used.insert(approval) {
                    self.wrong(seq, format!("the execution {execution} uses an approval that was used before"));
                }
                if !self.tokens.insert(token) {
                    self.wrong(seq, format!("the execution {execution} uses a token that was used before"));
                }
                if !self.started.insert(execution.clone()) {
                    self.wrong(seq, format!("the execution {execution} started before"));
                }
            }
            Said::Ended(execution) => {
                if !self.started.contains(&execution) {
                    self.wrong(seq, format!("the execution {execution} ended and never started"));
                }
            }
        }
    }

    /// Compares what somebody holds with the tree as it is now.
    fn meet(&mut self) {
        let (size, broken) = (self.tree.size(), self.broken);
        if broken || !self.held.iter().any(|held| held.note.checkpoint().size == size) {
            return;
        }
        let (root, from) = (self.tree.root(), (self.good + 1).min(size));
        let mut differs = false;
        for held in self.held.iter_mut().filter(|held| held.note.checkpoint().size == size && held.note.checkpoint().root != root) {
            held.differs = Some(from);
            differs |= !held.beside;
        }
        if differs {
            self.rewritten(from, size);
        }
    }

    fn rewritten(&mut self, from: u64, size: u64) {
        self.wrong(from, format!("an entry up to {size} is not what an earlier note fixed: the log was rewritten"));
    }

    /// What lies beside the log holds, unless a restore went back behind it: only at the end is it known whether one did.
    fn judge_published(&mut self) {
        let behind = std::mem::take(&mut self.behind);
        self.held.retain(|held| !held.beside || !behind.contains(&published::digest(&held.note)));
        let differ = self.held.iter().filter(|held| held.beside);
        for (from, size) in differ.filter_map(|held| Some((held.differs?, held.note.checkpoint().size))).collect::<Vec<_>>() {
            self.rewritten(from, size);
        }
    }

    /// Takes a checkpoint, where it stands in the log.
    pub(crate) fn checkpoint(&mut self, size: u64, root: &Hash, note: Option<SignedNote>) {
        let from = self.good + 1;
        if size != self.tree.size() {
            self.wrong(self.tree.size() + 1, format!("a checkpoint over {size} entries is out of its place"));
            return;
        }
        if self.broken {
            return;
        }
        let right =
            *root == self.tree.root() && note.as_ref().is_none_or(|note| note.checkpoint().size == size && note.checkpoint().root == *root);
        if !right {
            self.broken = true;
            self.wrong(from, format!("the entries up to {size} are not those of their checkpoint"));
            return;
        }
        self.good = size;
        if let Some(note) = note {
            if note.checkpoint().origin != self.origin {
                self.wrong(from, format!("the checkpoint over {size} entries is of the log {}", note.checkpoint().origin));
            }
            if self.notes.insert(size, note).is_some() {
                self.wrong(from, format!("there is a second checkpoint over {size} entries"));
            }
        }
    }

    /// The outcome.
    pub fn finish(mut self) -> Report {
        let entries = self.tree.size();
        self.judge_published();
        for size in self
            .held
            .iter()
            .filter(|held| held.note.checkpoint().size > entries)
            .map(|held| held.note.checkpoint().size)
            .collect::<Vec<_>>()
        {
            self.wrong(entries + 1, format!("the log ends here, and an earlier note covers {size} entries: it was cut off"));
        }
        let deleted = self.account_for_payloads();
        self.check_signatures();
        self.check_checkpoints_are_there();
        if self.back.0 > 0 {
            let (times, first) = self.back;
            self.warnings.push(format!("time went back {times} times, first at entry {first}"));
        }
        let covered = self.notes.keys().next_back().copied().unwrap_or(0);
        if entries > 0 && self.notes.is_empty() {
            self.unverifiable.push("no checkpoint is signed: that nobody rewrote the log cannot be said".to_owned());
        } else if covered < entries {
            self.warnings.push(format!("{} entries at the end are not covered by a signed checkpoint yet", entries - covered));
        }
        let verdict = if self.wrong > 0 {
            Verdict::Tampered
        } else if !self.unverifiable.is_empty() {
            Verdict::Unverifiable
        } else if deleted > 0 {
            Verdict::OkWithDeletions
        } else {
            Verdict::Ok
        };
        Report {
            verdict,
            first_bad: self.findings.first().map(|finding| finding.seq),
            entries,
            root: hex::encode(self.tree.root()),
            checkpoints: u64::try_from(self.notes.len()).unwrap_or(u64::MAX),
            covered,
            keys: self.trusted.iter().map(PublicKey::kid).collect(),
            deleted,
            findings: self.findings.into_iter().collect(),
            wrong: self.wrong,
            unverifiable: self.unverifiable,
            warnings: self.warnings,
            origin: self.origin,
        }
    }

    /// Every payload that is not there must have been deleted on record. Says how many.
    fn account_for_payloads(&mut self) -> u64 {
        let mut recorded = std::mem::take(&mut self.deleted);
        recorded.sort_unstable();
        let mut count = 0;
        for (from, to) in std::mem::take(&mut self.bare) {
            count += to - from + 1;
            let mut next = from;
            for (first, last) in &recorded {
                if *first <= next && next <= *last {
                    next = last.saturating_add(1);
                }
            }
            if next <= to {
                self.wrong(next, "the payload is missing, and no entry says that it was deleted");
            }
        }
        count
    }

    /// An entry announces every checkpoint. Only the newest may still wait for their signatures.
    fn check_checkpoints_are_there(&mut self) {
        let covered = self.notes.keys().next_back().copied().unwrap_or(0);
        for seq in std::mem::take(&mut self.said_checkpoints) {
            if seq > covered {
                self.warnings.push(format!("the checkpoint that entry {seq} announces is not signed yet"));
            } else if !self.notes.contains_key(&seq) && !self.broken {
                self.wrong(seq, "the checkpoint that this entry announces is missing");
            }
        }
    }
}
