//! What all calls share: the ledger, the clock, the key, the configuration in force, and what runs just now.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use opspilot_kernel::{clock::SharedClock, ids::ExecutionId, plan::Executor, principal::Actor};
use opspilot_ledger::{KeyError, KeyFile, KeyPurpose, Ledger, Priority, StoredPlan};
use opspilot_runtime::{ChildSpec, Supervisor};
use parking_lot::{Mutex, RwLock};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::Notify;

use super::ApprovalActor;
use crate::{
    catalogue::Catalogue,
    facts::{Facts, Needs},
    gate::{Gate, GateError, Offer},
    permit::Execute,
    policy::Policy,
    render::render,
    token::{Bad, Tokens},
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
    pub registry: Registry,
    /// Supervises the actor: the one of the group `actions`.
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
    /// The key that signs approvals, or the one that hides values.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The ledger does not answer.
    #[error("the ledger does not answer: {0}")]
    Ledger(#[from] opspilot_ledger::LedgerError),
    /// The key does not sign.
    #[error("the approval key does not sign")]
    Unsigned,
}

/// The configuration in force.
#[derive(Default)]
struct Rules {
    catalogue: Option<Arc<Catalogue>>,
    policy: Arc<Policy>,
}

/// What the gate counts.
pub(crate) struct Metrics {
    pub(crate) pending: IntGauge,
    pub(crate) running: IntGauge,
    pub(crate) proposals: IntCounterVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) executions: IntCounterVec,
    pub(crate) start_seconds: Histogram,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        fn known<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
            registry.register(Box::new(collector.clone()))?;
            Ok(collector)
        }
        let buckets = vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
        let start = HistogramOpts::new("opspilot_approvals_start_seconds", "Time from a token's arrival to the start of its run.");
        Ok(Metrics {
            pending: known(registry, IntGauge::new("opspilot_approvals_pending", "Proposals that wait for people.")?)?,
            running: known(registry, IntGauge::new("opspilot_executions_running", "Runs of approved plans that are under way.")?)?,
            proposals: known(
                registry,
                IntCounterVec::new(Opts::new("opspilot_approvals_proposed_total", "Proposals, by what became of them."), &["outcome"])?,
            )?,
            refused: known(
                registry,
                IntCounterVec::new(Opts::new("opspilot_approvals_refused_total", "What the gate refused, by reason."), &["reason"])?,
            )?,
            executions: known(
                registry,
                IntCounterVec::new(Opts::new("opspilot_executions_total", "Runs that ended, by how they did."), &["status"])?,
            )?,
            start_seconds: known(registry, Histogram::with_opts(start.buckets(buckets))?)?,
        })
    }
}

pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    pub(crate) clock: SharedClock,
    pub(crate) log: slog::Logger,
    pub(crate) metrics: Metrics,
    pub(crate) tokens: Tokens,
    /// Hides the values of variables.
    redaction: KeyFile,
    /// Something changed that may be due sooner than what is waited for.
    pub(crate) changed: Notify,
    /// Held while runs that were cut off are looked into.
    pub(crate) recovering: tokio::sync::Mutex<()>,
    rules: RwLock<Rules>,
    executors: RwLock<HashMap<Executor, Arc<dyn Execute>>>,
    /// What this process carries out; everything else that is unfinished was cut off.
    running: Mutex<BTreeSet<ExecutionId>>,
    /// Who was refused a token in which minute, by what: the first time has an entry of its own.
    refused: Mutex<HashMap<(String, &'static str), i64>>,
}

/// A run that this process carries out, for as long as this is held.
pub(crate) struct Running {
    shared: Arc<Shared>,
    id: ExecutionId,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.shared.running.lock();
        running.remove(&self.id);
        self.shared.metrics.running.set(i64::try_from(running.len()).unwrap_or(i64::MAX));
    }
}

/// How many refusals are told apart within a minute; past that the memory starts afresh.
const TOLD_APART: usize = 1024;
const MINUTE_MS: i64 = 60_000;

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

    /// Looks up what these actions depend on; on a thread of its own, because files are read.
    pub(crate) async fn facts(self: &Arc<Self>, executor: Arc<dyn Execute>, needs: Needs) -> Result<Facts, GateError> {
        let own = Arc::clone(self);
        let look = move || {
            let hashed = |name: &str, value: &[u8]| own.redaction.hashed(&format!("plan.env.{name}"), value);
            executor.facts(&needs, &hashed)
        };
        tokio::task::spawn_blocking(look).await.map_err(|_| GateError::Internal("what a run depends on cannot be looked up".to_owned()))
    }

    /// What the action of this name depends on now; nothing if there is none, and then no plan of it is the same.
    pub(crate) async fn facts_of(self: &Arc<Self>, executor: Arc<dyn Execute>, action: &str) -> Result<Facts, GateError> {
        let needs = self.offer().map(|offer| Needs::of(offer.catalogue.get(action))).unwrap_or_default();
        self.facts(executor, needs).await
    }

    /// Whether the plan would be rendered the same now, where these facts hold. Asked inside the transaction that relies
    /// on it; the facts are looked up right before it, because the one who writes does not read large files.
    pub(crate) fn is_same(&self, stored: &StoredPlan, facts: &Facts) -> bool {
        let Some(offer) = self.offer() else { return false };
        let Some(action) = offer.catalogue.get(&stored.action) else { return false };
        render(action, &stored.params, &offer.policy, facts).is_ok_and(|rendered| rendered.digest == stored.digest)
    }

    pub(crate) fn running(&self) -> usize {
        self.running.lock().len()
    }

    pub(crate) fn is_running(&self, id: &ExecutionId) -> bool {
        self.running.lock().contains(id)
    }

    /// From now on this process carries the run out.
    pub(crate) fn runs(self: &Arc<Self>, id: &ExecutionId) -> Running {
        let mut running = self.running.lock();
        running.insert(id.clone());
        self.metrics.running.set(i64::try_from(running.len()).unwrap_or(i64::MAX));
        drop(running);
        Running { shared: Arc::clone(self), id: id.clone() }
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        let text = "the clock is behind a time that was already: nothing is approved or executed (opspilot clock accept)";
        self.is_clock_behind().then(|| text.to_owned())
    }

    pub(crate) fn is_clock_behind(&self) -> bool {
        self.clock.regression().max(self.ledger.clock_regression()).is_some()
    }

    /// Puts on record that a token was refused: the first time in a minute as an entry with its own code, then counted.
    pub(crate) async fn record_refusal(&self, actor: &Actor, approval: &str, hash: [u8; 32], code: &'static str, why: &'static str) {
        let minute = self.clock.now().millis().div_euclid(MINUTE_MS);
        let is_first = {
            let mut refused = self.refused.lock();
            if refused.len() >= TOLD_APART {
                refused.clear();
            }
            refused.insert((actor.label(), code), minute) != Some(minute)
        };
        let (actor, approval) = (actor.clone(), approval.to_owned());
        let record = self.ledger.write(Priority::Control, move |tx| {
            if is_first {
                tx.token_refused(&actor, code, &approval, &hash, why)
            } else {
                tx.denied(&actor, &format!("approval token: {why}"))
            }
        });
        if let Err(error) = record.await {
            slog::warn!(self.log, "a refused token could not be put on record"; "code" => code, "error" => %error);
        }
    }

    pub(crate) async fn record_bad(&self, actor: &Actor, approval: &str, hash: [u8; 32], bad: Bad) {
        self.record_refusal(actor, approval, hash, bad.code(), bad.why()).await;
    }
}

impl Gate {
    /// Opens the gate and starts its actor. Reads the key that signs approvals, or makes it.
    pub fn open(options: GateOptions) -> Result<Gate, OpenError> {
        let GateOptions { dir, ledger, clock, log, registry, supervisor, policy } = options;
        let (key, made) = KeyFile::open(&dir, KeyPurpose::Approval)?;
        if let Some(refusal) = ledger.read_blocking(|reader| reader.key_refusal(&dir, &key))? {
            return Err(refusal.into());
        }
        let (redaction, _) = KeyFile::open(&dir, KeyPurpose::Redaction)?;
        let others = KeyPurpose::ALL.into_iter().filter(|purpose| *purpose != KeyPurpose::Approval);
        // what is wrong with another purpose's file is that purpose's matter
        let others: Vec<KeyFile> = others.filter_map(|purpose| KeyFile::read(&dir, purpose).ok().flatten()).collect();
        let instance = ledger.read_blocking(|reader| reader.instance())?;
        let tokens = Tokens::new(&key, &others, &instance).ok_or(OpenError::Unsigned)?;
        if made {
            slog::info!(log, "a key to sign approvals was made"; "kid" => tokens.kid());
        }
        let shared = Arc::new(Shared {
            metrics: Metrics::register(&registry)?,
            tokens,
            redaction,
            ledger,
            clock,
            log,
            changed: Notify::new(),
            recovering: tokio::sync::Mutex::default(),
            rules: RwLock::new(Rules { catalogue: None, policy: Arc::new(policy) }),
            executors: RwLock::default(),
            running: Mutex::default(),
            refused: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        let spec = ChildSpec::core("core.approvals").with_mailbox(256);
        let actor = supervisor.start(spec, move || ApprovalActor::new(Arc::clone(&own)));
        Ok(Gate { actor, shared })
    }
}
