//! Modules: how a category crate offers them, and what each is given.

use std::{any::Any, sync::Arc};

use futures_util::future::BoxFuture;
use opspilot_kernel::{
    clock::SharedClock,
    config::{ModuleConfig, Problem},
    ids::DeadLetterId,
    module::ModuleId,
};
use opspilot_ledger::Ledger;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::{
    AttemptBook, EventRouterHandle, ExitHook, Health, HealthMetrics, MakeOffline, Offline, Outbound, Supervisor, SupervisorOptions, Ticker,
    TopologyView, outbound::OutboundOptions,
};

/// A module could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its configuration does not do; nothing was started.
    #[error("the configuration is not valid")]
    Config(Vec<Problem>),
    /// Something it needs is not there.
    #[error("{0}")]
    Failed(String),
}

/// Why a module did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// It has no such thing.
    #[error("this module does not support it")]
    Unsupported,
    /// It is not available just now.
    #[error("the module is not available just now")]
    Unavailable,
    /// It tried, and failed.
    #[error("{0}")]
    Failed(String),
}

/// What became of a new configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is in force.
    InPlace,
    /// The module must be stopped and started with it.
    NeedsRestart,
}

/// A module that was started.
pub trait Module: Send + Sync {
    /// Finishes what it has, within its actors' time, and ends.
    fn stop(&self) -> BoxFuture<'static, ()>;

    /// Applies a configuration that has been checked.
    fn reconfigure(&self, config: serde_json::Value) -> BoxFuture<'static, Result<Applied, ModuleError>> {
        drop(config);
        Box::pin(async { Ok(Applied::NeedsRestart) })
    }

    /// Tries a dead letter again.
    fn requeue(&self, letter: DeadLetterId) -> BoxFuture<'static, Result<(), ModuleError>> {
        drop(letter);
        Box::pin(async { Err(ModuleError::Unsupported) })
    }

    /// The module itself, for whoever knows its type.
    fn as_any(&self) -> &dyn Any;
}

/// Everything a module may use.
#[derive(Clone)]
pub struct ModuleContext {
    /// The one source of truth.
    pub ledger: Ledger,
    /// The clock.
    pub clock: SharedClock,
    /// Where to log; bears the module's id.
    pub log: slog::Logger,
    /// Where to register metrics, by `opspilot_<module>_…` names.
    pub registry: prometheus::Registry,
    /// Starts and restarts its actors.
    pub supervisor: Supervisor,
    /// What followers failed at.
    pub attempts: AttemptBook,
    /// Where followers ask for ticks.
    pub ticker: Ticker,
    /// Where lanes for events are registered.
    pub events: EventRouterHandle,
    /// How modules are doing.
    pub health: Health,
    /// The way out: every HTTP call goes through it.
    pub outbound: Outbound,
    /// Which component depends on which.
    pub topology: TopologyView,
}

impl ModuleContext {
    /// A module's ground with no service around it, for whoever runs one by itself: a registry, health and a supervisor
    /// of its own, logs for nobody, calls to public addresses only. `exit` is told when a core part gives up.
    pub fn alone(ledger: Ledger, clock: SharedClock, exit: ExitHook) -> Result<ModuleContext, Box<dyn std::error::Error>> {
        let (registry, log) = (prometheus::Registry::new(), slog::Logger::root(slog::Discard, slog::o!()));
        let health = Health::new(Arc::clone(&clock), HealthMetrics::register(&registry, ledger.queue_gauge().clone())?);
        let supervised = SupervisorOptions { clock: Arc::clone(&clock), log: log.clone(), health: health.clone(), exit, seed: 7 };
        Ok(ModuleContext {
            events: EventRouterHandle::new(ledger.clone(), &registry, log.clone())?,
            outbound: Outbound::new(OutboundOptions::default(), &registry)?,
            supervisor: Supervisor::new(supervised),
            attempts: AttemptBook::default(),
            ticker: Ticker::default(),
            topology: TopologyView::default(),
            ledger,
            clock,
            log,
            registry,
            health,
        })
    }

    /// The same for one module: its logger bears the id.
    pub fn for_module(&self, id: ModuleId) -> ModuleContext {
        ModuleContext { log: self.log.new(slog::o!("module" => id.as_str())), ..self.clone() }
    }
}

/// Makes a module of a checked configuration, to be driven with no service around it.
pub type DriveAlone<C> = fn(&C) -> Box<dyn Offline>;

/// What a module's author writes; [`Entry::of`] makes the registry's entry of it.
pub trait ModuleSpec: 'static {
    /// The permanent name.
    const ID: ModuleId;
    /// One line for people.
    const SUMMARY: &'static str;
    /// Whether it runs when the configuration says nothing.
    const ENABLED: bool;
    /// Its section of the configuration.
    type Config: ModuleConfig;
    /// How it is driven with no service around it, if it can be.
    const OFFLINE: Option<DriveAlone<Self::Config>> = None;

    /// Starts it.
    fn start(ctx: &ModuleContext, config: Self::Config) -> Result<Box<dyn Module>, StartError>;
}

/// Starts a module with its section of the configuration.
pub type Start = fn(&ModuleContext, serde_json::Value) -> Result<Box<dyn Module>, StartError>;

/// A module as the registry knows it.
#[derive(Clone, Copy)]
pub struct Entry {
    /// The permanent name.
    pub id: ModuleId,
    /// One line for people.
    pub summary: &'static str,
    /// Whether it runs when the configuration says nothing.
    pub enabled_by_default: bool,
    /// The schema of its section.
    pub schema: fn(&mut SchemaGenerator) -> Schema,
    /// Its section with nothing set.
    pub defaults: fn() -> serde_json::Value,
    /// Every problem of a section; pointers start at the section.
    pub check: fn(serde_json::Value) -> Vec<Problem>,
    /// Starts the module.
    pub start: Start,
    /// Makes what is driven with no service around it, if the module can be.
    pub offline: Option<MakeOffline>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Entry {
    /// The entry of a module.
    pub const fn of<M: ModuleSpec>() -> Entry {
        Entry {
            id: M::ID,
            summary: M::SUMMARY,
            enabled_by_default: M::ENABLED,
            schema: schema::<M::Config>,
            defaults: defaults::<M::Config>,
            check: check::<M::Config>,
            start: start::<M>,
            offline: match M::OFFLINE {
                Some(_) => Some(offline::<M>),
                None => None,
            },
        }
    }
}

fn schema<C: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<C>()
}

fn defaults<C: ModuleConfig>() -> serde_json::Value {
    serde_json::to_value(C::default()).unwrap_or_default()
}

fn check<C: ModuleConfig>(section: serde_json::Value) -> Vec<Problem> {
    match crate::config::read::<C>(section) {
        Ok(config) => config.validate(),
        Err(problems) => problems,
    }
}

fn checked<C: ModuleConfig>(section: serde_json::Value) -> Result<C, Vec<Problem>> {
    let config = crate::config::read::<C>(section)?;
    let problems = config.validate();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

fn start<M: ModuleSpec>(ctx: &ModuleContext, section: serde_json::Value) -> Result<Box<dyn Module>, StartError> {
    let config = checked::<M::Config>(section).map_err(StartError::Config)?;
    M::start(&ctx.for_module(M::ID), config)
}

fn offline<M: ModuleSpec>(section: serde_json::Value) -> Result<Box<dyn Offline>, Vec<Problem>> {
    let make = M::OFFLINE.ok_or_else(|| vec![Problem::at("", "this module does nothing without a service")])?;
    checked::<M::Config>(section).map(|config| make(&config))
}
