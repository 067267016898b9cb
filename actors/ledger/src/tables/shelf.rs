//! The shelf: parts of what a follower knows that are large, are not handed to it when it starts, and are read one by one
//! when they are wanted.
//!
//! They lie in the table `snapshot` under keys that begin with [`SHELF`]. Each says for itself how far in the log it goes, so
//! it need not be one with the cursor: it is written after the commit whose cursor it stands at or before.

use diesel::prelude::*;
use opspilot_kernel::ids::Seq;

use crate::{
    error::LedgerError,
    read::Reader,
    schema::{dead_letter, snapshot::dsl as t},
    tables::cursors::Snapshot,
    tx::{Tx, loaded, stored},
};

/// What the keys of parts on the shelf begin with.
pub const SHELF: &str = "~";
/// What is behind all of them.
pub(crate) const SHELF_END: &str = "\u{7f}";

impl Tx<'_> {
    /// Puts parts of what `module` knows on its shelf, each in place of the one of the same key; empty bytes take it away.
    pub fn shelve(&mut self, module: &str, parts: Vec<Snapshot>) -> Result<(), LedgerError> {
        for part in parts {
            if !part.key.starts_with(SHELF) {
                return Err(LedgerError::Invalid(format!("a key on the shelf begins with '{SHELF}'")));
            }
            if part.blob.is_empty() {
                diesel::delete(t::snapshot.find((module, &part.key))).execute(self.conn)?;
            } else {
                diesel::replace_into(t::snapshot)
                    .values((t::module.eq(module), t::key.eq(&part.key), t::blob.eq(&part.blob)))
                    .execute(self.conn)?;
            }
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// The keys of what lies on the shelf of `module`, in order.
    pub fn shelf_keys(&mut self, module: &str) -> Result<Vec<String>, LedgerError> {
        let shelved = t::snapshot.filter(t::module.eq(module)).filter(t::key.ge(SHELF)).filter(t::key.lt(SHELF_END));
        Ok(shelved.select(t::key).order(t::key).load(self.conn)?)
    }

    /// One part from the shelf of `module`.
    pub fn shelved(&mut self, module: &str, key: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        Ok(t::snapshot.find((module, key)).select(t::blob).first(self.conn).optional()?)
    }

    /// What `module` set aside of the log behind `after`: first and last numbers, ascending.
    pub fn set_aside(&mut self, module: &str, after: Seq) -> Result<Vec<(Seq, Seq)>, LedgerError> {
        use dead_letter::dsl as t;
        let rows: Vec<(i64, i64)> = t::dead_letter
            .filter(t::module.eq(module))
            .filter(t::last_seq.gt(stored(after)?))
            .order(t::first_seq)
            .select((t::first_seq, t::last_seq))
            .load(self.conn)?;
        rows.into_iter().map(|(first, last)| Ok((loaded(first)?, loaded(last)?))).collect()
    }
}
