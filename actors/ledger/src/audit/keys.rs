//! Another key in the place of the one that is used: on record before it is used, and with the old one's word for it where
//! that is still worth something.

use std::path::Path;

use opspilot_kernel::principal::Actor;

use super::{
    note::PublicKey,
    signer::{CheckpointError, write_public},
};
use crate::{
    error::LedgerError,
    keyfile::{KeyError, KeyFile, KeyPurpose},
    ledger::{Ledger, Priority},
    read::Reader,
    tables::audit::{checkpoints::KeyRecorded, said},
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

pub(super) fn recorded(key: &KeyFile) -> KeyRecorded {
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
        if !revoked {
            let (by, why, after) = (actor.clone(), reason.clone(), after.clone());
            self.write(Priority::Control, move |tx| tx.key_announced(&by, &after, &why)).await?;
        }
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
        // only now: a service is never left with a key that the log says is revoked. What a crash leaves undone here the
        // next start finds out: it meets another key than the log knows, and retires the one that the log knows
        self.write(Priority::Control, move |tx| {
            match revoked {
                true => tx.key_in_use(&actor, &after, &reason)?,
                false => tx.key_stored(&after)?,
            }
            match before {
                Some(gone) if revoked => tx.key_revoked(&actor, &gone, &reason),
                Some(gone) => tx.key_retired(&actor, &gone, &reason),
                None => Ok(()),
            }
        })
        .await?;
        Ok(replaced)
    }
}

impl Reader<'_> {
    /// Why this key of the data directory `dir` must not be used, if the log says that it counts no more.
    pub fn key_refusal(&mut self, dir: &Path, key: &KeyFile) -> Result<Option<KeyError>, LedgerError> {
        let (purpose, kid) = (key.purpose(), key.kid());
        let ended = said::key_ended(self.conn, purpose, &hex::encode(key.public()))?;
        Ok(ended.map(|how| KeyError::Ended { path: purpose.path(dir), kid, how, purpose }))
    }

    /// The key that the log last said is in use for `purpose`, unless that is `kid` or the log says that it ended.
    pub(crate) fn key_before(&mut self, purpose: KeyPurpose, kid: &str) -> Result<Option<KeyRecorded>, LedgerError> {
        let Some(before) = self.key_in_use(purpose.as_str())?.filter(|before| before != kid) else { return Ok(None) };
        let Some(public) = said::public_of(self.conn, purpose.as_str(), &before)? else { return Ok(None) };
        let ended = said::key_ended(self.conn, purpose, &public)?;
        Ok(ended.is_none().then(|| KeyRecorded { purpose: purpose.as_str(), kid: before, public }))
    }
}
