//! Ticks: numbered in the signal log at once, in the alert log when every detector has read up to there.
//!
//! A timer of the alert pipeline must see everything that was claimed about the signals before it, and how fast a
//! detector was must not matter. So a tick waits until each live follower of the signals has committed past it; a newer
//! one takes its place. One that fails and stays behind holds up time for half a minute at most.

use std::time::Duration;

use diesel::prelude::*;
use opspilot_kernel::{ids::Seq, signal::LogEntry, time::Timestamp};

use super::{alert_log, cursors, meta, signals};
use crate::{error::LedgerError, logs::AlertEntry, tx::Tx};

/// The name in `meta`.
const HELD: &str = "held_tick";
/// How long one waits for whoever is behind, by the ticks' own times.
const PATIENCE: Duration = Duration::from_secs(30);

/// A tick that is not in the alert log yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldTick {
    /// Its number in the signal log.
    signal: Seq,
    at: Timestamp,
    /// The time of the first one that it stands for.
    since: Timestamp,
}

/// The tick that waits, if one does.
pub(crate) fn held(conn: &mut SqliteConnection) -> Result<Option<HeldTick>, LedgerError> {
    let Some(text) = meta::get(conn, HELD)? else { return Ok(None) };
    let numbers: Vec<i64> = text.split(' ').map_while(|number| number.parse().ok()).collect();
    let [signal, at, since] = numbers.as_slice() else { return Ok(None) };
    let signal = crate::tx::loaded(*signal)?;
    Ok(Some(HeldTick { signal, at: Timestamp::from_millis(*at), since: Timestamp::from_millis(*since) }))
}

impl Tx<'_> {
    /// Commits the passing of time, numbered.
    pub(crate) fn tick(&mut self, at: Timestamp) -> Result<(), LedgerError> {
        let signal = self.work.heads.signal + 1;
        self.work.heads.sizes.signals += signals::insert_tick(self.conn, signal, at)?;
        self.work.heads.signal = signal;
        self.work.signals.push((LogEntry::Tick { seq: signal, at }, 64));
        let since = self.work.heads.tick.map_or(at, |held| held.since);
        let held = HeldTick { signal, at, since };
        let had = self.work.heads.tick.replace(held).is_some();
        let is_overdue = at.since(since) > PATIENCE;
        if is_overdue || cursors::all_done(self.conn, signal)? {
            return self.release(held, had);
        }
        meta::set(self.conn, HELD, &format!("{signal} {} {}", at.millis(), since.millis()))
    }

    /// Somebody got further: lets go of the tick that waited for them.
    pub(crate) fn release_tick(&mut self) -> Result<(), LedgerError> {
        match self.work.heads.tick {
            Some(held) if cursors::all_done(self.conn, held.signal)? => self.release(held, true),
            _ => Ok(()),
        }
    }

    fn release(&mut self, held: HeldTick, is_stored: bool) -> Result<(), LedgerError> {
        self.work.heads.tick = None;
        if is_stored {
            meta::remove(self.conn, HELD)?;
        }
        let seq = self.work.heads.alert + 1;
        alert_log::insert_tick(self.conn, seq, held.at)?;
        self.work.heads.alert = seq;
        self.work.alerts.push((AlertEntry::Tick { seq, at: held.at }, 64));
        Ok(())
    }
}
