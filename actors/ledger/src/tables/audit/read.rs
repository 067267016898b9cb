//! Reading the audit chain.

use diesel::prelude::*;
use opspilot_kernel::{ids::Seq, time::Timestamp};
use serde_json::Value;

use super::load_head;
use crate::{
    error::LedgerError,
    read::{Listed, Page, Reader},
    schema::{audit_leaf, audit_payload},
    tx::{loaded, stored},
};

/// Which entries are wanted. An empty filter wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The code, or the beginning of one.
    pub action: Option<String>,
    /// The actor's label, or only its id: `user:ada` or `ada`, `module:detector.regex`, `system`.
    pub actor: Option<String>,
    /// The object's id, or `kind:id`.
    pub target: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

/// An entry as it is shown.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct AuditRecord {
    /// Its place in the chain.
    pub seq: Seq,
    /// The leaf: who, what, when, as stored.
    pub leaf: Value,
    /// The leaf's hash, hex.
    pub leaf_hash: String,
    /// Details; absent if they were deleted.
    pub body: Option<Value>,
}

/// How many rows one call looks at before it gives what it has.
const SCAN: i64 = 20_000;
const CHUNK: i64 = 500;

fn text<'a>(leaf: &'a Value, pointer: &str) -> &'a str {
    leaf.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn actor_label(leaf: &Value) -> String {
    match (text(leaf, "/actor/t"), text(leaf, "/actor/id")) {
        (kind, "") => kind.to_owned(),
        (kind, id) => format!("{kind}:{id}"),
    }
}

impl AuditFilter {
    fn wants(&self, leaf: &Value, at: Timestamp) -> bool {
        let target = |wanted: &String| {
            let (kind, id) = (text(leaf, "/obj/t"), text(leaf, "/obj/id"));
            wanted == id || *wanted == format!("{kind}:{id}")
        };
        self.action.as_ref().is_none_or(|code| text(leaf, "/code").starts_with(code.as_str()))
            && self.actor.as_ref().is_none_or(|actor| actor == text(leaf, "/actor/id") || *actor == actor_label(leaf))
            && self.target.as_ref().is_none_or(target)
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
    }
}

/// An entry as it is stored.
pub(crate) struct StoredEntry {
    pub(crate) seq: Seq,
    pub(crate) leaf: Vec<u8>,
    pub(crate) hash: Vec<u8>,
    /// Salt and body; nothing if they were deleted.
    pub(crate) payload: Option<(Vec<u8>, Vec<u8>)>,
}

/// Entries from `from` on, in order, at most `limit`.
pub(crate) fn rows(conn: &mut SqliteConnection, from: Seq, limit: i64) -> Result<Vec<StoredEntry>, LedgerError> {
    use audit_leaf::dsl as l;
    use audit_payload::dsl as p;
    type Row = (i64, Vec<u8>, Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);
    let rows: Vec<Row> = l::audit_leaf
        .left_join(p::audit_payload.on(p::seq.eq(l::seq)))
        .filter(l::seq.ge(stored(from)?))
        .order(l::seq)
        .limit(limit)
        .select((l::seq, l::leaf, l::leaf_hash, p::salt.nullable(), p::body.nullable()))
        .load(conn)?;
    let entry = |(seq, leaf, hash, salt, body): Row| Ok(StoredEntry { seq: loaded(seq)?, leaf, hash, payload: salt.zip(body) });
    rows.into_iter().map(entry).collect()
}

impl Reader<'_> {
    /// Entries newest first. A page may be short and still have a `next_cursor`: the search through a long
    /// chain is bounded.
    pub fn audit(&mut self, filter: &AuditFilter, page: &Page) -> Result<Listed<AuditRecord>, LedgerError> {
        let mut before = match &page.cursor {
            None => i64::MAX,
            Some(cursor) => cursor.parse().map_err(|_| LedgerError::Cursor)?,
        };
        let mut items = Vec::new();
        let mut scanned = 0_i64;
        loop {
            let rows: Vec<(i64, Vec<u8>, Vec<u8>)> = {
                use audit_leaf::dsl as t;
                t::audit_leaf.filter(t::seq.lt(before)).order(t::seq.desc()).limit(CHUNK).load(self.conn)?
            };
            let ended = i64::try_from(rows.len()).is_ok_and(|len| len < CHUNK);
            for (seq, leaf, hash) in rows {
                scanned += 1;
                let leaf: Value = serde_json::from_slice(&leaf).map_err(|error| LedgerError::Damaged(format!("audit: {error}")))?;
                let at = text(&leaf, "/ts").parse().unwrap_or_default();
                if filter.wants(&leaf, at) {
                    if items.len() == page.limit {
                        return Ok(Listed { items, next_cursor: Some(before.to_string()) });
                    }
                    let body = self.audit_body(seq)?;
                    items.push(AuditRecord { seq: loaded(seq)?, leaf, leaf_hash: hex::encode(hash), body });
                }
                before = seq;
            }
            if ended {
                return Ok(Listed { items, next_cursor: None });
            }
            if scanned >= SCAN {
                return Ok(Listed { items, next_cursor: Some(before.to_string()) });
            }
        }
    }

    fn audit_body(&mut self, seq: i64) -> Result<Option<Value>, LedgerError> {
        use audit_payload::dsl as t;
        let body: Option<Vec<u8>> = t::audit_payload.find(seq).select(t::body).first(self.conn).optional()?;
        body.map(|body| serde_json::from_slice(&body).map_err(|error| LedgerError::Damaged(format!("audit: {error}")))).transpose()
    }

    /// How many entries there are, and the latest wall time that any carries.
    pub fn audit_size(&mut self) -> Result<(Seq, Timestamp), LedgerError> {
        let head = load_head(self.conn)?;
        Ok((head.size, head.last_ts))
    }

    /// Walks the whole chain: numbers without a gap, hashes, links and commitments. The number of entries,
    /// or what is wrong with which.
    pub fn audit_verify(&mut self) -> Result<Seq, LedgerError> {
        let head = load_head(self.conn)?;
        let (mut expected, mut prev) = (1_u64, [0_u8; 32]);
        loop {
            let rows = rows(self.conn, expected, CHUNK)?;
            if rows.is_empty() {
                break;
            }
            for StoredEntry { seq, leaf, hash, payload } in rows {
                let wrong = |what: &str| LedgerError::Damaged(format!("audit entry {expected}: {what}"));
                if seq != expected {
                    return Err(wrong("missing"));
                }
                let computed = crate::audit::tree::leaf_hash(&leaf);
                if hash != computed {
                    return Err(wrong("the leaf is not what was written"));
                }
                let parsed: Value = serde_json::from_slice(&leaf).map_err(|_| wrong("the leaf is not JSON"))?;
                if text(&parsed, "/prev") != hex::encode(prev) || parsed.pointer("/seq").and_then(Value::as_u64) != Some(expected) {
                    return Err(wrong("it does not follow the one before it"));
                }
                if let Some((salt, body)) = payload
                    && text(&parsed, "/commit") != hex::encode(super::commitment(&salt, &body))
                {
                    return Err(wrong("the payload is not what was written"));
                }
                (expected, prev) = (expected + 1, computed);
            }
        }
        if expected - 1 != head.size || prev != head.last_hash {
            return Err(LedgerError::Damaged("audit: entries are missing at the end".to_owned()));
        }
        Ok(head.size)
    }
}
