//! `decision`: what each stage of the pipeline decided and on what, for *explain why*.

use diesel::prelude::*;
use opspilot_kernel::{
    ids::{AlertId, IncidentId, Seq},
    time::Timestamp,
};
use serde::Serialize;

use super::{
    incidents_list::{listed, number_cursor, one_more},
    incidents_rows::{counted, json, parsed, stored},
    incidents_state::Decision,
};
use crate::{
    error::LedgerError,
    read::{Listed, Page, Reader},
    schema::decision::dsl as t,
};

/// A stored decision; like ones on the same alert are counted together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoredDecision {
    /// The entry of the alert log it is about; the first, where like ones are counted together.
    pub seq: Seq,
    /// The newest entry, where like ones are counted together.
    pub last_seq: Seq,
    /// How many like it there were.
    pub times: u64,
    /// When, by our clock.
    pub at: Timestamp,
    /// When the newest like it was.
    pub last_at: Timestamp,
    /// The stage that decided.
    pub stage: String,
    /// The alert it is about; none for a timer.
    pub alert_id: Option<AlertId>,
    /// The incident it came to.
    pub incident_id: Option<IncidentId>,
    /// What was decided, in one word or two.
    pub outcome: String,
    /// Why, in words.
    pub text: String,
    /// What it was decided on.
    pub inputs: serde_json::Value,
}

/// Stores a decision.
pub(crate) fn put(conn: &mut SqliteConnection, decision: &Decision) -> Result<(), LedgerError> {
    let (seq, at, inputs) = (stored(decision.seq)?, decision.at.millis(), json(&decision.inputs)?);
    let incident = decision.incident.as_ref().map(IncidentId::as_str);
    if let (true, Some(alert)) = (decision.repeats, &decision.alert) {
        let like = t::decision
            .filter(t::repeats)
            .filter(t::alert.eq(alert.as_str()))
            .filter(t::stage.eq(decision.stage))
            .filter(t::outcome.eq(decision.outcome));
        let found = diesel::update(like)
            .set((
                t::last_seq.eq(seq),
                t::last_at.eq(at),
                t::times.eq(t::times + 1),
                t::incident.eq(incident),
                t::text.eq(&decision.text),
                t::inputs.eq(&inputs),
            ))
            .execute(conn)?;
        if found > 0 {
            return Ok(());
        }
    }
    diesel::insert_into(t::decision)
        .values((
            (t::first_seq.eq(seq), t::last_seq.eq(seq), t::times.eq(1), t::first_at.eq(at), t::last_at.eq(at)),
            t::stage.eq(decision.stage),
            t::alert.eq(decision.alert.as_ref().map(AlertId::as_str)),
            t::incident.eq(incident),
            t::outcome.eq(decision.outcome),
            t::repeats.eq(decision.repeats),
            t::text.eq(&decision.text),
            t::inputs.eq(&inputs),
        ))
        .execute(conn)?;
    Ok(())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = crate::schema::decision, check_for_backend(diesel::sqlite::Sqlite))]
struct DecisionRow {
    num: i64,
    first_seq: i64,
    last_seq: i64,
    times: i64,
    first_at: i64,
    last_at: i64,
    stage: String,
    alert: Option<String>,
    incident: Option<String>,
    outcome: String,
    text: String,
    inputs: String,
}

impl DecisionRow {
    fn decision(self) -> Result<StoredDecision, LedgerError> {
        Ok(StoredDecision {
            seq: counted(self.first_seq)?,
            last_seq: counted(self.last_seq)?,
            times: counted(self.times)?,
            at: Timestamp::from_millis(self.first_at),
            last_at: Timestamp::from_millis(self.last_at),
            stage: self.stage,
            alert_id: self.alert.map(AlertId::given),
            incident_id: self.incident.map(IncidentId::given),
            outcome: self.outcome,
            text: self.text,
            inputs: parsed(&self.inputs)?,
        })
    }
}

impl Reader<'_> {
    /// Every decision on an alert, oldest first.
    pub fn alert_decisions(&mut self, id: &AlertId, page: &Page) -> Result<Listed<StoredDecision>, LedgerError> {
        self.alert(id)?;
        let query = t::decision.filter(t::alert.eq(id.as_str())).filter(t::num.gt(number_cursor(page)?.unwrap_or(0)));
        let rows = query.order(t::num).limit(one_more(page)).select(DecisionRow::as_select()).load(self.conn)?;
        listed(rows, page, |row| row.num.to_string(), DecisionRow::decision)
    }

    /// Every decision that came to this incident, oldest first.
    pub fn incident_decisions(&mut self, id: &IncidentId, page: &Page) -> Result<Listed<StoredDecision>, LedgerError> {
        super::incidents::load(self.conn, id)?;
        let query = t::decision.filter(t::incident.eq(id.as_str())).filter(t::num.gt(number_cursor(page)?.unwrap_or(0)));
        let rows = query.order(t::num).limit(one_more(page)).select(DecisionRow::as_select()).load(self.conn)?;
        listed(rows, page, |row| row.num.to_string(), DecisionRow::decision)
    }
}
