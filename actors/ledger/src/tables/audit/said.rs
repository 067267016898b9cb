//! What the log itself says of something. A row of another table can be changed by whoever has the file; an entry counts
//! only as it was written, and only if the tree leads from it to the root.

use diesel::{prelude::*, sql_types::Bool};
use serde_json::Value;

use super::{commitment, tree::Stored};
use crate::{
    audit::tree::{check_inclusion, inclusion, leaf_hash},
    error::LedgerError,
    keyfile::{KeyPurpose, kid_of},
    schema::{audit_head, audit_leaf, audit_payload},
    tx::loaded,
};

/// The bodies of the entries with this code whose payload is there, newest first, each checked. Looks through the whole
/// log: not for what happens often.
pub(crate) fn bodies(conn: &mut SqliteConnection, code: &'static str) -> Result<Vec<Value>, LedgerError> {
    type Row = (i64, Vec<u8>, Vec<u8>, Vec<u8>, Vec<u8>);
    // a leaf is canonical, so that its code can stand there in one way only; inside of a text the quotes are escaped
    let coded = diesel::dsl::sql::<Bool>(&format!("instr(audit_leaf.leaf, CAST('\"code\":\"{code}\"' AS BLOB)) > 0"));
    let rows: Vec<Row> = audit_leaf::table
        .inner_join(audit_payload::table.on(audit_payload::seq.eq(audit_leaf::seq)))
        .filter(coded)
        .order(audit_leaf::seq.desc())
        .select((audit_leaf::seq, audit_leaf::leaf, audit_leaf::leaf_hash, audit_payload::salt, audit_payload::body))
        .load(conn)?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let (size, root): (i64, Vec<u8>) = audit_head::table.find(1).select((audit_head::size, audit_head::root)).first(conn)?;
    let size = loaded(size)?;
    let mut bodies = Vec::new();
    for (seq, leaf, hash, salt, body) in rows {
        let wrong = || LedgerError::Damaged(format!("audit entry {seq}: it is not what was written"));
        let leaf_hash = leaf_hash(&leaf);
        let parsed: Value = serde_json::from_slice(&leaf).map_err(|_| wrong())?;
        let committed = parsed.get("commit").and_then(Value::as_str) == Some(hex::encode(commitment(&salt, &body)).as_str());
        let index = loaded(seq)?.checked_sub(1).ok_or_else(wrong)?;
        let path = inclusion(&mut Stored(conn), index, size)?.ok_or_else(wrong)?;
        let root = root.as_slice().try_into().map_err(|_| wrong())?;
        let there = hash == leaf_hash && committed && check_inclusion(&leaf_hash, index, size, &path, &root);
        if !there || parsed.get("code").and_then(Value::as_str) != Some(code) {
            return Err(wrong());
        }
        bodies.push(serde_json::from_slice(&body).map_err(|_| wrong())?);
    }
    Ok(bodies)
}

fn names(body: &Value, member: &str, text: &str) -> bool {
    body.get(member).and_then(Value::as_str) == Some(text)
}

/// The public part of the key with this name, in hex, as the log recorded it when it came into use.
pub(crate) fn public_of(conn: &mut SqliteConnection, purpose: &str, kid: &str) -> Result<Option<String>, LedgerError> {
    let found = bodies(conn, "SGN01I")?.into_iter().filter(|body| names(body, "purpose", purpose));
    let publics = found.filter_map(|body| body.get("public").and_then(Value::as_str).map(str::to_owned));
    let mut of_kid = publics.filter(|public| {
        let mut bytes = [0; 32];
        hex::decode_to_slice(public, &mut bytes).is_ok() && kid_of(&bytes) == kid
    });
    Ok(of_kid.next())
}

/// Why this key counts no more, if the log says so. One that was retired is refused only where it signs the log itself:
/// there its signature would be taken for a forgery.
pub(crate) fn key_ended(conn: &mut SqliteConnection, purpose: KeyPurpose, public: &str) -> Result<Option<&'static str>, LedgerError> {
    let mut said = |code| -> Result<bool, LedgerError> {
        let found = bodies(conn, code)?;
        Ok(found.iter().any(|body| names(body, "purpose", purpose.as_str()) && names(body, "public", public)))
    };
    if said("SGN03W")? {
        return Ok(Some("revoked"));
    }
    Ok((purpose == KeyPurpose::Audit && said("SGN02I")?).then_some("retired"))
}

/// Whether a restore recorded that it went back behind the published checkpoint with this digest.
pub(crate) fn went_back_behind(conn: &mut SqliteConnection, digest: &str) -> Result<bool, LedgerError> {
    Ok(bodies(conn, "RES01I")?.iter().any(|body| names(body, "behind", digest)))
}
