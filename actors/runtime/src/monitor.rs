//! Watches over one child from outside: asks for its pulse, and acts when none comes.

use std::{
    sync::{
        Arc, Condvar, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Arbiter, Context, Handler, Supervised, dev::channel::AddressSender};
use opspilot_kernel::lifecycle::Heartbeat;

use crate::{
    cell::{Cause, Cell, Lease, Phase, Why},
    handle::Slot,
    policy::Verdict,
    spec::Placement,
    supervising::{Factory, Outcome, supervise},
    supervisor::{Exit, ExitHook, ExitReason},
};

/// Blocked threads a child may leave behind; with one more it is given up.
const MAX_ABANDONED: u32 = 3;

/// Everything needed to bring an instance of a child to life.
pub(crate) struct Launch<A: Actor<Context = Context<A>>> {
    pub(crate) slot: Arc<Slot<A>>,
    pub(crate) factory: Factory<A>,
    pub(crate) home: actix::ArbiterHandle,
}

impl<A> Launch<A>
where
    A: Actor<Context = Context<A>> + Supervised + Handler<Heartbeat>,
{
    fn cell(&self) -> &Arc<Cell> {
        &self.slot.cell
    }

    /// Makes the instance's mailbox and connects the handle to it; the instance starts after `wait`.
    /// Returns the monitor's own way to it, which no traffic can block.
    pub(crate) fn launch(&self, instance: u64, wait: Duration) -> AddressSender<A> {
        let cell = Arc::clone(self.cell());
        let (sender, mailbox) = actix::dev::channel::channel(cell.spec.mailbox.max(1));
        let (pulse, control) = (sender.clone(), sender.clone());
        self.slot.connect(sender, control);
        let (factory, slot) = (Arc::clone(&self.factory), Arc::clone(&self.slot));
        let placement = cell.spec.placement;
        let work = move || {
            actix::spawn(async move {
                let outcome = supervise(Lease { cell, instance }, wait, mailbox, factory).await;
                if outcome == Outcome::Over {
                    slot.disconnect();
                }
                if placement == Placement::OwnArbiter {
                    Arbiter::current().stop();
                }
            });
        };
        let started = match placement {
            Placement::Shared => self.home.spawn_fn(work),
            Placement::OwnArbiter => self.home.spawn_fn(move || {
                Arbiter::new().spawn_fn(work);
            }),
        };
        if !started {
            slog::error!(self.cell().log, "the arbiter is gone"; "actor" => self.cell().id());
        }
        pulse
    }

    /// Asks for the child's pulse until its supervision is over.
    pub(crate) async fn watch_over(self, mut pulse: AddressSender<A>) {
        let cell = Arc::clone(self.cell());
        let policy = cell.spec.heartbeat;
        let mut standing = cell.watch();
        let mut abandoned = 0_u32;
        loop {
            let before = *standing.borrow_and_update();
            if before.phase.is_final() {
                return;
            }
            if matches!(before.phase, Phase::Starting | Phase::Running) {
                let answer = pulse.send(Heartbeat);
                let answered = async {
                    match answer {
                        Ok(answer) => answer.await.ok(),
                        Err(_) => std::future::pending().await,
                    }
                };
                let failed = async {
                    standing
                        .wait_for(|now| now.instance != before.instance || !matches!(now.phase, Phase::Starting | Phase::Running))
                        .await
                        .is_ok()
                };
                let overdue = async {
                    tokio::time::sleep(policy.degraded).await;
                    slog::warn!(cell.log, "actor does not answer its heartbeat"; "actor" => cell.id());
                    cell.health.late(cell.id());
                    tokio::time::sleep(policy.failure.saturating_sub(policy.degraded)).await;
                };
                tokio::select! {
                    biased;
                    answer = answered => if let Some(answer) = answer {
                        cell.health.pulse(cell.id(), answer);
                        cell.health.messages(cell.id(), self.slot.counts());
                    },
                    _ = failed => continue,
                    () = overdue => match self.hung(&cell, before.instance, &mut abandoned).await {
                        Hung::Restarted => continue,
                        Hung::Replaced(fresh) => {
                            pulse = fresh;
                            continue;
                        }
                        Hung::GivenUp => return,
                    },
                }
            }
            tokio::select! {
                () = tokio::time::sleep(policy.every) => {}
                changed = standing.changed() => if changed.is_err() { return; },
            }
        }
    }

    /// Restarts a hung child; one whose thread is blocked is replaced.
    async fn hung(&self, cell: &Arc<Cell>, instance: u64, abandoned: &mut u32) -> Hung<A> {
        let order = cell.order_restart(Why::Hung);
        tokio::time::sleep(cell.spec.heartbeat.every).await;
        if cell.order_was_seen(order) || !cell.is_current(instance) {
            return Hung::Restarted;
        }
        // its supervising future does not run either: the thread is blocked, and a thread cannot be killed
        cell.order_seen(order);
        let verdict = cell.ended(Cause::Hang, "its thread is blocked");
        *abandoned = abandoned.saturating_add(1);
        cell.health.abandoned(cell.id());
        match verdict {
            Verdict::Restart(wait) if *abandoned <= MAX_ABANDONED => match cell.replace(instance) {
                Some(fresh) => {
                    slog::error!(cell.log, "actor's thread is blocked; it is left behind and the actor is replaced"; "actor" => cell.id());
                    cell.enter(fresh, Phase::Backoff);
                    Hung::Replaced(self.launch(fresh, wait))
                }
                None => Hung::GivenUp,
            },
            Verdict::Restart(_) | Verdict::GiveUp | Verdict::Finish => {
                if let Some(fresh) = cell.replace(instance) {
                    cell.enter(fresh, Phase::Failed);
                }
                self.slot.disconnect();
                cell.escalate("its thread is blocked");
                Hung::GivenUp
            }
        }
    }
}

/// What became of a hung child.
enum Hung<A: Actor> {
    Restarted,
    Replaced(AddressSender<A>),
    GivenUp,
}

/// Watches the supervisor's own event loop from a thread of its own: nothing inside could tell that it is blocked.
pub(crate) struct Watchdog {
    beats: AtomicU64,
    over: Mutex<bool>,
    wake: Condvar,
}

impl Watchdog {
    /// Starts the thread. The loop must [`Watchdog::beat`] at least every `every`.
    pub(crate) fn start(every: Duration, failure: Duration, exit: ExitHook, log: slog::Logger) -> std::io::Result<Arc<Watchdog>> {
        let dog = Arc::new(Watchdog { beats: AtomicU64::new(0), over: Mutex::new(false), wake: Condvar::new() });
        let weak = Arc::downgrade(&dog);
        let work = move || Watchdog::guard(&weak, every, failure, &exit, &log);
        std::thread::Builder::new().name("opspilot-watchdog".to_owned()).spawn(work)?;
        Ok(dog)
    }

    /// The loop turns.
    pub(crate) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::SeqCst);
    }

    /// How often the loop has turned; a reader sees whether it still does.
    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::SeqCst)
    }

    /// Ends the thread.
    pub(crate) fn call_off(&self) {
        if let Ok(mut over) = self.over.lock() {
            *over = true;
        }
        self.wake.notify_all();
    }

    fn guard(weak: &Weak<Watchdog>, every: Duration, failure: Duration, exit: &ExitHook, log: &slog::Logger) {
        let mut seen = 0;
        let mut silent = Duration::ZERO;
        while let Some(dog) = weak.upgrade() {
            let Ok(over) = dog.over.lock() else { return };
            if *over {
                return;
            }
            let Ok((over, waited)) = dog.wake.wait_timeout(over, every) else { return };
            if *over {
                return;
            }
            drop(over);
            if !waited.timed_out() {
                continue;
            }
            let beats = dog.beats();
            // time counts by waits that ran their full length: a machine that was asleep does not look blocked
            silent = if beats == seen { silent.saturating_add(every) } else { Duration::ZERO };
            seen = beats;
            if silent >= failure {
                slog::crit!(log, "the event loop is blocked; the process ends"; "silent_ms" => u64::try_from(silent.as_millis()).unwrap_or(u64::MAX));
                exit(Exit { code: Exit::SOFTWARE, actor: "runtime", reason: ExitReason::LoopBlocked });
                return;
            }
        }
    }
}
