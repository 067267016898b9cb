//! The live feed, `GET /api/live`: committed events over a WebSocket, as they happen.
//!
//! The only file that imports `actix-web-actors`, and only for the handshake. Events are written as frames once
//! ([`hub`]), kept on a bounded board ([`board`]), and read from there by every [`session`] at its own pace.

mod board;
mod frame;
mod hub;
mod say;
mod session;
mod wish;

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    http::header,
    web::{self, Bytes},
};
use actix_web_actors::ws;
use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use opspilot_kernel::{
    config::{ModuleConfig, Problem, Size, Span},
    error::ErrorKind,
    module::ModuleId,
    principal::Role,
};
use opspilot_ledger::Ledger;
use opspilot_runtime::{
    ChildSpec, EventKinds, EventRouterHandle, Lane, LaneGuard, Module, ModuleContext, Overflow, StartError, Supervisor,
};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use self::{board::Board, frame::Code, hub::Hub, session::Session};
use super::{
    body::Query,
    error::{ApiError, ApiResult, ProblemBody},
    guard::{Caller, Principal, Via},
    limits::Origin,
    origins,
    state::AppState,
};

/// The module's permanent name.
pub const ID: ModuleId = ModuleId::new("ui.websocket");
/// One line for people.
pub const SUMMARY: &str = "Tells committed events live over a WebSocket";

/// How many clients may read old events from the ledger at once; the others wait their turn.
const REPLAYS: usize = 2;

/// The section `ui.websocket` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LiveConfig {
    /// How often a client is asked for a sign of life.
    pub heartbeat: Span,
    /// A client that gave none for so long is gone.
    pub timeout: Span,
    /// How many clients there may be; further ones are answered 503.
    pub max_clients: u32,
    /// How many messages a client may send in a second; twice as many at once.
    pub messages: u32,
    /// How much of the newest events is kept in memory for all clients together; a client that falls further behind is
    /// told so and closed.
    pub buffer: Size,
}

impl Default for LiveConfig {
    fn default() -> LiveConfig {
        LiveConfig { heartbeat: Span::seconds(5), timeout: Span::seconds(15), max_clients: 5_000, messages: 50, buffer: Size::mib(8) }
    }
}

impl ModuleConfig for LiveConfig {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.heartbeat.0 < Duration::from_millis(10) {
            problems.push(Problem::at("/heartbeat", "must be at least 10ms").suggest("5s"));
        }
        if self.timeout.0 < self.heartbeat.0.saturating_mul(2) {
            problems.push(Problem::at("/timeout", "must be at least twice the heartbeat").suggest("15s"));
        }
        if self.messages == 0 {
            problems.push(Problem::at("/messages", "must be at least 1").suggest("50"));
        }
        problems
    }
}

#[derive(Debug, Clone)]
struct Metrics {
    clients: IntGauge,
    closed: IntCounterVec,
    refused: IntCounter,
    board_bytes: IntGauge,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let metrics = Metrics {
            clients: IntGauge::new("opspilot_live_clients", "Clients of the live feed.")?,
            closed: IntCounterVec::new(Opts::new("opspilot_live_closed_total", "Clients that were closed, by code."), &["code"])?,
            refused: IntCounter::new("opspilot_live_refused_total", "Clients that were turned away because there were too many.")?,
            board_bytes: IntGauge::new("opspilot_live_buffer_bytes", "Memory that holds the newest events for all clients.")?,
        };
        registry.register(Box::new(metrics.clients.clone()))?;
        registry.register(Box::new(metrics.closed.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        registry.register(Box::new(metrics.board_bytes.clone()))?;
        Ok(metrics)
    }
}

/// What the hub and the sessions of one run of the module share.
struct Inner {
    ledger: Ledger,
    board: Board,
    config: LiveConfig,
    log: slog::Logger,
    metrics: Metrics,
    seats: Arc<AtomicUsize>,
    replays: Semaphore,
    /// Turns true when the module stops.
    ends: watch::Sender<bool>,
}

impl Inner {
    fn clients(&self) -> usize {
        self.seats.load(Ordering::Relaxed)
    }
}

/// A client's place; given back when the connection is gone.
struct Seat {
    seats: Arc<AtomicUsize>,
    gauge: IntGauge,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

/// Where requests find the feed, whether it runs or not. One for the process; clones are the same.
#[derive(Clone)]
pub struct Live {
    feed: Arc<ArcSwapOption<Inner>>,
    seats: Arc<AtomicUsize>,
    metrics: Metrics,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("clients", &self.clients()).finish_non_exhaustive()
    }
}

impl Live {
    /// No feed yet.
    pub fn new(registry: &Registry) -> Result<Live, prometheus::Error> {
        Ok(Live { feed: Arc::default(), seats: Arc::default(), metrics: Metrics::register(registry)? })
    }

    /// How many clients there are.
    pub fn clients(&self) -> usize {
        self.seats.load(Ordering::Relaxed)
    }

    /// Starts the module.
    pub fn start(&self, ctx: &ModuleContext, config: LiveConfig) -> Result<Box<dyn Module>, StartError> {
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        Ok(Box::new(self.supervised(&ctx.supervisor, &ctx.events, ctx.ledger.clone(), ctx.log.clone(), config)))
    }

    /// Starts the hub under `supervisor`, as a lane of `router`.
    pub fn supervised(
        &self,
        supervisor: &Supervisor,
        router: &EventRouterHandle,
        ledger: Ledger,
        log: slog::Logger,
        config: LiveConfig,
    ) -> LiveModule {
        let head = ledger.events().head();
        let inner = Arc::new(Inner {
            board: Board::new(head, config.buffer.bytes()),
            ledger,
            config,
            log,
            metrics: self.metrics.clone(),
            seats: Arc::clone(&self.seats),
            replays: Semaphore::new(REPLAYS),
            ends: watch::Sender::new(false),
        });
        let feed = Arc::clone(&inner);
        let hub = supervisor.start(ChildSpec::module(ID.as_str()), move || Hub::new(Arc::clone(&feed)));
        // a hub with a full mailbox is going to look anyway, and reads by its own cursor: nothing is missed
        let lane = router.register(Lane { name: "live", wants: EventKinds::ALL, overflow: Overflow::DropNewest, inlet: Box::new(hub) });
        self.feed.store(Some(Arc::clone(&inner)));
        LiveModule { live: self.clone(), inner, supervisor: supervisor.clone(), _lane: lane }
    }

    fn seat(&self, most: u32) -> Option<Seat> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let taken = self.seats.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |seats| (seats < most).then_some(seats + 1));
        if taken.is_err() {
            self.metrics.refused.inc();
            return None;
        }
        self.metrics.clients.inc();
        Some(Seat { seats: Arc::clone(&self.seats), gauge: self.metrics.clients.clone() })
    }
}

/// The module while it runs.
pub struct LiveModule {
    live: Live,
    inner: Arc<Inner>,
    supervisor: Supervisor,
    /// Ends with the module.
    _lane: LaneGuard,
}

impl Module for LiveModule {
    /// Closes every client, then ends the hub.
    fn stop(&self) -> BoxFuture<'static, ()> {
        let (live, inner, supervisor) = (self.live.clone(), Arc::clone(&self.inner), self.supervisor.clone());
        Box::pin(async move {
            live.feed.store(None);
            inner.ends.send_replace(true);
            let gone = async {
                while live.clients() > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            // a client that does not read cannot be told; its connection ends with the server
            drop(tokio::time::timeout(Duration::from_secs(2), gone).await);
            supervisor.stop(ID.as_str()).await;
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The query of the live feed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiveQuery {
    ticket: Option<String>,
}

/// Who wants to listen, found out before anything is upgraded. `Ok(None)` is somebody with a ticket that is no good:
/// a browser's page learns why only from a close code, so that one is upgraded and closed.
async fn listener(caller: Caller, ticket: Option<String>, request: &HttpRequest, state: &AppState) -> ApiResult<Option<Arc<Principal>>> {
    let tls = request.extensions().get::<Origin>().is_some_and(|origin| origin.tls);
    let foreign = || ApiError::new(ErrorKind::Forbidden, "foreign_origin", "a browser may listen only from this service's own page");
    let who = match (ticket, caller.0) {
        (Some(ticket), _) => {
            let origin = request.headers().get(header::ORIGIN);
            if origin.is_some() && !origins::is_own(request.headers(), &state.settings, tls) {
                return Err(foreign());
            }
            let Some(who) = state.tickets.redeem(&ticket, origin.and_then(|origin| origin.to_str().ok())) else { return Ok(None) };
            let Some(who) = state.auth.still(&who).await? else { return Ok(None) };
            who
        }
        (None, Some(who)) if matches!(who.via, Via::Cookie(_)) && !origins::is_own(request.headers(), &state.settings, tls) => {
            return Err(foreign());
        }
        (None, Some(who)) => who,
        (None, None) => {
            return Err(ApiError::new(ErrorKind::Unauthenticated, "unauthenticated", "log in, send an API key, or use a ticket"));
        }
    };
    if !who.role.includes(Role::Viewer) {
        return Err(ApiError::new(ErrorKind::Forbidden, "forbidden", "this needs the role viewer"));
    }
    Ok(Some(who))
}

/// Upgrades to the live feed: a WebSocket on which committed events are told as they happen.
///
/// Authenticates by header, by cookie with an allowed `Origin`, or by `?ticket=` (from `POST /api/auth/ws-ticket`). A ticket
/// that is no good is upgraded and closed with 4401; so is a connection whose session ends.
#[utoipa::path(get, path = "/api/live", tag = "signals",
    params(("ticket" = Option<String>, Query, description = "From POST /api/auth/ws-ticket; good for 30 s, once")),
    responses((status = 101, description = "The feed"), (status = 400, description = "Not a WebSocket handshake", body = ProblemBody),
        (status = 401, description = "Nobody is logged in", body = ProblemBody), (status = 403, description = "Not allowed, or from a foreign page", body = ProblemBody),
        (status = 422, description = "The query is not understood", body = ProblemBody),
        (status = 503, description = "Too many clients, or the module does not run", body = ProblemBody)))]
pub async fn get(
    caller: Caller,
    query: Query<LiveQuery>,
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> ApiResult<HttpResponse> {
    let who = listener(caller, query.0.ticket, &request, &state).await?;
    let mut answer = ws::handshake(&request).map_err(|error| {
        ApiError::new(ErrorKind::Malformed, "not_a_websocket", error.to_string().to_lowercase().trim_end_matches('.').to_owned())
    })?;
    let Some(who) = who else {
        let mut goodbye = web::BytesMut::new();
        frame::put_close(&mut goodbye, Code::Unauthenticated, "the ticket is not good");
        return Ok(answer.streaming(futures_util::stream::iter([Ok::<Bytes, actix_web::Error>(goodbye.freeze())])));
    };
    let unavailable = |detail: &str| ApiError::new(ErrorKind::Unavailable, "unavailable", detail);
    if state.is_stopping() {
        return Err(unavailable("the service stops"));
    }
    let feed = state.live.feed.load_full().ok_or_else(|| unavailable("the module ui.websocket does not run"))?;
    let seat = state.live.seat(feed.config.max_clients).ok_or_else(|| unavailable("too many clients listen").retry_after(5))?;
    let session = Session::new(feed, seat, state.clone(), who, payload);
    Ok(answer.streaming(futures_util::stream::unfold(session, |mut session| async move {
        let bytes = session.next().await?;
        Some((Ok::<Bytes, actix_web::Error>(bytes), session))
    })))
}
