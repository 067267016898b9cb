//! Signing checkpoints: build, store, sign, store, publish; refusing what does not continue the log.
//!
//! A crash between any two of these steps is made good by the next one to come by: what was fixed and not signed is
//! signed, what was signed and not published is published. The same checkpoint gives the same note each time.

use std::{path::PathBuf, sync::Arc};

use opspilot_kernel::principal::Actor;
use parking_lot::Mutex;

use super::{
    keys::recorded,
    note::{Checkpoint, PublicKey, SignedNote},
    published::{self, PUBLISHED},
    tree::check_consistency,
};
use crate::{
    error::LedgerError,
    failpoint::failpoint,
    keyfile::{self, KeyError, KeyFile, KeyPurpose},
    ledger::{Ledger, Priority, Shared},
    read::Reader,
    tables::audit::checkpoints::StoredCheckpoint,
    writer::WriterState,
};

/// Why no checkpoint was made.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The log does not continue what was signed before: nothing is signed any more.
    #[error("the audit log does not continue what was signed before ({0}); no checkpoint is signed")]
    Inconsistent(String),
    /// Nobody opened a key.
    #[error("no key signs the audit log")]
    NoKey,
    /// The ledger does not answer.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The note is signed and stored, and cannot be published.
    #[error("the checkpoint cannot be published in {path}: {source}")]
    Publish {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Holds the key that signs checkpoints, and what is known to be signed.
pub(crate) struct Signer {
    key: KeyFile,
    origin: String,
    published: PathBuf,
    /// Why nothing is signed any more.
    refused: Mutex<Option<String>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({:?})", self.key)
    }
}

/// What the log must go on from.
struct Before {
    checkpoint: Checkpoint,
    named: &'static str,
}

impl Signer {
    /// The checkpoint that was signed last, as the database and the file know it.
    fn before(&self, reader: &mut Reader<'_>) -> Result<Vec<Before>, CheckpointError> {
        let mut before = Vec::new();
        if let Some(StoredCheckpoint { note: Some(text), .. }) = reader.audit_checkpoint()? {
            let note = SignedNote::parse(text.as_bytes()).map_err(|why| self.refuse(format!("the last stored note: {why}")))?;
            if note.signed_by(&PublicKey::of(&self.origin, &self.key)) == Some(false) {
                return Err(self.refuse("the signature of the last stored note is wrong".to_owned()));
            }
            before.push(Before { checkpoint: note.checkpoint().clone(), named: "the last stored checkpoint" });
        }
        let newest =
            published::newest(&self.published).map_err(|source| CheckpointError::Publish { path: self.published.clone(), source })?;
        if let Some(note) = newest.filter(|note| before.iter().all(|known| known.checkpoint != *note.checkpoint()))
            && !reader.audit_went_back_behind(&published::digest(&note))?
        {
            before.push(Before { checkpoint: note.checkpoint().clone(), named: "the last published checkpoint" });
        }
        Ok(before)
    }

    /// Proves that `fixed` continues what was signed before.
    fn prove(&self, reader: &mut Reader<'_>, fixed: &Checkpoint) -> Result<(), CheckpointError> {
        for Before { checkpoint, named } in self.before(reader)? {
            if checkpoint.origin != fixed.origin || checkpoint.size > fixed.size {
                return Err(self.refuse(format!("{named} has {} entries, the log {}", checkpoint.size, fixed.size)));
            }
            let proof = reader.audit_consistency(checkpoint.size, fixed.size).map_err(|error| match error {
                LedgerError::Damaged(what) => self.refuse(what),
                other => other.into(),
            })?;
            if !check_consistency(checkpoint.size, &checkpoint.root, fixed.size, &fixed.root, &proof.path) {
                return Err(self.refuse(format!("its first {} entries are not those of {named}", checkpoint.size)));
            }
        }
        Ok(())
    }

    fn refuse(&self, why: String) -> CheckpointError {
        *self.refused.lock() = Some(why.clone());
        CheckpointError::Inconsistent(why)
    }

    fn may_sign(&self) -> Result<(), CheckpointError> {
        self.refused.lock().clone().map_or(Ok(()), |why| Err(CheckpointError::Inconsistent(why)))
    }

    fn publish(&self, note: &SignedNote) -> Result<(), CheckpointError> {
        published::append(&self.published, note).map_err(|source| CheckpointError::Publish { path: self.published.clone(), source })
    }
}

impl Shared {
    /// Why no checkpoint is signed any more, if that is so.
    pub(crate) fn audit_refusal(&self) -> Option<String> {
        self.signer.get().and_then(|signer| signer.refused.lock().clone())
    }
}

impl Ledger {
    /// Opens the key that signs checkpoints, or makes one; from now on a checkpoint can be signed. The log is told of the
    /// key, and its public part is written beside it.
    pub async fn open_audit_key(&self) -> Result<(), CheckpointError> {
        let dir = self.shared().options.dir.clone();
        let (origin, known) = self.read(|reader| Ok((reader.audit_origin()?, reader.key_in_use(KeyPurpose::Audit.as_str())?))).await?;
        let opened = tokio::task::spawn_blocking(move || {
            let (key, made) = KeyFile::open(&dir, KeyPurpose::Audit)?;
            Ok::<_, KeyError>((key, made, dir))
        });
        let (key, made, dir) = opened.await.map_err(|_| LedgerError::Panicked)??;
        let at = dir.clone();
        let (key, refusal) = self.read(move |reader| reader.key_refusal(&at, &key).map(|refusal| (key, refusal))).await?;
        if let Some(refusal) = refusal {
            return Err(refusal.into());
        }
        write_public(&dir, &PublicKey::of(&origin, &key))?;
        if known.as_deref() != Some(key.kid().as_str()) {
            let (after, kid) = (recorded(&key), key.kid());
            let before = self.read(move |reader| reader.key_before(KeyPurpose::Audit, &kid)).await?;
            let reason = if made { "there was none" } else { "found in its place" };
            self.write(Priority::Control, move |tx| {
                tx.key_in_use(&Actor::System, &after, reason)?;
                // whoever still has the one from before must not be able to go on with it
                before.map_or(Ok(()), |before| tx.key_retired(&Actor::System, &before, "another was found in its place"))
            })
            .await?;
        }
        let signer = Signer { key, origin, published: dir.join(PUBLISHED), refused: Mutex::new(None) };
        // only the first counts; a second caller finds the same key
        drop(self.shared().signer.set(Arc::new(signer)));
        Ok(())
    }

    /// Has a checkpoint signed soon, if anything happened since the last.
    pub fn checkpoint_soon(&self) {
        self.shared().checkpoint_wanted.notify_one();
    }

    /// Why no checkpoint is signed any more: the log does not continue what was signed before. Nothing in it can be
    /// trusted until a person has looked.
    pub fn audit_refusal(&self) -> Option<String> {
        self.shared().audit_refusal()
    }

    /// How many entries the newest signed checkpoint covers.
    pub(crate) async fn signed_size(&self) -> Result<u64, LedgerError> {
        Ok(self.read(|reader| reader.audit_checkpoint()).await?.map_or(0, |checkpoint| checkpoint.size))
    }

    /// Makes good what a crash left: signs what was fixed, publishes what was signed.
    pub(crate) async fn recover_checkpoints(&self) -> Result<(), CheckpointError> {
        let signer = self.shared().signer.get().cloned().ok_or(CheckpointError::NoKey)?;
        signer.may_sign()?;
        for left in self.read(|reader| reader.audit_unsigned()).await? {
            let fixed = Checkpoint { origin: signer.origin.clone(), size: left.size, root: left.root };
            self.sign(&signer, fixed).await?;
        }
        let own = Arc::clone(&signer);
        let unpublished = self
            .read(move |reader| {
                let Some(StoredCheckpoint { note: Some(text), .. }) = reader.audit_checkpoint()? else { return Ok(Ok(None)) };
                let Ok(note) = SignedNote::parse(text.as_bytes()) else { return Ok(Ok(None)) };
                let proved = own.prove(reader, note.checkpoint());
                let newest = published::newest(&own.published).ok().flatten();
                Ok(proved.map(|()| (newest.as_ref() != Some(&note)).then_some(note)))
            })
            .await??;
        match unpublished {
            Some(note) => self.publish(signer, note).await,
            None => Ok(()),
        }
    }

    /// Fixes, signs and publishes a checkpoint over everything so far.
    pub async fn checkpoint(&self, reason: &'static str) -> Result<SignedNote, CheckpointError> {
        let signer = self.shared().signer.get().cloned().ok_or(CheckpointError::NoKey)?;
        signer.may_sign()?;
        let kid = signer.key.kid();
        let own = Arc::clone(&signer);
        // before anything is added: a log that was tampered with is left as it was found
        self.read(move |reader| {
            let (size, _) = reader.audit_size()?;
            let root = reader.audit_consistency(size, size)?.root;
            Ok(own.prove(reader, &Checkpoint { origin: own.origin.clone(), size, root }))
        })
        .await??;
        let fixed = self.write(Priority::Control, move |tx| tx.checkpoint_fixed(&kid, reason)).await?;
        let note = self.sign(&signer, fixed).await?;
        self.publish(signer, note.clone()).await?;
        Ok(note)
    }

    async fn sign(&self, signer: &Arc<Signer>, fixed: Checkpoint) -> Result<SignedNote, CheckpointError> {
        let own = Arc::clone(signer);
        let checked = fixed.clone();
        self.read(move |reader| Ok(own.prove(reader, &checked))).await??;
        let note = fixed.sign(&signer.key);
        failpoint!("ledger::checkpoint_after_sign_before_store");
        let text = note.text().to_owned();
        self.write(Priority::Control, move |tx| tx.checkpoint_signed(fixed.size, &text)).await?;
        let metrics = &self.shared().metrics;
        metrics.audit_checkpoints.inc();
        metrics.audit_checkpoint_size.set(i64::try_from(note.checkpoint().size).unwrap_or(i64::MAX));
        Ok(note)
    }

    async fn publish(&self, signer: Arc<Signer>, note: SignedNote) -> Result<(), CheckpointError> {
        failpoint!("ledger::checkpoint_after_store_before_publish");
        tokio::task::spawn_blocking(move || signer.publish(&note)).await.map_err(|_| LedgerError::Panicked)?
    }
}

/// The last checkpoint of a run, over everything that is in the log when it ends. Nobody waits for the writer any more.
pub(crate) fn at_stop(state: &mut WriterState) -> Result<(), CheckpointError> {
    let Some(signer) = state.shared().signer.get().cloned().filter(|_| !state.shared().options.tool) else { return Ok(()) };
    signer.may_sign()?;
    for left in state.read(|reader| reader.audit_unsigned())? {
        let fixed = Checkpoint { origin: signer.origin.clone(), size: left.size, root: left.root };
        state.read(|reader| Ok(signer.prove(reader, &fixed)))??;
        let note = fixed.sign(&signer.key);
        state.own(|tx| tx.checkpoint_signed(fixed.size, note.text()))?;
    }
    let kid = signer.key.kid();
    let fixed = state.own(|tx| tx.checkpoint_fixed(&kid, "stop"))?;
    state.read(|reader| Ok(signer.prove(reader, &fixed)))??;
    let note = fixed.sign(&signer.key);
    failpoint!("ledger::stop_after_sign_before_store");
    state.own(|tx| tx.checkpoint_signed(fixed.size, note.text()))?;
    failpoint!("ledger::stop_after_store_before_publish");
    signer.publish(&note)
}

/// The public part, for everybody to read.
pub(crate) fn write_public(dir: &std::path::Path, public: &PublicKey) -> Result<(), KeyError> {
    let path = public_path(dir);
    let line = format!("{public}\n");
    if std::fs::read_to_string(&path).is_ok_and(|there| there == line) {
        return Ok(());
    }
    keyfile::replace(&path, line.as_bytes(), 0o644).map_err(|source| KeyError::Io { path, source })
}

/// Where the public part of the key that signs checkpoints lies.
pub fn public_path(dir: &std::path::Path) -> PathBuf {
    KeyPurpose::Audit.path(dir).with_extension("pub")
}
