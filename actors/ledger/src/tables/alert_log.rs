//! `alert_log`: what detectors claimed, numbered, with ticks among it.

use std::sync::Arc;

use diesel::prelude::*;
use opspilot_kernel::{
    alert::{AlertRecord, Transition},
    ids::Seq,
    time::Timestamp,
};

use crate::{
    error::LedgerError,
    logs::AlertEntry,
    read::Reader,
    schema::alert_log::dsl as t,
    tables::cursors::Snapshot,
    tx::{Tx, loaded, stored},
};

/// The last number given out.
pub(crate) fn head(conn: &mut SqliteConnection) -> Result<Seq, LedgerError> {
    let newest: Option<i64> = t::alert_log.select(diesel::dsl::max(t::seq)).first(conn)?;
    loaded(newest.unwrap_or(0))
}

pub(crate) fn insert_tick(conn: &mut SqliteConnection, seq: Seq, at: Timestamp) -> Result<(), LedgerError> {
    let none: &[u8] = &[];
    diesel::insert_into(t::alert_log).values((t::seq.eq(stored(seq)?), t::at.eq(at.millis()), t::body.eq(none))).execute(conn)?;
    Ok(())
}

/// Deletes entries older than `before` that every follower has read, at most `limit`, never the newest.
pub(crate) fn delete_before(conn: &mut SqliteConnection, before: Timestamp, least: Option<Seq>, limit: i64) -> Result<usize, LedgerError> {
    let least = least.map_or(Ok(i64::MAX), stored)?;
    let newest: Option<i64> = t::alert_log.select(diesel::dsl::max(t::seq)).first(conn)?;
    let oldest: Vec<(i64, i64)> = t::alert_log.select((t::seq, t::at)).order(t::seq).limit(limit).load(conn)?;
    let last = oldest.iter().take_while(|(seq, at)| *at < before.millis() && *seq <= least && Some(*seq) != newest).last();
    match last {
        Some((last, _)) => Ok(diesel::delete(t::alert_log.filter(t::seq.le(last))).execute(conn)?),
        None => Ok(0),
    }
}

fn transition_name(transition: Transition) -> &'static str {
    match transition {
        Transition::Firing => "firing",
        Transition::Repeat => "repeat",
        Transition::Resolved => "resolved",
    }
}

impl Tx<'_> {
    /// Commits what a detector claims together with how far it has read and what it then knew. A claim
    /// that is already in the log is passed over: after a crash a detector may say it again.
    pub fn commit_alerts(
        &mut self,
        module: &str,
        cursor: Seq,
        records: Vec<AlertRecord>,
        snapshots: Vec<Snapshot>,
    ) -> Result<(), LedgerError> {
        for record in records {
            let seq = self.work.heads.alert + 1;
            let body = serde_json::to_vec(&record).map_err(|error| LedgerError::Internal(error.to_string()))?;
            let inserted = diesel::insert_or_ignore_into(t::alert_log)
                .values((
                    t::seq.eq(stored(seq)?),
                    t::at.eq(record.logged_at.millis()),
                    t::alert.eq(record.alert.as_str()),
                    t::signal_seq.eq(stored(record.signal_seq)?),
                    t::transition.eq(transition_name(record.transition)),
                    t::body.eq(&body),
                ))
                .execute(self.conn)?;
            if inserted == 1 {
                self.committed_alert(seq, record, body.len() * 2 + 256);
            }
        }
        self.move_cursor(module, Some("signals"), cursor, snapshots)?;
        self.release_tick()
    }
}

impl Reader<'_> {
    /// Entries behind `after`, in order.
    pub(crate) fn alert_entries(&mut self, after: Seq, max_entries: usize) -> Result<Vec<AlertEntry>, LedgerError> {
        let limit = i64::try_from(max_entries).unwrap_or(i64::MAX);
        let rows: Vec<(i64, i64, Option<String>, Vec<u8>)> = t::alert_log
            .filter(t::seq.gt(stored(after)?))
            .order(t::seq)
            .limit(limit)
            .select((t::seq, t::at, t::alert, t::body))
            .load(self.conn)?;
        rows.into_iter()
            .map(|(seq, at, alert, body)| {
                let seq = loaded(seq)?;
                if alert.is_none() {
                    return Ok(AlertEntry::Tick { seq, at: Timestamp::from_millis(at) });
                }
                let record = serde_json::from_slice(&body).map_err(|error| LedgerError::Damaged(format!("alert log: {error}")))?;
                Ok(AlertEntry::Record { seq, record: Arc::new(record) })
            })
            .collect()
    }
}
