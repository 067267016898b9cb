//! Lists and details of incidents; what every list here has in common.

use std::collections::BTreeMap;

use diesel::prelude::*;
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
    alerts, approvals, explanations, incidents_course,
    incidents_rows::{IncidentRow, counted, meaning, parsed},
    incidents_search::{Sought, search},
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
/// Which incidents are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncidentFilter {
    /// Where they stand.
    pub status: Option<IncidentStatus>,
    /// How bad they are.
    pub severity: Option<Severity>,
    /// Who observed the founding alert.
    pub source: Option<String>,
    /// Words that all occur in its own texts, its alerts' or its evidence's; each may be cut short.
    pub q: Option<String>,
    /// Whose it is.
    pub assignee: Option<String>,
    /// Labels of the founding alert, all of them.
    pub labels: Vec<(String, String)>,
    /// Opened at this time or later.
    pub since: Option<Timestamp>,
    /// Opened before this time.
    pub until: Option<Timestamp>,
}

impl IncidentFilter {
    /// Whether there are filters that the index of words knows nothing of.
    pub(super) fn narrows(&self) -> bool {
        self.status.is_some() || self.severity.is_some() || self.assignee.is_some() || self.since.is_some() || self.until.is_some()
    }
}

/// An incident with what it shows at first glance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IncidentDetail {
    /// The incident.
    #[serde(flatten)]
    pub incident: Incident,
    /// The incident before it of the same fingerprint, if this is one that came back.
    pub recurrence_of: Option<IncidentId>,
    /// How many came before it that way, one after the other.
    pub recurrence: u64,
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
    /// Incidents, newest first. A page of a search may hold fewer than wanted, or none, and still not be the last.
    pub fn incidents(&mut self, filter: &IncidentFilter, page: &Page) -> Result<Listed<IncidentDetail>, LedgerError> {
        let found = match Sought::of(filter)? {
            Some(sought) => search(self.conn, filter, &sought, page)?,
            None => {
                let rows = list_query(filter, page)?.limit(one_more(page)).load(self.conn)?;
                listed(rows, page, |row: &IncidentRow| format!("{}.{}", row.opened_at, row.num), Ok)?
            }
        };
        let mut budget = EVIDENCE_BYTES;
        let items = found.items.into_iter().map(|row| detail(self.conn, row, &mut budget)).collect::<Result<_, LedgerError>>()?;
        Ok(Listed { items, next_cursor: found.next_cursor })
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

/// The incidents that pass the filters, whatever words are looked for.
pub(super) fn filtered(filter: &IncidentFilter) -> incident::BoxedQuery<'static, diesel::sqlite::Sqlite> {
    // what was merged into another is no more than a name for it
    let mut query = incident::table.filter(incident::merged_into.is_null()).into_boxed();
    if let Some(status) = filter.status {
        query = query.filter(incident::status.eq(status.as_str()));
    }
    if let Some(severity) = filter.severity {
        query = query.filter(incident::severity.eq(severity.as_str()));
    }
    if let Some(source) = &filter.source {
        query = query.filter(incident::source.eq(source.clone()));
    }
    if let Some(assignee) = &filter.assignee {
        query = query.filter(incident::assignee.eq(assignee.clone()));
    }
    if let Some(since) = filter.since {
        query = query.filter(incident::opened_at.ge(since.millis()));
    }
    if let Some(until) = filter.until {
        query = query.filter(incident::opened_at.lt(until.millis()));
    }
    query
}

pub(super) type ListQuery =
    diesel::dsl::Select<incident::BoxedQuery<'static, diesel::sqlite::Sqlite>, diesel::dsl::AsSelect<IncidentRow, diesel::sqlite::Sqlite>>;

/// The list in its own order, from where the page before ended.
pub(super) fn list_query(filter: &IncidentFilter, page: &Page) -> Result<ListQuery, LedgerError> {
    Ok(behind(filter, page)?.select(IncidentRow::as_select()))
}

/// The same, of which nothing is selected yet.
pub(super) fn behind(filter: &IncidentFilter, page: &Page) -> Result<incident::BoxedQuery<'static, diesel::sqlite::Sqlite>, LedgerError> {
    let mut query = filtered(filter);
    if let Some(cursor) = &page.cursor {
        let (opened_at, num) = time_cursor(cursor)?;
        let behind = incident::opened_at.lt(opened_at).or(incident::num.lt(num));
        query = query.filter(incident::opened_at.le(opened_at)).filter(behind);
    }
    Ok(query.order((incident::opened_at.desc(), incident::num.desc())))
}

fn detail(conn: &mut SqliteConnection, row: IncidentRow, budget: &mut usize) -> Result<IncidentDetail, LedgerError> {
    let num = row.num;
    let course = incidents_course::of(conn, num)?;
    let (recurrence_of, recurrence) = (course.recurrence_of.map(IncidentId::given), counted(course.recurrence)?);
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
    Ok(IncidentDetail {
        incident,
        recurrence_of,
        recurrence,
        alerts,
        evidence: pieces,
        evidence_beyond,
        timeline_beyond,
        explanation,
        similar,
        approvals,
    })
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
