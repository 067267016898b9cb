//! `enricher.aiSummary` explains incidents: what, since when, how much, what else changed, what likely caused it, what to do.
//!
//! The provider `deterministic` is rules of our own: no model, no network, the same evidence gives the same words.
//!
//! | Consumes   | `incident.created` and `incident.updated`, by cursor; [`Explain`] from people                      |
//! | Emits      | explanations, with what they cite; `enrichment.completed`; a line in the incident's timeline       |
//! | Keeps      | which incidents wait and when each was explained (cache)                                           |
//! | On restart | reads on behind its cursor, which stands before whatever was not explained; what was is skipped    |
//!
//! An explanation is made in five steps, each a file: *gather* reads the signals around the incident, nearest first, within a budget;
//! *pack* sums them up in bounded memory; *changes* finds what was not as usual, by medians; *causes* ranks components;
//! *explain* words it and *verify* drops what cannot be made again from the evidence that it cites. Whatever is
//! missing, the incident gets an explanation that says so (`degraded`), and nothing ever waits for one.

mod causes;
mod changes;
mod config;
mod explain;
mod gather;
mod memory;
mod metrics;
mod pack;
mod run;
mod say;
mod stats;
#[cfg(test)]
mod tests;
mod verify;
mod words;

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use futures_util::future::BoxFuture;
use opspilot_kernel::{
    ids::{IncidentId, Seq},
    lifecycle::{Drain, Heartbeat, Pulse},
    module::ModuleId,
    principal::Actor as Doer,
};
use opspilot_ledger::Ledger;
use opspilot_runtime::{
    Applied, AskError, ChildSpec, Entry, Handle, Module, ModuleContext, ModuleError, ModuleSpec, StartError, Supervisor,
};
use tokio::sync::{mpsc, oneshot, watch};

use self::metrics::Metrics;
pub use self::{
    config::{Config, Runbook},
    memory::Offered,
};

/// `enricher.aiSummary`.
pub const ID: ModuleId = ModuleId::new("enricher.aiSummary");

/// The registry's entry.
pub(crate) const ENTRY: Entry = Entry::of::<Spec>();

/// People that may wait for an explanation; further ones are refused.
const ASKS: usize = 64;
/// How long whoever asks waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says which actions may be suggested just now.
type Catalogue = Arc<dyn Fn() -> Vec<Offered> + Send + Sync>;

/// What outlives a restart.
#[derive(Clone)]
struct Deps {
    ledger: Ledger,
    log: slog::Logger,
    metrics: Metrics,
    config: Arc<RwLock<Arc<Config>>>,
    actions: Arc<RwLock<Catalogue>>,
    /// Every event up to here is done with.
    position: watch::Sender<Seq>,
}

impl Deps {
    fn config(&self) -> Arc<Config> {
        // one that was put in whole is whole, whatever happened to whoever held the lock
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn actions(&self) -> Vec<Offered> {
        let catalogue = Arc::clone(&self.actions.read().unwrap_or_else(PoisonError::into_inner));
        catalogue()
    }
}

/// What the loop shows to the actor.
struct Shown {
    trouble: Mutex<Option<String>>,
    pending: AtomicUsize,
    finished: watch::Sender<bool>,
}

/// Somebody wants an incident explained again.
struct Ask {
    incident: IncidentId,
    by: Doer,
    answer: oneshot::Sender<Result<(), ExplainError>>,
}

/// Why an incident was not explained.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// There is no such incident.
    #[error("{0}")]
    NotFound(String),
    /// Not now.
    #[error("the incident cannot be explained just now: {0}")]
    Unavailable(String),
}

/// "Explain this incident again": answered when that is stored.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<(), ExplainError>")]
struct Explain {
    incident: IncidentId,
    by: Doer,
}

struct State {
    shown: Arc<Shown>,
    stopping: watch::Sender<bool>,
    asks: Option<mpsc::Sender<Ask>>,
}

impl Default for State {
    fn default() -> State {
        let shown = Shown { trouble: Mutex::default(), pending: AtomicUsize::new(0), finished: watch::Sender::new(false) };
        State { shown: Arc::new(shown), stopping: watch::Sender::new(false), asks: None }
    }
}

/// The actor. Its loop runs as a future of its own context, on its own thread, so that a panic in it is the actor's.
struct Explainer {
    deps: Deps,
    state: State,
}

impl Actor for Explainer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (asks, asked) = mpsc::channel(ASKS);
        self.state.asks = Some(asks);
        let run = run::Run::new(self.deps.clone(), Arc::clone(&self.state.shown), self.state.stopping.subscribe(), asked);
        ctx.spawn(run.follow().into_actor(self));
    }
}

impl Supervised for Explainer {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.state = State::default();
    }
}

impl Handler<Heartbeat> for Explainer {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        let trouble = self.state.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        MessageResult(Pulse { queue: self.state.shown.pending.load(Ordering::Relaxed), trouble })
    }
}

impl Handler<Drain> for Explainer {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) -> ResponseFuture<()> {
        self.state.stopping.send_replace(true);
        let mut finished = self.state.shown.finished.subscribe();
        Box::pin(async move {
            // an error means that the loop is gone, and with it whatever it could finish
            drop(finished.wait_for(|finished| *finished).await);
        })
    }
}

impl Handler<Explain> for Explainer {
    type Result = ResponseFuture<Result<(), ExplainError>>;

    fn handle(&mut self, Explain { incident, by }: Explain, _: &mut Context<Self>) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        let sent = self.state.asks.as_ref().map(|asks| asks.try_send(Ask { incident, by, answer }));
        Box::pin(async move {
            let busy = || ExplainError::Unavailable("too many ask at once".to_owned());
            match sent {
                Some(Ok(())) => answered.await.unwrap_or_else(|_| Err(ExplainError::Unavailable("it is being restarted".to_owned()))),
                Some(Err(_)) | None => Err(busy()),
            }
        })
    }
}

/// The started module.
pub struct AiSummary {
    handle: Handle<Explainer>,
    supervisor: Supervisor,
    deps: Deps,
}

impl fmt::Debug for AiSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AiSummary").finish_non_exhaustive()
    }
}

impl AiSummary {
    fn start(ctx: &ModuleContext, config: Config) -> Result<AiSummary, StartError> {
        let metrics = Metrics::register(&ctx.registry).map_err(|error| StartError::Failed(error.to_string()))?;
        let deps = Deps {
            ledger: ctx.ledger.clone(),
            log: ctx.log.clone(),
            metrics,
            config: Arc::new(RwLock::new(Arc::new(config))),
            actions: Arc::new(RwLock::new(Arc::new(Vec::new))),
            position: watch::Sender::new(0),
        };
        let own = deps.clone();
        let spec = ChildSpec::module(ID.as_str()).on_own_arbiter();
        let handle = ctx.supervisor.start(spec, move || Explainer { deps: own.clone(), state: State::default() });
        Ok(AiSummary { handle, supervisor: ctx.supervisor.clone(), deps })
    }

    /// Explains an incident again; done when that is stored.
    pub fn explain(&self, incident: IncidentId, by: Doer) -> impl Future<Output = Result<(), ExplainError>> + Send + use<> {
        let handle = self.handle.clone();
        async move {
            let answer = handle.ask(Explain { incident, by }, PATIENCE).await;
            answer.unwrap_or_else(|error: AskError| Err(ExplainError::Unavailable(error.to_string())))
        }
    }

    /// From now on `catalogue` is asked, with each explanation, which actions may be suggested.
    pub fn suggest_from(&self, catalogue: impl Fn() -> Vec<Offered> + Send + Sync + 'static) {
        *self.deps.actions.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
    }

    /// Tells how far the events are done with.
    #[cfg(test)]
    fn position(&self) -> watch::Receiver<Seq> {
        self.deps.position.subscribe()
    }
}

impl Module for AiSummary {
    fn stop(&self) -> BoxFuture<'static, ()> {
        let supervisor = self.supervisor.clone();
        Box::pin(async move {
            supervisor.stop(ID.as_str()).await;
        })
    }

    fn reconfigure(&self, config: serde_json::Value) -> BoxFuture<'static, Result<Applied, ModuleError>> {
        let read = serde_json::from_value::<Config>(config).map_err(|error| ModuleError::Failed(error.to_string()));
        let applied = read.map(|config| {
            *self.deps.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
            Applied::InPlace
        });
        Box::pin(async move { applied })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Spec;

impl ModuleSpec for Spec {
    const ID: ModuleId = ID;
    const SUMMARY: &'static str = "explains incidents: what changed around them, what likely caused them, what to do next";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, config: Config) -> Result<Box<dyn Module>, StartError> {
        Ok(Box::new(AiSummary::start(ctx, config)?))
    }
}
