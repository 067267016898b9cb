//! One entry with all that it takes to check it without the log, in one file: the leaf, its payload, its path to the root,
//! and the signed checkpoint that fixes the root.

use serde::{Deserialize, Serialize};

use super::{
    entry::{Looked, Stored, hash_of},
    export::{payload_text, text},
    note::{PublicKey, SignedNote},
    tree::{Hash, check_inclusion},
    verify::Verdict,
};
use crate::{error::LedgerError, read::Reader, tables::audit::read::rows};

const FORMAT: &str = "opspilot-proof-1";
/// No tree has a longer path; a file with one is none of ours.
const LONGEST: usize = 64;

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofFile {
    format: String,
    seq: u64,
    leaf: String,
    salt: Option<String>,
    body: Option<String>,
    path: Vec<String>,
    checkpoint: String,
    key: Option<String>,
}

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proved {
    /// The outcome.
    pub verdict: Verdict,
    /// The entry.
    pub seq: u64,
    /// Why it does not hold, or cannot be said to.
    pub why: Option<String>,
    /// Which log.
    pub origin: String,
    /// How many entries the checkpoint covers.
    pub size: u64,
    /// The leaf, if it holds.
    pub leaf: Option<String>,
}

impl Reader<'_> {
    /// The proof that the entry `seq` is under the newest signed checkpoint.
    pub fn audit_proof(&mut self, seq: u64, key: Option<&PublicKey>) -> Result<ProofFile, LedgerError> {
        let newest = self.audit_checkpoint()?.and_then(|checkpoint| checkpoint.note.map(|note| (checkpoint.size, note)));
        let Some((size, note)) = newest else { return Err(LedgerError::Conflict("no checkpoint is signed yet".to_owned())) };
        if seq > size {
            return Err(LedgerError::Conflict(format!("the newest signed checkpoint covers {size} entries, and not {seq} yet")));
        }
        let path = self.audit_inclusion(seq, size)?.path;
        let missing = || LedgerError::NotFound(format!("the audit entry {seq}"));
        let row = rows(self.conn, seq, 1)?.into_iter().next().filter(|row| row.seq == seq).ok_or_else(missing)?;
        let (salt, body) = payload_text(row.payload, seq)?;
        Ok(ProofFile {
            format: FORMAT.to_owned(),
            seq,
            leaf: text(row.leaf, seq)?,
            salt,
            body,
            path: path.iter().map(hex::encode).collect(),
            checkpoint: note,
            key: key.map(ToString::to_string),
        })
    }
}

/// Checks a proof, trusting `keys`; with none of them the key that the file names.
pub fn verify_proof(bytes: &[u8], keys: Vec<PublicKey>) -> Result<Proved, String> {
    let file: ProofFile = serde_json::from_slice(bytes).map_err(|error| format!("this is no proof: {error}"))?;
    if file.format != FORMAT {
        return Err(format!("the proof is in the format {:?}, which is not known here", file.format));
    }
    let note = SignedNote::parse(file.checkpoint.as_bytes()).map_err(|why| format!("the checkpoint of the proof: {why}"))?;
    let trusted = match (&file.key, keys.is_empty()) {
        (Some(key), true) => vec![PublicKey::parse(key).map_err(|why| format!("the key of the proof: {why}"))?],
        _ => keys,
    };
    let (origin, size) = (note.checkpoint().origin.clone(), note.checkpoint().size);
    let checked = check(&file, &note, &trusted);
    let (verdict, why) = match checked {
        Ok(true) => (Verdict::Ok, None),
        Ok(false) => (Verdict::OkWithDeletions, None),
        Err((verdict, why)) => (verdict, Some(why.to_owned())),
    };
    let leaf = (verdict != Verdict::Tampered).then_some(file.leaf);
    Ok(Proved { verdict, seq: file.seq, why, origin, size, leaf })
}

/// Whether the payload is there as well.
fn check(file: &ProofFile, note: &SignedNote, trusted: &[PublicKey]) -> Result<bool, (Verdict, &'static str)> {
    let tampered = |why| (Verdict::Tampered, why);
    let salt = file.salt.as_ref().map(|salt| hash_of(salt).ok_or(tampered("the salt is no salt"))).transpose()?;
    let payload = match (&salt, &file.body) {
        (Some(salt), Some(body)) => Some((salt.as_slice(), body.as_bytes())),
        (None, None) => None,
        _ => return Err(tampered("half of the payload is missing")),
    };
    let hash = super::tree::leaf_hash(file.leaf.as_bytes());
    let looked = Looked::at(&Stored { seq: file.seq, leaf: file.leaf.as_bytes(), hash: &hash, payload });
    if let Some(wrong) = looked.wrong
        && payload.is_some()
    {
        return Err(tampered(wrong));
    }
    if file.path.len() > LONGEST {
        return Err(tampered("the path is too long"));
    }
    let path: Option<Vec<Hash>> = file.path.iter().map(|hash| hash_of(hash)).collect();
    let path = path.ok_or(tampered("the path is no path"))?;
    let checkpoint = note.checkpoint();
    let index = file.seq.checked_sub(1).ok_or(tampered("entries are numbered from 1"))?;
    if !check_inclusion(&hash, index, checkpoint.size, &path, &checkpoint.root) {
        return Err(tampered("the path does not lead to the root of the checkpoint"));
    }
    let trusted: Vec<&PublicKey> = trusted.iter().filter(|key| key.name() == checkpoint.origin).collect();
    if trusted.is_empty() {
        return Err((Verdict::Unverifiable, "there is no public key of this log to check the signature with"));
    }
    if !trusted.iter().any(|key| note.signed_by(key) == Some(true)) {
        return Err(tampered("the checkpoint is not signed by the key"));
    }
    Ok(payload.is_some())
}
