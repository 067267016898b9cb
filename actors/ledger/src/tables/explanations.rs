//! `explanation`: what each incident was last explained by, and what was found for that.

use std::collections::BTreeSet;

use diesel::prelude::*;
use opspilot_kernel::{
    alert::Observation,
    event::Event,
    explanation::{Explanation, SimilarIncident},
    ids::{IncidentId, Seq},
    incident::{Incident, TimelineEntry, TimelineKind},
    principal::Actor,
};
use serde::{Deserialize, Serialize};

use super::{
    incidents,
    incidents_list::Evidence,
    incidents_rows::{IncidentRow, counted, json, parsed, stored},
};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{evidence, explanation, incident, incident_fingerprint},
    tables::timeline,
    tx::{Tx, loaded},
};

/// An explanation with everything it brings along.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredExplanation {
    /// Every event up to this one had been committed before it was begun.
    pub basis: Seq,
    /// How often the incident has been explained.
    pub times: u64,
    /// How many pieces of evidence explanations of this incident have found; the next is one more.
    pub found: u64,
    /// The explanation.
    pub explanation: Explanation,
    /// Earlier incidents that resemble it.
    pub similar: Vec<SimilarIncident>,
    /// What was found for it, `f1`, `f2`, …
    pub evidence: Vec<Evidence>,
}

/// An explanation to be stored in the place of the one before.
#[derive(Debug, Clone, PartialEq)]
pub struct NewExplanation {
    /// Of which incident.
    pub incident: IncidentId,
    /// How often it had been explained before: another one in between makes this one stale.
    pub times: u64,
    /// Who explains.
    pub actor: Actor,
    /// What it brings along; `times` in it is not read.
    pub stored: StoredExplanation,
    /// What the timeline is told, if it is told anything.
    pub line: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    id: String,
    observation: Observation,
}

#[derive(Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = crate::schema::explanation, check_for_backend(diesel::sqlite::Sqlite))]
struct ExplanationRow {
    incident: i64,
    basis: i64,
    times: i64,
    found: i64,
    body: String,
    similar: String,
    evidence: String,
}

impl ExplanationRow {
    fn read(self) -> Result<StoredExplanation, LedgerError> {
        let kept: Vec<Kept> = parsed(&self.evidence)?;
        Ok(StoredExplanation {
            basis: loaded(self.basis)?,
            times: counted(self.times)?,
            found: counted(self.found)?,
            explanation: parsed(&self.body)?,
            similar: parsed(&self.similar)?,
            evidence: kept.into_iter().map(|Kept { id, observation }| Evidence { id, observation }).collect(),
        })
    }
}

/// What an incident is explained by, if it was.
pub(crate) fn of(conn: &mut SqliteConnection, num: i64) -> Result<Option<StoredExplanation>, LedgerError> {
    let row: Option<ExplanationRow> = explanation::table.find(num).select(ExplanationRow::as_select()).first(conn).optional()?;
    row.map(ExplanationRow::read).transpose()
}

/// The pieces of an incident's own evidence that `explanation` cites, but for the first `shown`.
pub(crate) fn cited(
    conn: &mut SqliteConnection,
    num: i64,
    explanation: &Explanation,
    shown: i64,
) -> Result<Vec<(i64, String)>, LedgerError> {
    let claims = explanation.claims.iter().flat_map(|claim| &claim.evidence);
    let ids = claims.chain(explanation.causes.iter().flat_map(|cause| &cause.evidence));
    let numbers: BTreeSet<i64> = ids.filter_map(|id| id.strip_prefix('e')?.parse().ok()).filter(|n| *n > shown).collect();
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let query = evidence::table.filter(evidence::incident.eq(num)).filter(evidence::n.eq_any(numbers)).order(evidence::n);
    Ok(query.select((evidence::n, evidence::body)).load(conn)?)
}

/// Everything that an explanation of one incident starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Unexplained {
    /// The incident.
    pub incident: Incident,
    /// What it was explained by before.
    pub before: Option<StoredExplanation>,
    /// The first of its own evidence and the newest, `e1`, `e2`, …
    pub evidence: Vec<Evidence>,
    /// Incidents opened before it, newest first, and whether they share a fingerprint with it.
    pub earlier: Vec<(Incident, bool)>,
}

impl Reader<'_> {
    /// What an incident is explained by, if it was.
    pub fn explanation(&mut self, id: &IncidentId) -> Result<Option<StoredExplanation>, LedgerError> {
        let (num, _) = incidents::load(self.conn, id)?;
        of(self.conn, num)
    }

    /// What an explanation of the incident starts from: at most `most_evidence` pieces of its own evidence from each end,
    /// and at most `most_earlier` incidents before it, besides as many of the same fingerprints.
    pub fn unexplained(&mut self, id: &IncidentId, most_evidence: i64, most_earlier: i64) -> Result<Unexplained, LedgerError> {
        let (num, state) = incidents::load(self.conn, id)?;
        let own = || evidence::table.filter(evidence::incident.eq(num)).select((evidence::n, evidence::body)).limit(most_evidence);
        let mut pieces: Vec<(i64, String)> = own().order(evidence::n).load(self.conn)?;
        let newest: Vec<(i64, String)> = own().order(evidence::n.desc()).load(self.conn)?;
        pieces.extend(newest);
        pieces.sort_unstable();
        pieces.dedup_by_key(|(n, _)| *n);
        let pieces = pieces.into_iter().map(|(n, body)| Ok(Evidence { id: format!("e{n}"), observation: parsed(&body)? }));
        let evidence = pieces.collect::<Result<Vec<_>, LedgerError>>()?;
        let before = of(self.conn, num)?;
        let earlier = self.earlier(num, state.incident.opened_at.millis(), most_earlier)?;
        Ok(Unexplained { incident: state.incident, before, evidence, earlier })
    }

    fn earlier(&mut self, num: i64, opened_at: i64, most: i64) -> Result<Vec<(Incident, bool)>, LedgerError> {
        use incident_fingerprint::dsl as f;
        let own: Vec<i64> = f::incident_fingerprint.filter(f::num.eq(num)).select(f::fingerprint).load(self.conn)?;
        let mut same: BTreeSet<i64> = BTreeSet::new();
        for fingerprint in own {
            let query = f::incident_fingerprint.filter(f::fingerprint.eq(fingerprint)).filter(f::num.lt(num));
            same.extend(query.order(f::num.desc()).limit(most).select(f::num).load::<i64>(self.conn)?);
        }
        let newest: Vec<i64> = incident::table
            .filter(incident::opened_at.le(opened_at))
            .filter(incident::num.lt(num))
            .order((incident::opened_at.desc(), incident::num.desc()))
            .limit(most)
            .select(incident::num)
            .load(self.conn)?;
        let wanted: BTreeSet<i64> = newest.into_iter().chain(same.iter().copied()).collect();
        let rows: Vec<IncidentRow> = incident::table
            .filter(incident::num.eq_any(wanted))
            .order(incident::num.desc())
            .select(IncidentRow::as_select())
            .load(self.conn)?;
        rows.into_iter().map(|row| Ok((same.contains(&row.num), row.state()?.incident)).map(|(same, incident)| (incident, same))).collect()
    }

    /// Incidents that are not resolved and were never explained, oldest first.
    pub fn never_explained(&mut self, most: i64) -> Result<Vec<IncidentId>, LedgerError> {
        let explained = diesel::dsl::exists(explanation::table.filter(explanation::incident.eq(incident::num)));
        let query = incident::table.filter(incident::status.ne("resolved")).filter(diesel::dsl::not(explained));
        let ids: Vec<String> = query.order(incident::num).limit(most).select(incident::id).load(self.conn)?;
        Ok(ids.into_iter().map(IncidentId::given).collect())
    }
}

impl Tx<'_> {
    /// Puts an explanation in the place of the one before and tells of it. A conflict means that it is stale: the
    /// incident was explained otherwise meanwhile, from what is newer.
    pub fn explain(&mut self, new: NewExplanation) -> Result<(), LedgerError> {
        let NewExplanation { incident: id, times, actor, stored: fresh, line } = new;
        let (num, mut state) = incidents::load(self.conn, &id)?;
        let known: Option<(i64, i64)> =
            explanation::table.find(num).select((explanation::times, explanation::basis)).first(self.conn).optional()?;
        let (now, basis) = known.map_or(Ok((0, 0)), |(times, basis)| Ok::<_, LedgerError>((counted(times)?, loaded(basis)?)))?;
        if now != times || basis > fresh.basis {
            return Err(LedgerError::Conflict(format!("the incident {id} was explained otherwise meanwhile")));
        }
        let kept = fresh.evidence.into_iter().map(|Evidence { id, observation }| Kept { id, observation });
        let row = ExplanationRow {
            incident: num,
            basis: stored(fresh.basis)?,
            times: stored(times.saturating_add(1))?,
            found: stored(fresh.found)?,
            body: json(&fresh.explanation)?,
            similar: json(&fresh.similar)?,
            evidence: json(&kept.collect::<Vec<_>>())?,
        };
        diesel::replace_into(explanation::table).values(&row).execute(self.conn)?;
        if let Some(text) = line {
            let already = state.timeline_count;
            state.timeline_count = already.saturating_add(1);
            state.rev = state.rev.saturating_add(1);
            incidents::update(self.conn, &state)?;
            let entry = TimelineEntry { at: self.now(), actor, kind: TimelineKind::Explained, text };
            timeline::add(self.conn, num, already, std::slice::from_ref(&entry))?;
        }
        let Explanation { summary, provider, degraded, .. } = fresh.explanation;
        self.event(Event::EnrichmentCompleted { incident_id: id, summary, provider, degraded })?;
        Ok(())
    }
}
