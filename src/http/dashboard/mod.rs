//! The operator's page: plain files that are part of the binary, and one page that asks the API like any other client.
//!
//! There is no build step: what lies in `page/` is what is served. The browser keeps the files and asks each time whether
//! they are still the same, so that after an update nobody works with yesterday's page.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderValue},
    web,
};
use futures_util::future::BoxFuture;
use opspilot_kernel::{config::ModuleConfig, error::ErrorKind, module::ModuleId};
use opspilot_runtime::Module;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    error::{ApiError, ApiResult, ProblemBody},
    state::AppState,
};

/// The module's permanent name.
pub const ID: ModuleId = ModuleId::new("ui.dashboard");
/// One line for people.
pub const SUMMARY: &str = "The operator's page at /, for browsers";

/// The section `ui.dashboard` of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DashboardConfig {}

impl ModuleConfig for DashboardConfig {}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

struct File {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($name:literal: $kind:ident),* $(,)?) => {
        &[$(File { name: $name, kind: $kind, bytes: include_bytes!(concat!("page/", $name)) }),*]
    };
}

const INDEX: &[File] = files!["index.html": HTML];
const FILES: &[File] = files![
    "base.css": CSS,
    "views.css": CSS,
    "icon.svg": PICTURE,
    "main.js": SCRIPT,
    "api.js": SCRIPT,
    "approval.js": SCRIPT,
    "approvals.js": SCRIPT,
    "ask.js": SCRIPT,
    "decide.js": SCRIPT,
    "deeds.js": SCRIPT,
    "dom.js": SCRIPT,
    "explanation.js": SCRIPT,
    "feed.js": SCRIPT,
    "halt.js": SCRIPT,
    "health.js": SCRIPT,
    "incident.js": SCRIPT,
    "incidents.js": SCRIPT,
    "keys.js": SCRIPT,
    "login.js": SCRIPT,
    "propose.js": SCRIPT,
    "rows.js": SCRIPT,
    "sha256.js": SCRIPT,
    "store.js": SCRIPT,
    "words.js": SCRIPT,
];

/// The page, whether its module runs or not. One for the process; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Dashboard {
    runs: Arc<AtomicBool>,
}

impl Dashboard {
    /// Starts the module: the page is served until what this returns is stopped.
    pub fn open(&self) -> Box<dyn Module> {
        self.runs.store(true, Ordering::Relaxed);
        Box::new(DashboardModule(self.clone()))
    }

    fn check(&self) -> ApiResult<()> {
        if self.runs.load(Ordering::Relaxed) {
            return Ok(());
        }
        let detail = "the module ui.dashboard does not run; GET /api/openapi.json names what there is";
        Err(ApiError::new(ErrorKind::Unavailable, "unavailable", detail))
    }
}

/// The module while it runs.
struct DashboardModule(Dashboard);

impl Module for DashboardModule {
    fn stop(&self) -> BoxFuture<'static, ()> {
        self.0.runs.store(false, Ordering::Relaxed);
        Box::pin(async {})
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The operator's page.
#[utoipa::path(get, path = "/", tag = "operations", responses(
    (status = 200, description = "A page", content_type = "text/html", body = String),
    (status = 503, description = "The module ui.dashboard does not run", body = ProblemBody),
))]
pub async fn page(state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    state.dashboard.check()?;
    let index = INDEX.first().ok_or_else(|| ApiError::not_found("the page"))?;
    Ok(HttpResponse::Ok().content_type(index.kind).body(index.bytes))
}

/// What the page is made of.
#[utoipa::path(get, path = "/page/{file}", tag = "operations", params(("file" = String, Path, description = "The file's name")), responses(
    (status = 200, description = "The file", content((String = "text/css"), (String = "text/javascript"), (String = "image/svg+xml"))),
    (status = 304, description = "The one that the browser keeps is still the same"),
    (status = 404, description = "No such file", body = ProblemBody),
    (status = 503, description = "The module ui.dashboard does not run", body = ProblemBody),
))]
pub async fn file(request: HttpRequest, name: web::Path<String>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    state.dashboard.check()?;
    let file = FILES.iter().find(|file| *file.name == **name).ok_or_else(|| ApiError::not_found("file of the page"))?;
    let digest = Sha256::digest(file.bytes);
    let tag = format!("\"{}\"", hex::encode(digest.get(..16).unwrap_or_default()));
    let (tag, cache) = ((header::ETAG, tag), (header::CACHE_CONTROL, "no-cache"));
    if is_same(request.headers().get(header::IF_NONE_MATCH), &tag.1) {
        return Ok(HttpResponse::NotModified().insert_header(tag).insert_header(cache).finish());
    }
    Ok(HttpResponse::Ok().insert_header(tag).insert_header(cache).content_type(file.kind).body(file.bytes))
}

/// Whether the browser has it already.
fn is_same(given: Option<&HeaderValue>, tag: &str) -> bool {
    let given = given.and_then(|given| given.to_str().ok()).unwrap_or_default();
    given.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests;
