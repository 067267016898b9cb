//! Retention: what is old goes, in small steps between groups, whole rows only.
//!
//! Signals wait for every follower that is still behind them. The size limit does not: what it takes from
//! a follower is a gap, recorded in health, in the audit chain and in a metric.

use std::time::Duration;

use diesel::{prelude::*, sql_types};
use serde_json::json;

use super::WriterState;
use crate::{
    error::{LedgerError, StorageFailure},
    tables::{
        alert_log,
        audit::{AuditEntry, Object},
        claims, cursors, events, over, signals,
    },
    tx::Tx,
};

/// How often to look for what is old.
const EVERY: Duration = Duration::from_secs(60);
/// Rows of one table in one step, so that a step stays short.
const ROWS: i64 = 500;

/// What one step deleted.
#[derive(Debug, Default)]
struct Step {
    signals: usize,
    alerts: usize,
    events: usize,
    claims: usize,
    over: over::Gone,
    denied: u64,
    forgotten_early: usize,
    gap: Option<String>,
}

/// Bytes of the database that hold something.
fn used_bytes(conn: &mut SqliteConnection) -> Result<u64, LedgerError> {
    let mut number = |query: &str| -> Result<i64, LedgerError> { Ok(diesel::dsl::sql::<sql_types::BigInt>(query).get_result(conn)?) };
    let pages = number("PRAGMA page_count")?.saturating_sub(number("PRAGMA freelist_count")?);
    Ok(u64::try_from(pages.saturating_mul(number("PRAGMA page_size")?)).unwrap_or(0))
}

impl WriterState {
    /// A step of retention if one is due. Says nothing about what it found; the next step goes on.
    pub(crate) fn retain(&mut self) -> Result<(), StorageFailure> {
        let now = self.shared.options.clock.elapsed();
        if self.upkeep.retain_at.is_some_and(|due| now < due) {
            return Ok(());
        }
        let retention = self.shared.options.retention.clone();
        let wall = self.shared.options.clock.now();
        let bytes = i64::try_from(self.shared.options.limits.retention_step_bytes).unwrap_or(i64::MAX);
        let expired = wall.before(retention.claims);
        let forgotten = self.claims.forget(expired);
        let loaded = self.claims.is_loaded();
        let step = self.own(|tx| {
            let mut step = Step { denied: tx.denied_summaries(wall.millis())?, ..Step::default() };
            let least = cursors::least(tx.conn, "signals")?;
            step.signals = signals::delete_before(tx.conn, wall.before(retention.signals), least, ROWS, bytes)?;
            if used_bytes(tx.conn)? > retention.signals_max_bytes {
                shrink(tx, least, bytes, &mut step)?;
            }
            let least = cursors::least(tx.conn, "alerts")?;
            step.alerts = alert_log::delete_before(tx.conn, wall.before(retention.signals), least, ROWS)?;
            step.events = events::delete_before(tx.conn, wall.before(retention.events), ROWS)?;
            step.over = over::delete_before(tx.conn, wall.before(retention.incidents), ROWS)?;
            if step.over.incidents > 0 {
                tx.audit(AuditEntry {
                    code: "RET03I",
                    object: Object::new("incidents", step.over.incidents.to_string()),
                    body: json!({ "resolved_before": wall.before(retention.incidents), "incidents": step.over.incidents, "alerts": step.over.alerts }),
                    ..AuditEntry::default()
                })?;
            }
            step.claims = match forgotten {
                Some((up_to, early)) => {
                    step.forgotten_early = early;
                    claims::delete_up_to(tx.conn, up_to)?
                }
                None if loaded => 0,
                None => claims::delete_before(tx.conn, expired)?,
            };
            Ok(step)
        });
        let step = match step {
            Ok(step) => step,
            Err(error) => return Err(self.settled(super::upkeep::as_failure(error))),
        };
        // a full step means that more is waiting. One of signals may be cut by its bytes too: the next looks
        let full = [step.alerts, step.events, step.over.alerts, step.over.decisions]
            .iter()
            .any(|rows| i64::try_from(*rows).is_ok_and(|rows| rows >= ROWS));
        let full = full || step.over.incidents > 0;
        self.upkeep.retain_on = full || step.signals > 0;
        self.upkeep.retain_at = Some(if self.upkeep.retain_on { now } else { now.saturating_add(EVERY) });
        let over = &step.over;
        let deleted = step.signals + step.alerts + step.events + step.claims + over.incidents + over.alerts + over.decisions;
        self.upkeep.dirty |= deleted > 0;
        let metrics = &self.shared.metrics;
        for (table, rows) in [
            ("signal_block", step.signals),
            ("alert_log", step.alerts),
            ("event", step.events),
            ("claim", step.claims),
            ("incident", over.incidents),
            ("timeline", over.timeline),
            ("alert", over.alerts),
            ("decision", over.decisions),
        ] {
            metrics.retained.with_label_values(&[table]).inc_by(u64::try_from(rows).unwrap_or(0));
        }
        metrics.claims.set(i64::try_from(self.claims.len()).unwrap_or(i64::MAX));
        metrics.claims_evicted.inc_by(u64::try_from(step.forgotten_early).unwrap_or(0));
        metrics.denied_coalesced.inc_by(step.denied);
        if let Some(gap) = step.gap {
            metrics.gaps.inc();
            slog::error!(self.shared.options.log, "the size limit deleted signals that a follower had not read"; "gap" => &gap);
            self.shared.storage.notice(gap);
        }
        Ok(())
    }
}

/// Deletes the oldest signals whoever still wants them, and records what was taken from whom.
fn shrink(tx: &mut Tx<'_>, least: Option<u64>, bytes: i64, step: &mut Step) -> Result<(), LedgerError> {
    let Some((first, last, rows)) = signals::delete_oldest(tx.conn, ROWS, bytes)? else { return Ok(()) };
    step.signals += rows;
    if let Some(least) = least.filter(|least| last > *least) {
        tx.audit(AuditEntry {
            code: "RET02W",
            object: Object::new("signals", format!("{}-{last}", first.max(least + 1))),
            body: json!({ "first_seq": first.max(least + 1), "last_seq": last, "least_cursor": least }),
            ..AuditEntry::default()
        })?;
        step.gap = Some(format!("the size limit deleted signals up to {last}; a follower had only read up to {least}"));
    }
    Ok(())
}
