//! The log as text that stands alone: one JSON object on each line, and each in the one form it can have.
//!
//! ```text
//! {"format":"opspilot-audit-1","origin":"opspilot.local/3f0c…/audit","size":1234,"key":"opspilot.local/…+5e01d5d3+ATnI…"}
//! {"seq":1,"leaf":"{\"actor\":…","hash":"9a0b…","salt":"77…","body":"{…}"}
//! …
//! {"checkpoint":"opspilot.local/3f0c…/audit\n17\n…\n\n— …\n"}
//! ```
//!
//! A checkpoint stands right behind the last entry that it covers. `salt` and `body` are null where the payload was
//! deleted. `key` is the public key that the log was exported with: whoever holds one from elsewhere uses that.

use std::io::{self, BufRead};

use serde::{Deserialize, Serialize};

use super::{
    entry::{Looked, Stored, hash_of},
    note::{PublicKey, SignedNote},
    verify::Verifier,
};
use crate::{
    error::LedgerError,
    read::Reader,
    tables::audit::{checkpoints, load_head, read::rows},
};

/// What the first line says.
const FORMAT: &str = "opspilot-audit-1";
/// Entries that are read, and written, at a time.
const CHUNK: i64 = 1_000;
/// No line of ours comes near this.
const MAX_LINE: u64 = 64 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    origin: String,
    size: u64,
    key: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    seq: u64,
    leaf: String,
    hash: String,
    salt: Option<String>,
    body: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixed {
    checkpoint: String,
}

fn push_line(out: &mut Vec<u8>, line: &impl Serialize) -> Result<(), LedgerError> {
    serde_json::to_writer(&mut *out, line).map_err(|error| LedgerError::Internal(error.to_string()))?;
    out.push(b'\n');
    Ok(())
}

/// Salt and body as they are written.
pub(super) fn payload_text(payload: Option<(Vec<u8>, Vec<u8>)>, seq: u64) -> Result<(Option<String>, Option<String>), LedgerError> {
    let Some((salt, body)) = payload else { return Ok((None, None)) };
    Ok((Some(hex::encode(salt)), Some(text(body, seq)?)))
}

pub(super) fn text(bytes: Vec<u8>, seq: u64) -> Result<String, LedgerError> {
    String::from_utf8(bytes).map_err(|_| LedgerError::Damaged(format!("audit entry {seq}: it is not text")))
}

/// Where an export stands. Between two parts nothing is held, so that it may take its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportCursor {
    size: u64,
    next: u64,
}

impl Reader<'_> {
    /// The first line, and where to go on: the export ends at the entry that is the last one now.
    pub fn audit_export_begin(&mut self, key: Option<&PublicKey>) -> Result<(Vec<u8>, ExportCursor), LedgerError> {
        let size = load_head(self.conn)?.size;
        let head = Head { format: FORMAT.to_owned(), origin: checkpoints::origin(self.conn)?, size, key: key.map(ToString::to_string) };
        let mut out = Vec::new();
        push_line(&mut out, &head)?;
        Ok((out, ExportCursor { size, next: 1 }))
    }

    /// The next part, and where to go on; nothing at the end.
    pub fn audit_export_part(&mut self, cursor: &ExportCursor) -> Result<Option<(Vec<u8>, ExportCursor)>, LedgerError> {
        if cursor.next > cursor.size {
            return Ok(None);
        }
        let last = cursor.size.min(cursor.next.saturating_add(CHUNK.unsigned_abs() - 1));
        let mut out = Vec::new();
        let fixed = checkpoints::between(self.conn, cursor.next, last, i64::MAX)?;
        let mut fixed = fixed.into_iter().filter_map(|checkpoint| Some((checkpoint.size, checkpoint.note?))).peekable();
        let mut expected = cursor.next;
        for row in rows(self.conn, cursor.next, CHUNK)? {
            if row.seq > last {
                break;
            }
            if row.seq != expected {
                return Err(LedgerError::Damaged(format!("audit entry {expected}: missing")));
            }
            let (salt, body) = payload_text(row.payload, expected)?;
            push_line(&mut out, &Row { seq: row.seq, leaf: text(row.leaf, expected)?, hash: hex::encode(row.hash), salt, body })?;
            if let Some((_, note)) = fixed.next_if(|(size, _)| *size == expected) {
                push_line(&mut out, &Fixed { checkpoint: note })?;
            }
            expected += 1;
        }
        if expected <= last {
            return Err(LedgerError::Damaged(format!("audit entry {expected}: missing")));
        }
        Ok(Some((out, ExportCursor { size: cursor.size, next: expected })))
    }
}

/// Reads an export line by line into a [`Verifier`].
#[derive(Clone)]
pub struct ExportVerifier {
    verifier: Verifier,
    size: u64,
    /// The key that the export itself names.
    pub own_key: Option<PublicKey>,
}

impl std::fmt::Debug for ExportVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExportVerifier({} of {})", self.verifier.size(), self.size)
    }
}

/// A line in the one form it can have; nothing if it is in another.
fn strict<'a, T: Serialize + Deserialize<'a>>(line: &'a [u8]) -> Option<T> {
    let read: T = serde_json::from_slice(line).ok()?;
    (serde_json::to_vec(&read).ok()?.as_slice() == line).then_some(read)
}

/// A line behind the first, looked at for itself.
pub(crate) enum Line {
    /// An entry, and whether salt and body are both there or both gone.
    Entry(Box<Looked>, bool),
    Checkpoint(Box<SignedNote>),
    Wrong(String),
}

impl Line {
    /// Looks at a line without its newline.
    pub(crate) fn read(line: &[u8]) -> Line {
        if let Some(row) = strict::<Row>(line) {
            let hash = hash_of(&row.hash);
            let salt = row.salt.as_ref().map(|salt| hash_of(salt));
            let (payload, whole) = match (&salt, &row.body) {
                (Some(Some(salt)), Some(body)) => (Some((salt.as_slice(), body.as_bytes())), true),
                (None, None) => (None, true),
                _ => (None, false),
            };
            let hash = hash.as_ref().map_or([].as_slice(), |hash| hash.as_slice());
            return Line::Entry(Box::new(Looked::at(&Stored { seq: row.seq, leaf: row.leaf.as_bytes(), hash, payload })), whole);
        }
        match strict::<Fixed>(line).map(|fixed| SignedNote::parse(fixed.checkpoint.as_bytes())) {
            Some(Ok(note)) => Line::Checkpoint(Box::new(note)),
            Some(Err(why)) => Line::Wrong(format!("a checkpoint: {why}")),
            None => Line::Wrong("the line is not as it was written".to_owned()),
        }
    }
}

impl ExportVerifier {
    /// Begins with the first line, trusting `keys`; with none of them the key that the export names.
    pub fn begin(line: &[u8], keys: Vec<PublicKey>) -> Result<ExportVerifier, String> {
        let head: Head = strict(line.strip_suffix(b"\n").unwrap_or_default()).ok_or("this is no export of an audit log")?;
        if head.format != FORMAT {
            return Err(format!("the export is in the format {:?}, which is not known here", head.format));
        }
        let own_key = match (&head.key, keys.is_empty()) {
            (Some(key), true) => Some(PublicKey::parse(key).map_err(|why| format!("the key of the export: {why}"))?),
            _ => None,
        };
        let trusted = own_key.clone().map_or(keys, |key| vec![key]);
        Ok(ExportVerifier { verifier: Verifier::new(&head.origin, trusted), size: head.size, own_key })
    }

    /// The log must also continue this note.
    pub fn hold(&mut self, note: SignedNote) {
        self.verifier.hold(note);
    }

    /// Takes the next line, with its newline.
    pub fn take(&mut self, line: &[u8]) {
        let expected = self.verifier.size() + 1;
        let Some(line) = line.strip_suffix(b"\n") else {
            self.verifier.wrong(expected, "the export ends in the middle of a line");
            return;
        };
        match Line::read(line) {
            Line::Entry(entry, whole) => {
                if !whole {
                    self.verifier.wrong(expected, "half of the payload is missing, or it is not what was written");
                }
                self.verifier.take(*entry, |_, _, _| {});
            }
            Line::Checkpoint(note) => {
                let checkpoint = note.checkpoint().clone();
                self.verifier.checkpoint(checkpoint.size, &checkpoint.root, Some(*note));
            }
            Line::Wrong(what) => self.verifier.wrong(expected, what),
        }
    }

    #[cfg(test)]
    pub(crate) fn first_bad(&self) -> Option<u64> {
        self.verifier.first_bad()
    }

    #[cfg(test)]
    pub(crate) fn is_wrong(&self) -> bool {
        self.first_bad().is_some()
    }

    /// The outcome.
    pub fn finish(mut self) -> super::verify::Report {
        let found = self.verifier.size();
        if found != self.size {
            let first = found.min(self.size) + 1;
            self.verifier.wrong(first, format!("the export says that it has {} entries, and has {found}", self.size));
        }
        if self.own_key.is_some() {
            self.verifier.warn("the public key is the export's own: compare it with one from elsewhere");
        }
        self.verifier.finish()
    }
}

/// Checks an export. An error means that it cannot be read at all.
pub fn verify_export(
    mut export: impl BufRead,
    keys: Vec<PublicKey>,
    held: Vec<SignedNote>,
    mut progress: impl FnMut(u64),
) -> Result<super::verify::Report, String> {
    let unreadable = |error: io::Error| format!("the export cannot be read: {error}");
    let mut line = Vec::new();
    io::Read::take(&mut export, MAX_LINE).read_until(b'\n', &mut line).map_err(unreadable)?;
    let mut verifier = ExportVerifier::begin(&line, keys)?;
    held.into_iter().for_each(|note| verifier.hold(note));
    loop {
        line.clear();
        if io::Read::take(&mut export, MAX_LINE).read_until(b'\n', &mut line).map_err(unreadable)? == 0 {
            return Ok(verifier.finish());
        }
        verifier.take(&line);
        progress(verifier.verifier.size());
    }
}
