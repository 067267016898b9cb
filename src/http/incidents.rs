//! Incidents: what people work on, and what they can do with them.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::StatusCode, web};
use opspilot_kernel::{
    alert::Observation,
    ids::IncidentId,
    incident::{IncidentStatus, TimelineEntry, TimelineKind},
    principal::Actor,
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{Evidence as Kept, IncidentDetail, IncidentFilter, LedgerError, Tx};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    alerts::{Alert, Derivation, Doer, Slice, derivation, page, part},
    body::{Body, Limit, OptionalBody, Page, Query},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Operator, Viewer},
    idempotency::IdempotencyKey,
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
    /// `log` or `metric`.
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
}

impl From<Kept> for Evidence {
    fn from(kept: Kept) -> Evidence {
        let id = kept.id;
        match kept.observation {
            Observation::Log { at, source, text } => Evidence { id, kind: "log", at, source, text: Some(text), name: None, value: None },
            Observation::Metric { at, source, name, value } => {
                Evidence { id, kind: "metric", at, source, text: None, name: Some(name), value: Some(value) }
            }
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
    alerts: Vec<Alert>,
    alert_count: u64,
    evidence: Vec<Evidence>,
    evidence_count: u64,
    /// Observations beyond what an incident keeps.
    evidence_beyond: u64,
    explanation: Option<Value>,
    similar: Vec<Value>,
    runbooks: Vec<Value>,
    approvals: Vec<Value>,
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
            alerts: detail.alerts.into_iter().map(Alert::from).collect(),
            alert_count: incident.alert_count,
            evidence: detail.evidence.into_iter().map(Evidence::from).collect(),
            evidence_count: incident.evidence_count,
            evidence_beyond: detail.evidence_beyond,
            explanation: None,
            similar: Vec::new(),
            runbooks: Vec::new(),
            approvals: Vec::new(),
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
    let items: Vec<Incident> = listed.items.into_iter().map(Incident::from).collect();
    Ok(HttpResponse::Ok().json(Page { items, next_cursor: listed.next_cursor }))
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
    let (Slice { limit, cursor }, id) = (query.0, IncidentId::given(id.into_inner()));
    let listed = state.ledger.read(move |reader| reader.incident_alerts(&id, &part(limit, cursor))).await?;
    Ok(HttpResponse::Ok().json(page(listed)))
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
    let (Slice { limit, cursor }, id) = (query.0, IncidentId::given(id.into_inner()));
    let listed = state.ledger.read(move |reader| reader.timeline(&id, &part(limit, cursor))).await?;
    let items: Vec<Line> = listed.items.into_iter().map(Line::from).collect();
    Ok(HttpResponse::Ok().json(Page { items, next_cursor: listed.next_cursor }))
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
    let (Slice { limit, cursor }, text) = (query.0, id.into_inner());
    let id = IncidentId::given(text.clone());
    let listed = state.ledger.read(move |reader| reader.incident_decisions(&id, &part(limit, cursor))).await?;
    Ok(HttpResponse::Ok().json(derivation(text, listed)))
}

/// Does something with an incident in one transaction, once for an `Idempotency-Key`; answers with the
/// incident as it then stands.
async fn act(
    key: IdempotencyKey,
    body: &[u8],
    id: web::Path<String>,
    state: &web::Data<AppState>,
    job: impl FnOnce(&mut Tx<'_>, &IncidentId) -> Result<(), LedgerError> + Send + 'static,
) -> ApiResult<HttpResponse> {
    let id = IncidentId::given(id.into_inner());
    let answer = key.run(state, body, move |tx| {
        job(tx, &id)?;
        let incident = Incident::from(tx.incident(&id)?);
        let body = serde_json::to_value(incident).map_err(|error| LedgerError::Internal(error.to_string()))?;
        Ok((StatusCode::OK, body))
    });
    Ok(answer.await?.respond())
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
pub async fn acknowledge(
    caller: Guard<Operator>,
    id: web::Path<String>,
    key: IdempotencyKey,
    body: OptionalBody<Acknowledge>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (actor, note) = (caller.actor(), written("/note", body.value.note, MAX_TEXT)?);
    act(key, &body.bytes, id, &state, move |tx, id| tx.incident_acknowledge(id, &actor, &note).map(drop)).await
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
pub async fn resolve(
    caller: Guard<Operator>,
    id: web::Path<String>,
    key: IdempotencyKey,
    body: OptionalBody<Resolve>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (actor, resolution) = (caller.actor(), written("/resolution", body.value.resolution, MAX_TEXT)?);
    act(key, &body.bytes, id, &state, move |tx, id| tx.incident_resolve(id, &actor, &resolution).map(drop)).await
}

/// Says that an incident is not over after all.
#[utoipa::path(post, path = "/api/incidents/{id}/reopen", tag = "incidents", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "As it now is", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 409, description = "It is not resolved, or another one is open for the same alert", body = ProblemBody),
))]
pub async fn reopen(
    caller: Guard<Operator>,
    id: web::Path<String>,
    key: IdempotencyKey,
    body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let actor = caller.actor();
    act(key, &body.bytes, id, &state, move |tx, id| tx.incident_reopen(id, &actor).map(drop)).await
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
pub async fn snooze(
    caller: Guard<Operator>,
    id: web::Path<String>,
    key: IdempotencyKey,
    body: Body<Snooze>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (actor, until) = (caller.actor(), body.value.until);
    act(key, &body.bytes, id, &state, move |tx, id| tx.incident_snooze(id, &actor, until).map(drop)).await
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
pub async fn assign(
    caller: Guard<Operator>,
    id: web::Path<String>,
    key: IdempotencyKey,
    body: Body<Assign>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let actor: Actor = caller.actor();
    let assignee = match written("/assignee", body.value.assignee, MAX_NAME)? {
        name if name.is_empty() => None,
        name => match state.ledger.read(move |reader| reader.user(&name)).await? {
            Some(user) => Some(user.name),
            None => return Err(ApiError::invalid("/assignee", "unknown_user", "there is no account of this name")),
        },
    };
    act(key, &body.bytes, id, &state, move |tx, id| tx.incident_assign(id, &actor, assignee.as_deref()).map(drop)).await
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
pub async fn note(
    caller: Guard<Operator>,
    id: web::Path<String>,
    key: IdempotencyKey,
    body: Body<Note>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (actor, text) = (caller.actor(), written("/text", Some(body.value.text), MAX_TEXT)?);
    if text.is_empty() {
        return Err(ApiError::invalid("/text", "empty", "write something"));
    }
    act(key, &body.bytes, id, &state, move |tx, id| tx.incident_note(id, &actor, &text).map(drop)).await
}
