//! `suppression`, `inhibitor`: what is held back, how far that was looked at, and by what.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Bool, Text},
};
use opspilot_kernel::{
    alert::AlertStatus,
    ids::{AlertId, IncidentId},
    time::Timestamp,
};

use super::{
    incidents_rows::{AlertRow, counted, json},
    incidents_state::AlertState,
    silences,
    suppression_state::{Inhibitor, SilenceSet, Sweep},
};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{alert, inhibitor, suppression::dsl as t},
    tx::Tx,
};

// A few steps in an index for every key, and for each of the alerts behind it that is wanted.
const INHIBITORS: &str = "SELECT i.key, i.both, i.claim, i.title FROM json_each(?) k CROSS JOIN inhibitor i \
     WHERE i.key = k.value AND (i.both, i.claim) IN (SELECT n.both, n.claim FROM inhibitor n WHERE n.key = k.value AND NOT n.both \
     ORDER BY n.claim LIMIT ?2) OR i.key = k.value AND (i.both, i.claim) IN (SELECT n.both, n.claim FROM inhibitor n \
     WHERE n.key = k.value AND n.both ORDER BY n.claim LIMIT ?2)";

#[derive(QueryableByName)]
struct InhibitorRow {
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Bool)]
    both: bool,
    #[diesel(sql_type = Text)]
    claim: String,
    #[diesel(sql_type = Text)]
    title: String,
}

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = Text)]
    reason: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// What a person changed holds from now on: whatever was decided on the state before is decided anew.
pub(super) fn moved(conn: &mut SqliteConnection, again: bool) -> Result<(), LedgerError> {
    diesel::update(t::suppression.find(1)).set(t::rev.eq(t::rev + 1)).execute(conn)?;
    if again {
        diesel::update(t::suppression.find(1)).set(t::again.eq(true)).execute(conn)?;
    }
    Ok(())
}

/// Keeps by what an alert holds others back, as long as it fires.
pub(super) fn keep_inhibitors(conn: &mut SqliteConnection, state: &AlertState) -> Result<(), LedgerError> {
    let shields = state.aside.as_ref().map(|aside| aside.shields.as_slice()).unwrap_or_default();
    let fires = state.alert.status == AlertStatus::Firing;
    if fires && shields.is_empty() {
        return Ok(());
    }
    let claim = state.claim.as_str();
    diesel::delete(inhibitor::table.filter(inhibitor::claim.eq(claim))).execute(conn)?;
    for shield in shields.iter().filter(|_| fires) {
        diesel::insert_into(inhibitor::table)
            .values((
                inhibitor::key.eq(&shield.key),
                inhibitor::both.eq(shield.both),
                inhibitor::claim.eq(claim),
                inhibitor::title.eq(&state.alert.title),
            ))
            .on_conflict_do_nothing()
            .execute(conn)?;
    }
    Ok(())
}

/// A person resolves the alerts of an incident: those that hold others back do so no longer.
pub(super) fn forget_inhibitors_of(conn: &mut SqliteConnection, incident: &IncidentId) -> Result<(), LedgerError> {
    let forgotten = sql_query("DELETE FROM inhibitor WHERE claim IN (SELECT claim FROM alert WHERE incident = ? AND status = 'firing')")
        .bind::<Text, _>(incident.as_str())
        .execute(conn)?;
    if forgotten > 0 { moved(conn, true) } else { Ok(()) }
}

fn load(conn: &mut SqliteConnection) -> Result<(i64, Sweep), LedgerError> {
    let (rev, until, plan, place, again): (i64, i64, String, Option<String>, bool) =
        t::suppression.find(1).select((t::rev, t::until, t::plan, t::place, t::again)).first(conn)?;
    Ok((rev, Sweep { until: Timestamp::from_millis(until), plan, place: place.map(AlertId::given), again }))
}

impl Reader<'_> {
    /// Every silence that was not over when alerts were looked at last; `known`, if nobody changed anything since.
    pub fn silence_set(&mut self, known: &Arc<SilenceSet>) -> Result<Arc<SilenceSet>, LedgerError> {
        let (rev, sweep) = load(self.conn)?;
        if known.rev == rev && rev > 0 {
            return Ok(Arc::clone(known));
        }
        Ok(Arc::new(SilenceSet { rev, silences: silences::not_over(self.conn, sweep.until)? }))
    }

    /// How far alerts that fire were looked at.
    pub fn sweep(&mut self) -> Result<Sweep, LedgerError> {
        Ok(load(self.conn)?.1)
    }

    /// Alerts that fire and hold back by these keys; of each key and kind the first `most`.
    pub fn inhibitors(&mut self, keys: &BTreeSet<String>, most: usize) -> Result<BTreeMap<String, BTreeSet<Inhibitor>>, LedgerError> {
        let mut found: BTreeMap<String, BTreeSet<Inhibitor>> = BTreeMap::new();
        if keys.is_empty() {
            return Ok(found);
        }
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows: Vec<InhibitorRow> = sql_query(INHIBITORS).bind::<Text, _>(json(keys)?).bind::<BigInt, _>(most).load(self.conn)?;
        for row in rows {
            let one = Inhibitor { both: row.both, claim: AlertId::given(row.claim), title: row.title };
            found.entry(row.key).or_default().insert(one);
        }
        Ok(found)
    }

    /// Alerts that fire, by the id their detector speaks of them by, behind `place`.
    pub fn firing_alerts(&mut self, place: Option<&AlertId>, most: u32) -> Result<Vec<AlertState>, LedgerError> {
        let place = place.map_or("", AlertId::as_str);
        let query =
            alert::table.filter(alert::status.eq("firing")).filter(alert::claim.gt(place)).order(alert::claim).limit(i64::from(most));
        let rows: Vec<AlertRow> = query.select(AlertRow::as_select()).load(self.conn)?;
        rows.into_iter().map(AlertRow::state).collect()
    }

    /// How many alerts that fire are held back, by what: the word before the colon.
    pub fn suppressed_alerts(&mut self) -> Result<BTreeMap<String, u64>, LedgerError> {
        let rows: Vec<CountRow> = sql_query(
            "SELECT substr(suppressed_by, 1, instr(suppressed_by, ':') - 1) AS reason, count(*) AS count FROM alert \
             WHERE status = 'firing' AND suppressed_by IS NOT NULL GROUP BY 1",
        )
        .load(self.conn)?;
        rows.into_iter().map(|row| Ok((row.reason, counted(row.count)?))).collect()
    }
}

impl Tx<'_> {
    /// Stores how far alerts were looked at, if what they were looked at by is still as it was read.
    pub(super) fn sweep_done(&mut self, read: i64, sweep: Option<&Sweep>) -> Result<(), LedgerError> {
        let (rev, _) = load(self.conn)?;
        if rev != read {
            return Err(LedgerError::Conflict("what holds alerts back changed meanwhile".to_owned()));
        }
        let Some(sweep) = sweep else { return Ok(()) };
        diesel::update(t::suppression.find(1))
            .set((
                t::until.eq(sweep.until.millis()),
                t::plan.eq(&sweep.plan),
                t::place.eq(sweep.place.as_ref().map(AlertId::as_str)),
                t::again.eq(sweep.again),
            ))
            .execute(self.conn)?;
        Ok(())
    }
}
