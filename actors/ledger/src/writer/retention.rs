//! Retention: what is old goes, in small steps between groups, whole rows only.
//!
//! Signals wait for every follower that is still behind them. The size limit does not: what it takes from
//! a follower is a gap, recorded in health, in the audit chain and in a metric. It goes by what the rows of signals take,
//! so nothing else in the database costs a signal. Events have a limit of their own, which waits for whoever
//! delivers them until they take twice as much.

use std::time::Duration;

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
/// How many times their size limit events must take before it passes whoever has not read them.
const FAR: u64 = 2;

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
    /// The size limit of events deleted some: there may be more.
    shrunk: bool,
    gaps: Vec<Gap>,
}

/// What a size limit took from a follower.
#[derive(Debug)]
struct Gap {
    kind: &'static str,
    text: String,
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
            let gone = signals::delete_before(tx.conn, wall.before(retention.signals), least, ROWS, bytes)?;
            step.signals = gone.rows;
            tx.work.heads.sizes.signals = tx.work.heads.sizes.signals.saturating_sub(gone.bytes);
            let excess = tx.work.heads.sizes.signals.saturating_sub(retention.signals_max_bytes);
            if excess > 0 {
                shrink_signals(tx, excess, least, bytes, &mut step)?;
            }
            let least = cursors::least(tx.conn, "alerts")?;
            step.alerts = alert_log::delete_before(tx.conn, wall.before(retention.signals), least, ROWS)?;
            let gone = events::delete_before(tx.conn, wall.before(retention.events), ROWS)?;
            step.events = gone.rows;
            tx.work.heads.sizes.events = tx.work.heads.sizes.events.saturating_sub(gone.bytes);
            shrink_events(tx, retention.events_max_bytes, &mut step)?;
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
        let full = full || step.over.incidents > 0 || step.shrunk;
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
        for gap in step.gaps {
            metrics.gaps.inc();
            slog::error!(self.shared.options.log, "a size limit deleted what a follower had not read"; "gap" => &gap.text);
            self.shared.storage.notice(gap.kind, gap.text);
        }
        Ok(())
    }
}

/// Deletes the oldest signals whoever still wants them, and records what was taken from whom.
fn shrink_signals(tx: &mut Tx<'_>, excess: u64, least: Option<u64>, bytes: i64, step: &mut Step) -> Result<(), LedgerError> {
    let gone = signals::delete_oldest(tx.conn, excess, ROWS, bytes)?;
    tx.work.heads.sizes.signals = tx.work.heads.sizes.signals.saturating_sub(gone.bytes);
    step.signals += gone.rows;
    let Some((first, last)) = gone.range else { return Ok(()) };
    if let Some(least) = least.filter(|least| last > *least) {
        step.gaps.push(Gap { kind: "signals", text: taken(tx, "RET02W", "signals", first, last, least)? });
    }
    Ok(())
}

/// Deletes the oldest events that everybody has read; far over the limit also what somebody has not, and records that.
fn shrink_events(tx: &mut Tx<'_>, limit: u64, step: &mut Step) -> Result<(), LedgerError> {
    let takes = tx.work.heads.sizes.events;
    let excess = takes.saturating_sub(limit);
    if excess == 0 {
        return Ok(());
    }
    let least = cursors::least_of_events(tx.conn)?;
    let mut gone = events::delete_oldest(tx.conn, excess, least, ROWS)?;
    let far = takes.saturating_sub(limit.saturating_mul(FAR));
    if gone.rows == 0 && far > 0 {
        gone = events::delete_oldest(tx.conn, far, None, ROWS)?;
    }
    tx.work.heads.sizes.events = takes.saturating_sub(gone.bytes);
    step.events += gone.rows;
    step.shrunk = gone.rows > 0;
    let Some((first, last)) = gone.range else { return Ok(()) };
    if let Some(least) = least.filter(|least| last > *least) {
        step.gaps.push(Gap { kind: "events", text: taken(tx, "RET04W", "events", first, last, least)? });
    }
    Ok(())
}

/// Records what a size limit took from a follower.
fn taken(tx: &mut Tx<'_>, code: &'static str, what: &'static str, first: u64, last: u64, least: u64) -> Result<String, LedgerError> {
    let first = first.max(least + 1);
    tx.audit(AuditEntry {
        code,
        object: Object::new(what, format!("{first}-{last}")),
        body: json!({ "first_seq": first, "last_seq": last, "least_cursor": least }),
        ..AuditEntry::default()
    })?;
    Ok(format!("the size limit deleted {what} up to {last}; a follower had only read up to {least}"))
}
