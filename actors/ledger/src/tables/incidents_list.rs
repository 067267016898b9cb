//! Lists and details of incidents; what every list here has in common.

use std::collections::BTreeMap;

use diesel::{
    prelude::*,
    sql_query,
    sql_types::{BigInt, Text},
};
use opspilot_kernel::{
    alert::{Alert, Observation},
    approval::Approval,
    explanation::{Explanation, SimilarIncident},
    ids::IncidentId,
    incident::{Incident, IncidentStatus},
    signal::Severity,
    time::Timestamp,
};
use serde::Serialize;

use super::{
    alerts, approvals, explanations,
    incidents_rows::{IncidentRow, counted, json, meaning, parsed},
    incidents_state::IncidentState,
};
use crate::{
    error::LedgerError,
    read::{Listed, Page, Reader},
    schema::{evidence, incident},
    tx::Tx,
};

/// How many alerts and pieces of evidence an incident shows at once.
const FIRST: i64 = 50;
/// Evidence in one list, in bytes; the incidents behind it show none, and say so by their count.
const EVIDENCE_BYTES: usize = 8 << 20;
/// A search that finds more than this walks the list instead of sorting what it found.
const FEW: i64 = 2000;

/// Which incidents are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncidentFilter {
    /// Where they stand.
    pub status: Option<IncidentStatus>,
    /// How bad they are.
    pub severity: Option<Severity>,
    /// Who observed the founding alert.
    pub source: Option<String>,
    /// Words that all occur in the title, description, source, rule, labels or id; each may be cut short.
    pub q: Option<String>,
    /// Opened at this time or later.
    pub since: Option<Timestamp>,
    /// Opened before this time.
    pub until: Option<Timestamp>,
}

/// An incident with what it shows at first glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IncidentDetail {
    /// The incident.
    #[serde(flatten)]
    pub incident: Incident,
    /// The first of its alerts.
    pub alerts: Vec<Alert>,
    /// The first of its evidence, and whatever its explanation cites.
    pub evidence: Vec<Evidence>,
    /// Observations that are only counted and not among its evidence.
    pub evidence_beyond: u64,
    /// Timeline entries that its full timeline could not take.
    pub timeline_beyond: u64,
    /// What it is explained by, if it was.
    pub explanation: Option<Explanation>,
    /// Earlier incidents that resemble it.
    pub similar: Vec<SimilarIncident>,
    /// The newest of the actions that were proposed for it.
    pub approvals: Vec<Approval>,
}

/// One observation kept with an incident.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// `e1`, `e2`, …: how explanations cite it.
    pub id: String,
    /// The observation.
    #[serde(flatten)]
    pub observation: Observation,
}

impl Reader<'_> {
    /// Incidents, newest first.
    pub fn incidents(&mut self, filter: &IncidentFilter, page: &Page) -> Result<Listed<IncidentDetail>, LedgerError> {
        let rows = match words(filter.q.as_deref()) {
            Some(words) => self.search(filter, page, &words)?,
            None => list_query(filter, page)?.limit(one_more(page)).load(self.conn)?,
        };
        let cursor = |row: &IncidentRow| format!("{}.{}", row.opened_at, row.num);
        let mut budget = EVIDENCE_BYTES;
        let conn = &mut *self.conn;
        listed(rows, page, cursor, |row| detail(conn, row, &mut budget))
    }

    /// One incident.
    pub fn incident(&mut self, id: &IncidentId) -> Result<IncidentDetail, LedgerError> {
        one(self.conn, id)
    }

    /// How many incidents are not resolved, by severity; every severity is named.
    pub fn open_incidents(&mut self) -> Result<BTreeMap<Severity, u64>, LedgerError> {
        let counts: Vec<(String, i64)> = incident::table
            .filter(incident::status.ne("resolved"))
            .group_by(incident::severity)
            .select((incident::severity, diesel::dsl::count_star()))
            .load(self.conn)?;
        let mut open: BTreeMap<Severity, u64> = Severity::ALL.into_iter().map(|severity| (severity, 0)).collect();
        for (severity, count) in counts {
            open.insert(meaning(&severity)?, counted(count)?);
        }
        Ok(open)
    }

    /// Words are looked up in the index of words. A few finds are sorted; of many, those in front are
    /// found sooner by walking the list and asking for each whether it is one.
    fn search(&mut self, filter: &IncidentFilter, page: &Page, words: &str) -> Result<Vec<IncidentRow>, LedgerError> {
        let found: Vec<NumRow> = sql_query("SELECT rowid AS num FROM incident_text WHERE incident_text MATCH ? LIMIT ?")
            .bind::<Text, _>(words)
            .bind::<BigInt, _>(FEW + 1)
            .load(self.conn)?;
        let query = list_query(filter, page)?;
        let rows = if found.len() > usize::try_from(FEW).unwrap_or(usize::MAX) {
            let is_found = diesel::dsl::sql::<diesel::sql_types::Bool>(
                "EXISTS (SELECT 1 FROM incident_text WHERE incident_text.rowid = incident.num AND incident_text MATCH ",
            )
            .bind::<Text, _>(words.to_owned())
            .sql(")");
            query.filter(is_found).limit(one_more(page)).load(self.conn)?
        } else {
            let nums: Vec<i64> = found.into_iter().map(|row| row.num).collect();
            let among = diesel::dsl::sql::<diesel::sql_types::Bool>("incident.num IN (SELECT value FROM json_each(")
                .bind::<Text, _>(json(&nums)?)
                .sql("))");
            // sorted by what no index has: or SQLite would walk the whole list in search of these few
            let order = diesel::dsl::sql::<BigInt>("+incident.opened_at DESC, incident.num DESC");
            query.filter(among).order(order).limit(one_more(page)).load(self.conn)?
        };
        Ok(rows)
    }
}

impl Tx<'_> {
    /// One incident, as this transaction leaves it.
    pub fn incident(&mut self, id: &IncidentId) -> Result<IncidentDetail, LedgerError> {
        one(self.conn, id)
    }
}

fn one(conn: &mut SqliteConnection, id: &IncidentId) -> Result<IncidentDetail, LedgerError> {
    let query = incident::table.filter(incident::id.eq(id.as_str())).select(IncidentRow::as_select());
    let row: Option<IncidentRow> = query.first(conn).optional()?;
    let row = row.ok_or_else(|| LedgerError::NotFound(format!("the incident {id}")))?;
    let mut budget = EVIDENCE_BYTES;
    detail(conn, row, &mut budget)
}

#[derive(QueryableByName)]
struct NumRow {
    #[diesel(sql_type = BigInt)]
    num: i64,
}

pub(super) type ListQuery<'a> = diesel::dsl::IntoBoxed<
    'a,
    diesel::dsl::Select<incident::table, diesel::dsl::AsSelect<IncidentRow, diesel::sqlite::Sqlite>>,
    diesel::sqlite::Sqlite,
>;

pub(super) fn list_query(filter: &IncidentFilter, page: &Page) -> Result<ListQuery<'static>, LedgerError> {
    // what was merged into another is no more than a name for it
    let mut query = incident::table.filter(incident::merged_into.is_null()).select(IncidentRow::as_select()).into_boxed();
    if let Some(status) = filter.status {
        query = query.filter(incident::status.eq(status.as_str()));
    }
    if let Some(severity) = filter.severity {
        query = query.filter(incident::severity.eq(severity.as_str()));
    }
    if let Some(source) = &filter.source {
        query = query.filter(incident::source.eq(source.clone()));
    }
    if let Some(since) = filter.since {
        query = query.filter(incident::opened_at.ge(since.millis()));
    }
    if let Some(until) = filter.until {
        query = query.filter(incident::opened_at.lt(until.millis()));
    }
    if let Some(cursor) = &page.cursor {
        let (opened_at, num) = time_cursor(cursor)?;
        let behind = incident::opened_at.lt(opened_at).or(incident::num.lt(num));
        query = query.filter(incident::opened_at.le(opened_at)).filter(behind);
    }
    Ok(query.order((incident::opened_at.desc(), incident::num.desc())))
}

fn detail(conn: &mut SqliteConnection, row: IncidentRow, budget: &mut usize) -> Result<IncidentDetail, LedgerError> {
    let num = row.num;
    let IncidentState { mut incident, evidence_beyond, timeline_beyond, .. } = row.state()?;
    let alerts = alerts::first_of(conn, incident.id.as_str(), FIRST)?;
    let explained = explanations::of(conn, num)?;
    let mut pieces = Vec::new();
    if incident.evidence_count > 0 && *budget > 0 {
        let query = evidence::table.filter(evidence::incident.eq(num)).order(evidence::n).limit(FIRST);
        let mut rows: Vec<(i64, String)> = query.select((evidence::n, evidence::body)).load(conn)?;
        if let Some(explained) = &explained {
            rows.extend(explanations::cited(conn, num, &explained.explanation, FIRST)?);
        }
        for (n, body) in rows {
            *budget = budget.saturating_sub(body.len());
            pieces.push(Evidence { id: format!("e{n}"), observation: parsed(&body)? });
        }
    }
    let (explanation, similar) = match explained {
        Some(explained) => {
            incident.evidence_count = incident.evidence_count.saturating_add(u64::try_from(explained.evidence.len()).unwrap_or(0));
            pieces.extend(explained.evidence);
            (Some(explained.explanation), explained.similar)
        }
        None => (None, Vec::new()),
    };
    let approvals = approvals::of_incident(conn, incident.id.as_str())?;
    Ok(IncidentDetail { incident, alerts, evidence: pieces, evidence_beyond, timeline_beyond, explanation, similar, approvals })
}

/// The search as the index of words understands it: every word, each of which may be cut short.
fn words(q: Option<&str>) -> Option<String> {
    let quoted: Vec<String> = q?
        .split_whitespace()
        .filter(|word| word.chars().any(char::is_alphanumeric))
        .map(|word| format!("\"{}\"*", word.replace('"', "\"\"")))
        .collect();
    (!quoted.is_empty()).then(|| quoted.join(" "))
}

/// One item more than the page holds shows whether there is a next page.
pub(crate) fn one_more(page: &Page) -> i64 {
    i64::try_from(page.limit).unwrap_or(i64::MAX).saturating_add(1)
}

/// The cursor of a list that is sorted by a number.
pub(crate) fn number_cursor(page: &Page) -> Result<Option<i64>, LedgerError> {
    page.cursor.as_deref().map(|cursor| cursor.parse().map_err(|_| LedgerError::Cursor)).transpose()
}

fn time_cursor(cursor: &str) -> Result<(i64, i64), LedgerError> {
    let (at, num) = cursor.split_once('.').ok_or(LedgerError::Cursor)?;
    Ok((at.parse().map_err(|_| LedgerError::Cursor)?, num.parse().map_err(|_| LedgerError::Cursor)?))
}

/// A page of `rows`, of which one more than fits was asked for.
pub(crate) fn listed<R, T>(
    mut rows: Vec<R>,
    page: &Page,
    cursor: impl Fn(&R) -> String,
    item: impl FnMut(R) -> Result<T, LedgerError>,
) -> Result<Listed<T>, LedgerError> {
    let more = rows.len() > page.limit;
    rows.truncate(page.limit);
    let next_cursor = rows.last().filter(|_| more).map(cursor);
    let items = rows.into_iter().map(item).collect::<Result<Vec<T>, LedgerError>>()?;
    Ok(Listed { items, next_cursor })
}
