//! How many incidents there were, and how long people took.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use opspilot_kernel::{signal::Severity, time::Timestamp};
use opspilot_ledger::{IncidentFilter, Tally as Counted, Took as Measured};
use serde::{Deserialize, Serialize};

use super::{
    body::Query,
    error::{ApiResult, ProblemBody},
    guard::{Guard, Viewer},
    state::AppState,
};

/// Which incidents are counted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Opened then or later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Opened before.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Who observed them, exactly.
    source: Option<String>,
    /// `debug`, `info`, `warning`, `error` or `critical`.
    #[param(value_type = Option<String>)]
    severity: Option<Severity>,
}

/// How long something took, in seconds.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Took {
    /// Of how many incidents it is known.
    count: u64,
    /// Their arithmetic mean; null if there are none.
    mean_secs: Option<f64>,
    /// Half of them took no longer.
    median_secs: Option<f64>,
}

impl From<Measured> for Took {
    fn from(Measured { count, mean_secs, median_secs }: Measured) -> Took {
        Took { count, mean_secs, median_secs }
    }
}

/// What some incidents come to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Tally {
    incidents: u64,
    open: u64,
    acknowledged: u64,
    resolved: u64,
    /// How many were opened again at least once.
    reopened: u64,
    /// Their share of all, 0 to 1; null if there are none.
    reopened_share: Option<f64>,
    /// How many are one that had been over and came back.
    recurring: u64,
    /// From when they were opened to when they were first acknowledged.
    time_to_acknowledge: Took,
    /// From when they were opened to when they were over.
    time_to_resolve: Took,
}

impl From<Counted> for Tally {
    fn from(tally: Counted) -> Tally {
        Tally {
            incidents: tally.incidents,
            open: tally.open,
            acknowledged: tally.acknowledged,
            resolved: tally.resolved,
            reopened: tally.reopened,
            reopened_share: tally.reopened_share,
            recurring: tally.recurring,
            time_to_acknowledge: tally.time_to_acknowledge.into(),
            time_to_resolve: tally.time_to_resolve.into(),
        }
    }
}

/// What the incidents of some time come to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Stats {
    /// Whether all of them are counted; if not, only the newest 50,000 are.
    complete: bool,
    /// When the oldest was opened that is counted.
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest: Option<Timestamp>,
    #[serde(flatten)]
    all: Tally,
    /// The same by severity; only those that occur.
    by_severity: BTreeMap<&'static str, Tally>,
}

/// How many incidents there were, how long it took people to acknowledge and to resolve them, and how many came back.
#[utoipa::path(get, path = "/api/incidents/stats", tag = "incidents", params(Wanted), responses(
    (status = 200, description = "Counts, means and medians", body = Stats),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn get(_caller: Guard<Viewer>, query: Query<Wanted>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Wanted { since, until, source, severity } = query.0;
    let filter = IncidentFilter { since, until, source, severity, ..IncidentFilter::default() };
    let stats = state.ledger.read(move |reader| reader.incident_stats(&filter)).await?;
    Ok(HttpResponse::Ok().json(Stats {
        complete: stats.complete,
        oldest: stats.oldest,
        all: stats.all.into(),
        by_severity: stats.by_severity.into_iter().map(|(severity, tally)| (severity.as_str(), tally.into())).collect(),
    }))
}
