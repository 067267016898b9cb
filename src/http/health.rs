//! Whether the service lives, is ready, and is well.

use actix_web::{HttpResponse, web};
use opspilot_kernel::{error::ErrorKind, module::ModuleHealth};
use opspilot_ledger::StorageHealth;
use opspilot_runtime::Overall;
use serde_json::{Value, json};

use super::{
    error::{ApiError, ApiResult},
    guard::{Caller, Needs as _, Viewer},
    state::AppState,
};

/// One line of a health report, as the API gives it.
pub(super) fn line(module: &ModuleHealth) -> Value {
    json!({
        "id": module.id, "category": module.category, "status": module.status, "since": module.since,
        "restarts": module.restarts, "detail": module.detail, "queue": module.queue,
    })
}

/// How the service is doing; the modules are listed for callers who may see them.
#[utoipa::path(get, path = "/api/health", tag = "operations", responses(
    (status = 200, description = "Healthy or degraded; see `status`", body = Value),
    (status = 503, description = "Unhealthy: nothing can be stored, or the audit log was tampered with", body = Value),
))]
pub async fn health(caller: Caller, state: web::Data<AppState>) -> HttpResponse {
    let modules = state.control.modules();
    let (mut status, mut detail) = state.control.overall();
    if let StorageHealth::Failed { failure, .. } = state.ledger.storage() {
        (status, detail) = (Overall::Unhealthy, failure.to_string());
    }
    if let Some(why) = state.ledger.audit_refusal() {
        (status, detail) = (Overall::Unhealthy, format!("the audit log cannot be trusted: {why}"));
    }
    let mut report = json!({ "status": status });
    if caller.0.is_some_and(|caller| Viewer::admits(caller.role))
        && let Some(report) = report.as_object_mut()
    {
        report.insert("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
        report.insert("uptime_secs".to_owned(), json!(state.clock.now().since(state.started_at).as_secs()));
        report.insert("modules".to_owned(), modules.iter().map(line).collect());
        report.insert("insecure".to_owned(), json!(state.settings.insecure));
        report.insert("detail".to_owned(), json!(detail));
    }
    if status == Overall::Unhealthy {
        HttpResponse::ServiceUnavailable().insert_header(("Retry-After", "5")).json(report)
    } else {
        HttpResponse::Ok().json(report)
    }
}

/// Whether the process turns at all.
#[utoipa::path(get, path = "/api/livez", tag = "operations", responses((status = 200, description = "It does", body = Value)))]
pub async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "status": "ok" }))
}

/// Whether the service takes requests: every enabled listener accepts, storage is writable and the clock is right.
#[utoipa::path(get, path = "/api/readyz", tag = "operations", responses(
    (status = 200, description = "It does", body = Value),
    (status = 503, description = "Not now; `errors` says why", body = super::error::ProblemBody),
))]
pub async fn readyz(state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let mut reasons = state.control.not_ready();
    if !state.ledger.storage().is_healthy() {
        reasons.push("storage is not writable".to_owned());
    }
    if let Some(behind) = state.clock.regression().max(state.ledger.clock_regression()) {
        let seconds = behind.as_secs();
        reasons.push(format!("clock_regression: the clock is {seconds} s behind a time that was already"));
    }
    if state.is_stopping() {
        reasons.push("the service is stopping".to_owned());
    }
    if reasons.is_empty() {
        return Ok(HttpResponse::Ok().json(json!({ "status": "ready" })));
    }
    let error = ApiError::new(ErrorKind::Unavailable, "not_ready", reasons.join("; "));
    Err(reasons.into_iter().fold(error, |error, reason| error.at("", "not_ready", reason)))
}
