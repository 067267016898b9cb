//! The wiring, as code: what is started in which order, who is handed what. Nothing else wires.
//!
//! ```text
//! root      one_for_one   3 in 300 s, then the process ends with status 70
//! ├ storage   rest_for_one  2 in 60 s   core.ledger ▸ core.audit ▸ core.health
//! ├ pipeline  one_for_one   5 in 30 s   core.ticker ▸ enricher.* (stages) ▸ core.pipeline ▸ detector.*
//! ├ actions   one_for_one   5 in 30 s   core.approvals ▸ action.*
//! └ edge      one_for_one   5 in 30 s   core.events ▸ notifier.* ▸ ui.websocket ▸ ui.dashboard ▸ ui.api ▸ connector.*
//! ```
//!
//! A module is restarted and given up by itself; what is named `core` is its group's matter. Across the groups what is
//! started first is stopped last: whoever sends is stopped before whoever receives.

mod accounts;
mod control;
mod groups;
mod modules;
mod ui;

use std::{net::TcpListener, sync::Arc, time::Duration};

use actix_web::web;
use opspilot_enrichers::Stages;
use opspilot_kernel::{clock::SharedClock, module::ModuleId};
use opspilot_ledger::{Ledger, audit::CheckpointSchedule};
use opspilot_runtime::{
    AttemptBook, ChildSpec, Entry, EventRouterHandle, Health, HealthMetrics, HealthReporter, HeartbeatPolicy, ModuleContext, Outbound,
    Supervisor, SupervisorOptions, Ticker, TickerActor, TopologyView, outbound::OutboundOptions,
};
use opspilot_safety::{Gate, GateOptions};
use slog::Logger;
use tokio::sync::watch;

use crate::{
    config::{Config, Sources},
    http::{self, auth},
    shutdown::{self, Part, Stopper},
    telemetry::LevelSwitch,
};

pub use accounts::FirstPassword;
pub(crate) use accounts::random_password;
use control::Panel;
pub(crate) use control::Switchboard;
use groups::Groups;
use modules::{Modules, Served};

/// The stages that alerts pass, in this order.
const STAGES: [ModuleId; 4] =
    [opspilot_enrichers::DEDUP, opspilot_enrichers::SILENCE, opspilot_enrichers::CORRELATOR, opspilot_enrichers::INCIDENT_STORE];

/// Every module there is, category by category.
pub fn catalogue() -> Vec<&'static Entry> {
    let categories = [
        opspilot_enrichers::MODULES,
        opspilot_detectors::MODULES,
        opspilot_actions::MODULES,
        ui::MODULES,
        opspilot_connectors::MODULES,
        opspilot_notifiers::MODULES,
    ];
    categories.into_iter().flatten().collect()
}

/// What the process brings along.
pub struct Ground {
    /// What time it is.
    pub clock: SharedClock,
    /// Where to log.
    pub log: Logger,
    /// Changes what is logged.
    pub level: LevelSwitch,
    /// Where metrics are registered.
    pub registry: prometheus::Registry,
    /// What ends the process.
    pub stopper: Stopper,
    /// Where the configuration came from, to be read again.
    pub sources: Sources,
}

/// A part that is needed did not start; says which and why.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] opspilot_ledger::OpenError),
    /// The ledger was opened, but does not answer.
    #[error("the ledger does not answer: {0}")]
    Unanswered(#[from] opspilot_ledger::LedgerError),
    /// The client for calls to the outside.
    #[error(transparent)]
    Outbound(#[from] opspilot_runtime::outbound::OutboundSetupError),
    /// A metric.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The keys that sign sessions.
    #[error("{0}")]
    Keys(#[from] auth::secrets::OpenError),
    /// The key that signs the audit log.
    #[error("{0}")]
    Audit(#[from] opspilot_ledger::audit::CheckpointError),
    /// The gate that actions pass.
    #[error("{0}")]
    Gate(#[from] opspilot_safety::OpenError),
    /// The HTTP server.
    #[error(transparent)]
    Serve(#[from] http::ServeError),
    /// The certificate or its key.
    #[error("{0}")]
    Tls(String),
    /// A first password could not be made.
    #[error("{0}")]
    Accounts(String),
    /// A thread.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Everything that runs.
pub struct Topology {
    /// The one source of truth.
    pub ledger: Ledger,
    /// The users that were made because there were none.
    pub first_passwords: Vec<FirstPassword>,
    /// Modules and configuration, for whoever may change them.
    pub(crate) switchboard: Arc<Switchboard>,
    server: Option<http::Server>,
    modules: Arc<Modules>,
    supervisor: Supervisor,
    stopping: watch::Sender<bool>,
    log: Logger,
}

impl Topology {
    /// Starts everything, in order. `listener` is bound already, so that a busy port is found before anything starts.
    pub async fn start(config: Config, ground: Ground, listener: TcpListener) -> Result<Topology, TopologyError> {
        let Ground { clock, log, level, registry, stopper, sources } = ground;

        // storage
        let ledger = Ledger::open(ledger_options(&config, &clock, &log, &registry, &stopper))?;
        let first_passwords = accounts::first_users(&ledger, &config.ledger.dir, &log).await?;
        let health = Health::new(Arc::clone(&clock), HealthMetrics::register(&registry, ledger.queue_gauge().clone())?);
        let supervisor = Supervisor::new(SupervisorOptions {
            clock: Arc::clone(&clock),
            log: log.clone(),
            health: health.clone(),
            exit: stopper.exit_hook(),
            seed: rand::random(),
        });
        supervisor.guard_loop(HeartbeatPolicy::DEFAULT)?;
        let groups = Groups::under(&supervisor);
        let own = ledger.clone();
        groups.storage.start(ChildSpec::core("core.ledger"), move || own.audit_actor());
        ledger.open_audit_key().await?;
        let own = ledger.clone();
        groups.storage.start(ChildSpec::core("core.audit"), move || own.checkpoint_actor(CheckpointSchedule::default()));
        let ticker = Ticker::default();
        let (own, at, time, to) = (ledger.clone(), ticker.clone(), Arc::clone(&clock), log.clone());
        let ticks = move || TickerActor::new(at.clone(), own.clone(), Arc::clone(&time), to.clone());
        groups.pipeline.start(ChildSpec::core("core.ticker"), ticks);
        let events = EventRouterHandle::new(ledger.clone(), &registry, log.new(slog::o!("module" => "core.events")))?;
        let own = events.clone();
        groups.edge.start(ChildSpec::core("core.events"), move || own.actor());
        let (own, of) = (ledger.clone(), health.clone());
        groups.storage.start(ChildSpec::core("core.health"), move || HealthReporter::new(of.clone(), own.clone()));

        // actions: the gate is there before anything that proposes or carries out
        let gate = Gate::open(GateOptions {
            dir: config.ledger.dir.clone(),
            ledger: ledger.clone(),
            clock: Arc::clone(&clock),
            log: log.new(slog::o!("part" => "gate")),
            registry: registry.clone(),
            supervisor: groups.actions.clone(),
            policy: config.policy.clone(),
        })?;

        // pipeline
        let reach = OutboundOptions { allow_private: config.outbound.allow_private.clone(), ..OutboundOptions::default() };
        let outbound = Outbound::new(reach, &registry)?;
        let ctx = ModuleContext {
            ledger: ledger.clone(),
            clock: Arc::clone(&clock),
            log: log.clone(),
            registry: registry.clone(),
            supervisor: groups.pipeline.clone(),
            attempts: AttemptBook::default(),
            ticker,
            events,
            health: health.clone(),
            outbound,
            topology: TopologyView::default(),
        };
        let stages = Stages::in_order(&STAGES);
        let runs = config.ledger.dir.join("runs");
        let modules = Arc::new(Modules::new(ctx.clone(), groups, gate.clone(), runs, catalogue(), stages.clone(), config.modules.clone()));
        modules.start_category("notifier").await;
        modules.start_category("enricher").await;
        modules.retry_alerts_with(opspilot_enrichers::pipeline::start(&ctx, stages)?);
        // before anything is detected: its rules are told of every incident
        modules.start_category("action").await;
        modules.start_category("detector").await;

        // edge
        let (stopping, told) = watch::channel(false);
        let auth = auth::Auth::open(
            &config.ledger.dir,
            ledger.clone(),
            Arc::clone(&clock),
            auth::SessionPolicy { idle: config.server.session.idle.0, absolute: config.server.session.absolute.0 },
            auth::passwords::Cost::default(),
        )?;
        let settings = control::http_settings(&config);
        let tls = config.server.tls.as_ref().map(control::tls).transpose().map_err(TopologyError::Tls)?;
        let switchboard = Arc::new(Switchboard::new(
            Arc::clone(&modules),
            health.clone(),
            ledger.clone(),
            config,
            sources,
            level,
            log.clone(),
            told.clone(),
        ));
        let state = http::AppState::new(http::Deps {
            ledger: ledger.clone(),
            clock,
            log: log.clone(),
            registry: registry.clone(),
            settings,
            auth,
            control: Arc::new(Panel(Arc::clone(&switchboard))),
            gate,
            stopping: told,
        })?;
        modules
            .serve(Served {
                live: state.live.clone(),
                dashboard: state.dashboard.clone(),
                pings: state.pings.clone(),
                silencing: state.silencing.clone(),
            })
            .await;
        modules.start_category("ui").await;
        let server = http::serve(web::Data::new(state), listener, tls, |_| {})?;
        health.present(ui::API);
        modules.start_category("connector").await;
        switchboard.ready();
        Ok(Topology { ledger, first_passwords, switchboard, server: Some(server), modules, supervisor, stopping, log })
    }

    /// Where the service listens.
    pub fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.server.as_ref().map(|server| server.addresses.clone()).unwrap_or_default()
    }

    /// Ends when the HTTP server does, which before a stop is a failure.
    pub async fn server_ended(&mut self) -> String {
        match &mut self.server {
            Some(server) => server.ended().await.map_or_else(|error| error.to_string(), |()| "without a reason".to_owned()),
            None => std::future::pending().await,
        }
    }

    /// Stops everything in order: nothing that was acknowledged is lost, and whoever is connected is told.
    ///
    /// Whether the ledger closed; if not, what was queued may not be stored.
    pub async fn stop(mut self) -> bool {
        let Topology { ledger, server, modules, supervisor, stopping, log, .. } = &mut self;
        // readiness says no, sockets are closed with 1001, which would hold up the server otherwise
        stopping.send_replace(true);
        let mut closed = false;
        let in_time = shutdown::in_order(log, async |part| match part {
            Part::LiveFeed => modules.stop_category("ui").await,
            Part::Http => {
                if let Some(server) = server.take() {
                    server.stop().await;
                }
            }
            Part::Connectors => modules.stop_category("connector").await,
            Part::Detectors => modules.stop_category("detector").await,
            Part::Pipeline => {
                modules.stop_category("action").await;
                supervisor.stop("core.pipeline").await;
                modules.stop_category("enricher").await;
            }
            Part::Notifiers => modules.stop_category("notifier").await,
            Part::Core => {
                supervisor.stop_all().await;
            }
            Part::Ledger => match ledger.shut_down().await {
                Ok(()) => closed = true,
                Err(error) => slog::error!(log, "the ledger did not close in order"; "error" => %error),
            },
        });
        in_time.await && closed
    }
}

fn ledger_options(
    config: &Config,
    clock: &SharedClock,
    log: &Logger,
    registry: &prometheus::Registry,
    stopper: &Stopper,
) -> opspilot_ledger::Options {
    const DAY: u64 = 86_400;
    let retention = config.ledger.retention;
    let defaults = opspilot_ledger::Options::new(&config.ledger.dir, Arc::clone(clock));
    opspilot_ledger::Options {
        log: log.new(slog::o!("part" => "ledger")),
        registry: registry.clone(),
        limits: opspilot_ledger::Limits {
            bulk_queue: config.ledger.queue,
            signal_ring_bytes: config.ledger.memory.bytes(),
            headroom_bytes: config.ledger.headroom.0,
            heal_after: config.ledger.heal_after.0,
            ..opspilot_ledger::Limits::default()
        },
        retention: opspilot_ledger::Retention {
            signals: Duration::from_secs(u64::from(retention.signals_days) * DAY),
            signals_max_bytes: retention.signals_max_bytes.0,
            events: retention.events.0,
            events_max_bytes: retention.events_max_bytes.0,
            incidents: Duration::from_secs(u64::from(retention.incidents_days) * DAY),
            ..opspilot_ledger::Retention::default()
        },
        fatal: stopper.fatal_hook(),
        ..defaults
    }
}
