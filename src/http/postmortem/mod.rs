//! What is on record about an incident, to look back at it: as a document, and as data.
//!
//! Every number in it is computed. What was written by the explainer is marked as a draft, each claim with whether the
//! evidence that it cites is there and says what is quoted.

mod markdown;

use actix_web::{HttpResponse, web};
use opspilot_kernel::{
    alert::Observation,
    approval::{ApprovalStatus, Proposer},
    execution::ExecutionStatus,
    explanation::{Cause, Claim, Explanation},
    ids::IncidentId,
    plan::Risk,
    time::Timestamp,
};
use opspilot_ledger::{ActionRecord, Evidence as Kept, IncidentRecord, Milestones, Vote};
use serde::{Deserialize, Serialize};

use super::{
    alerts::Alert,
    body::Query,
    error::{ApiResult, ProblemBody},
    guard::{Guard, Viewer},
    incidents::{Evidence, Incident, Line},
    state::AppState,
};

/// As what it is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Markdown,
    Json,
}

/// As what it is wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// `markdown` (the default) or `json`.
    #[param(value_type = Option<String>)]
    format: Option<Format>,
}

/// When things happened, and how long they took.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Impact {
    /// The earliest that its alerts observed, by the senders' own times.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// When the first of that was received.
    #[schema(value_type = String, format = DateTime)]
    detected_at: Timestamp,
    /// When somebody took it first.
    #[schema(value_type = Option<String>, format = DateTime)]
    acknowledged_at: Option<Timestamp>,
    /// When the first action for it ended well.
    #[schema(value_type = Option<String>, format = DateTime)]
    mitigated_at: Option<Timestamp>,
    /// The run of that action.
    mitigated_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Timestamp>,
    /// From the start to the detection, in seconds.
    time_to_detect_secs: f64,
    /// From the detection on, like the ones below.
    time_to_acknowledge_secs: Option<f64>,
    time_to_mitigate_secs: Option<f64>,
    time_to_resolve_secs: Option<f64>,
}

impl From<Milestones> for Impact {
    fn from(when: Milestones) -> Impact {
        let took = |at: Option<Timestamp>| at.map(|at| at.since(when.detected_at).as_secs_f64());
        let (mitigated_at, mitigated_by) = when.mitigated_at.unzip();
        Impact {
            time_to_detect_secs: when.detected_at.since(when.started_at).as_secs_f64(),
            time_to_acknowledge_secs: took(when.acknowledged_at),
            time_to_mitigate_secs: took(mitigated_at),
            time_to_resolve_secs: took(when.resolved_at),
            started_at: when.started_at,
            detected_at: when.detected_at,
            acknowledged_at: when.acknowledged_at,
            mitigated_at,
            mitigated_by: mitigated_by.map(|run| run.to_string()),
            resolved_at: when.resolved_at,
        }
    }
}

/// A claim of the explanation, looked at again.
#[derive(Debug, Serialize)]
struct Checked {
    #[serde(flatten)]
    claim: Claim,
    /// Whether every piece of evidence that it cites is on record, and one of them holds what it quotes.
    evidence_holds: bool,
}

/// What was said to have happened, and why. A draft: people decide what is true of it.
#[derive(Debug, Serialize)]
struct Draft {
    provider: opspilot_kernel::explanation::Provider,
    confidence: f64,
    degraded: bool,
    generated_at: Timestamp,
    summary: String,
    claims: Vec<Checked>,
    causes: Vec<Cause>,
}

impl Draft {
    fn of(explanation: Explanation, evidence: &[Kept]) -> Draft {
        let says = |id: &str, quote: Option<&str>| {
            let piece = evidence.iter().find(|piece| piece.id == id);
            piece.map(|piece| match (&piece.observation, quote) {
                (Observation::Log { text, .. }, Some(quote)) => text.contains(quote),
                (Observation::Metric { name, .. } | Observation::Change { name, .. }, Some(quote)) => name.contains(quote),
                (_, None) => true,
            })
        };
        let check = |claim: Claim| {
            let found: Vec<Option<bool>> = claim.evidence.iter().map(|id| says(id, claim.quote.as_deref())).collect();
            let evidence_holds = !found.is_empty() && found.iter().all(Option::is_some) && found.contains(&Some(true));
            Checked { claim, evidence_holds }
        };
        Draft {
            provider: explanation.provider,
            confidence: explanation.confidence,
            degraded: explanation.degraded,
            generated_at: explanation.generated_at,
            summary: explanation.summary,
            claims: explanation.claims.into_iter().map(check).collect(),
            causes: explanation.causes,
        }
    }
}

/// The run of an action.
#[derive(Debug, Serialize)]
struct Run {
    id: String,
    status: ExecutionStatus,
    reason: Option<String>,
    exit_code: Option<i32>,
    started_at: Timestamp,
    finished_at: Option<Timestamp>,
    verified: Option<bool>,
}

/// An action that was proposed, who agreed to it, and what came of it.
#[derive(Debug, Serialize)]
struct Action {
    id: String,
    action: String,
    title: String,
    risk: Risk,
    status: ApprovalStatus,
    plan_digest: String,
    proposed_by: Proposer,
    proposed_at: Timestamp,
    reasoning: String,
    approved_by: Vec<Vote>,
    execution: Option<Run>,
}

impl From<ActionRecord> for Action {
    fn from(ActionRecord { approval, votes, execution }: ActionRecord) -> Action {
        let run = execution.map(|run| Run {
            id: run.id.to_string(),
            status: run.status,
            reason: run.reason,
            exit_code: run.exit_code,
            started_at: run.started_at,
            finished_at: run.finished_at,
            verified: run.verified,
        });
        Action {
            id: approval.id.to_string(),
            action: approval.action,
            title: approval.title,
            risk: approval.risk,
            status: approval.status,
            plan_digest: approval.plan_digest.to_string(),
            proposed_by: approval.proposed_by,
            proposed_at: approval.created_at,
            reasoning: approval.reasoning,
            approved_by: votes,
            execution: run,
        }
    }
}

/// What is on record about an incident.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Postmortem {
    /// The incident as it stands, with the first of its alerts and evidence.
    incident: Incident,
    impact: Impact,
    /// Its alerts, 500 at most.
    alerts: Vec<Alert>,
    /// Its timeline, 5,000 lines at most.
    timeline: Vec<Line>,
    /// Its evidence, 500 pieces at most, and what the explanation found.
    evidence: Vec<Evidence>,
    /// What was said to have happened, and why: a draft, each claim with whether its evidence holds.
    #[schema(value_type = Option<Object>)]
    draft: Option<Draft>,
    /// What was proposed, who agreed to which digest, and what came of it.
    #[schema(value_type = Vec<Object>)]
    actions: Vec<Action>,
    /// For people to fill in.
    #[schema(value_type = Vec<String>)]
    follow_ups: [&'static str; 0],
}

impl From<IncidentRecord> for Postmortem {
    fn from(record: IncidentRecord) -> Postmortem {
        let draft = record.detail.explanation.clone().map(|explanation| Draft::of(explanation, &record.evidence));
        Postmortem {
            incident: Incident::from(record.detail),
            impact: record.milestones.into(),
            alerts: record.alerts.into_iter().map(Alert::from).collect(),
            timeline: record.timeline.into_iter().map(Line::from).collect(),
            evidence: record.evidence.into_iter().map(Evidence::from).collect(),
            draft,
            actions: record.actions.into_iter().map(Action::from).collect(),
            follow_ups: [],
        }
    }
}

/// What is on record about an incident, as a document to work on after it. Every number in it is computed; what the
/// explanation says is marked as a draft.
#[utoipa::path(get, path = "/api/incidents/{id}/postmortem", tag = "incidents",
    params(("id" = String, Path, description = "Its id"), Wanted), responses(
    (status = 200, description = "The document, or the same as data", content((String = "text/markdown"), (Postmortem = "application/json"))),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 422, description = "No such format", body = ProblemBody),
))]
pub async fn get(
    _caller: Guard<Viewer>,
    id: web::Path<String>,
    query: Query<Wanted>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let id = IncidentId::given(id.into_inner());
    let record = state.ledger.read(move |reader| reader.incident_record(&id)).await?;
    let postmortem = Postmortem::from(record);
    match query.0.format.unwrap_or_default() {
        Format::Json => Ok(HttpResponse::Ok().json(postmortem)),
        Format::Markdown => Ok(HttpResponse::Ok().content_type("text/markdown; charset=utf-8").body(markdown::document(&postmortem))),
    }
}
