//! `event`: committed facts, numbered.

use std::sync::Arc;

use diesel::prelude::*;
use opspilot_kernel::{event::Envelope, ids::Seq, time::Timestamp};

use crate::{
    error::LedgerError,
    read::Reader,
    schema::event::dsl as t,
    tx::{loaded, stored},
};

/// The last number given out.
pub(crate) fn head(conn: &mut SqliteConnection) -> Result<Seq, LedgerError> {
    let newest: Option<i64> = t::event.select(diesel::dsl::max(t::seq)).first(conn)?;
    loaded(newest.unwrap_or(0))
}

/// Deletes events older than `before`, at most `limit`, never the newest: its number must stay known.
pub(crate) fn delete_before(conn: &mut SqliteConnection, before: Timestamp, limit: i64) -> Result<usize, LedgerError> {
    let newest: Option<i64> = t::event.select(diesel::dsl::max(t::seq)).first(conn)?;
    let oldest: Vec<(i64, i64)> = t::event.select((t::seq, t::at)).order(t::seq).limit(limit).load(conn)?;
    let last = oldest.iter().take_while(|(seq, at)| *at < before.millis() && Some(*seq) != newest).last();
    match last {
        Some((last, _)) => Ok(diesel::delete(t::event.filter(t::seq.le(last))).execute(conn)?),
        None => Ok(0),
    }
}

impl Reader<'_> {
    /// Events behind `after`, in order.
    pub(crate) fn event_entries(&mut self, after: Seq, max_entries: usize) -> Result<Vec<Arc<Envelope>>, LedgerError> {
        let limit = i64::try_from(max_entries).unwrap_or(i64::MAX);
        let rows: Vec<Vec<u8>> = t::event.filter(t::seq.gt(stored(after)?)).order(t::seq).limit(limit).select(t::body).load(self.conn)?;
        rows.iter()
            .map(|body| serde_json::from_slice(body).map(Arc::new).map_err(|error| LedgerError::Damaged(format!("event: {error}"))))
            .collect()
    }
}
