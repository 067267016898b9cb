//! `enricher.topology` knows which component depends on which: from the configuration, from people through the API, and
//! from signals that name a peer, a call or an owner. Whoever needs the graph reads it from the module's context.
//!
//! Its actor is a [`Follower`] around the learner.
//!
//! | Consumes   | signals and ticks of the signal log, by a cursor                                                |
//! | Emits      | nothing; it publishes the graph                                                                 |
//! | Keeps      | the edges that signals showed (cache; snapshots are the truth), what people said (their tables) |
//! | On restart | publishes what is stored, reads on behind its cursor                                            |

mod config;
mod evidence;
mod ground;
mod learn;
mod learned;
mod metrics;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use opspilot_kernel::{
    ids::DeadLetterId,
    module::ModuleId,
    principal::Actor,
    topology::{About, ComponentName, Graph},
};
use opspilot_ledger::{Ledger, LedgerError, Priority, StatedTopology};
use opspilot_runtime::{
    Applied, ChildSpec, Entry, Follower, FollowerOptions, Handle, Module, ModuleContext, ModuleError, ModuleSpec, Reconfigure, Requeue,
    StartError, Supervisor, TopologyView, follow,
};
use prometheus::Registry;

pub use self::config::{Config, Dependent, Details, LabelPair};
use self::{ground::Ground, learn::Learner, metrics::Metrics};

/// `enricher.topology`.
pub const ID: ModuleId = ModuleId::new("enricher.topology");

/// The registry's entry.
pub(crate) const ENTRY: Entry = Entry::of::<Spec>();

/// How long the learner may take to come to a point between two commits.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why people's part of the graph was not replaced.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReplaceError {
    /// There is no room for so much.
    #[error("{0}")]
    TooMuch(String),
    /// It could not be stored, or somebody replaced it meanwhile.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The started module.
pub struct Topology {
    handle: Handle<Follower<Learner>>,
    supervisor: Supervisor,
    desk: TopologyDesk,
    make: Arc<dyn Fn() -> Learner + Send + Sync>,
}

/// What people are shown of the graph, and where they replace their part of it.
#[derive(Clone)]
pub struct TopologyDesk {
    ground: Arc<Ground>,
    ledger: Ledger,
}

impl fmt::Debug for TopologyDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopologyDesk").finish_non_exhaustive()
    }
}

impl TopologyDesk {
    /// Publishes at `view` what is configured and what is stored, and what people replace from now on.
    pub fn open(ledger: Ledger, view: TopologyView, registry: &Registry, config: Config) -> Result<TopologyDesk, StartError> {
        let metrics = Metrics::register(registry).map_err(|error| StartError::Failed(error.to_string()))?;
        let ground = Arc::new(Ground::new(view, metrics, config));
        // here and not in the actor: whoever is started after this finds the graph
        let stored = ledger.read_blocking(|reader| Ok((reader.topology()?, reader.snapshots(ID.as_str())?)));
        let (stated, snapshots) = stored.map_err(|error| StartError::Failed(format!("the stored graph cannot be read: {error}")))?;
        ground.begin(stated, snapshots.iter().filter_map(learn::stored).collect());
        Ok(TopologyDesk { ground, ledger })
    }

    /// The graph.
    pub fn graph(&self) -> Arc<Graph> {
        self.ground.graph()
    }

    /// The revision of people's part of it.
    pub fn revision(&self) -> u64 {
        self.ground.revision()
    }

    /// Replaces people's part of the graph, if it is at the revision `expected` or that does not matter; gives its revision.
    pub async fn replace(
        &self,
        components: BTreeMap<ComponentName, About>,
        edges: BTreeSet<(ComponentName, ComponentName)>,
        expected: Option<u64>,
        by: Actor,
    ) -> Result<u64, ReplaceError> {
        let mut wanted = StatedTopology { revision: 0, components, edges };
        self.ground.fits(&wanted).map_err(ReplaceError::TooMuch)?;
        let written = self.ledger.write(Priority::Control, move |tx| {
            wanted.revision = tx.topology_replace(&by, expected, &wanted.components, &wanted.edges)?;
            Ok(wanted)
        });
        let stated = written.await?;
        let revision = stated.revision;
        self.ground.state(stated);
        Ok(revision)
    }
}

impl Topology {
    fn start(ctx: &ModuleContext, config: Config) -> Result<Topology, StartError> {
        let desk = TopologyDesk::open(ctx.ledger.clone(), ctx.topology.clone(), &ctx.registry, config)?;
        let (of, log) = (Arc::clone(&desk.ground), ctx.log.clone());
        let make: Arc<dyn Fn() -> Learner + Send + Sync> = Arc::new(move || Learner::new(Arc::clone(&of), log.clone()));
        let own = Arc::clone(&make);
        let handle = follow(ctx, ChildSpec::module(ID.as_str()).on_own_arbiter(), FollowerOptions::default(), move || own());
        Ok(Topology { handle, supervisor: ctx.supervisor.clone(), desk, make })
    }

    /// What people are shown, and where they replace it.
    pub fn desk(&self) -> TopologyDesk {
        self.desk.clone()
    }
}

impl Module for Topology {
    fn stop(&self) -> BoxFuture<'static, ()> {
        let (supervisor, ground) = (self.supervisor.clone(), Arc::clone(&self.desk.ground));
        Box::pin(async move {
            supervisor.stop(ID.as_str()).await;
            // nobody goes by a graph that nobody keeps up
            ground.withdraw();
        })
    }

    fn reconfigure(&self, config: serde_json::Value) -> BoxFuture<'static, Result<Applied, ModuleError>> {
        let (handle, ground, make) = (self.handle.clone(), Arc::clone(&self.desk.ground), Arc::clone(&self.make));
        Box::pin(async move {
            let config: Config = serde_json::from_value(config).map_err(|error| ModuleError::Failed(error.to_string()))?;
            let before = ground.configure(config);
            let changed = handle.ask(Reconfigure::new(move || make()), DEADLINE).await;
            if !matches!(changed, Ok(Ok(()))) {
                ground.configure(Config::clone(&before));
                return Err(ModuleError::Unavailable);
            }
            Ok(Applied::InPlace)
        })
    }

    fn requeue(&self, letter: DeadLetterId) -> BoxFuture<'static, Result<(), ModuleError>> {
        let handle = self.handle.clone();
        Box::pin(async move {
            let tried = handle.ask(Requeue(letter), DEADLINE).await.map_err(|_| ModuleError::Unavailable)?;
            tried.map_err(|error| ModuleError::Failed(error.to_string()))
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct Spec;

impl ModuleSpec for Spec {
    const ID: ModuleId = ID;
    const SUMMARY: &'static str = "knows which component depends on which: from the configuration, from people and from signals";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, config: Config) -> Result<Box<dyn Module>, StartError> {
        Ok(Box::new(Topology::start(ctx, config)?))
    }
}
