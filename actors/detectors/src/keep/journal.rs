//! Which series began and which were forgotten, from commit to commit.

use std::collections::VecDeque;

use opspilot_kernel::ids::Seq;

use crate::state::Change;

/// What pages are stored under, then the number of the last signal in 16 digits.
pub(super) const PREFIX: &str = "journal/";
/// Key, number, and the digest of the rule or nothing.
const ENTRY: usize = 25;

/// A series began, by a rule, or was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: u64,
    pub(super) seq: Seq,
    /// The digest of its rule, if it began.
    pub(super) born: Option<u64>,
}

/// What happened since the last commit, and the pages that are stored.
#[derive(Debug, Default)]
pub(super) struct Journal {
    fresh: Vec<Entry>,
    pages: VecDeque<(Seq, String)>,
}

impl Journal {
    pub(super) fn add(&mut self, entry: Entry) {
        self.fresh.push(entry);
    }

    /// A page that is stored; what is in it.
    pub(super) fn restore(&mut self, key: &str, body: &[u8]) -> Result<Vec<Entry>, String> {
        let entries: Option<Vec<Entry>> = body.chunks(ENTRY).map(read).collect();
        let entries = entries.ok_or("a page of the journal is cut off")?;
        let last = entries.iter().map(|entry| entry.seq).max().unwrap_or(0);
        self.pages.push_back((last, key.to_owned()));
        Ok(entries)
    }

    /// A page of what is new, and the end of those that nobody needs when everything up to `marked` is on the shelf.
    pub(super) fn changed(&mut self, marked: Seq, changes: &mut Vec<Change>) {
        let done = self.pages.iter().take_while(|(last, _)| *last <= marked).count();
        changes.extend(self.pages.drain(..done).map(|(_, key)| Change::gone(key)));
        let Some(last) = self.fresh.iter().map(|entry| entry.seq).max() else { return };
        let mut key = format!("{PREFIX}{last:016x}");
        // a second page for the same signal, after a reload
        while self.pages.iter().rev().take_while(|(of, _)| *of == last).any(|(_, known)| *known == key) {
            key.push('+');
        }
        let mut body = Vec::with_capacity(self.fresh.len().saturating_mul(ENTRY));
        for entry in self.fresh.drain(..) {
            body.extend_from_slice(&entry.key.to_le_bytes());
            body.extend_from_slice(&entry.seq.to_le_bytes());
            body.push(u8::from(entry.born.is_some()));
            body.extend_from_slice(&entry.born.unwrap_or(0).to_le_bytes());
        }
        self.pages.push_back((last, key.clone()));
        changes.push(Change { key, body: Some(body) });
    }
}

fn read(bytes: &[u8]) -> Option<Entry> {
    let (key, rest) = bytes.split_first_chunk::<8>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (born, digest) = rest.split_first()?;
    let digest = u64::from_le_bytes(digest.try_into().ok()?);
    Some(Entry { key: u64::from_le_bytes(*key), seq: Seq::from_le_bytes(*seq), born: (*born != 0).then_some(digest) })
}
