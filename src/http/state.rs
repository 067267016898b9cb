//! What handlers work with, and what the rest of the process lends them.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use opspilot_enrichers::topology::TopologyDesk;
use opspilot_kernel::{
    clock::SharedClock,
    config::Problem,
    error::ErrorKind,
    ids::{DeadLetterId, IncidentId},
    module::ModuleHealth,
    principal::Actor,
    time::Timestamp,
};
use opspilot_ledger::Ledger;
use opspilot_runtime::Overall;
use tokio::sync::watch;

use super::{
    auth::Auth,
    dashboard::Dashboard,
    error::ApiError,
    idempotency::InFlight,
    ingest::{IN_FLIGHT, Intake},
    limits::RateLimiter,
    live::Live,
    metrics::HttpMetrics,
    ping::Pings,
    refusals::Refusals,
    settings::Settings,
    shell::RequestIds,
    silences::Silencing,
    tickets::Tickets,
};

/// What the process lets the API see and do. `src/topology.rs` provides it.
pub trait Control: Send + Sync + 'static {
    /// How the service is doing, and why it is not better.
    fn overall(&self) -> (Overall, String);
    /// One line for each module, disabled ones included.
    fn modules(&self) -> Vec<ModuleHealth>;
    /// What keeps the service from being ready; empty once every enabled listener accepts.
    fn not_ready(&self) -> Vec<String>;
    /// Restarts a module, enables it or disables it. The switch writes its own audit entry.
    fn switch(&self, module: String, to: Switch, by: Actor) -> BoxFuture<'static, Result<ModuleHealth, ControlError>>;
    /// Tells a module that one of its dead letters is to be tried again now.
    fn requeue(&self, module: String, letter: DeadLetterId) -> BoxFuture<'static, Retried>;
    /// Has an incident explained again; done when that is stored.
    fn explain(&self, incident: IncidentId, by: Actor) -> BoxFuture<'static, Result<(), ControlError>>;
    /// Where the dependency graph is shown and changed, while its module runs.
    fn topology(&self) -> BoxFuture<'static, Option<TopologyDesk>>;
    /// Sends a test message through a channel; what became of it.
    fn test_channel(&self, channel: String, _by: Actor) -> BoxFuture<'static, Result<Result<(), String>, ControlError>> {
        Box::pin(async move { Err(ControlError::NoSuchChannel(channel)) })
    }
    /// Reads the configuration again and takes all of it or nothing.
    fn reload(&self, by: Actor) -> BoxFuture<'static, Result<Reloaded, ControlError>>;
}

/// What became of a dead letter that was tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// It went through, and is a dead letter no more.
    Processed,
    /// Its module is not available just now, and tries it as soon as it is.
    Waiting,
    /// It failed again, for this reason, and stays a dead letter.
    Failed(String),
}

/// What can be asked of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// Stop it and start it again.
    Restart,
    /// Start it if it is disabled or was given up.
    Enable,
    /// Stop it until it is enabled again.
    Disable,
}

/// What a reload did.
#[derive(Debug, Clone, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Reloaded {
    /// The modules whose configuration changed.
    pub changed: Vec<String>,
    /// What changed in the file but needs a restart of the service.
    pub restart_required: Vec<String>,
}

/// Why the process did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlError {
    /// There is no such module.
    NoSuchModule(String),
    /// There is no such thing; says what.
    NotFound(String),
    /// There is no such channel.
    NoSuchChannel(String),
    /// Not now, or not with this module; says why.
    Conflict(String),
    /// The configuration is wrong; nothing changed.
    Config(Vec<Problem>),
    /// Something this needs is not there just now.
    Unavailable(String),
    /// Our fault.
    Internal(String),
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> ApiError {
        match error {
            ControlError::NoSuchModule(id) => ApiError::not_found(format!("module {id:?}")),
            ControlError::NotFound(what) => ApiError::new(ErrorKind::NotFound, "not_found", what),
            ControlError::NoSuchChannel(id) => ApiError::not_found(format!("channel {id:?}")),
            ControlError::Conflict(why) => ApiError::new(ErrorKind::Conflict, "conflict", why),
            ControlError::Config(problems) => {
                ApiError::problems("bad_configuration", "the configuration is wrong; nothing changed", problems)
            }
            ControlError::Unavailable(why) => ApiError::new(ErrorKind::Unavailable, "unavailable", why),
            ControlError::Internal(why) => ApiError::internal(why),
        }
    }
}

/// What the HTTP server is built from.
pub struct Deps {
    /// The one source of truth.
    pub ledger: Ledger,
    /// What time it is.
    pub clock: SharedClock,
    /// Where to log.
    pub log: slog::Logger,
    /// Where metrics are registered and read from.
    pub registry: prometheus::Registry,
    /// How the server behaves.
    pub settings: Settings,
    /// Sessions, keys and passwords, opened with [`Auth::open`].
    pub auth: Auth,
    /// What the process lets the API see and do.
    pub control: Arc<dyn Control>,
    /// Proposals, approvals, executions.
    pub gate: opspilot_safety::Gate,
    /// Turns true when the service begins to stop.
    pub stopping: watch::Receiver<bool>,
}

/// What every handler can reach, as `web::Data<AppState>`.
pub struct AppState {
    /// The one source of truth.
    pub ledger: Ledger,
    /// What time it is.
    pub clock: SharedClock,
    /// Where to log.
    pub log: slog::Logger,
    /// Where metrics are registered and read from.
    pub registry: prometheus::Registry,
    /// How the server behaves.
    pub settings: Settings,
    /// Sessions, keys and passwords.
    pub auth: Auth,
    /// Tickets for the live feed.
    pub tickets: Tickets,
    /// The live feed, once its module runs.
    pub live: Live,
    /// The operator's page, once its module runs.
    pub dashboard: Dashboard,
    /// Whose pings are taken.
    pub pings: Pings,
    /// What `enricher.silence` goes by.
    pub silencing: Silencing,
    /// What the process lets the API see and do.
    pub control: Arc<dyn Control>,
    /// Proposals, approvals, executions.
    pub gate: opspilot_safety::Gate,
    /// Turns true when the service begins to stop.
    pub stopping: watch::Receiver<bool>,
    /// When this state was made: the start of the service.
    pub started_at: Timestamp,
    pub(super) limiter: RateLimiter,
    pub(super) intake: Intake,
    pub(super) in_flight: InFlight,
    pub(super) request_ids: RequestIds,
    pub(super) refusals: Refusals,
    pub(super) metrics: HttpMetrics,
}

impl AppState {
    /// Puts the state together and registers the server's own metrics.
    pub fn new(deps: Deps) -> Result<AppState, prometheus::Error> {
        Ok(AppState {
            tickets: Tickets::new(Arc::clone(&deps.clock)),
            started_at: deps.clock.now(),
            limiter: RateLimiter::new(Arc::clone(&deps.clock), deps.settings.rate_limits.clone()),
            in_flight: InFlight::default(),
            intake: Intake::new(IN_FLIGHT, &deps.registry)?,
            live: Live::new(&deps.registry)?,
            dashboard: Dashboard::default(),
            pings: Pings::default(),
            silencing: Silencing::default(),
            request_ids: RequestIds::default(),
            refusals: Refusals::default(),
            metrics: HttpMetrics::register(&deps.registry)?,
            ledger: deps.ledger,
            clock: deps.clock,
            log: deps.log,
            registry: deps.registry,
            settings: deps.settings,
            auth: deps.auth,
            control: deps.control,
            gate: deps.gate,
            stopping: deps.stopping,
        })
    }

    /// Whether the service has begun to stop.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}
