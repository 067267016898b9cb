//! Incidents: what people work on.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use opspilot_kernel::{
    alert::Observation,
    explanation::{Explanation, RunbookMatch, SimilarIncident},
    ids::IncidentId,
    incident::{IncidentStatus, TimelineEntry, TimelineKind},
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{Evidence as Kept, IncidentDetail, IncidentFilter};
use serde::{Deserialize, Serialize};

use super::{
    alerts::{Alert, Derivation, Doer, derivation},
    body::{OptionalBody, Query},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Operator, Viewer},
    lists::{Limit, Page, Slice, part},
    modules::Nothing,
    state::AppState,
};

/// One observation kept with an incident.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Evidence {
    /// `e1`, `e2`, …
    pub(super) id: String,
    /// `log`, `metric` or `change`.
    pub(super) kind: &'static str,
    #[schema(value_type = String, format = DateTime)]
    pub(super) at: Timestamp,
    pub(super) source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<f64>,
    /// Of a change: when it was last seen so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Of a change, what was measured: `value`, `lines`, `all_lines`, `errors`, `alert`, `incident` or `looked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) measure: Option<&'static str>,
    /// Of a change: what it was before, a median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usual: Option<f64>,
    /// Of a change: how far it strayed from that before.
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<f64>,
    /// Of a change: how many observations it follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// Of a metric: the least that was expected there before it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected_low: Option<f64>,
    /// Of a metric: the most that was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expected_high: Option<f64>,
}

impl From<Kept> for Evidence {
    fn from(kept: Kept) -> Evidence {
        let (id, at, source) = (kept.id, kept.observation.at(), kept.observation.source().to_owned());
        let (text, name, value, until, measure, usual, spread, count) = (None, None, None, None, None, None, None, None);
        let (expected_low, expected_high) = (None, None);
        let bare =
            Evidence { id, kind: "log", at, source, text, name, value, until, measure, usual, spread, count, expected_low, expected_high };
        match kept.observation {
            Observation::Log { text, .. } => Evidence { text: Some(text), ..bare },
            Observation::Metric { name, value, expected, .. } => {
                let (expected_low, expected_high) = expected.map(|band| (band.low, band.high)).unzip();
                Evidence { kind: "metric", name: Some(name), value: Some(value), expected_low, expected_high, ..bare }
            }
            Observation::Change { name, value, until, measure, usual, spread, count, .. } => Evidence {
                kind: "change",
                name: Some(name),
                value: Some(value),
                until: Some(until),
                measure: Some(measure.as_str()),
                usual,
                spread,
                count: Some(count),
                ..bare
            },
        }
    }
}

/// An incident, with the first 50 of its alerts and of its evidence.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Incident {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) description: String,
    /// `debug`, `info`, `warning`, `error` or `critical`.
    #[schema(value_type = String)]
    pub(super) severity: Severity,
    /// `open`, `acknowledged` or `resolved`.
    #[schema(value_type = String)]
    pub(super) status: IncidentStatus,
    pub(super) detected_by: String,
    pub(super) rule: String,
    pub(super) source: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) occurrences: u64,
    #[schema(value_type = String, format = DateTime)]
    opened_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_seen_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    acknowledged_at: Option<Timestamp>,
    pub(super) acknowledged_by: Option<String>,
    pub(super) assignee: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    snoozed_until: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Timestamp>,
    pub(super) resolution: Option<String>,
    /// The incident that took its alerts over, if one did; such an incident is in no list.
    pub(super) merged_into: Option<String>,
    /// The incident before it of the same fingerprint, if it had been over for too long to be opened again.
    pub(super) recurrence_of: Option<String>,
    /// How many came before it that way, one after the other.
    pub(super) recurrence: u64,
    alerts: Vec<Alert>,
    pub(super) alert_count: u64,
    evidence: Vec<Evidence>,
    pub(super) evidence_count: u64,
    /// Observations beyond what an incident keeps.
    pub(super) evidence_beyond: u64,
    /// What happened, why, and what to do next, with what shows it.
    #[schema(value_type = Option<Object>)]
    explanation: Option<Explanation>,
    /// Earlier incidents that resemble it, and how they ended.
    #[schema(value_type = Vec<Object>)]
    similar: Vec<SimilarIncident>,
    /// Runbooks that fit, and what they say to do.
    #[schema(value_type = Vec<Object>)]
    runbooks: Vec<RunbookMatch>,
    /// The newest of the actions that were proposed for it, as `GET /api/approvals` gives them.
    #[schema(value_type = Vec<Object>)]
    approvals: Vec<opspilot_kernel::approval::Approval>,
}

impl From<IncidentDetail> for Incident {
    fn from(detail: IncidentDetail) -> Incident {
        let incident = detail.incident;
        Incident {
            id: incident.id.to_string(),
            title: incident.title,
            description: incident.description,
            severity: incident.severity,
            status: incident.status,
            detected_by: incident.detected_by,
            rule: incident.rule,
            source: incident.source,
            labels: incident.labels,
            occurrences: incident.occurrences,
            opened_at: incident.opened_at,
            last_seen_at: incident.last_seen_at,
            acknowledged_at: incident.acknowledged_at,
            acknowledged_by: incident.acknowledged_by,
            assignee: incident.assignee,
            snoozed_until: incident.snoozed_until,
            resolved_at: incident.resolved_at,
            resolution: incident.resolution,
            merged_into: incident.merged_into.map(|id| id.to_string()),
            recurrence_of: detail.recurrence_of.map(|id| id.to_string()),
            recurrence: detail.recurrence,
            alerts: detail.alerts.into_iter().map(Alert::from).collect(),
            alert_count: incident.alert_count,
            evidence: detail.evidence.into_iter().map(Evidence::from).collect(),
            evidence_count: incident.evidence_count,
            evidence_beyond: detail.evidence_beyond,
            runbooks: detail.explanation.as_ref().map(|explanation| explanation.runbooks.clone()).unwrap_or_default(),
            explanation: detail.explanation,
            similar: detail.similar,
            approvals: detail.approvals,
        }
    }
}

/// Which incidents are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// `open`, `acknowledged` or `resolved`.
    #[param(value_type = Option<String>)]
    status: Option<IncidentStatus>,
    /// `debug`, `info`, `warning`, `error` or `critical`.
    #[param(value_type = Option<String>)]
    severity: Option<Severity>,
    /// Who observed it, exactly.
    source: Option<String>,
    /// Words that all occur in its texts, its alerts' or its evidence's; each may be cut short. The first 16 count.
    q: Option<String>,
    /// Whose it is: the name of an account.
    assignee: Option<String>,
    /// A label of the alert that opened it, `name=value`, exactly; may be given up to 8 times.
    #[serde(default)]
    label: Vec<String>,
    /// Opened then or later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Opened before.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// How many at most: 1 to 500.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 500, default = 50)]
    limit: Limit,
    /// Where the page before ended.
    cursor: Option<String>,
}

/// The most labels that a list can be narrowed by.
const MAX_LABELS: usize = 8;

fn labels(given: &[String]) -> ApiResult<Vec<(String, String)>> {
    if given.len() > MAX_LABELS {
        return Err(ApiError::invalid("/label", "too_many", format!("at most {MAX_LABELS} labels")));
    }
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(ApiError::invalid("/label", "bad_label", "a label is given as name=value")),
    };
    given.iter().map(pair).collect()
}

/// Incidents, newest first. A page that was searched for may hold fewer than wanted and still name a next one: one page
/// looks at 10,000 incidents at most.
#[utoipa::path(get, path = "/api/incidents", tag = "incidents", params(Wanted), responses(
    (status = 200, description = "Incidents", body = Page<Incident>),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn list(_caller: Guard<Viewer>, query: Query<Wanted>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Wanted { status, severity, source, q, assignee, label, since, until, limit, cursor } = query.0;
    let labels = labels(&label)?;
    let filter = IncidentFilter { status, severity, source, q, assignee, labels, since, until };
    let listed = state.ledger.read(move |reader| reader.incidents(&filter, &part(limit, cursor))).await?;
    Ok(HttpResponse::Ok().json(Page::of(listed, Incident::from)))
}

/// One incident.
#[utoipa::path(get, path = "/api/incidents/{id}", tag = "incidents", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The incident", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
))]
pub async fn get(_caller: Guard<Viewer>, id: web::Path<String>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let id = IncidentId::given(id.into_inner());
    let detail = state.ledger.read(move |reader| reader.incident(&id)).await?;
    Ok(HttpResponse::Ok().json(Incident::from(detail)))
}

/// The alerts of an incident, in the order in which they joined it.
#[utoipa::path(get, path = "/api/incidents/{id}/alerts", tag = "incidents",
    params(("id" = String, Path, description = "Its id"), Slice), responses(
    (status = 200, description = "Alerts", body = Page<Alert>),
    (status = 404, description = "No such incident", body = ProblemBody),
))]
pub async fn alerts(
    _caller: Guard<Viewer>,
    id: web::Path<String>,
    query: Query<Slice>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (part, id) = (query.0.part(), IncidentId::given(id.into_inner()));
    let listed = state.ledger.read(move |reader| reader.incident_alerts(&id, &part)).await?;
    Ok(HttpResponse::Ok().json(Page::of(listed, Alert::from)))
}

/// One line of a timeline.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Line {
    #[schema(value_type = String, format = DateTime)]
    pub(super) at: Timestamp,
    pub(super) actor: Doer,
    /// What happened, such as `opened`, `alert_joined`, `acknowledged`, `note` or `resolved`.
    #[schema(value_type = String)]
    pub(super) kind: TimelineKind,
    pub(super) text: String,
}

impl From<TimelineEntry> for Line {
    fn from(entry: TimelineEntry) -> Line {
        Line { at: entry.at, actor: Doer::from(entry.actor), kind: entry.kind, text: entry.text }
    }
}

/// What happened to an incident, oldest first.
#[utoipa::path(get, path = "/api/incidents/{id}/timeline", tag = "incidents",
    params(("id" = String, Path, description = "Its id"), Slice), responses(
    (status = 200, description = "The timeline", body = Page<Line>),
    (status = 404, description = "No such incident", body = ProblemBody),
))]
pub async fn timeline(
    _caller: Guard<Viewer>,
    id: web::Path<String>,
    query: Query<Slice>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (part, id) = (query.0.part(), IncidentId::given(id.into_inner()));
    let listed = state.ledger.read(move |reader| reader.timeline(&id, &part)).await?;
    Ok(HttpResponse::Ok().json(Page::of(listed, Line::from)))
}

/// Why an incident was opened, joined, resolved: every decision that came to it.
#[utoipa::path(get, path = "/api/incidents/{id}/explain-why", tag = "incidents",
    params(("id" = String, Path, description = "Its id"), Slice), responses(
    (status = 200, description = "The stored derivation", body = Derivation),
    (status = 404, description = "No such incident", body = ProblemBody),
))]
pub async fn explain_why(
    _caller: Guard<Viewer>,
    id: web::Path<String>,
    query: Query<Slice>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (part, text) = (query.0.part(), id.into_inner());
    let id = IncidentId::given(text.clone());
    let listed = state.ledger.read(move |reader| reader.incident_decisions(&id, &part)).await?;
    Ok(HttpResponse::Ok().json(derivation(text, listed)))
}

/// Explains an incident again, from what is known now.
#[utoipa::path(post, path = "/api/incidents/{id}/explain", tag = "incidents", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The incident with its explanation", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 503, description = "Incidents are not explained just now", body = ProblemBody),
))]
pub async fn explain(
    caller: Guard<Operator>,
    id: web::Path<String>,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let id = IncidentId::given(id.into_inner());
    state.control.explain(id.clone(), caller.actor()).await?;
    let detail = state.ledger.read(move |reader| reader.incident(&id)).await?;
    Ok(HttpResponse::Ok().json(Incident::from(detail)))
}
