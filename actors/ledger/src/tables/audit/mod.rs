//! `audit_leaf`, `audit_payload`, `audit_head`: who did what, in a chain of hashes.
//!
//! What the record is for others, and how they check it, is described in [`crate::audit`].
//!
//! The leaf is canonical JSON and stays for good; its stored bytes are what is hashed
//! (SHA-256 over `0x00 ‖ leaf`, as the leaves of RFC 6962), they are never serialised again to verify. It
//! commits to the payload by SHA-256 over `0x02 ‖ salt ‖ body`, so that a payload can be deleted without
//! breaking anything, and names the hash of the leaf before it.
//!
//! The codes of this part; never reused. `I` is for what happened, `W` for what a person should look at,
//! `E` for what failed.
//!
//! | code | meaning |
//! |---|---|
//! | `SYS01I` | the service started |
//! | `SYS02I` | the service stopped in order |
//! | `SYS03W` | the previous run did not stop in order |
//! | `SYS04I` | the schema was migrated |
//! | `DLQ01I` | something was set aside because it could not be processed |
//! | `DLQ02I` | somebody had it tried again |
//! | `DLQ03I` | the second try went well |
//! | `RET03I` | resolved incidents were deleted by retention, with what hung on them |
//! | `RET04W` | the size limit of events deleted some that a channel had not read |
//! | `RET02W` | the size limit deleted signals that a follower had not read |
//! | `BAK01I` | a backup was made |
//! | `RES01I` | the ledger was restored from a backup; the epoch is new |
//! | `DEN01W` | somebody was denied something |
//! | `DEN02W` | the same was denied again so many times within a minute |
//! | `CFG01I` | the configuration changed |
//! | `CFG01E` | a configuration was refused |
//! | `CFG02I` | a module goes by another configuration from a signal on |
//! | `MOD01I` | a module was switched on or off |
//! | `MOD02I` | a module was restarted |
//! | `CHK01I` | a checkpoint over everything up to this entry is to be signed |
//! | `CHK01E` | no checkpoint was signed: the log does not continue the one that was signed last |
//! | `SGN01I` | a signing key is in use from now on; the body has its public part |
//! | `SGN02I` | a signing key is no longer used; what it signed before stays good |
//! | `SGN03W` | a signing key was revoked; nothing it signs from here on counts |
//! | `RED01I` | the payload of an entry was deleted; the object names the entry |
//! | `RET01I` | reserved: nothing deletes payloads by age yet. Verifiers take it as they take `RED01I`; the object names the first and the last |

pub(crate) mod checkpoints;
mod denied;
pub(crate) mod read;
pub(crate) mod said;
pub(crate) mod tree;

use diesel::prelude::*;
use opspilot_kernel::{canonical::canonical, ids::Seq, principal::Actor, time::Timestamp};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

pub use self::read::{AuditFilter, AuditRecord};
use crate::{
    audit::tree::{Frontier, leaf_hash},
    error::LedgerError,
    failpoint::failpoint,
    schema::{audit_head, audit_leaf, audit_payload},
    tx::{Tx, loaded, stored},
};

/// What something was done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
}

impl Object {
    pub(crate) fn new(kind: &'static str, id: impl Into<String>) -> Object {
        Object { kind, id: id.into() }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "the set is closed by the format; not every outcome has a writer yet")]
pub(crate) enum Outcome {
    Success,
    Failure,
    Denied,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Failure => "failure",
            Outcome::Denied => "denied",
        }
    }
}

/// An entry to be written. `..AuditEntry::default()` fills in success, no request and an empty body.
#[derive(Debug, Clone)]
pub(crate) struct AuditEntry {
    /// A stable code; see the table above, and those of the other files.
    pub(crate) code: &'static str,
    pub(crate) actor: Actor,
    pub(crate) object: Object,
    pub(crate) outcome: Outcome,
    /// The request's correlation id, if a request caused it.
    pub(crate) request: Option<String>,
    /// Details: no floats, no secrets.
    pub(crate) body: Value,
}

impl Default for AuditEntry {
    fn default() -> AuditEntry {
        AuditEntry {
            code: "",
            actor: Actor::System,
            object: Object::new("", ""),
            outcome: Outcome::Success,
            request: None,
            body: Value::Object(Map::new()),
        }
    }
}

/// The end of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AuditHead {
    pub(crate) size: Seq,
    pub(crate) last_hash: [u8; 32],
    /// The latest wall time that any entry carries.
    pub(crate) last_ts: Timestamp,
    /// The tree over all entries.
    pub(crate) tree: Frontier,
}

/// What a leaf says of its payload.
pub(crate) fn commitment(salt: &[u8], body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([0x02]);
    hash.update(salt);
    hash.update(body);
    hash.finalize().into()
}

fn actor_json(actor: &Actor) -> Value {
    match actor {
        Actor::User { id, via } => json!({ "t": "user", "id": id, "via": via }),
        Actor::Module { id } => json!({ "t": "module", "id": id, "via": "" }),
        Actor::System => json!({ "t": "system", "id": "", "via": "" }),
        Actor::Anonymous { via } => json!({ "t": "anonymous", "id": "", "via": via }),
    }
}

/// Where and when an entry is made.
pub(crate) struct Place<'a> {
    pub(crate) seq: Seq,
    pub(crate) now: Timestamp,
    pub(crate) node: &'a str,
    pub(crate) boot: &'a str,
    pub(crate) prev: &'a [u8; 32],
}

/// The leaf as it is hashed and stored.
pub(crate) fn leaf(place: &Place<'_>, entry: &AuditEntry, commit: &[u8; 32]) -> Result<Vec<u8>, LedgerError> {
    Ok(canonical(&json!({
        "v": 1,
        "seq": place.seq,
        "ts": place.now.to_string(),
        "node": place.node,
        "boot": place.boot,
        "code": entry.code,
        "actor": actor_json(&entry.actor),
        "obj": { "t": entry.object.kind, "id": entry.object.id },
        "outcome": entry.outcome.as_str(),
        "req": entry.request,
        "commit": hex::encode(commit),
        "prev": hex::encode(place.prev),
    }))?)
}

/// Appends an entry at the end of the chain.
pub(crate) fn append(tx: &mut Tx<'_>, entry: AuditEntry) -> Result<Seq, LedgerError> {
    let head = tx.work.heads.audit;
    let seq = head.size + 1;
    let salt: [u8; 32] = rand::random();
    let body = canonical(&entry.body)?;
    let place = Place { seq, now: tx.work.now, node: &tx.identity.node, boot: &tx.identity.boot, prev: &head.last_hash };
    let leaf = leaf(&place, &entry, &commitment(&salt, &body))?;
    let hash = leaf_hash(&leaf);
    let place = stored(seq)?;
    {
        use audit_leaf::dsl as t;
        diesel::insert_into(t::audit_leaf)
            .values((t::seq.eq(place), t::leaf.eq(&leaf), t::leaf_hash.eq(hash.as_slice())))
            .execute(tx.conn)?;
    }
    {
        use audit_payload::dsl as t;
        diesel::insert_into(t::audit_payload)
            .values((t::seq.eq(place), t::salt.eq(salt.as_slice()), t::body.eq(&body)))
            .execute(tx.conn)?;
    }
    tx.work.ended |= entry.code.starts_with("EXE02");
    let mut grown = head.tree;
    tree::push(tx.conn, &mut grown, hash)?;
    tx.work.heads.audit = AuditHead { size: seq, last_hash: hash, last_ts: head.last_ts.max(tx.work.now), tree: grown };
    Ok(seq)
}

/// Writes the end of the chain and the root of the tree; once for each transaction, before its commit.
pub(crate) fn store_head(conn: &mut SqliteConnection, head: &AuditHead) -> Result<(), LedgerError> {
    failpoint!("ledger::audit_before_head");
    use audit_head::dsl as t;
    diesel::update(t::audit_head.find(1))
        .set((
            t::size.eq(stored(head.size)?),
            t::last_hash.eq(head.last_hash.as_slice()),
            t::last_ts.eq(head.last_ts.millis()),
            t::root.eq(head.tree.root().as_slice()),
            t::frontier.eq(head.tree.packed()),
        ))
        .execute(conn)?;
    Ok(())
}

/// Reads the end of the chain and checks it against the last leaf. The tree is not among it: the log may be older than
/// the tree.
pub(crate) fn load_head(conn: &mut SqliteConnection) -> Result<AuditHead, LedgerError> {
    let damaged = |what: &str| LedgerError::Damaged(format!("audit: {what}"));
    let (size, last_hash, last_ts): (i64, Vec<u8>, i64) = {
        use audit_head::dsl as t;
        t::audit_head.find(1).select((t::size, t::last_hash, t::last_ts)).first(conn).optional()?.ok_or_else(|| damaged("no head"))?
    };
    let last: Option<(i64, Vec<u8>, Vec<u8>)> = {
        use audit_leaf::dsl as t;
        t::audit_leaf.order(t::seq.desc()).first(conn).optional()?
    };
    let last_hash: [u8; 32] = last_hash.try_into().map_err(|_| damaged("the head's hash is cut short"))?;
    match last {
        None if size == 0 => {}
        Some((seq, leaf, hash)) if seq == size && hash == last_hash && leaf_hash(&leaf) == last_hash => {
            // a clock that was set back leaves the mark where it was; it is never behind the last entry
            let leaf: Value = serde_json::from_slice(&leaf).map_err(|_| damaged("the last leaf is not JSON"))?;
            let at: Option<Timestamp> = leaf.get("ts").and_then(Value::as_str).and_then(|ts| ts.parse().ok());
            if at.is_none_or(|at| last_ts < at.millis()) {
                return Err(damaged("the latest time that is stored is before the last entry"));
            }
        }
        _ => return Err(damaged("the head does not belong to the last entry")),
    }
    Ok(AuditHead { size: loaded(size)?, last_hash, last_ts: Timestamp::from_millis(last_ts), tree: Frontier::default() })
}

impl Tx<'_> {
    /// The configuration changed: which keys, by whom. Values stay out of it.
    pub fn config_changed(&mut self, actor: &Actor, digest: &str, keys: &[String], restart_required: &[String]) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code: "CFG01I",
            actor: actor.clone(),
            object: Object::new("config", digest),
            body: json!({ "keys": keys, "restart_required": restart_required }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// A configuration was refused; the old one stays.
    pub fn config_refused(&mut self, actor: &Actor, problems: &[String]) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code: "CFG01E",
            actor: actor.clone(),
            object: Object::new("config", ""),
            outcome: Outcome::Failure,
            body: json!({ "problems": problems }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// A module was switched on or off by somebody.
    pub fn module_switched(&mut self, actor: &Actor, module: &str, enabled: bool) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code: "MOD01I",
            actor: actor.clone(),
            object: Object::new("module", module),
            body: json!({ "enabled": enabled }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// A module was restarted, by somebody or by its supervisor.
    pub fn module_restarted(&mut self, actor: &Actor, module: &str, reason: &str) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code: "MOD02I",
            actor: actor.clone(),
            object: Object::new("module", module),
            body: json!({ "reason": reason }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// A module's health changed: told to whoever listens.
    pub fn module_health_changed(
        &mut self,
        module: &str,
        from: opspilot_kernel::module::ModuleStatus,
        to: opspilot_kernel::module::ModuleStatus,
        detail: &str,
    ) -> Result<(), LedgerError> {
        self.event(opspilot_kernel::event::Event::ModuleHealthChanged { module: module.to_owned(), from, to, detail: detail.to_owned() })?;
        Ok(())
    }
}
