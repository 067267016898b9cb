//! The modules: how they are, and switching them.

use actix_web::{HttpResponse, web};
use serde_json::{Value, json};

use super::{
    body::{OptionalBody, Query},
    error::ApiResult,
    guard::{Admin, Guard, Viewer},
    health::line,
    state::{AppState, Switch},
};

/// A body with nothing in it.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Every module, disabled ones included.
#[utoipa::path(get, path = "/api/modules", tag = "operations", responses((status = 200, description = "The modules", body = Value)))]
pub async fn list(_caller: Guard<Viewer>, _query: Query<Nothing>, state: web::Data<AppState>) -> HttpResponse {
    let items: Vec<Value> = state.control.modules().iter().map(line).collect();
    HttpResponse::Ok().json(json!({ "items": items, "next_cursor": null }))
}

async fn switch(caller: Guard<Admin>, id: web::Path<String>, to: Switch, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let module = state.control.switch(id.into_inner(), to, caller.actor()).await?;
    Ok(HttpResponse::Ok().json(line(&module)))
}

/// Stops a module and starts it again.
#[utoipa::path(post, path = "/api/modules/{id}/restart", tag = "operations", params(("id" = String, Path, description = "`category.name`")),
    responses((status = 200, description = "The module as it now is", body = Value), (status = 404, description = "No such module")))]
pub async fn restart(
    caller: Guard<Admin>,
    id: web::Path<String>,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    switch(caller, id, Switch::Restart, state).await
}

/// Starts a module that is disabled or was given up.
#[utoipa::path(post, path = "/api/modules/{id}/enable", tag = "operations", params(("id" = String, Path, description = "`category.name`")),
    responses((status = 200, description = "The module as it now is", body = Value), (status = 404, description = "No such module")))]
pub async fn enable(
    caller: Guard<Admin>,
    id: web::Path<String>,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    switch(caller, id, Switch::Enable, state).await
}

/// Stops a module until it is enabled again.
#[utoipa::path(post, path = "/api/modules/{id}/disable", tag = "operations", params(("id" = String, Path, description = "`category.name`")),
    responses((status = 200, description = "The module as it now is", body = Value), (status = 404, description = "No such module")))]
pub async fn disable(
    caller: Guard<Admin>,
    id: web::Path<String>,
    _body: OptionalBody<Nothing>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    switch(caller, id, Switch::Disable, state).await
}

/// Reads the configuration again and takes all of it, or nothing and says why.
#[utoipa::path(post, path = "/api/config/reload", tag = "operations", responses(
    (status = 200, description = "What changed", body = super::state::Reloaded),
    (status = 422, description = "The configuration is wrong; nothing changed", body = super::error::ProblemBody),
))]
pub async fn reload(caller: Guard<Admin>, _body: OptionalBody<Nothing>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    Ok(HttpResponse::Ok().json(state.control.reload(caller.actor()).await?))
}
