//! Whether a channel really reaches somebody.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::{
    body::OptionalBody,
    error::{ApiResult, ProblemBody},
    guard::{Guard, Operator},
    modules::Nothing,
    state::AppState,
};

/// Sends a test message through a channel of `notifier.channels` and says what became of it.
#[utoipa::path(post, path = "/api/notifiers/{id}/test", tag = "operations",
    params(("id" = String, Path, description = "The channel's id")), responses(
    (status = 200, description = "What became of it: `delivered`, and `error` if it was not", body = serde_json::Value),
    (status = 404, description = "No such channel, or the module is off", body = ProblemBody),
))]
pub async fn test(
    caller: Guard<Operator>,
    channel: web::Path<String>,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let channel = channel.into_inner();
    let outcome = state.control.test_channel(channel.clone(), caller.actor()).await?;
    Ok(HttpResponse::Ok().json(json!({ "channel": channel, "delivered": outcome.is_ok(), "error": outcome.err() })))
}
