//! The API over HTTP.
//!
//! Every route is in the table below: its path, methods, who may call it, and
//! the handler. From this one table come the server's routing, the API document
//! (with the role as `x-required-role`), and the test that tries every operation
//! with every role. A new endpoint is a handler in `http/<resource>.rs` with
//! `#[utoipa::path]` and a [`guard::Guard`] first in its signature, and a line here.

pub mod actions;
pub mod alerts;
pub mod api_keys;
pub mod approvals;
pub mod audit;
pub mod audit_proofs;
pub mod auth;
pub mod body;
pub mod dashboard;
pub mod deeds;
pub mod docs;
pub mod error;
pub mod evidence_chart;
pub mod executions;
mod framing;
pub mod guard;
pub mod health;
pub mod heartbeats;
pub mod idempotency;
pub mod incident_stats;
pub mod incidents;
pub mod ingest;
pub mod kill_switch;
pub mod limits;
pub mod lists;
pub mod live;
pub mod metrics;
pub mod modules;
pub mod notifiers;
pub mod origins;
pub mod ping;
pub mod postmortem;
pub mod refusals;
pub mod server;
pub mod settings;
pub mod shapes;
pub mod shell;
pub mod signals;
pub mod silences;
pub mod state;
pub mod strict;
#[cfg(test)]
mod tests;
pub mod tickets;
pub mod topology;
mod unread;
pub mod users;

use actix_web::{
    HttpRequest, HttpResponse,
    guard::{Guard, fn_guard},
    http::{Method, StatusCode},
    web::{self, ServiceConfig},
};
use opspilot_kernel::error::ErrorKind;
use utoipa::{
    OpenApi as _,
    openapi::{
        Content, ContentBuilder, Ref, RefOr, ResponseBuilder,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
    },
};

pub use self::{
    server::{ServeError, Server, serve},
    state::{AppState, Deps},
};

/// One operation of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// The path, as a pattern.
    pub path: &'static str,
    /// The method, in lower case.
    pub method: &'static str,
    /// Who may call it: `public`, `any` (who is logged in), `integrator` (who may send signals), `viewer`, `operator`, `admin`.
    pub role: &'static str,
}

macro_rules! routes {
    ($($path:literal => { $($method:ident: $role:ident $($handler:ident)::+),+ $(,)? };)*) => {
        fn mount(config: &mut ServiceConfig) {
            $(config.service(
                web::resource($path)
                    $(.route(web::route().guard(takes(stringify!($method))).to($($handler)::+)))+
                    .default_service(web::route().to(wrong_method)),
            );)*
        }

        /// Every operation.
        pub const OPERATIONS: &[Operation] =
            &[$($(Operation { path: $path, method: stringify!($method), role: stringify!($role) }),+),*];

        #[derive(utoipa::OpenApi)]
        #[openapi(components(schemas(error::ProblemBody)), paths($($($($handler)::+),+),*))]
        struct Document;
    };
}

routes! {
    // signals in, events out
    "/api/events" => { post: integrator ingest::events::post };
    "/api/signals" => { get: viewer signals::list };
    "/api/live" => { get: viewer live::get };
    "/api/heartbeats" => { get: viewer heartbeats::list };
    "/ping/{id}" => { get: public ping::get, post: public ping::post };
    "/ping/{id}/{what}" => { get: public ping::get_what, post: public ping::post_what };

    // the page and the API document
    "/" => { get: public dashboard::page };
    "/page/{file}" => { get: public dashboard::file };
    "/api/openapi.json" => { get: public docs::openapi };

    // accounts
    "/api/auth/login" => { post: public auth::routes::login };
    "/api/auth/logout" => { post: any auth::routes::logout };
    "/api/auth/me" => { get: viewer auth::routes::me };
    "/api/auth/ws-ticket" => { post: viewer auth::routes::ws_ticket };
    "/api/users" => { get: admin users::list, post: admin users::create };
    "/api/users/{name}" => { patch: admin users::change };
    "/api/api-keys" => { get: operator api_keys::list, post: operator api_keys::create };
    "/api/api-keys/{id}" => { delete: operator api_keys::revoke };

    // incidents and the alerts they are made of
    "/api/incidents" => { get: viewer incidents::list };
    "/api/incidents/stats" => { get: viewer incident_stats::get };
    "/api/incidents/{id}" => { get: viewer incidents::get };
    "/api/incidents/{id}/alerts" => { get: viewer incidents::alerts };
    "/api/incidents/{id}/timeline" => { get: viewer incidents::timeline };
    "/api/incidents/{id}/evidence.svg" => { get: viewer evidence_chart::get };
    "/api/incidents/{id}/postmortem" => { get: viewer postmortem::get };
    "/api/incidents/{id}/explain-why" => { get: viewer incidents::explain_why };
    "/api/incidents/{id}/explain" => { post: operator incidents::explain };
    "/api/incidents/{id}/acknowledge" => { post: operator deeds::acknowledge };
    "/api/incidents/{id}/resolve" => { post: operator deeds::resolve };
    "/api/incidents/{id}/reopen" => { post: operator deeds::reopen };
    "/api/incidents/{id}/snooze" => { post: operator deeds::snooze };
    "/api/incidents/{id}/assign" => { post: operator deeds::assign };
    "/api/incidents/{id}/notes" => { post: operator deeds::note };
    "/api/incidents/{id}/merge" => { post: operator deeds::merge };
    "/api/incidents/{id}/split" => { post: operator deeds::split };
    "/api/incidents/{id}/proposals" => { post: operator approvals::propose };
    "/api/alerts" => { get: viewer alerts::list };
    "/api/alerts/{id}" => { get: viewer alerts::get };
    "/api/alerts/{id}/explain-why" => { get: viewer alerts::explain_why };
    "/api/topology" => { get: viewer topology::get, put: operator topology::put };

    // what people do not want to hear of, and when
    "/api/silences" => { get: viewer silences::list, post: operator silences::set };
    "/api/silences/preview" => { post: viewer silences::preview };
    "/api/silences/{id}" => { get: viewer silences::get, delete: operator silences::expire };
    "/api/maintenance-windows" => { get: viewer silences::windows::list };

    // what can be done about them, and who agrees to it
    "/api/actions" => { get: viewer actions::list };
    "/api/approvals" => { get: viewer approvals::list };
    "/api/approvals/pending" => { get: viewer approvals::pending };
    "/api/approvals/{id}" => { get: viewer approvals::get };
    "/api/approvals/{id}/approve" => { post: operator approvals::approve };
    "/api/approvals/{id}/deny" => { post: operator approvals::deny };
    "/api/approvals/{id}/revoke" => { post: operator approvals::revoke };
    "/api/approvals/{id}/withdraw" => { post: operator approvals::withdraw };
    "/api/approvals/{id}/token" => { post: operator approvals::token };
    "/api/approvals/{id}/execute" => { post: operator approvals::execute };
    "/api/executions/{id}" => { get: viewer executions::get };
    "/api/executions/{id}/close" => { post: operator executions::close };
    "/api/kill-switch" => { get: viewer kill_switch::get, post: operator kill_switch::engage, delete: admin kill_switch::release };

    // who did what, and what was set aside
    "/api/audit" => { get: viewer audit::list };
    "/api/audit/checkpoint" => { get: public audit_proofs::checkpoint };
    "/api/audit/proof/inclusion" => { get: viewer audit_proofs::inclusion };
    "/api/audit/proof/consistency" => { get: viewer audit_proofs::consistency };
    "/api/audit/export" => { get: viewer audit_proofs::export };
    "/api/dead-letters" => { get: viewer audit::dead_letters };
    "/api/dead-letters/{id}/requeue" => { post: operator audit::requeue };

    // how the service is
    "/api/livez" => { get: public health::livez };
    "/api/readyz" => { get: public health::readyz };
    "/api/health" => { get: public health::health };
    "/api/metrics" => { get: viewer metrics::get };
    "/api/modules" => { get: viewer modules::list };
    "/api/modules/{id}/restart" => { post: admin modules::restart };
    "/api/modules/{id}/enable" => { post: admin modules::enable };
    "/api/modules/{id}/disable" => { post: admin modules::disable };
    "/api/notifiers/{id}/test" => { post: operator notifiers::test };
    "/api/clock/accept" => { post: admin kill_switch::accept_clock };
    "/api/config/reload" => { post: admin modules::reload };
}

/// Whether a request has this method. HEAD is taken wherever GET is: the answer is the same, and its body is not sent.
fn takes(method: &'static str) -> impl Guard {
    fn_guard(move |request| {
        let asked = &request.head().method;
        asked.as_str().eq_ignore_ascii_case(method) || (method == "get" && *asked == Method::HEAD)
    })
}

/// The path is there, the method is not.
async fn wrong_method(request: HttpRequest) -> error::ApiResult<HttpResponse> {
    let pattern = request.match_pattern().unwrap_or_default();
    let of_path = OPERATIONS.iter().filter(|operation| operation.path == pattern);
    let methods: Vec<String> =
        of_path.map(|operation| if operation.method == "get" { "GET, HEAD".to_owned() } else { operation.method.to_uppercase() }).collect();
    let methods = methods.join(", ");
    Err(error::ApiError::with_status(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("this takes {methods}")).allow(methods))
}

/// The path is not there.
async fn nowhere() -> error::ApiResult<HttpResponse> {
    let detail = "there is nothing at this path; GET /api/openapi.json names what there is";
    Err(error::ApiError::new(ErrorKind::NotFound, "not_found", detail))
}

/// The routes, for an `actix_web::App`.
pub(crate) fn configure(config: &mut ServiceConfig) {
    mount(config);
    docs::viewer(config);
    config.default_service(web::route().to(nowhere));
}

/// The API document, with the role that each operation needs.
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    document.info.title = "OpsPilot".to_owned();
    for operation in OPERATIONS {
        if let Some(found) = document.paths.paths.get_mut(operation.path).and_then(|path| operation_of(path, operation.method)) {
            let role = utoipa::openapi::extensions::ExtensionsBuilder::new().add("x-required-role", operation.role).build();
            found.extensions.get_or_insert_default().merge(role);
            found.responses.responses.values_mut().for_each(as_problem);
            found.responses.responses.entry("default".to_owned()).or_insert_with(|| problem().into());
            if operation.role != "public" {
                let any = ["session", "api-key", "cookie"].map(|name| SecurityRequirement::new(name, Vec::<String>::new()));
                found.security = Some(any.into());
            }
        }
    }
    let components = document.components.get_or_insert_default();
    let header = |name, value| SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, value)));
    let cookie = ApiKeyValue::with_description(auth::COOKIE, "set by the log-in; unsafe methods also need X-CSRF-Token and our own Origin");
    components.add_security_scheme("session", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    components.add_security_scheme("api-key", header("X-API-Key", "`opk_` and 28 characters"));
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    document
}

/// Says of a described error what content type it comes with, which the annotations cannot.
fn as_problem(response: &mut RefOr<utoipa::openapi::Response>) {
    if let RefOr::T(response) = response {
        let is_problem = |content: &RefOr<Content>| match content {
            RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) => schema.ref_location.ends_with("/Problem"),
            _ => false,
        };
        if response.content.get("application/json").is_some_and(is_problem) {
            let content = response.content.swap_remove("application/json");
            response.content.extend(content.map(|content| ("application/problem+json".to_owned(), content)));
        }
    }
}

/// What every operation may answer besides what it names: an error, as a problem.
fn problem() -> utoipa::openapi::Response {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    ResponseBuilder::new().description("An error (RFC 9457)").content("application/problem+json", body).build()
}

fn operation_of<'a>(path: &'a mut utoipa::openapi::PathItem, method: &str) -> Option<&'a mut utoipa::openapi::path::Operation> {
    match method {
        "get" => path.get.as_mut(),
        "post" => path.post.as_mut(),
        "put" => path.put.as_mut(),
        "patch" => path.patch.as_mut(),
        "delete" => path.delete.as_mut(),
        _ => None,
    }
}
