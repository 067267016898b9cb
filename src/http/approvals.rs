//! Approvals: proposals, what people decide about them, and the start of what they agreed to.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, dev::Payload, http::StatusCode, http::header, web};
use opspilot_kernel::{
    approval::{Approval, ApprovalStatus, Proposer},
    consent::{Refusal, Voter},
    error::ErrorKind,
    ids::{ApprovalId, IncidentId},
    plan::PlanDigest,
    principal::Role,
};
use opspilot_ledger::{ApprovalFilter, Priority};
use opspilot_safety::{Approver, Decision, Gate, GateError, IssuedToken, Proposal, RenderError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    body::{Body, OptionalBody, Query},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Operator, Principal, Via, Viewer},
    idempotency::IdempotencyKey,
    limits,
    lists::{Limit, Page, Slice, part},
    modules::Nothing,
    shapes,
    state::AppState,
};

/// The header that carries an approval token.
pub const TOKEN_HEADER: &str = "x-approval-token";

impl From<GateError> for ApiError {
    fn from(error: GateError) -> ApiError {
        match error {
            GateError::Refused(refusal) => refused(&refusal),
            GateError::NoSuchAction { closest } => {
                let hint = closest.map(|closest| format!("; did you mean {closest}?")).unwrap_or_default();
                ApiError::invalid(
                    "/action",
                    "unknown_action",
                    format!("the catalogue has no such action (GET /api/actions lists it){hint}"),
                )
            }
            GateError::Render(RenderError::Params(bad)) => {
                let first = ApiError::new(ErrorKind::Invalid, "invalid", "the parameters do not fit the action");
                bad.into_iter().fold(first, |error, bad| {
                    let hint = bad.suggestion.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
                    let name = bad.name.replace('~', "~0").replace('/', "~1");
                    error.at(format!("/params/{name}"), "bad_parameter", format!("{} {}{hint}", bad.name, bad.why))
                })
            }
            GateError::Render(RenderError::File { path, why }) => {
                ApiError::invalid("/action", "program_not_usable", format!("{path} cannot be run: {why}"))
            }
            GateError::Render(error) => ApiError::invalid("/params", "too_long", error.to_string()),
            GateError::Invalid { field, why } => ApiError::invalid(field, "invalid", why),
            GateError::Ledger(error) => error.into(),
            GateError::Unavailable(error) => ApiError::new(ErrorKind::Unavailable, "unavailable", error.to_string()),
            GateError::Internal(error) => ApiError::internal(error),
        }
    }
}

/// The one place where a refusal becomes a status.
fn refused(refusal: &Refusal) -> ApiError {
    use Refusal::{
        AlreadyDecided, BadToken, ClockRegression, Conflict, CoolingDown, Expired, Frozen, IncidentResolved, KeyNotAllowed, NoExecutor,
        NoTurn, NotApproved, NotEligible, NotPermitted, PlanChanged, SelfApproval, StepUpRequired, TargetBusy, TokenExpired, TokenUsed,
        TooMany, WrongAction,
    };
    let kind = match refusal {
        SelfApproval | NotPermitted | KeyNotAllowed | StepUpRequired | WrongAction | NotEligible => ErrorKind::Forbidden,
        PlanChanged
        | AlreadyDecided(_)
        | NotApproved(_)
        | Conflict(_)
        | TokenUsed
        | TargetBusy { .. }
        | NoTurn(_)
        | Frozen(_)
        | IncidentResolved => ErrorKind::Conflict,
        Expired | TokenExpired => ErrorKind::Expired,
        BadToken => ErrorKind::Unauthenticated,
        ClockRegression | NoExecutor => ErrorKind::Unavailable,
        CoolingDown(_) | TooMany(_) => ErrorKind::Busy,
    };
    ApiError::new(kind, refusal.code(), refusal.to_string())
}

/// Somebody who may decide: an operator, or whoever is in a group that the policy names.
#[derive(Debug)]
pub struct MayDecide(Arc<Principal>);

impl FromRequest for MayDecide {
    type Error = ApiError;
    type Future = std::future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let gate = request.app_data::<web::Data<AppState>>().map(|state| state.gate.clone());
        std::future::ready(match request.extensions().get::<Arc<Principal>>() {
            None => Err(ApiError::new(ErrorKind::Unauthenticated, "unauthenticated", "log in, or send an API key")),
            Some(principal) if principal.role.includes(Role::Operator) => Ok(MayDecide(Arc::clone(principal))),
            Some(principal)
                if principal.role.includes(Role::Viewer) && gate.is_some_and(|gate| gate.policy().names_group(&principal.groups)) =>
            {
                Ok(MayDecide(Arc::clone(principal)))
            }
            Some(_) => Err(refused(&Refusal::NotPermitted)),
        })
    }
}

/// The caller as the gate knows people.
pub(super) fn approver(principal: &Principal) -> Approver {
    Approver {
        person: Voter { user: principal.user.clone(), role: principal.role, groups: principal.groups.clone() },
        by_key: matches!(principal.via, Via::Key(_)),
        actor: principal.actor(),
    }
}

/// Which approvals are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// `pending`, `approved`, `executing`, `succeeded`, `failed`, `unknown`, `denied`, `expired`, `lapsed`, `revoked`,
    /// `superseded` or `withdrawn`.
    #[param(value_type = Option<String>)]
    status: Option<ApprovalStatus>,
    /// Of this incident.
    incident: Option<String>,
    /// How many at most: 1 to 500.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 500, default = 50)]
    limit: Limit,
    /// Where the page before ended.
    cursor: Option<String>,
}

async fn listed(state: &AppState, filter: ApprovalFilter, page: opspilot_ledger::Page) -> ApiResult<HttpResponse> {
    let listed = state.ledger.read(move |reader| reader.approvals(&filter, &page)).await?;
    Ok(HttpResponse::Ok().json(Page::of(listed, |approval| approval)))
}

/// Approvals, newest first.
#[utoipa::path(get, path = "/api/approvals", tag = "approvals", params(Wanted), responses(
    (status = 200, description = "Approvals", body = shapes::Approvals),
))]
pub async fn list(_caller: Guard<Viewer>, query: Query<Wanted>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Wanted { status, incident, limit, cursor } = query.0;
    listed(&state, ApprovalFilter { status, incident: incident.map(IncidentId::given) }, part(limit, cursor)).await
}

/// What waits for people, newest first.
#[utoipa::path(get, path = "/api/approvals/pending", tag = "approvals", params(Slice), responses(
    (status = 200, description = "Approvals", body = shapes::Approvals),
))]
pub async fn pending(_caller: Guard<Viewer>, query: Query<Slice>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    listed(&state, ApprovalFilter { status: Some(ApprovalStatus::Pending), incident: None }, query.0.part()).await
}

async fn known(state: &AppState, id: &ApprovalId) -> ApiResult<Approval> {
    let id = id.clone();
    Ok(state.ledger.read(move |reader| reader.approval(&id)).await?)
}

/// The approval that a path names, which must be there: the gate tells apart only those that are.
async fn named(state: &AppState, id: web::Path<String>) -> ApiResult<ApprovalId> {
    Ok(known(state, &ApprovalId::given(id.into_inner())).await?.id)
}

/// One approval: the exact plan, its digest, and where it stands.
#[utoipa::path(get, path = "/api/approvals/{id}", tag = "approvals", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The approval", body = shapes::Approval),
    (status = 404, description = "No such approval", body = ProblemBody),
))]
pub async fn get(_caller: Guard<Viewer>, id: web::Path<String>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    Ok(HttpResponse::Ok().json(known(&state, &ApprovalId::given(id.into_inner())).await?))
}

/// What to propose.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Propose {
    /// An action of the catalogue.
    action: String,
    /// What its slots are filled with.
    #[serde(default)]
    #[schema(value_type = Object)]
    params: BTreeMap<String, Value>,
    /// Why; at most 4,096 characters.
    #[serde(default)]
    reasoning: String,
}

/// Proposes an action for an incident. Somebody else must approve it.
#[utoipa::path(post, path = "/api/incidents/{id}/proposals", tag = "approvals",
    params(("id" = String, Path, description = "The incident's id")), request_body = Propose, responses(
    (status = 201, description = "The approval that waits for people", body = shapes::Approval),
    (status = 404, description = "No such incident", body = ProblemBody),
    (status = 409, description = "The incident is resolved", body = ProblemBody),
    (status = 422, description = "No such action, or its parameters do not do", body = ProblemBody),
))]
pub async fn propose(
    caller: Guard<Operator>,
    id: web::Path<String>,
    key: IdempotencyKey,
    body: Body<Propose>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let Propose { action, params, reasoning } = body.value;
    let proposal = Proposal {
        // the same request again, even after a crash in between, finds what it made
        id: key.seed(&state).map(|seed| ApprovalId::derived(&["proposal", &seed])),
        incident: IncidentId::given(id.into_inner()),
        action,
        params,
        reasoning,
        by: Proposer::User(caller.user.clone()),
        actor: caller.actor(),
        owner: Some(caller.user.clone()),
    };
    let gate = state.gate.clone();
    let work = async move {
        let approval = gate.propose(proposal).await?;
        Ok((StatusCode::CREATED, serde_json::to_value(&approval).map_err(ApiError::internal)?))
    };
    Ok(key.run_apart(&state, &body.bytes, work).await?.respond())
}

/// What to say when agreeing.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Approve {
    /// The digest that was shown: what is agreed to.
    #[schema(value_type = String)]
    plan_digest: PlanDigest,
    /// Why; at most 4,096 characters.
    #[serde(default)]
    reason: String,
    /// The caller's password, for the tier `destructive`.
    #[serde(default)]
    #[schema(format = Password)]
    password: Option<String>,
}

/// Whether the caller just gave their password again, by the rules of the log-in: slow, bounded, and slower with every
/// wrong one.
async fn stepped_up(state: &AppState, request: &HttpRequest, caller: &Principal, password: Option<String>) -> ApiResult<bool> {
    let Some(password) = password else { return Ok(false) };
    let (throttle, address) = (state.auth.throttle(), limits::origin_in(request).address);
    let wait = throttle.wait(&caller.user, address, state.clock.elapsed());
    if !wait.is_zero() {
        let detail = "too many wrong passwords; wait before the next try";
        return Err(ApiError::new(ErrorKind::Busy, "slow_down", detail).retry_after(wait.as_secs() + 1));
    }
    let name = caller.user.clone();
    let found = state.ledger.read(move |reader| reader.credentials(&name)).await?;
    let hash = found.filter(|found| !found.disabled).map(|found| found.password_hash);
    let is_known = hash.is_some();
    if state.auth.passwords().verify(hash, password).await? && is_known {
        throttle.right(&caller.user, address, state.clock.elapsed());
        return Ok(true);
    }
    throttle.wrong(&caller.user, address, state.clock.elapsed());
    let actor = caller.actor();
    let denied = state.ledger.write(Priority::Bulk, move |tx| tx.denied(&actor, "step-up password"));
    actix_web::rt::spawn(async move { drop(denied.await) });
    Err(ApiError::new(ErrorKind::Forbidden, Refusal::StepUpRequired.code(), "this is not your password"))
}

fn token_of(issued: &IssuedToken) -> Value {
    json!({ "status": "approved", "token": issued.token, "token_id": issued.token_id, "expires_at": issued.expires_at })
}

/// An answer that holds a token.
fn secret(body: &Value) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(body)
}

/// Agrees to the plan with this digest. When enough people did, the answer holds the token, once.
#[utoipa::path(post, path = "/api/approvals/{id}/approve", tag = "approvals", params(("id" = String, Path, description = "Its id")),
    request_body = Approve, responses(
    (status = 200, description = "Approved; the token is shown once", body = shapes::Token),
    (status = 202, description = "Noted; more people are needed", body = shapes::Noted),
    (status = 403, description = "One's own proposal, an API key, or the password is missing", body = ProblemBody),
    (status = 404, description = "No such approval", body = ProblemBody),
    (status = 409, description = "Another plan than was shown, or decided already", body = ProblemBody),
    (status = 410, description = "The time to decide is over", body = ProblemBody),
))]
pub async fn approve(
    caller: MayDecide,
    id: web::Path<String>,
    request: HttpRequest,
    body: Body<Approve>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let id = ApprovalId::given(id.into_inner());
    let Approve { plan_digest, reason, password } = body.value;
    let approval = known(&state, &id).await?;
    let wanted = password.filter(|_| Gate::needs_step_up(approval.risk));
    let password_ok = stepped_up(&state, &request, &caller.0, wanted).await?;
    match state.gate.approve(&id, approver(&caller.0), plan_digest, reason, password_ok).await? {
        Decision::Approved(_, issued) => Ok(secret(&token_of(&issued))),
        Decision::Pending(approval) => {
            let body = json!({
                "status": approval.status, "quorum": approval.quorum, "plan_digest": approval.plan_digest,
                "approve_by": approval.approve_by,
            });
            Ok(HttpResponse::Accepted().json(body))
        }
    }
}

/// Why something is decided so.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// At most 4,096 characters.
    #[serde(default)]
    reason: String,
}

/// Says no, which ends the proposal.
#[utoipa::path(post, path = "/api/approvals/{id}/deny", tag = "approvals", params(("id" = String, Path, description = "Its id")),
    request_body = Because, responses(
    (status = 200, description = "As it now is", body = shapes::Approval),
    (status = 403, description = "An API key", body = ProblemBody),
    (status = 404, description = "No such approval", body = ProblemBody),
    (status = 409, description = "Decided already", body = ProblemBody),
    (status = 410, description = "The time to decide is over", body = ProblemBody),
    (status = 422, description = "Without a reason", body = ProblemBody),
))]
pub async fn deny(
    caller: MayDecide,
    id: web::Path<String>,
    body: OptionalBody<Because>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let id = named(&state, id).await?;
    Ok(HttpResponse::Ok().json(state.gate.deny(&id, approver(&caller.0), body.value.reason).await?))
}

/// Takes back an approval that was not executed; its token is worth nothing at once.
#[utoipa::path(post, path = "/api/approvals/{id}/revoke", tag = "approvals", params(("id" = String, Path, description = "Its id")),
    request_body = Option<Because>, responses(
    (status = 200, description = "As it now is", body = shapes::Approval),
    (status = 403, description = "An API key", body = ProblemBody),
    (status = 404, description = "No such approval", body = ProblemBody),
    (status = 409, description = "It is not approved, or executed already", body = ProblemBody),
))]
pub async fn revoke(
    caller: MayDecide,
    id: web::Path<String>,
    body: OptionalBody<Because>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let id = named(&state, id).await?;
    Ok(HttpResponse::Ok().json(state.gate.revoke(&id, approver(&caller.0), body.value.reason).await?))
}

/// Takes one's own proposal back; an admin may take back any.
#[utoipa::path(post, path = "/api/approvals/{id}/withdraw", tag = "approvals", params(("id" = String, Path, description = "Its id")),
    request_body = Option<Because>, responses(
    (status = 200, description = "As it now is", body = shapes::Approval),
    (status = 403, description = "Somebody else's proposal", body = ProblemBody),
    (status = 404, description = "No such approval", body = ProblemBody),
    (status = 409, description = "Decided already", body = ProblemBody),
))]
pub async fn withdraw(
    caller: Guard<Operator>,
    id: web::Path<String>,
    body: OptionalBody<Because>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let id = named(&state, id).await?;
    Ok(HttpResponse::Ok().json(state.gate.withdraw(&id, approver(&caller), body.value.reason).await?))
}

/// Makes the token anew for the approver who lost the answer; the one from before is worth nothing then. Same deadline.
#[utoipa::path(post, path = "/api/approvals/{id}/token", tag = "approvals", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The token, shown once", body = shapes::Token),
    (status = 403, description = "Somebody else's approval", body = ProblemBody),
    (status = 404, description = "No such approval", body = ProblemBody),
    (status = 409, description = "It is not approved, or executed already", body = ProblemBody),
    (status = 410, description = "The 15 minutes are over", body = ProblemBody),
))]
pub async fn token(
    caller: MayDecide,
    id: web::Path<String>,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let id = named(&state, id).await?;
    Ok(secret(&token_of(&state.gate.reissue(&id, approver(&caller.0)).await?)))
}

/// The approval token of a request. It is a header and never part of an address, which logs would keep.
pub struct ApprovalToken(Option<String>);

impl FromRequest for ApprovalToken {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = ApiResult<Self>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let mut sent = request.headers().get_all(TOKEN_HEADER);
        let only = sent.next().filter(|_| sent.next().is_none());
        let token = only.and_then(|token| token.to_str().ok()).map(str::to_owned);
        Box::pin(async move { Ok(ApprovalToken(token)) })
    }
}

/// Uses the token up and starts the run. The body is empty: the approval says all there is to say.
#[utoipa::path(post, path = "/api/approvals/{id}/execute", tag = "approvals",
    params(("id" = String, Path, description = "Its id"), ("X-Approval-Token" = String, Header, description = "The token")), responses(
    (status = 202, description = "It runs", body = shapes::Started),
    (status = 401, description = "No valid token", body = ProblemBody),
    (status = 403, description = "A token for another approval, or somebody who approved may not any more", body = ProblemBody),
    (status = 404, description = "No such approval", body = ProblemBody),
    (status = 409, description = "The token was used, the plan changed, its target is busy, or the kill switch is engaged", body = ProblemBody),
    (status = 410, description = "The 15 minutes are over", body = ProblemBody),
))]
pub async fn execute(
    caller: MayDecide,
    id: web::Path<String>,
    token: ApprovalToken,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let id = named(&state, id).await?;
    let Some(token) = token.0 else {
        return Err(ApiError::new(ErrorKind::Unauthenticated, "bad_token", "send the approval token in one header X-Approval-Token"));
    };
    let execution = state.gate.execute(&id, &token, approver(&caller.0)).await?;
    Ok(HttpResponse::Accepted().json(json!({ "execution_id": execution.id, "status": execution.status })))
}
