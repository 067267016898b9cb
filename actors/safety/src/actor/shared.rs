//! What all calls share: the ledger, the clock, the key, the configuration in force, and what runs just now.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use opspilot_kernel::{clock::SharedClock, ids::ExecutionId, plan::Executor};
use opspilot_ledger::Ledger;
use opspilot_runtime::{ChildSpec, Supervisor};
use parking_lot::{Mutex, RwLock};

use super::ApprovalActor;
use crate::{
    catalogue::Catalogue,
    gate::{Gate, Offer},
    permit::Execute,
    policy::Policy,
};

/// What a gate is opened with.
pub struct GateOptions {
    /// The data directory: the key lies in `keys/approval.key`.
    pub dir: PathBuf,
    /// The one source of truth.
    pub ledger: Ledger,
    /// The clock.
    pub clock: SharedClock,
    /// Where to log.
    pub log: slog::Logger,
    /// Where to register metrics.
    pub registry: prometheus::Registry,
    /// Supervises the actor: in the group `actions`.
    pub supervisor: Supervisor,
    /// The policy in force.
    pub policy: Policy,
}

/// Why the gate cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A metric.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The ledger does not answer.
    #[error("the ledger does not answer: {0}")]
    Ledger(#[from] opspilot_ledger::LedgerError),
}

/// The configuration in force.
#[derive(Default)]
struct Rules {
    catalogue: Option<Arc<Catalogue>>,
    policy: Arc<Policy>,
}

pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    pub(crate) clock: SharedClock,
    pub(crate) log: slog::Logger,
    rules: RwLock<Rules>,
    executors: RwLock<HashMap<Executor, Arc<dyn Execute>>>,
    /// What this process carries out; everything else that is unfinished was cut off.
    running: Mutex<BTreeSet<ExecutionId>>,
}

impl Shared {
    pub(crate) fn put_catalogue(&self, catalogue: Option<Arc<Catalogue>>) {
        self.rules.write().catalogue = catalogue;
    }

    pub(crate) fn put_policy(&self, policy: Policy) {
        self.rules.write().policy = Arc::new(policy);
    }

    pub(crate) fn put_executor(&self, kind: Executor, executor: Arc<dyn Execute>) {
        self.executors.write().insert(kind, executor);
    }

    pub(crate) fn executor(&self, kind: Executor) -> Option<Arc<dyn Execute>> {
        self.executors.read().get(&kind).cloned()
    }

    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.rules.read().policy)
    }

    pub(crate) fn offer(&self) -> Option<Offer> {
        let rules = self.rules.read();
        Some(Offer { catalogue: Arc::clone(rules.catalogue.as_ref()?), policy: Arc::clone(&rules.policy) })
    }

    pub(crate) fn running(&self) -> usize {
        self.running.lock().len()
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.is_clock_behind()
            .then(|| "the clock is behind a time that was already: nothing is approved or executed (opspilot clock accept)".to_owned())
    }

    pub(crate) fn is_clock_behind(&self) -> bool {
        self.clock.regression().max(self.ledger.clock_regression()).is_some()
    }
}

impl Gate {
    /// Opens the gate and starts its actor.
    pub fn open(options: GateOptions) -> Result<Gate, OpenError> {
        let GateOptions { dir: _, ledger, clock, log, registry: _, supervisor, policy } = options;
        let shared = Arc::new(Shared {
            ledger,
            clock,
            log,
            rules: RwLock::new(Rules { catalogue: None, policy: Arc::new(policy) }),
            executors: RwLock::default(),
            running: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        let actor = supervisor.start(ChildSpec::core("core.approvals"), move || ApprovalActor::new(Arc::clone(&own)));
        Ok(Gate { actor, shared })
    }
}
