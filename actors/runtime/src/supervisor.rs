//! The supervisor: a tree of a root, its groups and their children; starts in order, stops in reverse.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use actix::{Actor, Arbiter, ArbiterHandle, Context, Handler, Supervised};
use futures_util::{FutureExt, future::BoxFuture};
use opspilot_kernel::{
    clock::SharedClock,
    lifecycle::{Drain, Heartbeat},
};
use parking_lot::Mutex;

use crate::{
    cell::{Cell, Lease, Phase},
    group::{Group, GroupSpec},
    handle::{Handle, Slot},
    health::Health,
    monitor::{Launch, Watchdog},
    spec::{ChildSpec, Escalation, HeartbeatPolicy},
    supervising::Factory,
};

/// What an actor must understand to be supervised. Its author implements the four traits; this one follows.
pub trait Supervisable: Actor<Context = Context<Self>> + Supervised + Handler<Heartbeat> + Handler<Drain> {}

impl<A> Supervisable for A where A: Actor<Context = Context<A>> + Supervised + Handler<Heartbeat> + Handler<Drain> {}

/// Why the process must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// An actor that the service cannot do without failed too often; its last failure.
    GaveUp(String),
    /// The main event loop is blocked: an ordered stop on it is not possible.
    LoopBlocked,
}

/// The process must end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: i32,
    /// Who could not go on.
    pub actor: &'static str,
    /// Why.
    pub reason: ExitReason,
}

impl Exit {
    /// `EX_SOFTWARE` of sysexits.h: the service manager should start us again.
    pub const SOFTWARE: i32 = 70;
}

/// Called, from any thread, when the process must end; it starts the ordered stop and returns.
pub type ExitHook = Arc<dyn Fn(Exit) + Send + Sync>;

/// What a supervisor needs.
pub struct SupervisorOptions {
    /// The clock.
    pub clock: SharedClock,
    /// Where failures are logged.
    pub log: slog::Logger,
    /// Where failures are shown.
    pub health: Health,
    /// What ends the process.
    pub exit: ExitHook,
    /// Seeds the jitter of the backoffs.
    pub seed: u64,
}

/// Starts actors and keeps them going: the root of the tree, or one of its groups. Cheap to clone; every clone is the
/// same supervisor.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
    /// What is started here belongs to this group.
    group: Arc<Group>,
}

struct Inner {
    home: ArbiterHandle,
    options: SupervisorOptions,
    root: Arc<Group>,
    children: Mutex<Children>,
    watchdog: Mutex<Option<Arc<Watchdog>>>,
}

#[derive(Default)]
struct Children {
    /// In order of their start.
    running: Vec<Child>,
    started: u64,
}

struct Child {
    cell: Arc<Cell>,
    drain: Box<dyn Fn(Duration) -> BoxFuture<'static, bool> + Send>,
    disconnect: Box<dyn Fn() + Send>,
}

/// How a child's stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It finished what it had.
    Drained,
    /// It did not finish within its time, or had failed before; it was ended all the same.
    Cut,
    /// It did not even end: its thread is blocked, and it was left behind.
    Skipped,
    /// There is no such child.
    Unknown,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor").field("group", &self.group.name()).field("children", &self.children()).finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(watchdog) = self.watchdog.get_mut() {
            watchdog.call_off();
        }
    }
}

impl Supervisor {
    /// The root, whose children share the arbiter it is made on. Called inside the actix system.
    pub fn new(options: SupervisorOptions) -> Supervisor {
        let root = Group::new(GroupSpec::ROOT, None);
        let group = Arc::clone(&root);
        let inner = Inner { home: Arbiter::current(), options, root, children: Mutex::default(), watchdog: Mutex::default() };
        Supervisor { inner: Arc::new(inner), group }
    }

    /// A group under the root: what it cannot mend the root restarts as a whole.
    pub fn group(&self, spec: GroupSpec) -> Supervisor {
        let group = Group::new(spec, Some(Arc::clone(&self.inner.root)));
        Supervisor { inner: Arc::clone(&self.inner), group }
    }

    /// Whether a child is in this supervisor's care: the root cares for all.
    fn cares_for(&self, child: &Child) -> bool {
        Arc::ptr_eq(&self.group, &self.inner.root) || child.cell.is_in(&self.group)
    }

    /// Starts a child made by `factory`, which is called again only when the child must be replaced.
    pub fn start<A, F>(&self, spec: ChildSpec, factory: F) -> Handle<A>
    where
        A: Supervisable,
        F: Fn() -> A + Send + 'static,
    {
        self.start_leased(spec, move |_| factory())
    }

    /// Starts a child whose factory is told which instance it makes.
    pub fn start_leased<A, F>(&self, spec: ChildSpec, factory: F) -> Handle<A>
    where
        A: Supervisable,
        F: Fn(&Lease) -> A + Send + 'static,
    {
        let options = &self.inner.options;
        let number = {
            let mut children = self.inner.children.lock();
            children.started = children.started.saturating_add(1);
            children.started
        };
        options.health.child(spec.id, spec.escalation == Escalation::Group);
        let cell = Cell::new(spec, number, Arc::clone(&self.group), options);
        let slot = Slot::new(Arc::clone(&cell));
        let factory = Mutex::new(factory);
        let factory: Factory<A> = Arc::new(move |lease| factory.lock()(lease));
        let launch = Launch { slot: Arc::clone(&slot), factory, home: self.inner.home.clone() };
        let pulse = launch.launch(1, Duration::ZERO);
        self.inner.home.spawn_fn(move || {
            actix::spawn(launch.watch_over(pulse));
        });
        let drain = {
            let slot = Arc::clone(&slot);
            move |deadline| Slot::drain(Arc::clone(&slot), deadline).boxed()
        };
        let disconnect = {
            let slot = Arc::clone(&slot);
            move || slot.disconnect()
        };
        let mut children = self.inner.children.lock();
        children.running.retain(|child| !child.cell.standing().phase.is_final());
        children.running.push(Child { cell, drain: Box::new(drain), disconnect: Box::new(disconnect) });
        Handle::new(slot)
    }

    /// The children that are supervised here, in order of their start.
    pub fn children(&self) -> Vec<(&'static str, Phase)> {
        let children = self.inner.children.lock();
        let own = children.running.iter().filter(|child| self.cares_for(child));
        own.map(|child| (child.cell.id(), child.cell.standing().phase)).collect()
    }

    /// Lets a child finish what it has, within its time, and ends it.
    pub async fn stop(&self, id: &'static str) -> Stopped {
        let child = {
            let mut children = self.inner.children.lock();
            let at = children.running.iter().rposition(|child| child.cell.id() == id && self.cares_for(child));
            at.map(|at| children.running.remove(at))
        };
        match child {
            Some(child) => self.stop_child(child).await,
            None => Stopped::Unknown,
        }
    }

    /// Stops every child that is supervised here, the last started first.
    pub async fn stop_all(&self) -> Vec<(&'static str, Stopped)> {
        let mut outcomes = Vec::new();
        loop {
            let last = {
                let mut children = self.inner.children.lock();
                let at = children.running.iter().rposition(|child| self.cares_for(child));
                at.map(|at| children.running.remove(at))
            };
            let Some(child) = last else { break };
            let id = child.cell.id();
            outcomes.push((id, self.stop_child(child).await));
        }
        outcomes
    }

    async fn stop_child(&self, child: Child) -> Stopped {
        let Child { cell, drain, disconnect } = child;
        let log = &self.inner.options.log;
        if cell.standing().phase.is_final() {
            return Stopped::Cut;
        }
        let drained = AssertUnwindSafe(drain(cell.spec.shutdown)).catch_unwind().await.unwrap_or(false);
        if !drained {
            slog::warn!(log, "actor did not finish within its time"; "actor" => cell.id());
        }
        cell.order_stop();
        let mut standing = cell.watch();
        let over = standing.wait_for(|now| now.phase.is_final());
        let over = tokio::time::timeout(cell.spec.heartbeat.every, over).await.is_ok_and(|over| over.is_ok());
        match (over || !cell.leave_behind(), drained) {
            (true, true) => Stopped::Drained,
            (true, false) => Stopped::Cut,
            (false, _) => {
                disconnect();
                slog::error!(log, "actor does not end and is left behind"; "actor" => cell.id());
                Stopped::Skipped
            }
        }
    }

    /// Guards the event loop itself: if it does not turn for the policy's `failure`, the process must end.
    pub fn guard_loop(&self, policy: HeartbeatPolicy) -> std::io::Result<()> {
        let options = &self.inner.options;
        let watchdog = Watchdog::start(policy.every, policy.failure, Arc::clone(&options.exit), options.log.clone())?;
        let weak = Arc::downgrade(&watchdog);
        let half = policy.every / 2;
        self.inner.home.spawn_fn(move || {
            actix::spawn(async move {
                while let Some(watchdog) = weak.upgrade() {
                    watchdog.beat();
                    drop(watchdog);
                    tokio::time::sleep(half).await;
                }
            });
        });
        let previous = self.inner.watchdog.lock().replace(watchdog);
        if let Some(previous) = previous {
            previous.call_off();
        }
        Ok(())
    }

    /// How often the guarded loop has turned; two readings tell whether it still does.
    pub fn loop_beats(&self) -> u64 {
        self.inner.watchdog.lock().as_ref().map_or(0, |watchdog| watchdog.beats())
    }

    /// The registry of health its children are shown in.
    pub fn health(&self) -> &Health {
        &self.inner.options.health
    }
}
