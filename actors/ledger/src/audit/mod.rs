//! The audit log as others verify it.

mod actor;
mod data;
mod entry;
mod export;
mod keys;
pub mod note;
mod proof;
pub(crate) mod published;
pub(crate) mod signer;
pub mod tree;
#[cfg(test)]
mod tests;
mod verify;

pub use self::{
    actor::{CheckpointActor, CheckpointSchedule},
    data::AuditData,
    keys::Replaced,
    export::{ExportCursor, ExportVerifier, verify_export},
    proof::{ProofFile, Proved, verify_proof},
    published::{PUBLISHED, notes},
    signer::{CheckpointError, public_path},
    verify::{Finding, Report, Verdict, Verifier},
};
pub use crate::tables::audit::checkpoints::{KeyRecorded, Proof, StoredCheckpoint};
