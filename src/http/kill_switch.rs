//! The kill switch: while it is engaged nothing is started. And the clock's guard, which has the same effect.

use actix_web::{HttpResponse, web};
use opspilot_kernel::{consent::Refusal, principal::Role};
use serde::Deserialize;
use serde_json::json;

use super::{
    approvals::approver,
    body::OptionalBody,
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Admin, Guard, Operator, Via, Viewer},
    modules::Nothing,
    state::AppState,
};

/// Why.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Because {
    /// At most 4,096 characters.
    #[serde(default)]
    reason: String,
}

/// Whether anything may be started.
#[utoipa::path(get, path = "/api/kill-switch", tag = "approvals", responses(
    (status = 200, description = "The switch", body = serde_json::Value),
))]
pub async fn get(_caller: Guard<Viewer>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.ledger.read(|reader| reader.kill_switch()).await?))
}

/// Engages it: from now on nothing is started. What runs goes on.
#[utoipa::path(post, path = "/api/kill-switch", tag = "approvals", request_body = Option<Because>, responses(
    (status = 200, description = "Engaged", body = serde_json::Value),
))]
pub async fn engage(caller: Guard<Operator>, body: OptionalBody<Because>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.gate.kill_switch(true, approver(&caller), body.value.reason).await?))
}

/// Releases it.
#[utoipa::path(delete, path = "/api/kill-switch", tag = "approvals", request_body = Option<Because>, responses(
    (status = 200, description = "Released", body = serde_json::Value),
    (status = 403, description = "An API key", body = ProblemBody),
))]
pub async fn release(caller: Guard<Admin>, body: OptionalBody<Because>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.gate.kill_switch(false, approver(&caller), body.value.reason).await?))
}

/// Takes the machine's time as it is, after it was set back and somebody looked at it: no approval from before holds.
#[utoipa::path(post, path = "/api/clock/accept", tag = "operations", responses(
    (status = 200, description = "Accepted", body = serde_json::Value),
    (status = 409, description = "There is nothing to accept", body = ProblemBody),
))]
pub async fn accept_clock(caller: Guard<Admin>, _body: OptionalBody<Nothing>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let behind = state.clock.regression().max(state.ledger.clock_regression());
    let Some(behind) = behind else {
        let detail = "the clock is not behind a time that was already, so there is nothing to accept";
        return Err(ApiError::new(opspilot_kernel::error::ErrorKind::Conflict, "clock_is_right", detail));
    };
    if matches!(caller.via, Via::Key(_)) || !caller.role.includes(Role::Admin) {
        return Err(opspilot_safety::GateError::from(Refusal::KeyNotAllowed).into());
    }
    state.gate.accept_clock(caller.actor()).await?;
    Ok(HttpResponse::Ok().json(json!({ "was_behind_secs": behind.as_secs(), "now": state.clock.now() })))
}
