//! The supervising future: drives one actor, and catches whatever ends it.
//!
//! It polls actix's own `ContextFut`, so the actor is an ordinary one. After a failure `ContextFut::restart` keeps
//! address and mailbox; the message that was being handled is gone, and its sender is told.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use actix::{
    Actor, ActorContext, AsyncContext, Context, Supervised,
    dev::{AsyncContextParts, ContextFut, ContextParts, channel::AddressReceiver},
    fut::ActorFuture,
};

use crate::{
    cell::{Cause, Cell, Lease, Order, Phase, Why},
    failpoint, panics,
    policy::Verdict,
};

pub(crate) type Factory<A> = Arc<dyn Fn(&Lease) -> A + Send + Sync>;

/// Restarts of one instance that begin with a clean list of cancellations.
const CLEAN_RESTARTS: usize = 1024;

/// Why the actor no longer runs.
enum End {
    Failed(Cause, String),
    Ordered,
    Replaced,
}

/// What its supervision came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It will not run again.
    Over,
    /// Another instance has its place.
    Replaced,
}

/// Runs the actor, after `wait` and when it is its turn, until it is told to stop, gives up, or is replaced.
pub(crate) async fn supervise<A>(lease: Lease, wait: Duration, mailbox: AddressReceiver<A>, factory: Factory<A>) -> Outcome
where
    A: Actor<Context = Context<A>> + Supervised,
{
    let cell = Arc::clone(&lease.cell);
    // `restart` numbers the actor's futures from 1 again, but keeps cancellations that were not yet carried out: a
    // stale one would take a new timer away. So every restart gets parts of its own, made while the mailbox is here
    let mut parts: Vec<_> = (0..CLEAN_RESTARTS).map(|_| mailbox.sender_producer()).collect();
    let mut clean = move || parts.pop().map(ContextParts::new);
    let mut unborn = Some(Context::with_receiver(mailbox));
    if let Some(over) = wait_out(&cell, lease.instance, wait).await {
        cell.enter(lease.instance, Phase::Stopped);
        return over;
    }
    if !wait.is_zero() {
        cell.enter(lease.instance, Phase::Starting);
    }
    let mut actor: Option<ContextFut<A, Context<A>>> = None;
    let mut started = begin(&lease, &factory, &mut clean, &mut unborn, &mut actor);
    loop {
        let end = match (started, actor.as_mut()) {
            (Ok(()), Some(actor)) => run(&cell, lease.instance, actor).await,
            (Ok(()), None) => End::Failed(Cause::Start, "the actor is gone".to_owned()),
            (Err(detail), _) => End::Failed(Cause::Start, detail),
        };
        let (cause, detail) = match end {
            End::Failed(cause, detail) => (cause, detail),
            End::Ordered => {
                if let Some(actor) = actor.as_mut() {
                    farewell(cell.id(), actor);
                }
                bury(cell.id(), actor);
                cell.enter(lease.instance, Phase::Stopped);
                return Outcome::Over;
            }
            End::Replaced => {
                bury(cell.id(), actor);
                return Outcome::Replaced;
            }
        };
        match cell.ended(cause, &detail) {
            Verdict::Restart(wait) => {
                cell.enter(lease.instance, Phase::Backoff);
                // an actor lets go of everything at once, so that whoever waits for an answer is told now
                let renewed = actor.is_some().then(|| begin(&lease, &factory, &mut clean, &mut unborn, &mut actor));
                if let Some(over) = wait_out(&cell, lease.instance, wait).await {
                    bury(cell.id(), actor);
                    cell.enter(lease.instance, Phase::Stopped);
                    return over;
                }
                cell.enter(lease.instance, Phase::Starting);
                started = renewed.unwrap_or_else(|| begin(&lease, &factory, &mut clean, &mut unborn, &mut actor));
            }
            Verdict::GiveUp => {
                bury(cell.id(), actor);
                cell.enter(lease.instance, Phase::Failed);
                cell.escalate(&detail);
                return Outcome::Over;
            }
            Verdict::Finish => {
                bury(cell.id(), actor);
                cell.enter(lease.instance, Phase::Stopped);
                return Outcome::Over;
            }
        }
    }
}

/// Makes the actor, or makes it start anew.
fn begin<A>(
    lease: &Lease,
    factory: &Factory<A>,
    clean: &mut dyn FnMut() -> Option<ContextParts<A>>,
    unborn: &mut Option<Context<A>>,
    actor: &mut Option<ContextFut<A, Context<A>>>,
) -> Result<(), String>
where
    A: Actor<Context = Context<A>> + Supervised,
{
    let id = lease.cell.id();
    let made = guarded(id, || {
        if let Some(actor) = actor.as_mut() {
            if let Some(parts) = clean() {
                *actor.ctx().parts() = parts;
            }
            return actor.restart();
        }
        let value = factory(lease);
        *actor = unborn.take().map(|context| context.into_future(value));
        actor.is_some()
    })?;
    if !made {
        return Err("its mailbox is closed".to_owned());
    }
    if let Some(actor) = actor.as_mut() {
        failpoint::plant(id, actor.ctx());
        // polled after `started` and whatever `started` waits for, before the first message
        actor.ctx().wait(Started { cell: Arc::clone(&lease.cell), instance: lease.instance });
    }
    Ok(())
}

/// Tells that `started` went well.
struct Started {
    cell: Arc<Cell>,
    instance: u64,
}

impl<A: Actor> ActorFuture<A> for Started {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut A, _: &mut A::Context, _: &mut task::Context<'_>) -> Poll<()> {
        self.cell.enter(self.instance, Phase::Running);
        Poll::Ready(())
    }
}

/// Polls the actor until it ends or something from outside ends it.
async fn run<A>(cell: &Cell, instance: u64, actor: &mut ContextFut<A, Context<A>>) -> End
where
    A: Actor<Context = Context<A>>,
{
    let mut ordered = pin!(ordered(cell, instance));
    let mut first = true;
    poll_fn(|cx| {
        if !cell.is_current(instance) {
            return Poll::Ready(End::Replaced);
        }
        if let Poll::Ready(end) = ordered.as_mut().poll(cx) {
            return Poll::Ready(end);
        }
        let polled = guarded(cell.id(), || {
            if std::mem::take(&mut first) {
                failpoint::started(cell.id());
            }
            failpoint::dispatch(cell.id());
            Pin::new(&mut *actor).poll(cx)
        });
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => Poll::Ready(End::Failed(Cause::Stop, cell.last_words())),
            Err(detail) => {
                let cause = if cell.standing().phase == Phase::Starting { Cause::Start } else { Cause::Panic };
                Poll::Ready(End::Failed(cause, detail))
            }
        }
    })
    .await
}

async fn ordered(cell: &Cell, instance: u64) -> End {
    let mut orders = cell.orders();
    let mut standing = cell.watch();
    loop {
        let order = *orders.borrow_and_update();
        match order {
            Order::Stop => return End::Ordered,
            Order::Restart(number, why) if !cell.order_was_seen(number) => {
                cell.order_seen(number);
                return match why {
                    Why::Hung => End::Failed(Cause::Hang, "it did not answer its heartbeat".to_owned()),
                    Why::With(sibling) => End::Failed(Cause::Group, format!("restarted because {sibling} failed")),
                };
            }
            Order::Go | Order::Restart(..) => {}
        }
        if !cell.is_current(instance) {
            return End::Replaced;
        }
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { return End::Ordered; },
            changed = standing.changed() => if changed.is_err() { return End::Ordered; },
        }
    }
}

/// Sleeps the backoff and waits for its turn; tells if the child shall not be restarted after all.
async fn wait_out(cell: &Cell, instance: u64, wait: Duration) -> Option<Outcome> {
    let stopped = async {
        loop {
            match ordered(cell, instance).await {
                End::Ordered => return Outcome::Over,
                End::Replaced => return Outcome::Replaced,
                // it is being restarted already
                End::Failed(..) => {}
            }
        }
    };
    let due = async {
        // even no time at all is rounded up to a tick of the timer
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        cell.turn().await;
    };
    tokio::select! {
        biased;
        over = stopped => Some(over),
        () = due => None,
    }
}

/// Lets a healthy actor run its `stopping` and `stopped`.
fn farewell<A: Actor<Context = Context<A>>>(id: &'static str, actor: &mut ContextFut<A, Context<A>>) {
    let polled = guarded(id, || {
        actor.ctx().stop();
        Pin::new(&mut *actor).poll(&mut task::Context::from_waker(task::Waker::noop())).is_ready()
    });
    drop(polled);
}

/// Drops an actor without running its hooks: they would see a broken value, and a panic in `stopped` while the
/// value is dropped would abort the process.
fn bury<A: Actor<Context = Context<A>>>(id: &'static str, actor: Option<ContextFut<A, Context<A>>>) {
    if let Some(mut actor) = actor {
        actor.ctx().terminate();
        drop(guarded(id, move || drop(actor)));
    }
}

/// Runs the actor's code under its name; a panic becomes its message.
fn guarded<T>(id: &'static str, work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(|| panics::in_actor(id, work))).map_err(|payload| {
        let text = panics::message(&*payload);
        // a payload may panic when dropped; that must not escape either
        drop(catch_unwind(AssertUnwindSafe(move || drop(payload))));
        text
    })
}
