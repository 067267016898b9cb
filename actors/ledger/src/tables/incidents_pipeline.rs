//! What the alert pipeline reads, and the one transaction it writes.

use std::collections::{BTreeMap, BTreeSet};

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Nullable, Text},
};
use opspilot_kernel::{
    event::Event,
    fingerprint::Fingerprint,
    ids::{IncidentId, Seq},
    incident::{IncidentStatus, TimelineKind},
    principal::Actor,
    time::Timestamp,
};

use super::{
    incidents_rows::{AlertRow, IncidentRow, counted, json},
    incidents_split::Before,
    incidents_state::{Board, BoardRequest, Commit, FingerprintState, IncidentChange},
};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{follower_cursor, incident},
    tables::{alerts, decisions, incidents, incidents_merge, incidents_words, timeline},
    tx::{Tx, loaded},
};

#[derive(QueryableByName)]
struct FingerprintRow {
    #[diesel(sql_type = BigInt)]
    fingerprint: i64,
    #[diesel(sql_type = Nullable<Text>)]
    open: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    latest: Option<String>,
}

// Each of these costs a few steps in an index for every key asked for, however long the history is.
pub(super) const NEWEST_EPISODES: &str = "SELECT a.* FROM json_each(?) c CROSS JOIN alert a \
     WHERE a.num = (SELECT max(num) FROM alert WHERE claim = c.value)";
pub(super) const FINGERPRINTS: &str = "SELECT f.value AS fingerprint, \
     (SELECT incident FROM incident_fingerprint WHERE fingerprint = f.value AND open) AS open, \
     (SELECT incident FROM incident_fingerprint WHERE fingerprint = f.value ORDER BY num DESC LIMIT 1) AS latest \
     FROM json_each(?) f";
pub(super) const INCIDENTS: &str = "SELECT i.* FROM json_each(?) c CROSS JOIN incident i WHERE i.id = c.value";

impl Reader<'_> {
    /// Everything that the asked-for records and timers can touch.
    pub fn board(&mut self, request: &BoardRequest) -> Result<Board, LedgerError> {
        let mut board = Board::default();
        let mut wanted = BTreeSet::new();

        let claims: Vec<&str> = request.claims.iter().map(|claim| claim.as_str()).collect();
        let rows: Vec<AlertRow> = sql_query(NEWEST_EPISODES).bind::<Text, _>(json(&claims)?).load(self.conn)?;
        for row in rows {
            let state = row.state()?;
            wanted.extend(state.alert.incident_id.clone());
            board.alerts.insert(state.claim.clone(), state);
        }
        let mut fingerprints = request.fingerprints.clone();
        if let Some((place, most)) = &request.firing {
            for state in self.firing_alerts(place.as_ref(), *most)? {
                wanted.extend(state.alert.incident_id.clone());
                // it may be told of now
                fingerprints.extend(state.alert.suppressed_by.is_some().then_some(state.alert.fingerprint));
                board.alerts.insert(state.claim.clone(), state);
            }
        }

        let numbers: Vec<i64> = fingerprints.iter().map(|fingerprint| fingerprint.as_u64().cast_signed()).collect();
        let rows: Vec<FingerprintRow> = sql_query(FINGERPRINTS).bind::<Text, _>(json(&numbers)?).load(self.conn)?;
        for row in rows {
            let state = FingerprintState { open: row.open.map(IncidentId::given), latest: row.latest.map(IncidentId::given) };
            wanted.extend(state.open.clone());
            wanted.extend(state.latest.clone());
            board.fingerprints.insert(Fingerprint::from_u64(row.fingerprint.cast_unsigned()), state);
        }

        let ids: Vec<&str> = wanted.iter().map(IncidentId::as_str).collect();
        let mut rows: Vec<IncidentRow> = sql_query(INCIDENTS).bind::<Text, _>(json(&ids)?).load(self.conn)?;
        if let Some((at, most)) = request.due {
            let due = incident::table
                .filter(incident::due_at.le(at.millis()))
                .order((incident::due_at, incident::id))
                .limit(i64::from(most))
                .select(IncidentRow::as_select());
            rows.extend(due.load(self.conn)?);
        }
        let looked_at: Vec<i64> = match request.due {
            Some((at, _)) => rows.iter().filter(|row| row.look_at.is_some_and(|look| look <= at.millis())).map(|row| row.num).collect(),
            None => Vec::new(),
        };
        if let Some(since) = request.opened_since {
            let young = incident::table.filter(incident::opened_at.ge(since.millis())).filter(incident::merged_into.is_null());
            board.opened = counted(young.count().get_result(self.conn)?)?;
        }
        let mut request = request.clone();
        request.add_held(board.alerts.values());
        board.keys = incidents_merge::holders(self.conn, &request, &looked_at)?;
        let known: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        let further: BTreeSet<&str> = board.keys.values().flatten().map(|holder| holder.incident.as_str()).collect();
        let further: Vec<&str> = further.difference(&known).copied().collect();
        if !further.is_empty() {
            let more: Vec<IncidentRow> = sql_query(INCIDENTS).bind::<Text, _>(json(&further)?).load(self.conn)?;
            rows.extend(more);
        }
        for row in rows {
            let state = row.state()?;
            board.incidents.insert(state.incident.id.clone(), state);
        }
        board.silences = self.silence_set(&request.silences)?;
        board.sweep = self.sweep()?;
        board.under_way = super::approvals::under_way(self.conn, board.incidents.keys())?;
        Ok(board)
    }

    /// When the earliest timer of any incident is due.
    pub fn next_incident_timer(&mut self) -> Result<Option<Timestamp>, LedgerError> {
        let earliest: Option<i64> =
            incident::table.filter(incident::due_at.is_not_null()).select(diesel::dsl::min(incident::due_at)).first(self.conn)?;
        Ok(earliest.map(Timestamp::from_millis))
    }
}

impl Tx<'_> {
    /// Commits what the pipeline decided: alerts, incidents, timeline, evidence, the decisions themselves,
    /// events, audit entries, and the cursor. A conflict means that the state it was decided on has
    /// moved (a person acted, or another run of the pipeline was faster): read again, decide again.
    pub fn apply_decisions(&mut self, commit: Commit) -> Result<(), LedgerError> {
        self.still_as_read(&commit)?;
        self.sweep_done(commit.silences, commit.sweep.as_ref())?;
        let stood: Vec<Before> = commit.merges.iter().map(|merge| Before::stored(self.conn, merge)).collect::<Result<_, _>>()?;
        let mut new = Vec::new();
        for state in &commit.alerts {
            if alerts::put(self.conn, state)? {
                new.push(&state.alert);
            }
        }
        let (mut words, mut nums) = (BTreeMap::new(), BTreeMap::new());
        for change in commit.incidents {
            let id = change.state.incident.id.clone();
            let mut fresh = BTreeSet::new();
            change.evidence.iter().for_each(|(_, piece)| incidents_words::of_evidence(piece, &mut fresh));
            if let Some(founded) = &change.founded {
                fresh.append(&mut incidents_words::of_incident(founded));
            }
            let num = self.apply_change(commit.module, change)?;
            nums.insert(id, num);
            words.insert(num, fresh);
        }
        for alert in new {
            let num = alert.incident_id.as_ref().and_then(|id| nums.get(id));
            if let Some(fresh) = num.and_then(|num| words.get_mut(num)) {
                incidents_words::of_alert(alert, fresh);
            }
        }
        words.retain(|_, fresh| !fresh.is_empty());
        incidents_words::add(self.conn, words)?;
        for (merge, before) in commit.merges.iter().zip(stood) {
            self.move_rows(merge, before)?;
        }
        for decision in &commit.decisions {
            decisions::put(self.conn, decision)?;
        }
        self.save_cursor(commit.module, commit.to, Vec::new())
    }

    /// Moves the cursor of `module`, if it still stands where it was read.
    pub fn pass_over(&mut self, module: &'static str, from: Seq, to: Seq) -> Result<(), LedgerError> {
        self.cursor_is_at(module, from)?;
        self.save_cursor(module, to, Vec::new())
    }

    fn cursor_is_at(&mut self, module: &str, expected: Seq) -> Result<(), LedgerError> {
        let cursor: Option<i64> = follower_cursor::table.find(module).select(follower_cursor::seq).first(self.conn).optional()?;
        let cursor: Seq = loaded(cursor.unwrap_or(0))?;
        if cursor == expected {
            return Ok(());
        }
        Err(LedgerError::Conflict(format!("the cursor of {module} stands at {cursor}, not at {expected}")))
    }

    fn still_as_read(&mut self, commit: &Commit) -> Result<(), LedgerError> {
        self.cursor_is_at(commit.module, commit.from)?;
        let read: BTreeMap<&str, i64> = commit.read.iter().map(|(id, rev)| (id.as_str(), *rev)).collect();
        let ids: Vec<&&str> = read.keys().collect();
        let now: Vec<RevisionRow> = sql_query("SELECT i.id, i.rev FROM json_each(?) c CROSS JOIN incident i WHERE i.id = c.value")
            .bind::<Text, _>(json(&ids)?)
            .load(self.conn)?;
        match now.iter().find(|row| read.get(row.id.as_str()) != Some(&row.rev)) {
            Some(row) => Err(LedgerError::Conflict(format!("the incident {} changed meanwhile", row.id))),
            None => Ok(()),
        }
    }

    fn apply_change(&mut self, module: &str, change: IncidentChange) -> Result<i64, LedgerError> {
        let IncidentChange {
            mut state,
            founded,
            recurrence_of,
            fingerprints,
            keys,
            evidence,
            evidence_taken_over,
            timeline,
            changes,
            lifecycle,
        } = change;
        state.rev += 1;
        let is_new = founded.is_some();
        let num =
            if is_new { incidents::insert(self.conn, &state, recurrence_of.as_ref())? } else { incidents::update(self.conn, &state)? };
        for fingerprint in fingerprints {
            incidents::add_fingerprint(self.conn, num, &state, fingerprint)?;
        }
        if changes.iter().any(|kind| matches!(kind, TimelineKind::Resolved | TimelineKind::Reopened)) {
            incidents::hold_fingerprints(self.conn, num, state.incident.status)?;
            if state.incident.status == IncidentStatus::Resolved {
                incidents_merge::drop_keys(self.conn, num)?;
            }
        }
        incidents_merge::hold_keys(self.conn, num, &state.incident.id, state.incident.opened_at, &keys)?;
        let added = u64::try_from(evidence.len()).unwrap_or(0).saturating_add(evidence_taken_over);
        let first = state.incident.evidence_count.saturating_sub(added);
        incidents::add_evidence(self.conn, num, first, &evidence)?;
        let first = state.timeline_count.saturating_sub(u64::try_from(timeline.len()).unwrap_or(0));
        timeline::add(self.conn, num, first, &timeline)?;

        // the module that decides is named by what it wrote; the cursor's owner only carries it in
        let actor = timeline.first().map_or_else(|| Actor::Module { id: module.to_owned() }, |entry| entry.actor.clone());
        for (what, why) in lifecycle {
            self.audit_incident(&actor, what.code(), &state.incident.id, &why)?;
        }
        let ended = changes.contains(&TimelineKind::Resolved) || state.incident.merged_into.is_some();
        let resolved = state.incident.status == IncidentStatus::Resolved && ended;
        let resolved = resolved.then(|| state.incident.id.clone());
        let incident = Box::new(state.incident);
        match founded {
            Some(_) if changes.is_empty() => self.event(Event::IncidentCreated(incident))?,
            Some(founded) => {
                self.event(Event::IncidentCreated(founded))?;
                self.event(Event::IncidentUpdated { incident, changes })?
            }
            None => self.event(Event::IncidentUpdated { incident, changes })?,
        };
        if let Some(resolved) = resolved {
            self.approvals_of_resolved(&resolved, &actor)?;
        }
        Ok(num)
    }
}

#[derive(QueryableByName)]
struct RevisionRow {
    #[diesel(sql_type = Text)]
    id: String,
    #[diesel(sql_type = BigInt)]
    rev: i64,
}
