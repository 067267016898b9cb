//! Another key in the place of the one that is used: on record before it is used, and with the old one's word for it where
//! that is still worth something.

use opspilot_kernel::principal::Actor;

use super::{
    note::PublicKey,
    signer::{CheckpointError, write_public},
};
use crate::{
    error::LedgerError,
    keyfile::{KeyFile, KeyPurpose},
    ledger::{Ledger, Priority},
    tables::audit::checkpoints::KeyRecorded,
};

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Replaced {
    /// What the keys are for.
    pub purpose: &'static str,
    /// The name of the old key; nothing if there was none.
    pub old: Option<String>,
    /// The name of the new one.
    pub new: String,
    /// The public part of the new one, if others check with it: what to hand to whoever verifies.
    pub public: Option<String>,
}

fn recorded(key: &KeyFile) -> KeyRecorded {
    KeyRecorded { purpose: key.purpose().as_str(), kid: key.kid(), public: hex::encode(key.public()) }
}

impl Ledger {
    /// Puts a new key in the place of the one for `purpose`. A key that is only replaced vouches for the next one: the key
    /// of the audit log signs a last checkpoint, over the entry that names its successor. A key that is `revoked` does
    /// nothing any more. No service may use the directory meanwhile.
    pub async fn replace_key(&self, purpose: KeyPurpose, actor: Actor, revoked: bool, reason: String) -> Result<Replaced, CheckpointError> {
        let dir = self.shared().options.dir.clone();
        let audit = purpose == KeyPurpose::Audit;
        if audit && !revoked {
            self.open_audit_key().await?;
            self.recover_checkpoints().await?;
        }
        let at = dir.clone();
        let old = tokio::task::spawn_blocking(move || KeyFile::read(&at, purpose)).await.map_err(|_| LedgerError::Panicked)??;
        let new = KeyFile::random(purpose);
        let (before, after) = (old.as_ref().map(recorded), recorded(&new));
        let (by, why, gone) = (actor.clone(), reason.clone(), before.clone().filter(|_| revoked));
        self.write(Priority::Control, move |tx| {
            tx.key_in_use(&by, &after, &why)?;
            gone.map_or(Ok(()), |gone| tx.key_revoked(&by, &gone, &why))
        })
        .await?;
        if audit && !revoked {
            self.checkpoint("rotation").await?;
        }
        let origin = self.read(|reader| reader.audit_origin()).await?;
        let public = audit.then(|| PublicKey::of(&origin, &new));
        let replaced = Replaced {
            purpose: purpose.as_str(),
            old: old.map(|old| old.kid()),
            new: new.kid(),
            public: public.as_ref().map(ToString::to_string),
        };
        let stored = tokio::task::spawn_blocking(move || {
            new.store(&dir)?;
            public.map_or(Ok(()), |public| write_public(&dir, &public))
        });
        stored.await.map_err(|_| LedgerError::Panicked)??;
        if let Some(gone) = before.filter(|_| !revoked) {
            self.write(Priority::Control, move |tx| tx.key_retired(&actor, &gone, &reason)).await?;
        }
        Ok(replaced)
    }
}
