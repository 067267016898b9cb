//! Heartbeats, as they stand.

use actix_web::{HttpResponse, web};
use opspilot_detectors::{
    Detect as _,
    heartbeat::{self, Detector, Standing, Stands},
};
use opspilot_kernel::time::Timestamp;
use serde::Serialize;

use super::{
    body::Query,
    error::{ApiResult, ProblemBody},
    guard::{Guard, Viewer},
    lists::{Page, Slice},
    state::AppState,
};

/// A heartbeat. Its key is not shown.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct HeartbeatItem {
    id: String,
    source: String,
    /// `new`, `up`, `late`, `down` or `paused`.
    #[schema(value_type = String)]
    status: Standing,
    /// How often it gives sign of life, in seconds; not there if it does so by a schedule.
    period_secs: Option<u64>,
    /// When it does, as in a crontab.
    schedule: Option<String>,
    /// By the clocks of which time zone.
    timezone: Option<String>,
    /// How late it may be, in seconds.
    grace_secs: u64,
    /// When its last ping came that was one of success or failure.
    #[schema(value_type = Option<String>)]
    last_ping_at: Option<Timestamp>,
    /// When its next one is expected; it may be late by `grace_secs`. Not there before it is watched, and while it is paused.
    #[schema(value_type = Option<String>)]
    next_ping_at: Option<Timestamp>,
}

impl HeartbeatItem {
    fn of(Stands { heartbeat, standing, last, expected }: Stands<'_>) -> HeartbeatItem {
        HeartbeatItem {
            id: heartbeat.id.clone(),
            source: heartbeat.source().to_owned(),
            status: standing,
            period_secs: heartbeat.period.map(|period| period.0.as_secs()),
            schedule: heartbeat.schedule.as_ref().map(ToString::to_string),
            timezone: heartbeat.timezone.as_ref().map(ToString::to_string),
            grace_secs: heartbeat.grace().as_secs(),
            last_ping_at: last,
            next_ping_at: expected,
        }
    }
}

/// The heartbeats that are watched, by id, as the detector knew them at its last commit.
#[utoipa::path(get, path = "/api/heartbeats", tag = "heartbeats", params(Slice),
    responses((status = 200, description = "Heartbeats", body = Page<HeartbeatItem>), (status = 422, description = "The query is not understood", body = ProblemBody)))]
pub async fn list(caller: Guard<Viewer>, query: Query<Slice>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    drop(caller);
    let Query(Slice { limit, cursor }) = query;
    let known = state.ledger.read(|reader| reader.snapshots(heartbeat::ID.as_str())).await?;
    let mut detector = Detector::new(state.pings.watched());
    for piece in known {
        // what is not a heartbeat's, or of one that is gone, says nothing here
        drop(detector.restore(&piece.key, &piece.blob));
    }
    let now = state.clock.now();
    let mut rows: Vec<HeartbeatItem> = detector.standings(now).map(HeartbeatItem::of).collect();
    rows.sort_by(|a, b| a.id.cmp(&b.id));
    rows.retain(|row| cursor.as_ref().is_none_or(|cursor| row.id > *cursor));
    rows.truncate(usize::try_from(limit.and_one()).unwrap_or(usize::MAX));
    Ok(HttpResponse::Ok().json(Page::cut(rows, limit, |row| row.id.clone(), |row| row)))
}
