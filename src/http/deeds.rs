//! What people do with incidents. Each is done in one transaction with its record, and answers with the incident as it
//! then stands.

use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, http::StatusCode, web};
use futures_util::future::LocalBoxFuture;
use opspilot_kernel::{
    ids::{AlertId, IncidentId},
    incident::Incident as Stored,
    principal::Actor,
    time::Timestamp,
};
use opspilot_ledger::{LedgerError, Tx};
use serde::Deserialize;

use super::{
    body::{Body, OptionalBody},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Operator},
    idempotency::{IdempotencyKey, answered},
    incidents::Incident,
    modules::Nothing,
    state::AppState,
};

/// The longest text a person can write at once, in characters.
const MAX_TEXT: usize = 4096;
/// The longest name of an assignee, in characters.
const MAX_NAME: usize = 128;
/// The most alerts that are taken out of an incident at once.
const MAX_ALERTS: usize = 500;

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
    /// Does it in one transaction; answers with the incident that the job gives back, as it then stands.
    async fn run(
        self,
        body: &[u8],
        job: impl FnOnce(&mut Tx<'_>, &IncidentId, &Actor) -> Result<Stored, LedgerError> + Send + 'static,
    ) -> ApiResult<HttpResponse> {
        let Deed { actor, id, key, state } = self;
        let answer = key.run(&state, body, move |tx| {
            let stands = job(tx, &id, &actor)?.id;
            answered(StatusCode::OK, &Incident::from(tx.incident(&stands)?))
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

/// Which incident takes this one's alerts over.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Merge {
    /// Its id.
    into: String,
}

/// Says that an incident is one with another: its alerts and evidence go there, and it ends. `split` undoes it.
#[utoipa::path(post, path = "/api/incidents/{id}/merge", tag = "incidents", params(("id" = String, Path, description = "Its id")),
    request_body = Merge, responses(
    (status = 200, description = "The incident that goes on", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 409, description = "One of them is over or was merged, or something that was approved is not through", body = ProblemBody),
    (status = 422, description = "Into itself", body = ProblemBody),
))]
pub async fn merge(deed: Deed, body: Body<Merge>) -> ApiResult<HttpResponse> {
    let into = IncidentId::given(written("/into", Some(body.value.into), MAX_NAME)?);
    deed.run(&body.bytes, move |tx, id, actor| tx.incident_merge(id, &into, actor)).await
}

/// Which alerts are something else.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Their ids, 1 to 500. Whatever is of the same condition goes along.
    alerts: Vec<String>,
}

/// Says that some alerts of an incident are something else: they make one of their own, which joins no other again. If they
/// are what a merger brought, it is the incident that was merged.
#[utoipa::path(post, path = "/api/incidents/{id}/split", tag = "incidents", params(("id" = String, Path, description = "Its id")),
    request_body = Split, responses(
    (status = 200, description = "The incident that they make", body = Incident),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 409, description = "It is over, or was merged", body = ProblemBody),
    (status = 422, description = "These are none, not its own, or all of them", body = ProblemBody),
))]
pub async fn split(deed: Deed, body: Body<Split>) -> ApiResult<HttpResponse> {
    if !(1..=MAX_ALERTS).contains(&body.value.alerts.len()) {
        return Err(ApiError::invalid("/alerts", "wrong_count", format!("name 1 to {MAX_ALERTS} alerts")));
    }
    let alerts = body.value.alerts.into_iter().map(AlertId::given).collect();
    deed.run(&body.bytes, move |tx, id, actor| tx.incident_split(id, &alerts, actor)).await
}
