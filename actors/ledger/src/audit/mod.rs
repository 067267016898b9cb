//! The audit log as others verify it: who did what, in a record that nobody can change unnoticed, not even whoever runs
//! the service, once a stranger holds a note of it.
//!
//! # The format, for whoever writes a verifier
//!
//! **Entries** are numbered from 1 without a gap. An entry is a *leaf*, which stays for good, and a *payload*, which may be
//! deleted. The leaf is a JSON object with exactly these members, in UTF-8:
//!
//! | member | |
//! |---|---|
//! | `v` | 1 |
//! | `seq` | its number |
//! | `ts` | when, `2026-11-22T19:00:00.000Z` |
//! | `node`, `boot` | which node wrote it, in which run |
//! | `code` | what happened; the codes are listed in `actors/ledger/src/tables/audit` |
//! | `actor` | who: `{"t","id","via"}` |
//! | `obj` | to what: `{"t","id"}` |
//! | `outcome` | `success`, `failure` or `denied` |
//! | `req` | the id of the request, or null |
//! | `commit` | `SHA-256(0x02 ‖ salt ‖ body)` of its payload, in lower-case hex |
//! | `prev` | `SHA-256(0x00 ‖ leaf)` of the entry before it; zeros in the first |
//!
//! The bytes of the leaf are what is hashed; they are stored, and never made again from what was parsed. The salt has 32
//! bytes, the body is a JSON object. A sensitive value in a body is written `hmac:v1:<key>:<HMAC-SHA-256(key, path ‖ 0 ‖
//! value)>`.
//!
//! **The tree** over the entries is that of RFC 6962: `SHA-256(0x00 ‖ leaf)` for a leaf, `SHA-256(0x01 ‖ left ‖ right)` for
//! a node. A **checkpoint** is a signed note ([`note`]): the log's name, its size, its root. Right before it stands a
//! `CHK01I` entry, the last one that it covers. Checkpoints are signed 60 seconds after an entry at the latest, every 256
//! entries, after an action ended, at an orderly stop and every hour, and each only after it was proved to continue the
//! one before it. Every note is published in `<data>/checkpoints.log` and as `GET /api/audit/checkpoint`.
//!
//! **Keys.** `SGN01I` entries name the keys that sign checkpoints (body: `purpose` = `audit`, `public` in hex). A key is
//! trusted if it was given to the verifier, or if such an entry names it that is covered by a checkpoint which a trusted
//! key signed. No checkpoint over or behind a `SGN02I` (retired) or `SGN03W` (revoked) entry may be signed by the key that
//! the entry names.
//!
//! **What a verifier checks** of an export (the form of which is described in `export`):
//!
//! 1. each line is in the one form it can have, the numbers are without a gap, each leaf hashes to what stands beside it
//!    and names the one before it, each payload is what its leaf commits to;
//! 2. each checkpoint has the root of the entries before it;
//! 3. each is signed by a trusted key;
//! 4. the log has the root of every note that somebody held on to, and is no shorter than any of them;
//! 5. every missing payload is named by a `RED01I` or `RET01I` entry (`obj` = `audit`, `17` or `17-20`), and every `CHK01I`
//!    entry that a later checkpoint covers has its own;
//! 6. every execution that started (`EXE01I`; body: `approval`, `jti_sha256`, `plan`) has an approval (`APR01I`; body:
//!    `plan`) of the same plan before it, no approval and no token is used twice, and what ended (`EXE02I`, `EXE02E`) had
//!    started; a plan in words (`PRO01I`; body: `plan_text`, `plan`) has its digest: `plan` is `sha256:` and the hex SHA-256
//!    over the text.
//!
//! On a data directory it also checks what lies beside the entries: the stored tree, the head with its latest time (that of
//! the entries since the last `CLK01I`, and of itself), the times of checkpoints, and that the newest published note is
//! continued, unless a `RES01I` entry (body: `behind`, the hex SHA-256 of the note) says that a restore went back behind it.
//!
//! The output of a run is not in the log, its digests are: `stdout_sha256` and `stderr_sha256` of `EXE02I` and `EXE02E`.
//!
//! The outcome is 0 as it was written, 1 tampered with, 2 cannot be said, 3 as it was written with payloads deleted on
//! record. `tests/audit_verifier/verify.py` is a second verifier, written from this page.
//!
//! # What it is worth
//!
//! Whatever is newer than the last note that somebody else holds can be changed unnoticed by whoever has the database and
//! the key. A running service that is in the hands of an attacker can write what is not true. A key on the same machine
//! protects against those who have the database alone, or a backup of it, and not against its administrator: that is what
//! notes kept elsewhere are for.

mod actor;
pub(crate) mod data;
mod entry;
mod export;
mod keys;
pub mod note;
mod proof;
pub(crate) mod published;
mod signatures;
pub(crate) mod signer;
#[cfg(test)]
mod tests;
pub mod tree;
mod verify;

pub use self::{
    actor::{CheckpointActor, CheckpointSchedule},
    data::AuditData,
    export::{ExportCursor, ExportVerifier, verify_export},
    keys::Replaced,
    proof::{ProofFile, Proved, verify_proof},
    published::{PUBLISHED, notes},
    signer::{CheckpointError, public_path},
    verify::{Finding, Report, Verdict, Verifier},
};
pub use crate::tables::audit::checkpoints::{KeyRecorded, Proof, StoredCheckpoint};
