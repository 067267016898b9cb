//! `action.safe`: the catalogue of what can be done, the rules that propose it, and what carries it out.
//!
//! While the module is off there is no catalogue: nothing can be proposed, approved or executed, and what waits goes on
//! waiting. Runs that are under way go on.

mod config;
mod proposer;
mod rules;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use opspilot_kernel::{
    config::{ModuleConfig, Problem},
    ids::Seq,
    module::ModuleId,
};
use opspilot_ledger::Ledger;
use opspilot_runtime::{Applied, ChildSpec, Entry, Module, ModuleContext, ModuleError, ModuleSpec, StartError, Supervisor};
use opspilot_safety::{Catalogue, Gate};
use parking_lot::{Mutex, RwLock};
use prometheus::{IntCounterVec, Opts};
use serde_json::Value;

pub use self::config::{Either, Limits, Match, Rule, SafeConfig};
use self::{proposer::Proposing, rules::Rules};
use crate::process::{ProcessExecutor, RunLimits};

/// The module's name.
pub const ID: ModuleId = ModuleId::new("action.safe");

/// The registry's entry. It is started by [`start`], because the context does not hold the gate.
pub const ENTRY: Entry = Entry::of::<Spec>();

struct Spec;

impl ModuleSpec for Spec {
    const ID: ModuleId = ID;
    const SUMMARY: &'static str = "A catalogue of safe actions, rules that propose them, and their execution after approval";
    const ENABLED: bool = true;
    type Config = SafeConfig;

    fn start(_: &ModuleContext, _: SafeConfig) -> Result<Box<dyn Module>, StartError> {
        Err(StartError::Failed("there is no gate".to_owned()))
    }
}

/// What the module and its actor share.
struct Shared {
    ledger: Ledger,
    gate: Gate,
    log: slog::Logger,
    in_force: RwLock<InForce>,
    executor: Arc<ProcessExecutor>,
    proposals: IntCounterVec,
    trouble: Mutex<Option<String>>,
    cursor: AtomicU64,
}

/// What the configuration says, ready to be used.
#[derive(Clone)]
struct InForce {
    catalogue: Arc<Catalogue>,
    rules: Arc<Rules>,
    max_runs: u32,
}

impl InForce {
    fn new(config: &SafeConfig) -> Result<InForce, Vec<Problem>> {
        let problems = config.validate();
        if !problems.is_empty() {
            return Err(problems);
        }
        let catalogue = Arc::new(Catalogue::new(config.actions.clone())?);
        Ok(InForce { catalogue, rules: Arc::new(Rules::new(config)), max_runs: config.max_runs })
    }
}

impl Shared {
    fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.in_force.read().catalogue)
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.in_force.read().rules)
    }

    fn executor(&self) -> Arc<ProcessExecutor> {
        Arc::clone(&self.executor)
    }

    fn count(&self, outcome: &str) {
        self.proposals.with_label_values(&[outcome]).inc();
    }

    fn at(&self, cursor: Seq) {
        self.cursor.store(cursor, Ordering::Relaxed);
    }

    /// Events that wait to be looked at.
    fn behind(&self) -> usize {
        let behind = self.ledger.events().head().saturating_sub(self.cursor.load(Ordering::Relaxed));
        usize::try_from(behind).unwrap_or(usize::MAX)
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock() = trouble;
    }
}

fn run_limits(config: &SafeConfig) -> RunLimits {
    RunLimits { memory: config.limits.memory.0, file_size: config.limits.file_size.0 }
}

/// Starts the module before `gate`; evidence of runs is kept in `runs`.
pub fn start(ctx: &ModuleContext, gate: &Gate, runs: PathBuf, config: Value) -> Result<Box<dyn Module>, StartError> {
    let config: SafeConfig = serde_json::from_value(config).map_err(|error| StartError::Failed(error.to_string()))?;
    let in_force = InForce::new(&config).map_err(StartError::Config)?;
    let at_once = usize::try_from(config.max_runs).unwrap_or(1);
    let executor = ProcessExecutor::new(runs.clone(), run_limits(&config), at_once, ctx.log.clone())
        .map_err(|error| StartError::Failed(format!("evidence of runs cannot be kept in {}: {error}", runs.display())))?;
    let opts = Opts::new("opspilot_action_safe_proposals_total", "What rules wanted to propose, by what became of it.");
    let registered = IntCounterVec::new(opts, &["outcome"]).and_then(|proposals| {
        // that of an earlier start of the module is taken out
        drop(ctx.registry.unregister(Box::new(proposals.clone())));
        ctx.registry.register(Box::new(proposals.clone())).map(|()| proposals)
    });
    let proposals = registered.map_err(|error| StartError::Failed(format!("its metrics cannot be registered: {error}")))?;
    let shared = Arc::new(Shared {
        ledger: ctx.ledger.clone(),
        gate: gate.clone(),
        log: ctx.log.clone(),
        in_force: RwLock::new(in_force),
        executor: Arc::new(executor),
        proposals,
        trouble: Mutex::default(),
        cursor: AtomicU64::new(ctx.ledger.events().head()),
    });
    let own = Arc::clone(&shared);
    ctx.supervisor.start(ChildSpec::module(ID.as_str()), move || Proposing::new(Arc::clone(&own)));
    Ok(Box::new(Running { shared, supervisor: ctx.supervisor.clone() }))
}

/// The module as it runs.
struct Running {
    shared: Arc<Shared>,
    supervisor: Supervisor,
}

/// How long the gate may take to let go of the catalogue: it has it at once, and then looks at what waits.
const LETTING_GO: Duration = Duration::from_secs(2);

impl Module for Running {
    /// Takes the catalogue away: from then on an execution is refused before its token is used up.
    fn stop(&self) -> BoxFuture<'static, ()> {
        let (supervisor, shared) = (self.supervisor.clone(), Arc::clone(&self.shared));
        Box::pin(async move {
            // first, or its restart would offer the catalogue again
            supervisor.stop(ID.as_str()).await;
            if let Ok(Err(error)) = tokio::time::timeout(LETTING_GO, shared.gate.set_catalogue(None)).await {
                slog::debug!(shared.log, "the gate did not answer when the catalogue was taken away"; "error" => %error);
            }
        })
    }

    fn reconfigure(&self, config: Value) -> BoxFuture<'static, Result<Applied, ModuleError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let config: SafeConfig = serde_json::from_value(config).map_err(|error| ModuleError::Failed(error.to_string()))?;
            let wanted = InForce::new(&config).map_err(|problems| {
                let first = problems.first().map(|problem| format!("{}: {}", problem.pointer, problem.message));
                ModuleError::Failed(first.unwrap_or_default())
            })?;
            if wanted.max_runs != shared.in_force.read().max_runs {
                return Ok(Applied::NeedsRestart);
            }
            let catalogue = Arc::clone(&wanted.catalogue);
            let before = std::mem::replace(&mut *shared.in_force.write(), wanted);
            // first: the limits are a part of what was approved
            let limits = shared.executor.set_limits(run_limits(&config));
            // it is in force at once; what was approved by another definition is revoked before this returns
            if let Err(error) = shared.gate.set_catalogue(Some(catalogue)).await {
                *shared.in_force.write() = before;
                shared.executor.set_limits(limits);
                slog::warn!(shared.log, "the gate did not take the new catalogue"; "error" => %error);
                return Err(ModuleError::Unavailable);
            }
            Ok(Applied::InPlace)
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
