//! `event`: committed facts, numbered.

use std::sync::Arc;

use diesel::{prelude::*, sql_types};
use opspilot_kernel::{event::Envelope, ids::Seq, time::Timestamp};

use crate::{
    error::LedgerError,
    read::Reader,
    schema::event::dsl as t,
    tables::signals::Deleted,
    tx::{loaded, stored},
};

/// The last number given out.
pub(crate) fn head(conn: &mut SqliteConnection) -> Result<Seq, LedgerError> {
    let newest: Option<i64> = t::event.select(diesel::dsl::max(t::seq)).first(conn)?;
    loaded(newest.unwrap_or(0))
}

/// What a row takes, about: its body and its columns.
pub(crate) fn stored_len(body: usize) -> u64 {
    u64::try_from(body).unwrap_or(u64::MAX).saturating_add(ROW)
}

/// What a row takes besides its body, about.
const ROW: u64 = 32;

/// What all rows take together.
pub(crate) fn total(conn: &mut SqliteConnection) -> Result<u64, LedgerError> {
    let bodies = loaded(diesel::dsl::sql::<sql_types::BigInt>("SELECT COALESCE(SUM(LENGTH(body)), 0) FROM event").get_result(conn)?)?;
    let rows: i64 = t::event.count().get_result(conn)?;
    Ok(bodies.saturating_add(loaded(rows)?.saturating_mul(ROW)))
}

/// A row that may be deleted.
struct Old {
    seq: Seq,
    at: i64,
    takes: u64,
}

/// The oldest rows, at most `limit`, never the newest: its number must stay known.
fn oldest(conn: &mut SqliteConnection, limit: i64) -> Result<Vec<Old>, LedgerError> {
    let newest: Option<i64> = t::event.select(diesel::dsl::max(t::seq)).first(conn)?;
    let length = diesel::dsl::sql::<sql_types::BigInt>("LENGTH(body)");
    let rows: Vec<(i64, i64, i64)> =
        t::event.filter(t::seq.ne(newest.unwrap_or(0))).select((t::seq, t::at, length)).order(t::seq).limit(limit).load(conn)?;
    rows.into_iter().map(|(seq, at, body)| Ok(Old { seq: loaded(seq)?, at, takes: loaded(body)?.saturating_add(ROW) })).collect()
}

fn delete(conn: &mut SqliteConnection, old: &[Old]) -> Result<Deleted, LedgerError> {
    let (Some(first), Some(last)) = (old.first(), old.last()) else { return Ok(Deleted::default()) };
    let rows = diesel::delete(t::event.filter(t::seq.le(stored(last.seq)?))).execute(conn)?;
    Ok(Deleted { rows, bytes: old.iter().map(|row| row.takes).sum(), range: Some((first.seq, last.seq)) })
}

/// Deletes events older than `before`, at most `limit`.
pub(crate) fn delete_before(conn: &mut SqliteConnection, before: Timestamp, limit: i64) -> Result<Deleted, LedgerError> {
    let mut old = oldest(conn, limit)?;
    old.truncate(old.iter().position(|row| row.at >= before.millis()).unwrap_or(old.len()));
    delete(conn, &old)
}

/// Deletes the oldest events up to number `up_to`, at most `limit`, until at least `excess` bytes are gone.
pub(crate) fn delete_oldest(conn: &mut SqliteConnection, excess: u64, up_to: Option<Seq>, limit: i64) -> Result<Deleted, LedgerError> {
    let mut gone = 0_u64;
    let mut old = oldest(conn, limit)?;
    let keep = old.iter().position(|row| {
        let stop = gone >= excess || up_to.is_some_and(|up_to| row.seq > up_to);
        gone = gone.saturating_add(row.takes);
        stop
    });
    old.truncate(keep.unwrap_or(old.len()));
    delete(conn, &old)
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
