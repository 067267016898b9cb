//! `incident_merge`: taking apart what was put together.
//!
//! A person takes alerts out of an incident. They make an incident of their own, which joins no other from then on. If
//! they are those that a merger brought, it is the incident that ended then, and both stand again as they stood, but for
//! what has come since. All alerts of one condition go together, since a condition has one open incident.

use std::collections::BTreeSet;

use diesel::{
    dsl::max,
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};
use opspilot_kernel::{
    alert::Observation,
    event::Event,
    ids::{AlertId, IncidentId},
    incident::{Incident, IncidentStatus, TimelineEntry, TimelineKind},
    principal::Actor,
    signal::Severity,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    incidents,
    incidents_rows::{AlertRow, IncidentRow, counted, json, meaning, parsed, stored},
    incidents_state::{IncidentChange, IncidentState, Merge},
    incidents_words,
};
use crate::{
    error::LedgerError,
    schema::{alert, evidence, incident, incident_key, incident_merge, incident_merge_alert},
    tables::timeline,
    tx::Tx,
};

/// How two incidents stood before they became one, as far as that cannot be told from their alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Before {
    status: IncidentStatus,
    acknowledged_at: Option<Timestamp>,
    acknowledged_by: Option<String>,
    snoozed_until: Option<Timestamp>,
    quiet_at: Option<Timestamp>,
    look_at: Option<Timestamp>,
    /// Of the one that went on.
    into_quiet_at: Option<Timestamp>,
    /// What it took over: keys that it did not have, how many keys it counts for them, the number of the first piece of
    /// evidence, how many pieces, and how many observations that were only counted.
    keys: Vec<String>,
    key_count: u64,
    first_piece: i64,
    pieces: u64,
    beyond: u64,
}

impl Before {
    /// As they stand now; one that is not stored yet is founded by the same batch.
    pub(super) fn of(from: Option<&IncidentState>, into: Option<&IncidentState>) -> Before {
        let incident = from.map(|state| &state.incident);
        Before {
            status: incident.map_or(IncidentStatus::Open, |incident| incident.status),
            acknowledged_at: incident.and_then(|incident| incident.acknowledged_at),
            acknowledged_by: incident.and_then(|incident| incident.acknowledged_by.clone()),
            snoozed_until: incident.and_then(|incident| incident.snoozed_until),
            quiet_at: from.and_then(|state| state.quiet_at),
            look_at: from.and_then(|state| state.look_at),
            into_quiet_at: into.and_then(|state| state.quiet_at),
            keys: Vec::new(),
            key_count: 0,
            first_piece: 0,
            pieces: 0,
            beyond: 0,
        }
    }

    /// As they are stored.
    pub(super) fn stored(conn: &mut SqliteConnection, merge: &Merge) -> Result<Before, LedgerError> {
        let mut state = |id: &IncidentId| {
            let row: Option<IncidentRow> =
                incident::table.filter(incident::id.eq(id.as_str())).select(IncidentRow::as_select()).first(conn).optional()?;
            row.map(IncidentRow::state).transpose()
        };
        let (from, into) = (state(&merge.from)?, state(&merge.into)?);
        Ok(Before::of(from.as_ref(), into.as_ref()))
    }
}

/// Keeps what it takes to undo a merger, before anything is moved.
pub(super) fn remember(
    conn: &mut SqliteConnection,
    now: Timestamp,
    (from, state): (i64, &IncidentState),
    into: i64,
    merge: &Merge,
    before: Before,
) -> Result<(), LedgerError> {
    forget(conn, from)?;
    let theirs: Vec<String> = incident_key::table.filter(incident_key::num.eq(into)).select(incident_key::key).load(conn)?;
    let keys: Vec<String> =
        incident_key::table.filter(incident_key::num.eq(from)).order(incident_key::key).select(incident_key::key).load(conn)?;
    let keys = keys.into_iter().filter(|key| !theirs.contains(key)).collect();
    let last: Option<i64> = evidence::table.filter(evidence::incident.eq(into)).select(max(evidence::n)).first(conn)?;
    let left = state.incident.evidence_count.saturating_sub(merge.evidence);
    let before = Before {
        keys,
        key_count: state.key_count,
        first_piece: last.unwrap_or(0).saturating_add(1),
        pieces: merge.evidence,
        beyond: state.evidence_beyond.saturating_add(left),
        ..before
    };
    diesel::insert_into(incident_merge::table)
        .values((
            incident_merge::num.eq(from),
            incident_merge::target.eq(merge.into.as_str()),
            incident_merge::at.eq(now.millis()),
            incident_merge::before.eq(json(&before)?),
        ))
        .execute(conn)?;
    sql_query("INSERT INTO incident_merge_alert (num, alert) SELECT ?, id FROM alert WHERE incident = ?")
        .bind::<BigInt, _>(from)
        .bind::<Text, _>(merge.from.as_str())
        .execute(conn)?;
    Ok(())
}

/// Lets go of what would undo a merger.
pub(super) fn forget(conn: &mut SqliteConnection, num: i64) -> Result<(), LedgerError> {
    diesel::delete(incident_merge_alert::table.filter(incident_merge_alert::num.eq(num))).execute(conn)?;
    diesel::delete(incident_merge::table.find(num)).execute(conn)?;
    Ok(())
}

/// The newest incident that ended in `into` and had exactly these conditions, with how it stood.
fn merged(
    conn: &mut SqliteConnection,
    into: &IncidentId,
    conditions: &BTreeSet<i64>,
) -> Result<Option<(i64, IncidentState, Before)>, LedgerError> {
    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = BigInt)]
        num: i64,
    }
    // one of these conditions leads to the few mergers that brought it
    let Some(one) = conditions.first() else { return Ok(None) };
    let candidates: Vec<Number> = sql_query(
        "SELECT DISTINCT m.num FROM incident_merge m CROSS JOIN incident_merge_alert b ON b.num = m.num CROSS JOIN alert a ON a.id = b.alert \
         WHERE m.target = ? AND a.fingerprint = ? ORDER BY m.num DESC",
    )
    .bind::<Text, _>(into.as_str())
    .bind::<BigInt, _>(*one)
    .load(conn)?;
    for Number { num } in candidates {
        let of_it: Vec<Number> = sql_query(
            "SELECT DISTINCT a.fingerprint AS num FROM incident_merge_alert b CROSS JOIN alert a ON a.id = b.alert WHERE b.num = ?",
        )
        .bind::<BigInt, _>(num)
        .load(conn)?;
        if of_it.into_iter().map(|one| one.num).collect::<BTreeSet<i64>>() == *conditions {
            let before: String = incident_merge::table.find(num).select(incident_merge::before).first(conn)?;
            let row: IncidentRow = incident::table.find(num).select(IncidentRow::as_select()).first(conn)?;
            return Ok(Some((num, row.state()?, parsed(&before)?)));
        }
    }
    Ok(None)
}

/// What the alerts of an incident come to.
struct Sum {
    alerts: u64,
    firing: u64,
    occurrences: u64,
    severity: Severity,
    last_seen_at: Timestamp,
}

#[derive(QueryableByName)]
struct SumRow {
    #[diesel(sql_type = Text)]
    severity: String,
    #[diesel(sql_type = BigInt)]
    alerts: i64,
    #[diesel(sql_type = BigInt)]
    firing: i64,
    #[diesel(sql_type = BigInt)]
    occurrences: i64,
    #[diesel(sql_type = BigInt)]
    last: i64,
}

fn sum_of(conn: &mut SqliteConnection, incident: &IncidentId) -> Result<Sum, LedgerError> {
    let rows: Vec<SumRow> = sql_query(
        "SELECT severity, count(*) AS alerts, sum(status = 'firing') AS firing, sum(occurrences) AS occurrences, \
         max(last_logged_at) AS last FROM alert WHERE incident = ? GROUP BY severity",
    )
    .bind::<Text, _>(incident.as_str())
    .load(conn)?;
    let mut sum = Sum { alerts: 0, firing: 0, occurrences: 0, severity: Severity::Debug, last_seen_at: Timestamp::ZERO };
    for row in rows {
        sum.alerts = sum.alerts.saturating_add(counted(row.alerts)?);
        sum.firing = sum.firing.saturating_add(counted(row.firing)?);
        sum.occurrences = sum.occurrences.saturating_add(counted(row.occurrences)?);
        sum.severity = sum.severity.max(meaning(&row.severity)?);
        sum.last_seen_at = sum.last_seen_at.max(Timestamp::from_millis(row.last));
    }
    Ok(sum)
}

impl Sum {
    /// Has an incident count these alerts; if none of them holds, it is quiet long enough at `quiet_at`.
    fn put_into(&self, state: &mut IncidentState, quiet_at: Timestamp) {
        let incident = &mut state.incident;
        (incident.alert_count, incident.severity, incident.last_seen_at) = (self.alerts, self.severity, self.last_seen_at);
        state.firing = self.firing;
        state.quiet_at = (self.firing == 0).then_some(quiet_at);
    }
}

/// Those of an incident's alerts that go with the named ones, oldest first, and their conditions.
fn going(conn: &mut SqliteConnection, id: &IncidentId, named: &BTreeSet<AlertId>) -> Result<(Vec<String>, BTreeSet<i64>), LedgerError> {
    let all: Vec<(String, i64)> =
        alert::table.filter(alert::incident.eq(id.as_str())).order(alert::num).select((alert::id, alert::fingerprint)).load(conn)?;
    let count = all.len();
    let known: BTreeSet<&str> = all.iter().map(|(alert, _)| alert.as_str()).collect();
    if let Some(stranger) = named.iter().find(|alert| !known.contains(alert.as_str())) {
        return Err(LedgerError::Invalid(format!("{stranger} is no alert of the incident {id}")));
    }
    let named: BTreeSet<&str> = named.iter().map(AlertId::as_str).collect();
    let conditions: BTreeSet<i64> =
        all.iter().filter(|(alert, _)| named.contains(alert.as_str())).map(|(_, condition)| *condition).collect();
    let moved: Vec<String> = all.into_iter().filter(|(_, condition)| conditions.contains(condition)).map(|(alert, _)| alert).collect();
    if moved.is_empty() {
        return Err(LedgerError::Invalid("name at least one of its alerts".to_owned()));
    }
    if moved.len() == count {
        return Err(LedgerError::Invalid("with these no alert would be left; one condition at least has to stay".to_owned()));
    }
    Ok((moved, conditions))
}

impl Tx<'_> {
    /// A person says that these alerts are something else: they make an incident of their own, which is returned.
    pub fn incident_split(&mut self, id: &IncidentId, alerts: &BTreeSet<AlertId>, actor: &Actor) -> Result<Incident, LedgerError> {
        let (num, mut rest) = incidents::load(self.conn, id)?;
        if let Some(other) = &rest.incident.merged_into {
            return Err(LedgerError::Conflict(format!("the incident {id} was merged into {other}; work on that one")));
        }
        if rest.incident.status == IncidentStatus::Resolved {
            return Err(LedgerError::Conflict(format!("the incident {id} is resolved; reopen it first")));
        }
        let now = self.now();
        let (moved, conditions) = going(self.conn, id, alerts)?;
        let again = merged(self.conn, id, &conditions)?;
        let (ended, mut new, before) = match again {
            Some((ended, state, before)) => (Some(ended), stands_again(state, &before), Some(before)),
            None => (None, self.made_of(&moved, &rest)?, None),
        };
        let new_id = new.incident.id.clone();
        sql_query("UPDATE alert SET incident = ? WHERE id IN (SELECT value FROM json_each(?))")
            .bind::<Text, _>(new_id.as_str())
            .bind::<Text, _>(json(&moved)?)
            .execute(self.conn)?;
        let (left, taken) = (sum_of(self.conn, id)?, sum_of(self.conn, &new_id)?);
        left.put_into(&mut rest, before.as_ref().and_then(|before| before.into_quiet_at).unwrap_or(now));
        rest.incident.occurrences = rest.incident.occurrences.saturating_sub(taken.occurrences);
        taken.put_into(&mut new, before.as_ref().and_then(|before| before.quiet_at).unwrap_or(now));
        new.incident.occurrences = taken.occurrences;
        new.pinned = true;

        let behind =
            before.as_ref().map_or(0, |before| before.first_piece.saturating_sub(1).saturating_add(stored(before.pieces).unwrap_or(0)));
        let pieces = self.pieces_of(num, &moved, behind)?;
        if let Some(before) = &before {
            self.take_back(num, before, behind, &mut rest)?;
        }
        let already = new.incident.evidence_count;
        new.incident.evidence_count = already.saturating_add(u64::try_from(pieces.len()).unwrap_or(0));

        let what = if moved.len() == 1 { "1 alert".to_owned() } else { format!("{} alerts", moved.len()) };
        let title = new.incident.title.clone();
        let new_num = match ended {
            Some(ended) => {
                forget(self.conn, ended)?;
                self.tell_split(ended, &mut new, actor, format!("stands by itself again, with {what} of {id}"))?;
                ended
            }
            None => self.tell_made(&mut new, actor, format!("made of {what} of {id}"))?,
        };
        self.tell_split(num, &mut rest, actor, format!("{what} went to {new_id} ({title})"))?;
        sql_query(
            "UPDATE incident_fingerprint SET num = ?, incident = ? WHERE num = ? AND fingerprint IN (SELECT value FROM json_each(?))",
        )
        .bind::<BigInt, _>(new_num)
        .bind::<Text, _>(new_id.as_str())
        .bind::<BigInt, _>(num)
        .bind::<Text, _>(json(&conditions)?)
        .execute(self.conn)?;
        incidents::add_evidence(self.conn, new_num, already, &pieces)?;
        self.words_of_split(new_num, &new.incident, &pieces)?;
        Ok(new.incident)
    }

    /// An incident that begins with an alert of another.
    fn made_of(&mut self, alerts: &[String], of: &IncidentState) -> Result<IncidentState, LedgerError> {
        let first = alerts.first().map_or("", String::as_str);
        let row: AlertRow = alert::table.filter(alert::id.eq(first)).select(AlertRow::as_select()).first(self.conn)?;
        let alert = row.alert()?;
        let incident = Incident {
            id: IncidentId::derived(&["split", of.incident.id.as_str(), first, &of.rev.to_string()]),
            title: alert.title,
            description: alert.description,
            severity: alert.severity,
            status: IncidentStatus::Open,
            detected_by: alert.detected_by,
            rule: alert.name,
            source: alert.source,
            labels: alert.labels,
            occurrences: 0,
            opened_at: alert.first_seen_at.max(of.incident.opened_at).min(self.now()),
            last_seen_at: alert.last_seen_at,
            acknowledged_at: None,
            acknowledged_by: None,
            assignee: None,
            snoozed_until: None,
            resolved_at: None,
            resolution: None,
            merged_into: None,
            alert_count: 0,
            evidence_count: 0,
        };
        Ok(IncidentChange::founding(incident).state)
    }

    /// Stores an incident that was made of alerts of another, and tells of it; says its number.
    fn tell_made(&mut self, state: &mut IncidentState, actor: &Actor, text: String) -> Result<i64, LedgerError> {
        (state.rev, state.timeline_count) = (1, 1);
        let num = incidents::insert(self.conn, state, None)?;
        self.audit_incident(actor, "INC01I", &state.incident.id, &text)?;
        let line = TimelineEntry { at: self.now(), actor: actor.clone(), kind: TimelineKind::Split, text };
        timeline::add(self.conn, num, 0, &[line])?;
        self.event(Event::IncidentCreated(Box::new(state.incident.clone())))?;
        Ok(num)
    }

    /// Stores what taking apart did to an incident that was there, and tells of it.
    fn tell_split(&mut self, num: i64, state: &mut IncidentState, actor: &Actor, text: String) -> Result<(), LedgerError> {
        state.rev += 1;
        let already = state.timeline_count;
        state.timeline_count += 1;
        incidents::update(self.conn, state)?;
        self.audit_incident(actor, "INC10I", &state.incident.id, &text)?;
        let line = TimelineEntry { at: self.now(), actor: actor.clone(), kind: TimelineKind::Split, text };
        timeline::add(self.conn, num, already, &[line])?;
        self.event(Event::IncidentUpdated { incident: Box::new(state.incident.clone()), changes: vec![TimelineKind::Split] })?;
        Ok(())
    }

    /// Takes what came with a merger out of the incident that went on; its evidence only if nothing came `behind` it, since
    /// what is numbered may be cited.
    fn take_back(&mut self, num: i64, before: &Before, behind: i64, rest: &mut IncidentState) -> Result<(), LedgerError> {
        let newest: Option<i64> = evidence::table.filter(evidence::incident.eq(num)).select(max(evidence::n)).first(self.conn)?;
        if newest.unwrap_or(0) <= behind {
            let came = evidence::table.filter(evidence::incident.eq(num)).filter(evidence::n.ge(before.first_piece));
            diesel::delete(came).execute(self.conn)?;
            rest.incident.evidence_count = rest.incident.evidence_count.saturating_sub(before.pieces);
            rest.evidence_beyond = rest.evidence_beyond.saturating_sub(before.beyond);
        }
        let brought = incident_key::table.filter(incident_key::num.eq(num)).filter(incident_key::key.eq_any(&before.keys));
        diesel::delete(brought).execute(self.conn)?;
        rest.key_count = rest.key_count.saturating_sub(before.key_count);
        Ok(())
    }

    /// The evidence that came with some alerts of an incident, behind one of its pieces.
    fn pieces_of(&mut self, num: i64, alerts: &[String], behind: i64) -> Result<Vec<(AlertId, Observation)>, LedgerError> {
        #[derive(QueryableByName)]
        struct Piece {
            #[diesel(sql_type = Text)]
            alert: String,
            #[diesel(sql_type = Text)]
            body: String,
        }
        let rows: Vec<Piece> = sql_query(
            "SELECT alert, body FROM evidence WHERE incident = ? AND n > ? AND alert IN (SELECT value FROM json_each(?)) ORDER BY n",
        )
        .bind::<BigInt, _>(num)
        .bind::<BigInt, _>(behind)
        .bind::<Text, _>(json(alerts)?)
        .load(self.conn)?;
        rows.into_iter().map(|row| Ok((AlertId::given(row.alert), parsed(&row.body)?))).collect()
    }

    fn words_of_split(&mut self, num: i64, of: &Incident, pieces: &[(AlertId, Observation)]) -> Result<(), LedgerError> {
        let mut words = incidents_words::of_incident(of);
        pieces.iter().for_each(|(_, piece)| incidents_words::of_evidence(piece, &mut words));
        let own = alert::table.filter(alert::incident.eq(of.id.as_str())).order(alert::num).limit(incidents_words::ALERTS);
        for row in own.select(AlertRow::as_select()).load::<AlertRow>(self.conn)? {
            incidents_words::of_alert(&row.alert()?, &mut words);
        }
        incidents_words::add(self.conn, [(num, words)].into())
    }
}

/// An incident that had ended in another, as it stood before.
fn stands_again(mut state: IncidentState, before: &Before) -> IncidentState {
    let incident = &mut state.incident;
    incident.merged_into = None;
    (incident.resolved_at, incident.resolution) = (None, None);
    incident.status = before.status;
    incident.acknowledged_at = before.acknowledged_at;
    incident.acknowledged_by.clone_from(&before.acknowledged_by);
    incident.snoozed_until = before.snoozed_until;
    state.look_at = before.look_at;
    state
}
