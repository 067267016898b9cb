//! Maintenance windows, as they are configured, with when they take place.

use actix_web::{HttpResponse, web};
use opspilot_enrichers::window::{Mode, Occurrence, Window};
use opspilot_kernel::time::Timestamp;
use serde::Serialize;

use super::MatcherBody;
use crate::http::{
    body::Query,
    error::{ApiResult, ProblemBody},
    guard::{Guard, Viewer},
    lists::{Page, Slice},
    state::AppState,
};

/// So many times ahead are shown.
const AHEAD: usize = 5;

/// One time that a window takes place.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TakesPlace {
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
}

impl From<Occurrence> for TakesPlace {
    fn from(occurrence: Occurrence) -> TakesPlace {
        TakesPlace { starts_at: occurrence.starts_at, ends_at: occurrence.ends_at }
    }
}

/// A window.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct MaintenanceWindow {
    id: String,
    comment: String,
    matchers: Vec<MatcherBody>,
    timezone: String,
    /// What becomes of an alert that began inside and still fires at the end: `recover` tells of it then, `suppress` does not.
    #[schema(value_type = String)]
    mode: Mode,
    /// Whether it takes place now.
    active: bool,
    /// The time it takes place now.
    now: Option<TakesPlace>,
    /// The next five times.
    next: Vec<TakesPlace>,
}

impl MaintenanceWindow {
    fn of(window: &Window, now: Timestamp) -> MaintenanceWindow {
        let current = window.at(now);
        let next = std::iter::successors(window.next(now), |before| window.next(before.starts_at));
        MaintenanceWindow {
            id: window.id.clone(),
            comment: window.comment.clone(),
            matchers: window.matchers.iter().map(MatcherBody::from).collect(),
            timezone: window.timezone.to_string(),
            mode: window.mode,
            active: current.is_some(),
            now: current.map(TakesPlace::from),
            next: next.take(AHEAD).map(TakesPlace::from).collect(),
        }
    }
}

/// The maintenance windows, by id; none while `enricher.silence` is switched off.
#[utoipa::path(get, path = "/api/maintenance-windows", tag = "silences", params(Slice), responses(
    (status = 200, description = "Windows", body = Page<MaintenanceWindow>),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn list(caller: Guard<Viewer>, query: Query<Slice>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    drop(caller);
    let Query(Slice { limit, cursor }) = query;
    let config = state.silencing.config();
    let mut windows: Vec<&Window> = config.iter().flat_map(|config| &config.windows).collect();
    windows.sort_by(|a, b| a.id.cmp(&b.id));
    windows.retain(|window| cursor.as_ref().is_none_or(|cursor| window.id > *cursor));
    windows.truncate(usize::try_from(limit.and_one()).unwrap_or(usize::MAX));
    let now = state.clock.now();
    Ok(HttpResponse::Ok().json(Page::cut(windows, limit, |window| window.id.clone(), |window| MaintenanceWindow::of(window, now))))
}
