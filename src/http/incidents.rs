//! Incidents: what people work on, and what they can do with them.

use std::collections::BTreeMap;

use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, http::StatusCode, web};
use futures_util::future::LocalBoxFuture;
use opspilot_kernel::{
    alert::Observation,
    explanation::{Explanation, RunbookMatch, SimilarIncident},
    ids::IncidentId,
    incident::{Incident as Stored, IncidentStatus, TimelineEntry, TimelineKind},
    principal::Actor,
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{Evidence as Kept, IncidentDetail, IncidentFilter, LedgerError, Tx};
use serde::{Deserialize, Serialize};

use super::{
    alerts::{Alert, Derivation, Doer, derivation},
    body::{Body, OptionalBody, Query},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Operator, Viewer},
    idempotency::{IdempotencyKey, answered},
    lists::{Limit, Page, Slice, part},
    modules::Nothing,
    state::AppState,
};

/// The longest text a person can write at once, in characters.
const MAX_TEXT: usize = 4096;
/// The longest name of an assignee, in characters.
const MAX_NAME: usize = 128;

/// One observation kept with an incident.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Evidence {
    /// `e1`, `e2`, …
    id: String,
    /// `log`, `metric` or `change`.
    kind: &'static str,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    source: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    /// Of a change: when it was last seen so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Of a change, what was measured: `value`, `lines`, `all_lines`, `errors`, `alert`, `incident` or `looked`.
    #[serde(skip_serializing_if = "Option::is_none")]
    measure: Option<&'static str>,
    /// Of a change: what it was before, a median.
    #[serde(skip_serializing_if = "Option::is_none")]
    usual: Option<f64>,
    /// Of a change: how far it strayed from that before.
    #[serde(skip_serializing_if = "Option::is_none")]
    spread: Option<f64>,
    /// Of a change: how many observations it follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// Of a metric: the least that was expected there before it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_low: Option<f64>,
    /// Of a metric: the most that was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_high: Option<f64>,
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
    id: String,
    title: String,
    description: String,
    /// `debug`, `info`, `warning`, `error` or `critical`.
    #[schema(value_type = String)]
    severity: Severity,
    /// `open`, `acknowledged` or `resolved`.
    #[schema(value_type = String)]
    status: IncidentStatus,
    detected_by: String,
    rule: String,
    source: String,
    labels: BTreeMap<String, String>,
    occurrences: u64,
    #[schema(value_type = String, format = DateTime)]
    opened_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_seen_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    acknowledged_at: Option<Timestamp>,
    acknowledged_by: Option<String>,
    assignee: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    snoozed_until: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Timestamp>,
    resolution: Option<String>,
    /// The incident that took its alerts over, if one did; such an incident is in no list.
    merged_into: Option<String>,
    alerts: Vec<Alert>,
    alert_count: u64,
    evidence: Vec<Evidence>,
    evidence_count: u64,
    /// Observations beyond what an incident keeps.
    evidence_beyond: u64,
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
    /// Words that all occur in it; each may be cut short.
    q: Option<String>,
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

/// Incidents, newest first.
#[utoipa::path(get, path = "/api/incidents", tag = "incidents", params(Wanted), responses(
    (status = 200, description = "Incidents", body = Page<Incident>),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn list(_caller: Guard<Viewer>, query: Query<Wanted>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Wanted { status, severity, source, q, since, until, limit, cursor } = query.0;
    let filter = IncidentFilter { status, severity, source, q, since, until };
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
    at: Timestamp,
    actor: Doer,
    /// What happened, such as `opened`, `alert_joined`, `acknowledged`, `note` or `resolved`.
    #[schema(value_type = String)]
    kind: TimelineKind,
    text: String,
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

/// What an operator does with one incident, once for an `Idempotency-Key`.
pub struct Deed {
    actor: Actor,
    id: IncidentId,
    key: IdempotencyKey,
    state: web::Data<AppState>,
}

impl FromRequest for Deed {
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Deed, actix_web::Error>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        type Parts = (Guard<Operator>, web::Path<String>, IdempotencyKey, web::Data<AppState>);
        let parts = Parts::from_request(request, payload);
        Box::pin(async move {
            let (caller, id, key, state) = parts.await?;
            Ok(Deed { actor: caller.actor(), id: IncidentId::given(id.into_inner()), key, state })
        })
    }
}

impl Deed {
    /// Does it in one transaction; answers with the incident as it then stands.
    async fn run(
        self,
        body: &[u8],
        job: impl FnOnce(&mut Tx<'_>, &IncidentId, &Actor) -> Result<Stored, LedgerError> + Send + 'static,
    ) -> ApiResult<HttpResponse> {
        let Deed { actor, id, key, state } = self;
        let answer = key.run(&state, body, move |tx| {
            job(tx, &id, &actor)?;
            answered(StatusCode::OK, &Incident::from(tx.incident(&id)?))
        });
        Ok(answer.await?.respond())
    }
}

/// What a person wrote, within bounds and without blanks around it.
fn written(field: &str, text: Option<String>, most: usize) -> ApiResult<String> {
    let text = text.unwrap_or_default();
    if text.chars().count() > most {
        return Err(ApiError::invalid(field, "too_long", format!("at most {most} characters")));
    }
    Ok(text.trim().to_owned())
}

/// What to say when taking an incident.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledge {
    /// For the timeline; at most 4,096 characters.
    #[serde(default)]
    note: Option<String>,
}

/// Takes an incident: somebody is on it.
#[utoipa::path(post, path = "/api/incidents/{id}/acknowledge", tag = "incidents", params(("id" = String, Path, description = "Its id")),
    request_body = Option<Acknowledge>, responses(
    (status = 200, description = "As it now is", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 409, description = "It is acknowledged or resolved", body = ProblemBody),
))]
pub async fn acknowledge(deed: Deed, body: OptionalBody<Acknowledge>) -> ApiResult<HttpResponse> {
    let note = written("/note", body.value.note, MAX_TEXT)?;
    deed.run(&body.bytes, move |tx, id, actor| tx.incident_acknowledge(id, actor, &note)).await
}

/// What to say when resolving an incident.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    /// Why it is over; at most 4,096 characters.
    #[serde(default)]
    resolution: Option<String>,
}

/// Says that an incident is over. An alert of it that fires again opens it again.
#[utoipa::path(post, path = "/api/incidents/{id}/resolve", tag = "incidents", params(("id" = String, Path, description = "Its id")),
    request_body = Option<Resolve>, responses(
    (status = 200, description = "As it now is", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 409, description = "It is already resolved", body = ProblemBody),
))]
pub async fn resolve(deed: Deed, body: OptionalBody<Resolve>) -> ApiResult<HttpResponse> {
    let resolution = written("/resolution", body.value.resolution, MAX_TEXT)?;
    deed.run(&body.bytes, move |tx, id, actor| tx.incident_resolve(id, actor, &resolution)).await
}

/// Says that an incident is not over after all.
#[utoipa::path(post, path = "/api/incidents/{id}/reopen", tag = "incidents", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "As it now is", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 409, description = "It is not resolved, or another one is open for the same alert", body = ProblemBody),
))]
pub async fn reopen(deed: Deed, body: OptionalBody<Nothing>) -> ApiResult<HttpResponse> {
    deed.run(&body.bytes, move |tx, id, actor| tx.incident_reopen(id, actor)).await
}

/// Until when to put an incident aside.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Snooze {
    /// In the future, at most 366 days ahead.
    #[schema(value_type = String, format = DateTime)]
    until: Timestamp,
}

/// Puts an incident aside until later, or until it gets worse.
#[utoipa::path(post, path = "/api/incidents/{id}/snooze", tag = "incidents", params(("id" = String, Path, description = "Its id")),
    request_body = Snooze, responses(
    (status = 200, description = "As it now is", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 409, description = "It is resolved", body = ProblemBody),
    (status = 422, description = "The time is not acceptable", body = ProblemBody),
))]
pub async fn snooze(deed: Deed, body: Body<Snooze>) -> ApiResult<HttpResponse> {
    let until = body.value.until;
    deed.run(&body.bytes, move |tx, id, actor| tx.incident_snooze(id, actor, until)).await
}

/// Whose an incident is to be.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Assign {
    /// The name of an account; null for nobody.
    #[serde(deserialize_with = "Option::deserialize")]
    assignee: Option<String>,
}

/// Gives an incident to somebody, or to nobody.
#[utoipa::path(post, path = "/api/incidents/{id}/assign", tag = "incidents", params(("id" = String, Path, description = "Its id")),
    request_body = Assign, responses(
    (status = 200, description = "As it now is", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 422, description = "There is no such account", body = ProblemBody),
))]
pub async fn assign(deed: Deed, body: Body<Assign>) -> ApiResult<HttpResponse> {
    let assignee = match written("/assignee", body.value.assignee, MAX_NAME)? {
        name if name.is_empty() => None,
        name => match deed.state.ledger.read(move |reader| reader.user(&name)).await? {
            Some(user) => Some(user.name),
            None => return Err(ApiError::invalid("/assignee", "unknown_user", "there is no account of this name")),
        },
    };
    deed.run(&body.bytes, move |tx, id, actor| tx.incident_assign(id, actor, assignee.as_deref())).await
}

/// What to write down.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// 1 to 4,096 characters.
    text: String,
}

/// Writes something into an incident's timeline.
#[utoipa::path(post, path = "/api/incidents/{id}/notes", tag = "incidents", params(("id" = String, Path, description = "Its id")),
    request_body = Note, responses(
    (status = 200, description = "The incident", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 422, description = "The text is empty or too long", body = ProblemBody),
))]
pub async fn note(deed: Deed, body: Body<Note>) -> ApiResult<HttpResponse> {
    let text = written("/text", Some(body.value.text), MAX_TEXT)?;
    if text.is_empty() {
        return Err(ApiError::invalid("/text", "empty", "write something"));
    }
    deed.run(&body.bytes, move |tx, id, actor| tx.incident_note(id, actor, &text)).await
}
