//! `meta`: one value for each name.

use diesel::prelude::*;

use crate::{error::LedgerError, schema::meta::dsl as t};

/// Identity of this instance; given once, kept by backups.
pub(crate) const INSTANCE: &str = "instance";
/// Bumped by a restore, so that what was consumed after the backup cannot be used again.
pub(crate) const EPOCH: &str = "epoch";
/// The key that approvals are signed with.
pub(crate) const APPROVAL_KEY: &str = "approval_key";
/// The run that last opened the ledger.
pub(crate) const BOOT: &str = "boot";
/// Written by the probe of a failed storage.
pub(crate) const PROBE: &str = "probe";

pub(crate) fn get(conn: &mut SqliteConnection, name: &str) -> Result<Option<String>, LedgerError> {
    Ok(t::meta.find(name).select(t::value).first(conn).optional()?)
}

pub(crate) fn set(conn: &mut SqliteConnection, name: &str, value: &str) -> Result<(), LedgerError> {
    diesel::replace_into(t::meta).values((t::name.eq(name), t::value.eq(value))).execute(conn)?;
    Ok(())
}

pub(crate) fn remove(conn: &mut SqliteConnection, name: &str) -> Result<(), LedgerError> {
    diesel::delete(t::meta.find(name)).execute(conn)?;
    Ok(())
}
