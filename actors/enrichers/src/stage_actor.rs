//! The actor behind every stage: decides, and holds nothing between two questions.
//!
//! | Consumes   | [`Decide`]: entries of the alert log with the state they can touch        |
//! | Emits      | nothing: the answer says what was decided; the pipeline commits it        |
//! | Keeps      | nothing                                                                   |
//! | On restart | is ready at once; the pipeline asks again what was not answered           |

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, RwLock},
    time::Duration,
};

use actix::prelude::*;
use futures_util::future::{BoxFuture, LocalBoxFuture};
use opspilot_kernel::{
    lifecycle::{Drain, Heartbeat, Pulse},
    module::ModuleId,
};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{Board, BoardRequest, Decision, Sweep},
};
use opspilot_runtime::{Applied, AskError, ChildSpec, Handle, Module, ModuleContext, ModuleError, Phase, Supervisor};

use crate::{incident_store::desk::Effects, silence::judge::Rules, stage::Item};

/// How long a stage may take for one batch.
const DEADLINE: Duration = Duration::from_secs(30);

/// A question to a stage.
#[derive(Debug, Clone)]
pub struct Decide {
    /// The state that the entries can touch, as it stood before the first of them.
    pub board: Arc<Board>,
    /// The entries, with what the stages before found.
    pub items: Vec<Item>,
    /// Whether to find out which entry the stage fails on instead of failing: asked after repeated failures.
    pub careful: bool,
}

impl Message for Decide {
    type Result = Result<Answer, Poisoned>;
}

/// What a stage decided.
#[derive(Debug, Default)]
pub struct Answer {
    /// The entries, with what the stage found added.
    pub items: Vec<Item>,
    /// What changes; none from a stage that only judges.
    pub effects: Option<Effects>,
    /// How far alerts that fire were looked at, if that changed.
    pub sweep: Option<Sweep>,
    /// Why.
    pub decisions: Vec<Decision>,
}

/// The stage cannot get past one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poisoned {
    /// Which of the entries, counted from 0.
    pub index: usize,
}

/// A stage's logic: pure, so that the same entries on the same state always give the same answer.
pub trait Decider: Send + Sync + 'static {
    /// The module's name.
    const ID: ModuleId;

    /// Decides on `items`.
    fn decide(&self, board: &Board, items: Vec<Item>) -> Answer;

    /// What it has to find on the board besides the alerts, fingerprints and incidents that `entries` name.
    fn reads(&self, _entries: &[AlertEntry], _request: &mut BoardRequest) {}

    /// What it holds alerts back by, if that is what it does.
    fn holds_back(&self) -> Option<&Rules> {
        None
    }
}

/// The actor; its decider can be exchanged under it when the configuration changes.
pub(crate) struct StageActor<D> {
    decider: Arc<RwLock<Arc<D>>>,
}

impl<D: Decider> Actor for StageActor<D> {
    type Context = Context<Self>;
}

impl<D: Decider> Supervised for StageActor<D> {
    fn restarting(&mut self, _: &mut Context<Self>) {}
}

impl<D: Decider> Handler<Decide> for StageActor<D> {
    type Result = MessageResult<Decide>;

    fn handle(&mut self, question: Decide, _: &mut Context<Self>) -> MessageResult<Decide> {
        let decider = current(&self.decider);
        let Decide { board, items, careful } = question;
        MessageResult(if careful { carefully(&*decider, &board, items) } else { Ok(decider.decide(&board, items)) })
    }
}

impl<D: Decider> Handler<Heartbeat> for StageActor<D> {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        MessageResult(Pulse::default())
    }
}

impl<D: Decider> Handler<Drain> for StageActor<D> {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {}
}

/// Decides, and if that panics finds the first entry without which it does not. An entry can be
/// decided on without those behind it, so the longest part from the front that works ends before it.
fn carefully<D: Decider>(decider: &D, board: &Board, items: Vec<Item>) -> Result<Answer, Poisoned> {
    let attempt = |part: &[Item]| catch_unwind(AssertUnwindSafe(|| decider.decide(board, part.to_vec()))).ok();
    if let Some(answer) = attempt(&items) {
        return Ok(answer);
    }
    let (mut works, mut fails) = (0, items.len());
    while fails - works > 1 {
        let middle = works.midpoint(fails);
        match items.get(..middle).and_then(&attempt) {
            Some(_) => works = middle,
            None => fails = middle,
        }
    }
    Err(Poisoned { index: works })
}

fn current<D>(decider: &RwLock<Arc<D>>) -> Arc<D> {
    // a decider that was put in whole is whole, whatever happened to whoever held the lock
    let guard = decider.read().unwrap_or_else(std::sync::PoisonError::into_inner);
    Arc::clone(&guard)
}

/// A stage as the pipeline sees it.
pub trait Stage: Send + Sync {
    /// The module's name.
    fn id(&self) -> ModuleId;

    /// Asks it.
    fn ask(&self, question: Decide) -> LocalBoxFuture<'static, Result<Result<Answer, Poisoned>, AskError>>;

    /// Adds to `request` what it has to find on the board to decide on `entries`.
    fn reads(&self, _entries: &[AlertEntry], _request: &mut BoardRequest) {}

    /// Where its actor stands.
    fn phase(&self) -> Phase;

    /// What it holds alerts back by, if that is what it does.
    fn holds_back(&self) -> Option<Rules> {
        None
    }
}

struct Asked<D: Decider> {
    handle: Handle<StageActor<D>>,
    decider: Arc<RwLock<Arc<D>>>,
}

impl<D: Decider> Stage for Asked<D> {
    fn id(&self) -> ModuleId {
        D::ID
    }

    fn ask(&self, question: Decide) -> LocalBoxFuture<'static, Result<Result<Answer, Poisoned>, AskError>> {
        let handle = self.handle.clone();
        Box::pin(async move { handle.ask(question, DEADLINE).await })
    }

    fn reads(&self, entries: &[AlertEntry], request: &mut BoardRequest) {
        current(&self.decider).reads(entries, request);
    }

    fn phase(&self) -> Phase {
        self.handle.phase()
    }

    fn holds_back(&self) -> Option<Rules> {
        current(&self.decider).holds_back().cloned()
    }
}

/// A started stage: the module that the root holds, and through which it finds the stage.
pub struct StageModule {
    id: ModuleId,
    stage: Arc<dyn Stage>,
    supervisor: Supervisor,
    reconfigure: Box<dyn Fn(serde_json::Value) -> Result<(), ModuleError> + Send + Sync>,
}

impl fmt::Debug for StageModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageModule").field("id", &self.id).finish_non_exhaustive()
    }
}

impl StageModule {
    /// Starts the actor of a stage. `read` makes a decider of a checked section of the configuration.
    pub(crate) fn start<D: Decider>(
        ctx: &ModuleContext,
        decider: D,
        read: impl Fn(serde_json::Value) -> Result<D, serde_json::Error> + Send + Sync + 'static,
    ) -> StageModule {
        let decider = Arc::new(RwLock::new(Arc::new(decider)));
        let own = Arc::clone(&decider);
        let handle = ctx.supervisor.start(ChildSpec::module(D::ID.as_str()), move || StageActor { decider: Arc::clone(&own) });
        let stage = Arc::new(Asked { handle, decider: Arc::clone(&decider) });
        let reconfigure = move |section| {
            let fresh = read(section).map_err(|error| ModuleError::Failed(error.to_string()))?;
            *decider.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(fresh);
            Ok(())
        };
        StageModule { id: D::ID, stage, supervisor: ctx.supervisor.clone(), reconfigure: Box::new(reconfigure) }
    }

    /// A module over a stage that a test made.
    #[cfg(test)]
    pub(crate) fn over(ctx: &ModuleContext, stage: Arc<dyn Stage>) -> StageModule {
        let reconfigure = Box::new(|_| Ok(()));
        StageModule { id: stage.id(), stage, supervisor: ctx.supervisor.clone(), reconfigure }
    }

    /// What the pipeline asks.
    pub fn stage(&self) -> Arc<dyn Stage> {
        Arc::clone(&self.stage)
    }
}

impl Module for StageModule {
    fn stop(&self) -> BoxFuture<'static, ()> {
        let (supervisor, id) = (self.supervisor.clone(), self.id);
        Box::pin(async move {
            supervisor.stop(id.as_str()).await;
        })
    }

    fn reconfigure(&self, config: serde_json::Value) -> BoxFuture<'static, Result<Applied, ModuleError>> {
        let applied = (self.reconfigure)(config).map(|()| Applied::InPlace);
        Box::pin(async move { applied })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The stages that run now, in the order in which they were declared.
#[derive(Clone, Default)]
pub struct Stages {
    places: Arc<RwLock<Vec<Place>>>,
}

struct Place {
    id: ModuleId,
    stage: Option<Arc<dyn Stage>>,
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.running().iter().map(|stage| stage.id().as_str()).collect();
        f.debug_tuple("Stages").field(&ids).finish()
    }
}

impl Stages {
    /// Places for the stages `order`, all of them empty.
    pub fn in_order(order: &[ModuleId]) -> Stages {
        let places = order.iter().map(|id| Place { id: *id, stage: None }).collect();
        Stages { places: Arc::new(RwLock::new(places)) }
    }

    /// Puts a started module into its place; false if it is no stage or has no place.
    pub fn plug(&self, module: &dyn Module) -> bool {
        let Some(module) = module.as_any().downcast_ref::<StageModule>() else { return false };
        let mut places = self.places.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let place = places.iter_mut().find(|place| place.id == module.id);
        place.map(|place| place.stage = Some(module.stage())).is_some()
    }

    /// Empties the place of a module that was switched off: alerts pass it unchanged.
    pub fn unplug(&self, id: ModuleId) {
        let mut places = self.places.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(place) = places.iter_mut().find(|place| place.id == id) {
            place.stage = None;
        }
    }

    /// The stages to ask, in order.
    pub fn running(&self) -> Vec<Arc<dyn Stage>> {
        let places = self.places.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        places.iter().filter_map(|place| place.stage.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::record;
    use opspilot_kernel::alert::Transition;

    struct Picky;

    impl Decider for Picky {
        const ID: ModuleId = ModuleId::new("enricher.picky");

        fn decide(&self, _: &Board, items: Vec<Item>) -> Answer {
            assert!(!items.iter().any(|item| item.entry.seq() == 6 || item.entry.seq() == 8), "poison");
            Answer { items, ..Answer::default() }
        }
    }

    #[test]
    fn asked_to_be_careful_a_stage_names_the_first_entry_it_fails_on() {
        let items = |seqs: std::ops::Range<u64>| -> Vec<Item> {
            let entry = |seq| AlertEntry::Record { seq, record: Arc::new(record("disk", Transition::Firing, 0)) };
            seqs.map(|seq| Item::new(entry(seq))).collect()
        };
        let board = Board::default();
        assert_eq!(carefully(&Picky, &board, items(1..10)).map(|_| ()), Err(Poisoned { index: 5 }));
        assert_eq!(carefully(&Picky, &board, items(6..7)).map(|_| ()), Err(Poisoned { index: 0 }));
        assert_eq!(carefully(&Picky, &board, items(1..6)).map(|answer| answer.items.len()), Ok(5));
    }
}
