//! The API document and its viewer.

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, ServiceConfig},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{document, state::AppState};

/// The API document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "operations", responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)))]
pub async fn openapi(_state: web::Data<AppState>) -> HttpResponse {
    HttpResponse::Ok().json(document())
}

async fn docs() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/api/docs/")).finish()
}

/// The viewer of the API document: everything it needs is in the binary.
pub(super) fn viewer(config: &mut ServiceConfig) {
    config.service(web::resource("/api/docs").route(web::get().to(docs)).route(web::head().to(docs)));
    config.service(SwaggerUi::new("/api/docs/{_:.*}").config(Config::new(["/api/openapi.json"]).validator_url("none")));
}
