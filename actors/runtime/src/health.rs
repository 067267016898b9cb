//! How every module is doing.
//!
//! A module's status is the worst of its actors'. Every change of it, and every restart, is kept until somebody has
//! told the ledger ([`Health::next_report`]); what waits is bounded by coalescing changes per module.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use opspilot_kernel::{
    clock::SharedClock,
    lifecycle::Pulse,
    module::{ModuleHealth, ModuleId, ModuleStatus},
    time::Timestamp,
};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use tokio::sync::{Notify, watch};

use crate::{
    TallyCounts,
    cell::{Cause, Phase},
    spec::module_of,
};

/// More restarts than this within [`RESTARTS_WINDOW`] show a module as degraded.
const RESTARTS_SHOWN: usize = 2;
const RESTARTS_WINDOW: Duration = Duration::from_secs(300);
/// Restarts not yet told to the ledger; further ones are only in the metric and the log.
const UNTOLD_RESTARTS: usize = 256;

/// How the whole service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overall {
    /// Every enabled module works.
    Healthy,
    /// Some module works with a loss, or not at all.
    Degraded,
    /// The service cannot do its main job.
    Unhealthy,
}

/// Something the ledger should be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A module's status changed.
    Changed {
        /// Which module.
        module: ModuleId,
        /// How it was doing when the ledger last heard of it.
        from: ModuleStatus,
        /// How it is doing.
        to: ModuleStatus,
        /// What a person should know.
        detail: String,
    },
    /// An actor of a module is being restarted.
    Restarted {
        /// Which module.
        module: ModuleId,
        /// Which actor.
        child: &'static str,
        /// Why.
        cause: Cause,
        /// What a person should know.
        detail: String,
    },
}

/// The metrics of every module.
#[derive(Debug, Clone)]
pub struct HealthMetrics {
    up: IntGaugeVec,
    restarts: IntCounterVec,
    queue: IntGaugeVec,
    abandoned: IntGaugeVec,
    messages: IntGaugeVec,
}

impl HealthMetrics {
    /// Registers the metrics. Queues are shown in `queue`, the gauge `opspilot_queue_depth` that the ledger
    /// registered ([`opspilot_ledger::Ledger::queue_gauge`]).
    pub fn register(registry: &Registry, queue: IntGaugeVec) -> Result<HealthMetrics, prometheus::Error> {
        let up = IntGaugeVec::new(Opts::new("opspilot_module_up", "1 while the module works, also with a loss; 0 otherwise"), &["module"])?;
        let restarts = Opts::new("opspilot_module_restarts_total", "Restarts of the module's actors since the process started");
        let restarts = IntCounterVec::new(restarts, &["module", "cause"])?;
        let abandoned = Opts::new("opspilot_module_abandoned_threads", "Threads that are blocked for good and were replaced");
        let abandoned = IntGaugeVec::new(abandoned, &["module"])?;
        let messages = Opts::new("opspilot_actor_messages", "What became of the actor's messages: received is the sum of the others");
        let messages = IntGaugeVec::new(messages, &["actor", "outcome"])?;
        registry.register(Box::new(messages.clone()))?;
        registry.register(Box::new(up.clone()))?;
        registry.register(Box::new(restarts.clone()))?;
        registry.register(Box::new(abandoned.clone()))?;
        Ok(HealthMetrics { up, restarts, queue, abandoned, messages })
    }
}

/// The registry of health: cheap to clone, every clone is the same registry.
#[derive(Clone)]
pub struct Health {
    inner: Arc<Inner>,
}

struct Inner {
    clock: SharedClock,
    metrics: HealthMetrics,
    state: Mutex<State>,
    news: Notify,
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    children: BTreeMap<&'static str, Child>,
    modules: BTreeMap<&'static str, Module>,
    /// Started, also those without an actor of their own: they work unless something says otherwise.
    present: BTreeSet<&'static str>,
    /// Set from outside: it cannot start, it is switched off.
    imposed: BTreeMap<&'static str, (ModuleStatus, String)>,
    /// The status the ledger last heard of, where it differs from the present one.
    untold: BTreeMap<&'static str, ModuleStatus>,
    restarts: VecDeque<Report>,
    /// What the service cannot do its job without, by who misses it.
    lacking: BTreeMap<&'static str, String>,
}

struct Child {
    phase: Phase,
    core: bool,
    late: bool,
    restarts: u64,
    recent: VecDeque<Duration>,
    failure: String,
    pulse: Pulse,
}

struct Module {
    status: ModuleStatus,
    since: Timestamp,
    detail: String,
}

impl Health {
    /// An empty registry.
    pub fn new(clock: SharedClock, metrics: HealthMetrics) -> Health {
        Health {
            inner: Arc::new(Inner {
                clock,
                metrics,
                state: Mutex::new(State::default()),
                news: Notify::new(),
                changes: watch::Sender::new(()),
            }),
        }
    }

    /// A module that is switched off.
    pub fn disabled(&self, module: ModuleId, detail: &str) {
        self.impose(module, Some((ModuleStatus::Disabled, detail.to_owned())));
    }

    /// A module that could not be started.
    pub fn failed(&self, module: ModuleId, detail: &str) {
        self.impose(module, Some((ModuleStatus::Failed, detail.to_owned())));
    }

    /// A module that is switched on again: its actors tell how it is.
    pub fn enabled(&self, module: ModuleId) {
        self.impose(module, None);
    }

    /// A module that was started. It is listed from now on, also if it has no actor that could tell how it is.
    pub fn present(&self, module: ModuleId) {
        let mut state = self.inner.state.lock();
        state.present.insert(module.as_str());
        self.refresh(&mut state, module.as_str());
    }

    /// What `who` misses, without which the service cannot do its job; `None` when it is back. Until then the service is
    /// unhealthy, and not ready.
    pub fn unhealthy(&self, who: ModuleId, reason: Option<String>) {
        let mut state = self.inner.state.lock();
        match reason {
            Some(reason) => drop(state.lacking.insert(who.as_str(), reason)),
            None => drop(state.lacking.remove(who.as_str())),
        }
        self.inner.changes.send_replace(());
    }

    /// Waits until this holds of how things are; looks again whenever something changes.
    pub async fn until(&self, holds: impl Fn(&Health) -> bool) {
        let mut changes = self.inner.changes.subscribe();
        // the sender is in here, so there is always another change to wait for
        while !holds(self) && changes.changed().await.is_ok() {}
    }

    /// What the service cannot do its job without, each with its reason.
    pub fn lacking(&self) -> Vec<String> {
        self.inner.state.lock().lacking.iter().map(|(who, reason)| format!("{who}: {reason}")).collect()
    }

    fn impose(&self, module: ModuleId, imposed: Option<(ModuleStatus, String)>) {
        let name = module.as_str();
        let mut state = self.inner.state.lock();
        match imposed {
            Some(imposed) => drop(state.imposed.insert(name, imposed)),
            None => drop(state.imposed.remove(name)),
        }
        self.refresh(&mut state, name);
    }

    /// One line for every module, by id.
    pub fn report(&self) -> Vec<ModuleHealth> {
        let mut state = self.inner.state.lock();
        let names: Vec<&'static str> = state.modules.keys().copied().collect();
        names.iter().for_each(|name| self.refresh(&mut state, name));
        let line = |(name, module): (&&'static str, &Module)| {
            let children = || state.children.iter().filter(|(child, _)| module_of(child) == *name).map(|(_, child)| child);
            let id = ModuleId::new(name);
            ModuleHealth {
                id,
                category: id.category(),
                status: module.status,
                since: module.since,
                restarts: children().map(|child| child.restarts).sum(),
                detail: module.detail.clone(),
                queue: children().map(|child| child.pulse.queue).sum(),
            }
        };
        state.modules.iter().map(line).collect()
    }

    /// How one module is doing.
    pub fn status(&self, module: ModuleId) -> Option<ModuleStatus> {
        let mut state = self.inner.state.lock();
        self.refresh(&mut state, module.as_str());
        state.modules.get(module.as_str()).map(|module| module.status)
    }

    /// How the service is doing, and why it is not better.
    pub fn overall(&self) -> (Overall, String) {
        let modules = self.report();
        let state = self.inner.state.lock();
        if let Some((who, reason)) = state.lacking.first_key_value() {
            return (Overall::Unhealthy, format!("{who}: {reason}"));
        }
        let core_lost = state.children.iter().find(|(_, child)| child.core && child.phase == Phase::Failed);
        if let Some((id, _)) = core_lost {
            return (Overall::Unhealthy, format!("{id} failed"));
        }
        let troubled = modules.iter().find(|module| !matches!(module.status, ModuleStatus::Healthy | ModuleStatus::Disabled));
        troubled
            .map_or((Overall::Healthy, String::new()), |module| (Overall::Degraded, format!("{} is {}", module.id, module.status.as_str())))
    }

    /// The next thing the ledger should be told; waits for one. Taken things are gone: tell them, or put a change
    /// back with [`Health::untold`].
    pub async fn next_report(&self) -> Report {
        loop {
            let news = self.inner.news.notified();
            if let Some(report) = self.take_report() {
                return report;
            }
            news.await;
        }
    }

    /// The next thing the ledger should be told, if there is one.
    pub fn take_report(&self) -> Option<Report> {
        let mut state = self.inner.state.lock();
        if let Some(restart) = state.restarts.pop_front() {
            return Some(restart);
        }
        while let Some((name, from)) = state.untold.pop_first() {
            let Some(module) = state.modules.get(name) else { continue };
            if module.status != from {
                return Some(Report::Changed { module: ModuleId::new(name), from, to: module.status, detail: module.detail.clone() });
            }
        }
        None
    }

    /// Takes back what could not be told, to be told later.
    pub fn untold(&self, report: Report) {
        let mut state = self.inner.state.lock();
        match report {
            Report::Changed { module, from, .. } => {
                state.untold.insert(module.as_str(), from);
            }
            restart @ Report::Restarted { .. } => {
                if state.restarts.len() < UNTOLD_RESTARTS {
                    state.restarts.push_front(restart);
                }
            }
        }
        self.inner.news.notify_one();
    }

    pub(crate) fn child(&self, id: &'static str, core: bool) {
        let mut state = self.inner.state.lock();
        let previous = state.children.get(id).map_or(0, |child| child.restarts);
        // a counter that is there from the start shows its first increase
        for cause in Cause::ALL {
            self.inner.metrics.restarts.with_label_values(&[module_of(id), cause.as_str()]);
        }
        let child = Child {
            phase: Phase::Starting,
            core,
            late: false,
            restarts: previous,
            recent: VecDeque::new(),
            failure: String::new(),
            pulse: Pulse::default(),
        };
        state.children.insert(id, child);
        self.refresh(&mut state, module_of(id));
    }

    fn on_child(&self, id: &'static str, change: impl FnOnce(&mut Child)) {
        let mut state = self.inner.state.lock();
        if let Some(child) = state.children.get_mut(id) {
            change(child);
        }
        self.refresh(&mut state, module_of(id));
    }

    pub(crate) fn phase(&self, id: &'static str, phase: Phase) {
        self.on_child(id, |child| {
            child.phase = phase;
            if phase != Phase::Running {
                child.late = false;
            }
        });
    }

    pub(crate) fn pulse(&self, id: &'static str, pulse: Pulse) {
        let depth = i64::try_from(pulse.queue).unwrap_or(i64::MAX);
        self.inner.metrics.queue.with_label_values(&[id]).set(depth);
        self.on_child(id, |child| {
            child.pulse = pulse;
            child.late = false;
        });
    }

    pub(crate) fn messages(&self, id: &'static str, counts: TallyCounts) {
        let TallyCounts { received, ok, error, retried, dead_lettered, in_flight } = counts;
        let outcomes = [
            ("received", received),
            ("ok", ok),
            ("error", error),
            ("retried", retried),
            ("dead_lettered", dead_lettered),
            ("in_flight", in_flight),
        ];
        for (outcome, count) in outcomes {
            self.inner.metrics.messages.with_label_values(&[id, outcome]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn late(&self, id: &'static str) {
        self.on_child(id, |child| child.late = true);
    }

    pub(crate) fn abandoned(&self, id: &'static str) {
        self.inner.metrics.abandoned.with_label_values(&[module_of(id)]).inc();
    }

    pub(crate) fn restarted(&self, id: &'static str, cause: Cause, detail: &str) {
        let now = self.inner.clock.elapsed();
        self.inner.metrics.restarts.with_label_values(&[module_of(id), cause.as_str()]).inc();
        {
            let mut state = self.inner.state.lock();
            if state.restarts.len() < UNTOLD_RESTARTS {
                let module = ModuleId::new(module_of(id));
                state.restarts.push_back(Report::Restarted { module, child: id, cause, detail: detail.to_owned() });
            }
        }
        self.inner.news.notify_one();
        self.on_child(id, |child| {
            child.restarts = child.restarts.saturating_add(1);
            child.recent.push_back(now);
            if child.recent.len() > RESTARTS_SHOWN + 1 {
                child.recent.pop_front();
            }
            child.failure = format!("{}: {detail}", cause.as_str());
        });
    }

    pub(crate) fn gave_up(&self, id: &'static str, cause: Cause, detail: &str) {
        self.on_child(id, |child| child.failure = format!("{}: {detail}", cause.as_str()));
    }

    /// Works out a module's status anew; remembers a change.
    fn refresh(&self, state: &mut State, name: &'static str) {
        let now = self.inner.clock.elapsed();
        let of_children = state
            .children
            .iter_mut()
            .filter(|(child, _)| module_of(child) == name)
            .map(|(_, child)| child.status(now))
            .max_by_key(|(status, _)| badness(*status));
        let (status, detail) = match (state.imposed.get(name), of_children) {
            (Some(imposed), Some(worse)) if badness(worse.0) > badness(imposed.0) && imposed.0 != ModuleStatus::Disabled => worse,
            (Some(imposed), _) => imposed.clone(),
            (None, Some(of_children)) => of_children,
            (None, None) if state.present.contains(name) => (ModuleStatus::Healthy, String::new()),
            (None, None) => return,
        };
        let since = self.inner.clock.now();
        let from = match state.modules.get_mut(name) {
            Some(module) if module.status == status => {
                if module.detail != detail {
                    module.detail = detail;
                    self.inner.changes.send_replace(());
                }
                return;
            }
            Some(module) => Some(std::mem::replace(module, Module { status, since, detail }).status),
            // how it begins is no change
            None => {
                state.modules.insert(name, Module { status, since, detail });
                None
            }
        };
        self.inner.changes.send_replace(());
        let up = i64::from(matches!(status, ModuleStatus::Healthy | ModuleStatus::Degraded));
        self.inner.metrics.up.with_label_values(&[name]).set(up);
        if let Some(from) = from {
            state.untold.entry(name).or_insert(from);
            self.inner.news.notify_one();
        }
    }
}

fn badness(status: ModuleStatus) -> u8 {
    match status {
        ModuleStatus::Disabled => 0,
        ModuleStatus::Healthy => 1,
        ModuleStatus::Degraded => 2,
        ModuleStatus::Restarting => 3,
        ModuleStatus::Failed => 4,
    }
}

impl Child {
    fn status(&mut self, now: Duration) -> (ModuleStatus, String) {
        while self.recent.front().is_some_and(|at| now.saturating_sub(*at) > RESTARTS_WINDOW) {
            self.recent.pop_front();
        }
        match self.phase {
            Phase::Failed => (ModuleStatus::Failed, self.failure.clone()),
            Phase::Backoff => (ModuleStatus::Restarting, self.failure.clone()),
            Phase::Starting if !self.recent.is_empty() => (ModuleStatus::Restarting, self.failure.clone()),
            Phase::Stopped => (ModuleStatus::Disabled, String::new()),
            Phase::Starting | Phase::Running if self.late => (ModuleStatus::Degraded, "it does not answer its heartbeat".to_owned()),
            Phase::Starting | Phase::Running => match &self.pulse.trouble {
                Some(trouble) => (ModuleStatus::Degraded, trouble.clone()),
                None if self.recent.len() > RESTARTS_SHOWN => (ModuleStatus::Degraded, format!("restarted often; last {}", self.failure)),
                None => (ModuleStatus::Healthy, String::new()),
            },
        }
    }
}
