//! The one consumer of the alert log: reads a batch and the state it can touch, asks the stages, and commits
//! what they decide in one transaction.
//!
//! | Consumes   | the alert log, by cursor: records and ticks                                        |
//! | Emits      | `incident.created`, `incident.updated`, with the changes they tell of              |
//! | Keeps      | its place in the log (cache), and outside of itself how often it failed there      |
//! | On restart | reads its cursor; what was not committed is decided again, with the same outcome   |
//!
//! Nothing is committed before every stage has answered, and only if nothing it was decided on has moved:
//! after a person's change in between, the batch is read and decided again. A batch that fails three times
//! is looked at carefully: the entry it fails on is set aside as a dead letter, its neighbours go on. What ended the
//! process leaves a mark in the ledger: at the next start that range is taken one entry at a time, and an entry that ends
//! the process three times is set aside too.

mod metrics;
mod run;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use actix::prelude::*;
use opspilot_kernel::{
    ids::{DeadLetterId, Seq},
    lifecycle::{Drain, Heartbeat, Pulse},
    module::ModuleId,
};
use opspilot_ledger::Ledger;
use opspilot_runtime::{ChildSpec, Handle, Health, ModuleContext, Requeue, RequeueError, Ticker};
use tokio::sync::{mpsc, oneshot, watch};

use self::metrics::Metrics;
use crate::stage_actor::Stages;

/// The pipeline's name: in health, as the owner of its cursor, and on its dead letters.
pub const ID: ModuleId = ModuleId::new("core.pipeline");

/// Letters that may wait to be tried again; further ones are refused.
const REQUEUES: usize = 64;

/// Starts the pipeline over `stages`. The service cannot do without it: its failures are its group's.
pub fn start(ctx: &ModuleContext, stages: Stages) -> Result<Handle<Pipeline>, prometheus::Error> {
    Ok(start_watched(ctx, stages)?.0)
}

/// The same; also tells how far it has read and committed.
fn start_watched(ctx: &ModuleContext, stages: Stages) -> Result<(Handle<Pipeline>, watch::Receiver<Seq>), prometheus::Error> {
    let (cursor, position) = watch::channel(0);
    let deps = Deps {
        ledger: ctx.ledger.clone(),
        ticker: ctx.ticker.clone(),
        health: ctx.health.clone(),
        backlog: ctx.ledger.alerts().head(),
        log: ctx.log.new(slog::o!("module" => ID.as_str())),
        metrics: Metrics::register(&ctx.registry)?,
        strikes: Arc::default(),
        cursor,
        stages,
    };
    let spec = ChildSpec::core(ID.as_str()).on_own_arbiter();
    Ok((ctx.supervisor.start(spec, move || Pipeline::new(deps.clone())), position))
}

/// What outlives a restart.
#[derive(Clone)]
struct Deps {
    ledger: Ledger,
    ticker: Ticker,
    health: Health,
    /// The newest entry when the process started: up to here an attempt is counted in the ledger before it is made, for
    /// whatever is there may be what ended the process before.
    backlog: Seq,
    log: slog::Logger,
    metrics: Metrics,
    strikes: Arc<Mutex<Strikes>>,
    /// Everything up to here is committed.
    cursor: watch::Sender<Seq>,
    stages: Stages,
}

/// How often the range that is being read failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Strikes {
    first: Seq,
    last: Seq,
    count: u32,
    /// Up to here entries are taken one at a time.
    alone_until: Seq,
}

/// What the loop shows to the actor.
struct Shown {
    trouble: Mutex<Option<String>>,
    finished: watch::Sender<bool>,
}

struct State {
    shown: Arc<Shown>,
    stopping: watch::Sender<bool>,
    requeue: Option<mpsc::Sender<Letter>>,
}

/// A letter to be tried again, and where to say how that went.
struct Letter {
    id: DeadLetterId,
    answer: oneshot::Sender<Result<(), RequeueError>>,
}

impl Default for State {
    fn default() -> State {
        let shown = Shown { trouble: Mutex::default(), finished: watch::Sender::new(false) };
        State { shown: Arc::new(shown), stopping: watch::Sender::new(false), requeue: None }
    }
}

/// The actor. Its loop runs as a future of its own context, so that a panic in it is the actor's.
pub struct Pipeline {
    deps: Deps,
    state: State,
}

impl Pipeline {
    fn new(deps: Deps) -> Pipeline {
        Pipeline { deps, state: State::default() }
    }
}

impl Actor for Pipeline {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (requeue, letters) = mpsc::channel(REQUEUES);
        self.state.requeue = Some(requeue);
        let stopping = self.state.stopping.subscribe();
        let run = run::Run::new(self.deps.clone(), Arc::clone(&self.state.shown), stopping, letters);
        ctx.spawn(run.follow().into_actor(self));
    }
}

impl Supervised for Pipeline {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.state = State::default();
    }
}

impl Handler<Heartbeat> for Pipeline {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        let behind = self.deps.ledger.alerts().head().saturating_sub(*self.deps.cursor.borrow());
        let trouble = self.state.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        MessageResult(Pulse { queue: usize::try_from(behind).unwrap_or(usize::MAX), trouble })
    }
}

impl Handler<Drain> for Pipeline {
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

impl Handler<Requeue> for Pipeline {
    type Result = ResponseFuture<Result<(), RequeueError>>;

    fn handle(&mut self, Requeue(id): Requeue, _: &mut Context<Self>) -> Self::Result {
        let (answer, answered) = oneshot::channel();
        let sent = self.state.requeue.as_ref().map(|requeue| requeue.try_send(Letter { id, answer }));
        Box::pin(async move {
            match sent {
                Some(Ok(())) => answered.await.unwrap_or(Err(RequeueError::Unavailable)),
                Some(Err(_)) | None => Err(RequeueError::Unavailable),
            }
        })
    }
}
