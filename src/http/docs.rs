//! The API document, its viewer, and the page at `/`.

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

/// A page that names the API and the feed.
#[utoipa::path(get, path = "/", tag = "operations", responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub async fn page() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(include_str!("page/index.html"))
}

/// How the page looks.
#[utoipa::path(get, path = "/page.css", tag = "operations", responses((status = 200, description = "Styles", content_type = "text/css", body = String)))]
pub async fn style() -> HttpResponse {
    HttpResponse::Ok().content_type("text/css; charset=utf-8").body(include_str!("page/page.css"))
}

async fn docs() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/api/docs/")).finish()
}

/// The viewer of the API document: everything it needs is in the binary.
pub(super) fn viewer(config: &mut ServiceConfig) {
    config.service(web::resource("/api/docs").route(web::get().to(docs)).route(web::head().to(docs)));
    config.service(SwaggerUi::new("/api/docs/{_:.*}").config(Config::new(["/api/openapi.json"]).validator_url("none")));
}
