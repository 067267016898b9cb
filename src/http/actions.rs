//! The catalogue of actions.

use actix_web::{HttpResponse, web};
use opspilot_kernel::consent::needed;
use serde_json::{Value, json};

use super::{
    error::{ApiError, ApiResult},
    guard::{Guard, Viewer},
    state::AppState,
};

/// Every action that can be proposed: what it runs, what its parameters may be, and how many people must agree.
#[utoipa::path(get, path = "/api/actions", tag = "approvals", responses(
    (status = 200, description = "The catalogue", body = serde_json::Value),
))]
pub async fn list(_caller: Guard<Viewer>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let mut items: Vec<Value> = Vec::new();
    if let Some(offer) = state.gate.offer() {
        for action in offer.catalogue.iter() {
            let mut item = serde_json::to_value(action.template()).map_err(ApiError::internal)?;
            if let Some(item) = item.as_object_mut() {
                let clauses = offer.policy.clauses(action.template().risk);
                item.insert("template".to_owned(), json!(action.digest()));
                item.insert("quorum".to_owned(), json!({ "required": needed(&clauses), "require": clauses }));
            }
            items.push(item);
        }
    }
    Ok(HttpResponse::Ok().json(json!({ "items": items, "next_cursor": null })))
}
