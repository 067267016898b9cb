//! Runs of approved plans.

use actix_web::{HttpResponse, web};
use opspilot_kernel::{execution::ExecutionStatus, ids::ExecutionId};
use serde::Deserialize;

use super::{
    approvals::approver,
    body::Body,
    error::{ApiResult, ProblemBody},
    guard::{Guard, Operator, Viewer},
    shapes,
    state::AppState,
};

/// One run: how it stands, and what it wrote.
#[utoipa::path(get, path = "/api/executions/{id}", tag = "approvals", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The run", body = shapes::Execution),
    (status = 404, description = "No such run", body = ProblemBody),
))]
pub async fn get(_caller: Guard<Viewer>, id: web::Path<String>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let id = ExecutionId::given(id.into_inner());
    Ok(HttpResponse::Ok().json(state.ledger.read(move |reader| reader.execution(&id)).await?))
}

/// How a run of unknown end ended.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Close {
    /// `succeeded` or `failed`.
    #[schema(value_type = String)]
    outcome: ExecutionStatus,
    /// How you know; at most 4,096 characters.
    reason: String,
}

/// Says how a run of unknown end ended, after somebody looked.
#[utoipa::path(post, path = "/api/executions/{id}/close", tag = "approvals", params(("id" = String, Path, description = "Its id")),
    request_body = Close, responses(
    (status = 200, description = "As it now is", body = shapes::Execution),
    (status = 403, description = "An API key", body = ProblemBody),
    (status = 404, description = "No such run", body = ProblemBody),
    (status = 409, description = "Its end is known", body = ProblemBody),
    (status = 422, description = "Without a reason, or with another outcome", body = ProblemBody),
))]
pub async fn close(
    caller: Guard<Operator>,
    id: web::Path<String>,
    body: Body<Close>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let id = ExecutionId::given(id.into_inner());
    let known = id.clone();
    state.ledger.read(move |reader| reader.execution(&known)).await?;
    Ok(HttpResponse::Ok().json(state.gate.close(&id, approver(&caller), body.value.outcome, body.value.reason).await?))
}
