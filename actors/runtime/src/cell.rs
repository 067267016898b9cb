//! What is known of one child, outside of it: shared by its handle, its supervising future, the monitor and health.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opspilot_kernel::clock::SharedClock;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    accounting::Tally,
    group::{Answer, Group},
    health::Health,
    policy::{Policy, Verdict},
    spec::{ChildSpec, Escalation},
    supervisor::{Exit, ExitHook, ExitReason, SupervisorOptions},
};

/// Why a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It panicked, in whatever it was doing.
    Panic,
    /// It stopped by itself.
    Stop,
    /// It did not answer its heartbeat.
    Hang,
    /// It could not be made or started.
    Start,
    /// It did not fail: a child that it stands on did, or its whole group was restarted.
    Group,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 5] = [Cause::Panic, Cause::Stop, Cause::Hang, Cause::Start, Cause::Group];

    /// The cause as a metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Panic => "panic",
            Cause::Stop => "stop",
            Cause::Hang => "hang",
            Cause::Start => "start",
            Cause::Group => "group",
        }
    }
}

/// Where a child stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is being made, or runs `started`.
    Starting,
    /// It takes messages.
    Running,
    /// It waits for its restart; mail is kept.
    Backoff,
    /// It was given up.
    Failed,
    /// It is done, or was told to stop.
    Stopped,
}

impl Phase {
    /// Whether it will never take a message again.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Phase::Failed | Phase::Stopped)
    }
}

/// Phase and instance in one, so that a waiter sees a replacement even if the phase is the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) phase: Phase,
    /// Grows when the child is replaced behind its handle: the old mailbox is then gone.
    pub(crate) instance: u64,
}

/// What the supervising future is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing.
    Go,
    /// End the child and its supervision.
    Stop,
    /// Restart the child. Numbered, so that an order is carried out once.
    Restart(u64, Why),
}

/// Why a restart is ordered from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It does not answer its heartbeat.
    Hung,
    /// This sibling failed.
    With(&'static str),
}

pub(crate) struct Cell {
    pub(crate) spec: ChildSpec,
    /// Its place in the order of all starts.
    number: u64,
    group: Arc<Group>,
    pub(crate) clock: SharedClock,
    pub(crate) log: slog::Logger,
    pub(crate) health: Health,
    pub(crate) tally: Tally,
    pub(crate) exit: ExitHook,
    standing: watch::Sender<Standing>,
    order: watch::Sender<Order>,
    policy: Mutex<Policy>,
    last_words: Mutex<Option<String>>,
    orders_given: AtomicU64,
    orders_done: AtomicU64,
}

impl Cell {
    pub(crate) fn new(spec: ChildSpec, number: u64, group: Arc<Group>, options: &SupervisorOptions) -> Arc<Cell> {
        let own = (spec.escalation == Escalation::Fail).then_some(spec.intensity);
        let policy = Policy::new(spec.restart, spec.backoff, own, options.seed.wrapping_add(number));
        let cell = Arc::new(Cell {
            spec,
            number,
            group: Arc::clone(&group),
            clock: Arc::clone(&options.clock),
            log: options.log.clone(),
            health: options.health.clone(),
            tally: Tally::default(),
            exit: Arc::clone(&options.exit),
            standing: watch::Sender::new(Standing { phase: Phase::Starting, instance: 1 }),
            order: watch::Sender::new(Order::Go),
            policy: Mutex::new(policy),
            last_words: Mutex::new(None),
            orders_given: AtomicU64::new(0),
            orders_done: AtomicU64::new(0),
        });
        group.join(&cell);
        cell
    }

    pub(crate) fn is_in(&self, group: &Arc<Group>) -> bool {
        Arc::ptr_eq(&self.group, group)
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn id(&self) -> &'static str {
        self.spec.id
    }

    pub(crate) fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(crate) fn orders(&self) -> watch::Receiver<Order> {
        self.order.subscribe()
    }

    pub(crate) fn is_current(&self, instance: u64) -> bool {
        self.standing().instance == instance
    }

    /// Moves the instance to `phase`, unless it has been replaced or is over.
    pub(crate) fn enter(&self, instance: u64, phase: Phase) -> bool {
        let moved = self.standing.send_if_modified(|standing| {
            let allowed = standing.instance == instance && !standing.phase.is_final();
            if allowed {
                standing.phase = phase;
                // before anybody learns of it: who starts a child of the same name after this one must not be overwritten
                self.health.phase(self.id(), phase);
            }
            allowed
        });
        if moved && phase == Phase::Running {
            self.policy.lock().running(self.clock.elapsed());
        }
        if moved && (phase == Phase::Running || phase.is_final()) {
            self.group.leave_line(self.number);
        }
        moved
    }

    /// Waits until those that it stands on run.
    pub(crate) async fn turn(&self) {
        self.group.turn(self.number).await;
    }

    /// Puts a new instance in the place of `instance`; `None` if somebody else already did, or it is over.
    pub(crate) fn replace(&self, instance: u64) -> Option<u64> {
        let moved = self.standing.send_if_modified(|standing| {
            let allowed = standing.instance == instance && !standing.phase.is_final();
            if allowed {
                *standing = Standing { phase: Phase::Starting, instance: instance.saturating_add(1) };
            }
            allowed
        });
        moved.then(|| instance.saturating_add(1))
    }

    /// Leaves the current instance behind, with nobody in its place: should its thread wake up, it finds that it may
    /// not change anything any more. False if it ended after all.
    pub(crate) fn leave_behind(&self) -> bool {
        let moved = self.standing.send_if_modified(|standing| {
            let allowed = !standing.phase.is_final();
            if allowed {
                *standing = Standing { phase: Phase::Stopped, instance: standing.instance.saturating_add(1) };
                self.health.phase(self.id(), Phase::Stopped);
            }
            allowed
        });
        if moved {
            self.group.leave_line(self.number);
        }
        moved
    }

    /// Judges the end of the current instance, counts it, shows it in health, and takes along who stands on it.
    pub(crate) fn ended(&self, cause: Cause, detail: &str) -> Verdict {
        let now = self.clock.elapsed();
        let verdict = self.policy.lock().ended(cause, now);
        let verdict = match (verdict, cause, self.spec.escalation) {
            // in line for its turn
            (Verdict::Restart(_), Cause::Group, _) => verdict,
            (Verdict::Restart(_), _, Escalation::Group) => self.failed_in_group(verdict, now),
            // nobody waits for a module
            (Verdict::Restart(_), _, Escalation::Fail) | (Verdict::GiveUp | Verdict::Finish, ..) => {
                self.group.leave_line(self.number);
                verdict
            }
        };
        let id = self.id();
        match verdict {
            Verdict::Restart(wait) => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                slog::warn!(self.log, "actor is restarted"; "actor" => id, "cause" => cause.as_str(), "detail" => detail, "wait_ms" => wait_ms);
                self.health.restarted(id, cause, detail);
            }
            Verdict::GiveUp => {
                slog::error!(self.log, "actor failed too often and is given up"; "actor" => id, "cause" => cause.as_str(), "detail" => detail);
                self.health.gave_up(id, cause, detail);
            }
            Verdict::Finish => slog::info!(self.log, "actor is done"; "actor" => id),
        }
        verdict
    }

    fn failed_in_group(&self, verdict: Verdict, now: Duration) -> Verdict {
        let (id, group) = (self.id(), self.group.name());
        let with_it = match self.group.failed(self.number, now) {
            Answer::Restart(with_it) => with_it,
            Answer::Escalated(with_it) => {
                slog::error!(self.log, "a group failed too often and is restarted as a whole"; "group" => group, "actor" => id);
                with_it
            }
            Answer::GiveUp => return Verdict::GiveUp,
        };
        for sibling in with_it.iter().rev() {
            sibling.order_restart(Why::With(id));
        }
        verdict
    }

    /// Carries out the escalation of a child that was given up.
    pub(crate) fn escalate(&self, detail: &str) {
        if self.spec.escalation == Escalation::Group {
            (self.exit)(Exit { code: Exit::SOFTWARE, actor: self.id(), reason: ExitReason::GaveUp(detail.to_owned()) });
        }
    }

    pub(crate) fn order_stop(&self) {
        self.order.send_replace(Order::Stop);
    }

    /// Orders a restart; the number tells whether it was carried out.
    pub(crate) fn order_restart(&self, why: Why) -> u64 {
        let number = self.orders_given.fetch_add(1, Ordering::SeqCst).saturating_add(1);
        self.order.send_if_modified(|order| {
            let allowed = *order != Order::Stop;
            if allowed {
                *order = Order::Restart(number, why);
            }
            allowed
        });
        number
    }

    /// The supervising future says that it has seen the order.
    pub(crate) fn order_seen(&self, number: u64) {
        self.orders_done.fetch_max(number, Ordering::SeqCst);
    }

    pub(crate) fn order_was_seen(&self, number: u64) -> bool {
        self.orders_done.load(Ordering::SeqCst) >= number
    }

    /// Why the actor stopped by itself, in its own words.
    pub(crate) fn last_words(&self) -> String {
        self.last_words.lock().take().unwrap_or_else(|| "it stopped by itself".to_owned())
    }

    pub(crate) fn forgive(&self) {
        self.policy.lock().forgive();
        self.group.forgive(self.number);
    }
}

/// An instance's own view of its supervision: handed to the factory that makes the actor.
#[derive(Clone)]
pub struct Lease {
    pub(crate) cell: Arc<Cell>,
    pub(crate) instance: u64,
}

impl Lease {
    /// Whether this instance is still the one behind the handle. A blocked instance that was replaced wakes up to
    /// `false` and must not change anything any more; writes check it inside their transaction.
    pub fn is_current(&self) -> bool {
        self.cell.is_current(self.instance)
    }

    /// The cause of recent failures was found and removed; they no longer count towards the restart intensity.
    pub fn forgive(&self) {
        self.cell.forgive();
    }

    /// Why the actor is about to stop itself: shown in health and logs in place of a mere "it stopped".
    pub fn explain(&self, why: impl Into<String>) {
        *self.cell.last_words.lock() = Some(why.into());
    }

    /// The child's name.
    pub fn id(&self) -> &'static str {
        self.cell.id()
    }

    /// Time since some fixed moment, by the supervisor's clock.
    pub fn elapsed(&self) -> Duration {
        self.cell.clock.elapsed()
    }
}
