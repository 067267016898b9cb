//! Silences: what people do not want to hear of, until when, and why; in the form of Alertmanager's API.

mod shape;
pub mod windows;

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{HttpResponse, http::StatusCode, web};
use opspilot_enrichers::SilenceConfig;
use opspilot_kernel::{
    error::ErrorKind,
    facets::Facets,
    ids::{AlertId, SilenceId},
    matcher::Matcher,
    signal::Severity,
    silence::{Draft, SilenceState, Unacceptable, acceptable},
    time::Timestamp,
};
use opspilot_ledger::{LedgerError, Priority, Reader, SilenceFilter, SilenceLimits};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use self::shape::{MatcherBody, Silence};
use super::{
    alerts::Alert,
    body::{Body, Query},
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Guard, Operator, Viewer},
    idempotency::IdempotencyKey,
    lists::{Limit, Page, part},
    state::AppState,
};

/// So many of the alerts that a silence hides are shown.
const SHOWN: usize = 50;
/// So many are read at once while they are gone through.
const AT_ONCE: u32 = 1000;
/// So many that fire are gone through; beyond that the answer says that it does not know all.
const MOST: usize = 200_000;

/// What `enricher.silence` goes by; nothing while it is switched off.
#[derive(Debug, Clone, Default)]
pub struct Silencing(Arc<RwLock<Option<Arc<SilenceConfig>>>>);

impl Silencing {
    /// From now on this is what it goes by.
    pub fn know(&self, config: Option<SilenceConfig>) {
        *self.0.write() = config.map(Arc::new);
    }

    fn config(&self) -> Option<Arc<SilenceConfig>> {
        self.0.read().clone()
    }

    fn needed(&self) -> ApiResult<Arc<SilenceConfig>> {
        let off =
            || ApiError::new(ErrorKind::Conflict, "switched_off", "enricher.silence is switched off, so a silence would hide nothing");
        self.config().ok_or_else(off)
    }

    /// Whether a silence that holds something back ends soon.
    fn is_ending(&self, silence: &opspilot_kernel::silence::Silence, hides: u64, now: Timestamp) -> bool {
        let ahead = self.config().map(|config| config.remind_before.0).unwrap_or_default();
        hides > 0 && silence.state(now) == SilenceState::Active && silence.ends_at <= now.after(ahead)
    }
}

fn refused(error: &Unacceptable) -> ApiError {
    ApiError::invalid(format!("/{}", error.field()), error.code(), error.to_string())
}

/// Which silences are wanted.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// `pending`, `active` or `expired`.
    #[param(value_type = Option<String>)]
    state: Option<SilenceState>,
    /// How many at most: 1 to 500.
    #[serde(default)]
    #[param(value_type = u32, minimum = 1, maximum = 500, default = 50)]
    limit: Limit,
    /// Where the page before ended.
    cursor: Option<String>,
}

/// Silences, the one that was set last first. Those that are over can be looked up for 30 days.
#[utoipa::path(get, path = "/api/silences", tag = "silences", params(Wanted), responses(
    (status = 200, description = "Silences", body = Page<Silence>),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn list(_caller: Guard<Viewer>, query: Query<Wanted>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let Wanted { state: wanted, limit, cursor } = query.0;
    let filter = SilenceFilter { state: wanted };
    let listed = state.ledger.read(move |reader| reader.silences(filter, &part(limit, cursor))).await?;
    let now = state.clock.now();
    Ok(HttpResponse::Ok().json(Page::of(listed, |one| Silence::of(one, &state.silencing, now))))
}

/// One silence.
#[utoipa::path(get, path = "/api/silences/{id}", tag = "silences", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The silence", body = Silence),
    (status = 404, description = "No such silence", body = ProblemBody),
))]
pub async fn get(_caller: Guard<Viewer>, id: web::Path<String>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let id = SilenceId::given(id.into_inner());
    let one = state.ledger.read(move |reader| reader.silence(&id)).await?;
    Ok(HttpResponse::Ok().json(Silence::of(one, &state.silencing, state.clock.now())))
}

/// A silence to be set.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Set {
    /// The silence to be changed; none for a new one.
    id: Option<String>,
    /// Which alerts: those for which all of them hold. At least one must ask for a value.
    matchers: Vec<MatcherBody>,
    /// From when on; what is past or missing is now.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    /// Until when: at most as long ahead as the caller's role allows.
    #[schema(value_type = String, format = DateTime)]
    ends_at: Timestamp,
    /// Whom it is signed with; by default the caller's account, which is kept in any case.
    created_by: Option<String>,
    /// Why: at most 4,096 characters, and at least one.
    #[serde(default)]
    comment: String,
}

/// A silence that was set.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct WasSet {
    /// The silence: the same as before if nothing changed but what is still ahead, otherwise a new one.
    id: String,
    /// How many alerts fire that it hides, or will.
    hides: u64,
    /// What somebody should know of it.
    warnings: Vec<String>,
}

/// Sets a silence, or changes one.
///
/// With the `id` of one whose matchers stay as they are, and whose begin does if it has begun, that one is changed.
/// Otherwise it is ended, and a new one with a new id takes its place, as Alertmanager does.
#[utoipa::path(post, path = "/api/silences", tag = "silences", request_body = Set, responses(
    (status = 201, description = "Set", body = WasSet),
    (status = 404, description = "There is no silence to be changed", body = ProblemBody),
    (status = 409, description = "Too many silences, or the module is switched off", body = ProblemBody),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn set(
    caller: Guard<Operator>,
    idempotency: IdempotencyKey,
    body: Body<Set>,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let config = state.silencing.needed()?;
    let Set { id, matchers, starts_at, ends_at, created_by, comment } = body.value;
    let matchers = shape::matchers(matchers)?;
    let created_by = created_by.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| caller.user.clone());
    let draft = Draft {
        id: id.filter(|id| !id.is_empty()).map(SilenceId::given),
        matchers: matchers.clone(),
        starts_at,
        ends_at,
        created_by,
        comment,
    };
    let limits = SilenceLimits { most: config.max_silences, longest: config.longest(caller.role) };
    draft.check(state.clock.now(), limits.longest).map_err(|error| refused(&error))?;
    let hidden = state.ledger.read(move |reader| Hidden::by(reader, &matchers)).await?;
    let (actor, account, warnings) = (caller.actor(), caller.user.clone(), hidden.warnings());
    let (inner, bytes) = (state.clone(), body.bytes);
    let answer = idempotency.run(&inner, &bytes, move |tx| {
        let silence = tx.silence_set(&actor, &account, draft, limits)?;
        Ok((StatusCode::CREATED, json!({ "id": silence.id, "hides": hidden.count, "warnings": warnings })))
    });
    Ok(answer.await?.respond())
}

/// Ends a silence, at once. One that is over stays as it is.
#[utoipa::path(delete, path = "/api/silences/{id}", tag = "silences", params(("id" = String, Path, description = "Its id")), responses(
    (status = 204, description = "Ended"),
    (status = 404, description = "No such silence", body = ProblemBody),
))]
pub async fn expire(caller: Guard<Operator>, id: web::Path<String>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    let (actor, id) = (caller.actor(), SilenceId::given(id.into_inner()));
    state.ledger.write(Priority::Control, move |tx| tx.silence_expire(&actor, &id)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// What a silence would match.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Which alerts: those for which all of them hold.
    matchers: Vec<MatcherBody>,
}

/// What a silence would hide now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Preview {
    /// How many alerts fire that it would hide.
    count: u64,
    /// Of these, how many of each severity.
    #[schema(value_type = BTreeMap<String, u64>)]
    by_severity: BTreeMap<&'static str, u64>,
    /// The first 50 of them.
    alerts: Vec<Alert>,
    /// Whether more alerts fire than were looked at.
    incomplete: bool,
    /// What somebody should know before they set it.
    warnings: Vec<String>,
}

/// Shows what a silence would hide now, without setting it.
#[utoipa::path(post, path = "/api/silences/preview", tag = "silences", request_body = Asked, responses(
    (status = 200, description = "What it would hide", body = Preview),
    (status = 422, description = "Not acceptable", body = ProblemBody),
))]
pub async fn preview(caller: Guard<Viewer>, body: Body<Asked>, state: web::Data<AppState>) -> ApiResult<HttpResponse> {
    drop(caller);
    let matchers = shape::matchers(body.value.matchers)?;
    acceptable(&matchers).map_err(|error| refused(&error))?;
    let hidden = state.ledger.read(move |reader| Hidden::by(reader, &matchers)).await?;
    let warnings = hidden.warnings();
    let Hidden { count, by_severity, shown, incomplete } = hidden;
    let by_severity = by_severity.into_iter().map(|(severity, count)| (severity.as_str(), count)).collect();
    Ok(HttpResponse::Ok().json(Preview { count, by_severity, alerts: shown, incomplete, warnings }))
}

/// Alerts that fire and match.
struct Hidden {
    count: u64,
    by_severity: BTreeMap<Severity, u64>,
    shown: Vec<Alert>,
    incomplete: bool,
}

impl Hidden {
    fn by(reader: &mut Reader<'_>, matchers: &[Matcher]) -> Result<Hidden, LedgerError> {
        let mut hidden = Hidden { count: 0, by_severity: BTreeMap::new(), shown: Vec::new(), incomplete: false };
        let mut place: Option<AlertId> = None;
        let mut seen = 0;
        loop {
            let states = reader.firing_alerts(place.as_ref(), AT_ONCE)?;
            let Some(last) = states.last() else { return Ok(hidden) };
            place = Some(last.claim.clone());
            seen += states.len();
            for alert in states.into_iter().map(|state| state.alert).filter(|alert| Facets::from(alert).match_all(matchers)) {
                hidden.count += 1;
                *hidden.by_severity.entry(alert.severity).or_default() += 1;
                if hidden.shown.len() < SHOWN {
                    hidden.shown.push(Alert::from(alert));
                }
            }
            if seen >= MOST {
                hidden.incomplete = true;
                return Ok(hidden);
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let critical = self.by_severity.get(&Severity::Critical).copied().unwrap_or(0);
        let mut warnings = Vec::new();
        match critical {
            0 => {}
            1 => warnings.push("this hides a critical alert that fires now".to_owned()),
            more => warnings.push(format!("this hides {more} critical alerts that fire now")),
        }
        if self.incomplete {
            warnings.push(format!("more than {MOST} alerts fire; only as many were looked at"));
        }
        warnings
    }
}
