//! Alerts, those included that never became part of an incident.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use opspilot_kernel::{
    alert::{Alert as Stored, AlertStatus},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    principal::Actor,
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{AlertFilter, Listed, StoredDecision};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    body::Query,
    error::{ApiResult, ProblemBody},
    guard::{Guard, Viewer},
    lists::{Limit, Page, Slice, part},
    state::AppState,
};

/// An alert: one episode of a condition, from when it began to hold until it was over.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Alert {
    pub(super) id: String,
    /// The same for every episode of a condition; 16 hex digits.
    fingerprint: String,
    /// `firing` or `resolved`.
    #[schema(value_type = String)]
    pub(super) status: AlertStatus,
    source: String,
    /// The rule, or the outside alert's name.
    name: String,
    detected_by: String,
    pub(super) title: String,
    description: String,
    /// `debug`, `info`, `warning`, `error` or `critical`.
    #[schema(value_type = String)]
    pub(super) severity: Severity,
    labels: BTreeMap<String, String>,
    pub(super) occurrences: u64,
    #[schema(value_type = String, format = DateTime)]
    pub(super) first_seen_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub(super) last_seen_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Timestamp>,
    pub(super) suppressed_by: Option<String>,
    incident_id: Option<String>,
}

impl From<Stored> for Alert {
    fn from(alert: Stored) -> Alert {
        Alert {
            id: alert.id.to_string(),
            fingerprint: alert.fingerprint.to_string(),
            status: alert.status,
            source: alert.source,
            name: alert.name,
            detected_by: alert.detected_by,
            title: alert.title,
            description: alert.description,
            severity: alert.severity,
            labels: alert.labels,
            occurrences: alert.occurrences,
            first_seen_at: alert.first_seen_at,
            last_seen_at: alert.last_seen_at,
            resolved_at: alert.resolved_at,
            suppressed_by: alert.suppressed_by,
            incident_id: alert.incident_id.map(|id| id.to_string()),
        }
    }
}

/// Which alerts are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// `firing` or `resolved`.
    #[param(value_type = Option<String>)]
    status: Option<AlertStatus>,
    /// `debug`, `info`, `warning`, `error` or `critical`.
    #[param(value_type = Option<String>)]
    severity: Option<Severity>,
    /// Who observed it, exactly.
    source: Option<String>,
    /// Every episode of one condition: 16 hex digits.
    #[param(value_type = Option<String>)]
    fingerprint: Option<Fingerprint>,
    /// Those of one incident.
    incident: Option<String>,
    /// How many at most: 1 to 500.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 500, default = 50)]
    limit: Limit,
    /// Where the page before ended.
    cursor: Option<String>,
}

/// Alerts, newest first.
#[utoipa::path(get, path = "/api/alerts", tag = "incidents", params(Wanted), responses(
    (status = 200, description = "Alerts", body = Page<Alert>),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn list(_caller: Guard<Viewer>, query: Query<Wanted>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Wanted { status, severity, source, fingerprint, incident, limit, cursor } = query.0;
    let filter = AlertFilter { status, severity, source, fingerprint, incident: incident.map(IncidentId::given) };
    let listed = state.ledger.read(move |reader| reader.alerts(&filter, &part(limit, cursor))).await?;
    Ok(HttpResponse::Ok().json(Page::of(listed, Alert::from)))
}

/// One alert.
#[utoipa::path(get, path = "/api/alerts/{id}", tag = "incidents", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The alert", body = Alert),
    (status = 404, description = "No such alert", body = ProblemBody),
))]
pub async fn get(_caller: Guard<Viewer>, id: web::Path<String>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let id = AlertId::given(id.into_inner());
    let alert = state.ledger.read(move |reader| reader.alert(&id)).await?;
    Ok(HttpResponse::Ok().json(Alert::from(alert)))
}

/// What one stage decided, and on what. Like ones on the same alert are counted together.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Decision {
    /// The entry of the alert log it is about, and the newest like it.
    seq: u64,
    last_seq: u64,
    /// How many like it there were.
    times: u64,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_at: Timestamp,
    /// The stage that decided.
    stage: String,
    alert_id: Option<String>,
    incident_id: Option<String>,
    /// What was decided, in one word or two.
    outcome: String,
    /// Why, in words.
    text: String,
    /// What it was decided on.
    inputs: Value,
}

/// The stored derivation of an alert or an incident.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Derivation {
    id: String,
    /// The decisions in words, newest last.
    summary: Vec<String>,
    /// Every decision with what it was decided on, oldest first.
    decisions: Vec<Decision>,
    next_cursor: Option<String>,
}

/// A derivation as the API gives it.
pub fn derivation(id: String, listed: Listed<StoredDecision>) -> Derivation {
    let sentence = |decision: &StoredDecision| match decision.times {
        1 => format!("{} · {}: {}", decision.at, decision.stage, decision.text),
        times => format!("{} · {}: {} ({times} times, last at {})", decision.at, decision.stage, decision.text, decision.last_at),
    };
    let summary = listed.items.iter().map(sentence).collect();
    let shown = |decision: StoredDecision| Decision {
        seq: decision.seq,
        last_seq: decision.last_seq,
        times: decision.times,
        at: decision.at,
        last_at: decision.last_at,
        stage: decision.stage,
        alert_id: decision.alert_id.map(|id| id.to_string()),
        incident_id: decision.incident_id.map(|id| id.to_string()),
        outcome: decision.outcome,
        text: decision.text,
        inputs: decision.inputs,
    };
    Derivation { id, summary, decisions: listed.items.into_iter().map(shown).collect(), next_cursor: listed.next_cursor }
}

/// Why an alert became what it is: every decision of every stage.
#[utoipa::path(get, path = "/api/alerts/{id}/explain-why", tag = "incidents",
    params(("id" = String, Path, description = "Its id"), Slice), responses(
    (status = 200, description = "The stored derivation", body = Derivation),
    (status = 404, description = "No such alert", body = ProblemBody),
))]
pub async fn explain_why(
    _caller: Guard<Viewer>,
    id: web::Path<String>,
    query: Query<Slice>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let (part, text) = (query.0.part(), id.into_inner());
    let id = AlertId::given(text.clone());
    let listed = state.ledger.read(move |reader| reader.alert_decisions(&id, &part)).await?;
    Ok(HttpResponse::Ok().json(derivation(text, listed)))
}

/// Who did something, as the API names them.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Doer {
    /// `user`, `module`, `system` or `anonymous`.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) id: String,
}

impl From<Actor> for Doer {
    fn from(actor: Actor) -> Doer {
        match actor {
            Actor::User { id, .. } => Doer { kind: "user", id },
            Actor::Module { id } => Doer { kind: "module", id },
            Actor::System => Doer { kind: "system", id: String::new() },
            Actor::Anonymous { .. } => Doer { kind: "anonymous", id: String::new() },
        }
    }
}
