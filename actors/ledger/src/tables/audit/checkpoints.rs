//! `audit_checkpoint`: what was fixed, and what of it is signed.

use diesel::prelude::*;
use opspilot_kernel::{ids::Seq, principal::Actor, time::Timestamp};
use serde_json::json;

use super::{AuditEntry, Object, Outcome, load_head, said, tree::Stored};
use crate::{
    audit::{
        note::{Checkpoint, origin_of},
        tree::{Hash, consistency, inclusion, root_at},
    },
    error::LedgerError,
    read::Reader,
    schema::{audit_checkpoint, audit_leaf, audit_payload, user_account},
    tables::meta,
    tx::{Tx, loaded, stored},
};

/// A root that was fixed, signed or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// How many entries it covers.
    pub size: Seq,
    /// The root over them.
    pub root: Hash,
    /// The signed note; nothing if the process ended before it was signed.
    pub note: Option<String>,
    /// When it was fixed.
    pub at: Timestamp,
}

type Row = (i64, Vec<u8>, Option<String>, i64);

fn checkpoint(row: Row) -> Result<StoredCheckpoint, LedgerError> {
    let root = row.1.try_into().map_err(|_| LedgerError::Damaged(format!("audit: the root of checkpoint {} is cut short", row.0)))?;
    Ok(StoredCheckpoint { size: loaded(row.0)?, root, note: row.2, at: Timestamp::from_millis(row.3) })
}

/// The checkpoints from `from` on and up to `to`, in order, at most `limit`.
pub(crate) fn between(conn: &mut SqliteConnection, from: Seq, to: Seq, limit: i64) -> Result<Vec<StoredCheckpoint>, LedgerError> {
    use audit_checkpoint::dsl as t;
    let rows: Vec<Row> = t::audit_checkpoint
        .filter(t::size.ge(stored(from)?).and(t::size.le(stored(to)?)))
        .order(t::size)
        .limit(limit)
        .select((t::size, t::root, t::note, t::at))
        .load(conn)?;
    rows.into_iter().map(checkpoint).collect()
}

/// The name of the log: nothing before the instance has an identity.
pub(crate) fn origin(conn: &mut SqliteConnection) -> Result<String, LedgerError> {
    let instance = meta::get(conn, meta::INSTANCE)?;
    instance.map(|instance| origin_of(&instance)).ok_or_else(|| LedgerError::NotFound("the identity of this instance".to_owned()))
}

/// A key as the log records it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecorded {
    /// What it is for.
    pub purpose: &'static str,
    /// Its name.
    pub kid: String,
    /// Its public part, hex.
    pub public: String,
}

impl Tx<'_> {
    /// Fixes the root over everything so far, with an entry that says so. It is to be signed next.
    pub(crate) fn checkpoint_fixed(&mut self, kid: &str, reason: &str) -> Result<Checkpoint, LedgerError> {
        let origin = origin(self.conn)?;
        self.audit(AuditEntry {
            code: "CHK01I",
            object: Object::new("key", kid),
            body: json!({ "reason": reason }),
            ..AuditEntry::default()
        })?;
        let head = &self.work.heads.audit;
        let fixed = Checkpoint { origin, size: head.size, root: head.tree.root() };
        use audit_checkpoint::dsl as t;
        diesel::insert_into(t::audit_checkpoint)
            .values((t::size.eq(stored(fixed.size)?), t::root.eq(fixed.root.as_slice()), t::at.eq(self.work.now.millis())))
            .execute(self.conn)?;
        Ok(fixed)
    }

    /// Stores the signed note of a checkpoint that was fixed.
    pub(crate) fn checkpoint_signed(&mut self, size: Seq, note: &str) -> Result<(), LedgerError> {
        use audit_checkpoint::dsl as t;
        let signed = diesel::update(t::audit_checkpoint.find(stored(size)?)).set(t::note.eq(note)).execute(self.conn)?;
        if signed == 1 { Ok(()) } else { Err(LedgerError::NotFound(format!("the checkpoint {size}"))) }
    }

    /// No checkpoint is signed any more.
    pub(crate) fn checkpoint_refused(&mut self, why: &str) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code: "CHK01E",
            object: Object::new("service", "opspilot"),
            outcome: Outcome::Failure,
            body: json!({ "why": why }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// A key is in use from now on.
    pub fn key_in_use(&mut self, actor: &Actor, key: &KeyRecorded, reason: &str) -> Result<(), LedgerError> {
        self.key_announced(actor, key, reason)?;
        self.key_stored(key)
    }

    /// A key is about to be used.
    pub(crate) fn key_announced(&mut self, actor: &Actor, key: &KeyRecorded, reason: &str) -> Result<(), LedgerError> {
        self.key_entry("SGN01I", actor, key, reason)
    }

    /// The file of a key that was announced is in its place.
    pub(crate) fn key_stored(&mut self, key: &KeyRecorded) -> Result<(), LedgerError> {
        meta::set(self.conn, &key_of(key.purpose), &key.kid)
    }

    /// A key is no longer used. What it signed stays good.
    pub fn key_retired(&mut self, actor: &Actor, key: &KeyRecorded, reason: &str) -> Result<(), LedgerError> {
        self.key_entry("SGN02I", actor, key, reason)
    }

    /// A key was revoked. What it signs from here on is not good.
    pub fn key_revoked(&mut self, actor: &Actor, key: &KeyRecorded, reason: &str) -> Result<(), LedgerError> {
        self.key_entry("SGN03W", actor, key, reason)
    }

    fn key_entry(&mut self, code: &'static str, actor: &Actor, key: &KeyRecorded, reason: &str) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code,
            actor: actor.clone(),
            object: Object::new("key", key.kid.as_str()),
            body: json!({ "purpose": key.purpose, "public": key.public, "reason": reason }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// Deletes the payload of an entry, which keeps its place and its proofs. What the checks of the whole log stand on
    /// stays.
    pub fn redact(&mut self, actor: &Actor, seq: Seq, reason: &str, second: &str) -> Result<(), LedgerError> {
        const KEPT: [&str; 7] = ["SGN", "EXE", "APR", "RED", "RES", "RET", "CHK"];
        let leaf: Option<Vec<u8>> = audit_leaf::table.find(stored(seq)?).select(audit_leaf::leaf).first(self.conn).optional()?;
        let leaf = leaf.ok_or_else(|| LedgerError::NotFound(format!("the audit entry {seq}")))?;
        let leaf: serde_json::Value = serde_json::from_slice(&leaf).map_err(|error| LedgerError::Damaged(format!("audit: {error}")))?;
        let code = leaf.get("code").and_then(serde_json::Value::as_str).unwrap_or_default();
        if let Some(kept) = KEPT.iter().find(|kept| code.starts_with(**kept)) {
            return Err(LedgerError::Conflict(format!(
                "entry {seq} is a {code}; without the payloads of {kept} entries the log cannot be checked"
            )));
        }
        self.second_person(actor, second)?;
        if diesel::delete(audit_payload::table.find(stored(seq)?)).execute(self.conn)? == 0 {
            return Err(LedgerError::Conflict(format!("the payload of entry {seq} is deleted already")));
        }
        self.audit(AuditEntry {
            code: "RED01I",
            actor: actor.clone(),
            object: Object::new("audit", seq.to_string()),
            // who runs the command names the second person; nothing shows that they were asked
            body: json!({ "reason": reason, "second": second, "consent": "claimed" }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// Whoever is said to have agreed has an account that is enabled, and is not the one who asks.
    fn second_person(&mut self, actor: &Actor, second: &str) -> Result<(), LedgerError> {
        use user_account::dsl as t;
        if matches!(actor, Actor::User { id, .. } if id.eq_ignore_ascii_case(second)) {
            return Err(LedgerError::Invalid("the second person who agreed must be another one".to_owned()));
        }
        let enabled = t::user_account.find(second).filter(t::disabled.eq(false)).count().get_result::<i64>(self.conn)?;
        if enabled == 1 { Ok(()) } else { Err(LedgerError::NotFound(format!("an enabled account {second:?} that could have agreed"))) }
    }
}

/// What shows something about the tree to somebody who has its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The hashes, from the leaf up.
    pub path: Vec<Hash>,
    /// The root that they lead to.
    pub root: Hash,
    /// The hash of the leaf, or the root of the smaller tree.
    pub start: Hash,
}

impl Reader<'_> {
    /// The name of the audit log, which its checkpoints bear.
    pub fn audit_origin(&mut self) -> Result<String, LedgerError> {
        origin(self.conn)
    }

    /// The newest checkpoint that is signed.
    pub fn audit_checkpoint(&mut self) -> Result<Option<StoredCheckpoint>, LedgerError> {
        use audit_checkpoint::dsl as t;
        let rows = t::audit_checkpoint.filter(t::note.is_not_null()).order(t::size.desc());
        let row: Option<Row> = rows.select((t::size, t::root, t::note, t::at)).first(self.conn).optional()?;
        row.map(checkpoint).transpose()
    }

    /// Checkpoints that were fixed and not signed: the process ended in between.
    pub(crate) fn audit_unsigned(&mut self) -> Result<Vec<StoredCheckpoint>, LedgerError> {
        use audit_checkpoint::dsl as t;
        let rows = t::audit_checkpoint.filter(t::note.is_null()).order(t::size);
        let rows: Vec<Row> = rows.select((t::size, t::root, t::note, t::at)).load(self.conn)?;
        rows.into_iter().map(checkpoint).collect()
    }

    /// What shows that the entry `seq` is among the first `size`.
    pub fn audit_inclusion(&mut self, seq: Seq, size: Seq) -> Result<Proof, LedgerError> {
        self.is_there(size)?;
        let index = seq.checked_sub(1).ok_or_else(|| LedgerError::Invalid("entries are numbered from 1".to_owned()))?;
        let mut nodes = Stored(self.conn);
        let path = inclusion(&mut nodes, index, size)?;
        let path = path.ok_or_else(|| LedgerError::Invalid(format!("the entry {seq} is not among the first {size}")))?;
        let start = crate::audit::tree::Nodes::node(&mut nodes, 0, index)?;
        Ok(Proof { path, root: root_at(&mut nodes, size)?, start })
    }

    /// What shows that the first `to` entries begin with the first `from`.
    pub fn audit_consistency(&mut self, from: Seq, to: Seq) -> Result<Proof, LedgerError> {
        self.is_there(to)?;
        let mut nodes = Stored(self.conn);
        let path = consistency(&mut nodes, from, to)?;
        let path = path.ok_or_else(|| LedgerError::Invalid(format!("{from} is more than {to}")))?;
        Ok(Proof { path, root: root_at(&mut nodes, to)?, start: root_at(&mut nodes, from)? })
    }

    fn is_there(&mut self, size: Seq) -> Result<(), LedgerError> {
        let head = load_head(self.conn)?.size;
        if size <= head { Ok(()) } else { Err(LedgerError::Invalid(format!("the log has {head} entries, not {size}"))) }
    }

    /// The key that the log last said is in use for a purpose.
    pub(crate) fn key_in_use(&mut self, purpose: &str) -> Result<Option<String>, LedgerError> {
        meta::get(self.conn, &key_of(purpose))
    }

    /// Whether the log says that a restore went back behind the published checkpoint with this digest.
    pub(crate) fn audit_went_back_behind(&mut self, digest: &str) -> Result<bool, LedgerError> {
        said::went_back_behind(self.conn, digest)
    }
}

fn key_of(purpose: &str) -> String {
    format!("key/{purpose}")
}
