//! The audit log as others verify it.

mod actor;
pub mod note;
pub(crate) mod published;
pub(crate) mod signer;
pub mod tree;

pub use self::{
    actor::{CheckpointActor, CheckpointSchedule},
    published::{PUBLISHED, notes},
    signer::{CheckpointError, public_path},
};
pub use crate::tables::audit::checkpoints::{KeyRecorded, Proof, StoredCheckpoint};
