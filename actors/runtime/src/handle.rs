//! How others reach a supervised actor: a handle that stays valid whatever happens to the actor.
//!
//! actix counts a mailbox's bound per *sender*: every clone of an `Addr` brings one more slot, and
//! `Addr::send().await` makes such a clone when the mailbox is full. So a handle keeps one sender for all its clones.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use actix::{
    Actor, Context, Handler, Message, Recipient,
    dev::{SendError, channel::AddressSender},
};
use arc_swap::ArcSwapOption;
use opspilot_kernel::lifecycle::Drain;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{
    TallyCounts,
    cell::{Cell, Phase, Standing},
};

/// Why a question was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The actor failed on it, is being restarted for longer than the deadline, was given up or has stopped.
    #[error("the part of the service this needs is not available just now")]
    Unavailable,
    /// Its mailbox is full.
    #[error("the part of the service this needs is busy")]
    Busy,
    /// It did not answer within the deadline.
    #[error("the part of the service this needs did not answer in time")]
    TimedOut,
}

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    /// The mailbox is full.
    #[error("the mailbox is full")]
    Full,
    /// There is nobody to read it any more.
    #[error("there is nobody to read it")]
    Closed,
}

/// Something that takes messages of one type, with a bound. Implemented by [`Handle`] and by a kept `Recipient`.
pub trait Inlet<M>: Send + Sync {
    /// Hands over a message without waiting.
    fn offer(&self, message: M) -> Result<(), TellError>;
}

/// A stable way to one supervised actor. Clones share the mailbox bound.
pub struct Handle<A: Actor<Context = Context<A>>> {
    slot: Arc<Slot<A>>,
}

impl<A: Actor<Context = Context<A>>> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Handle { slot: Arc::clone(&self.slot) }
    }
}

impl<A: Actor<Context = Context<A>>> fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("id", &self.id()).field("standing", &self.slot.cell.standing()).finish()
    }
}

pub(crate) struct Slot<A: Actor<Context = Context<A>>> {
    pub(crate) cell: Arc<Cell>,
    sender: ArcSwapOption<AddressSender<A>>,
    /// For the supervisor's own questions: has a slot of its own, so that a full mailbox cannot keep them out.
    control: ArcSwapOption<AddressSender<A>>,
    /// Told, not yet known to be handled; oldest first. Bounded by the mailbox, since it is swept at every `tell`.
    told: Mutex<VecDeque<Box<dyn Told>>>,
}

impl<A: Actor<Context = Context<A>>> Slot<A> {
    pub(crate) fn new(cell: Arc<Cell>) -> Arc<Slot<A>> {
        Arc::new(Slot { cell, sender: ArcSwapOption::empty(), control: ArcSwapOption::empty(), told: Mutex::new(VecDeque::new()) })
    }

    /// Connects the handle to a mailbox.
    pub(crate) fn connect(&self, sender: AddressSender<A>, control: AddressSender<A>) {
        self.sender.store(Some(Arc::new(sender)));
        self.control.store(Some(Arc::new(control)));
        self.lose_told();
    }

    /// Nobody reads any more.
    pub(crate) fn disconnect(&self) {
        self.sender.store(None);
        self.control.store(None);
        self.sweep();
    }

    /// Asks the actor to finish what it has; false if it does not within `deadline`.
    pub(crate) async fn drain(slot: Arc<Slot<A>>, deadline: Duration) -> bool
    where
        A: Handler<Drain>,
    {
        let answer = match &*slot.control.load() {
            Some(control) => control.send(Drain),
            None => return false,
        };
        match answer {
            Ok(answer) => tokio::time::timeout(deadline, answer).await.is_ok_and(|answer| answer.is_ok()),
            Err(_) => false,
        }
    }

    /// What waits in a mailbox that is abandoned is lost, and counted so.
    fn lose_told(&self) {
        let mut told = self.told.lock();
        for mut waiting in told.drain(..) {
            match waiting.outcome() {
                Some(true) => self.cell.tally.ok(1),
                Some(false) | None => self.cell.tally.error(1),
            }
        }
    }

    /// What became of the messages so far.
    pub(crate) fn counts(&self) -> TallyCounts {
        self.sweep();
        self.cell.tally.counts()
    }

    fn sweep(&self) {
        let mut told = self.told.lock();
        while let Some(done) = told.front_mut().and_then(|first| first.outcome()) {
            if done {
                self.cell.tally.ok(1);
            } else {
                self.cell.tally.error(1);
            }
            told.pop_front();
        }
    }
}

/// A message that was told: whether it was handled (`Some(true)`), died with its actor, or still waits.
trait Told: Send {
    fn outcome(&mut self) -> Option<bool>;
}

impl<R: Send> Told for oneshot::Receiver<R> {
    fn outcome(&mut self) -> Option<bool> {
        match self.try_recv() {
            Ok(_) => Some(true),
            Err(oneshot::error::TryRecvError::Closed) => Some(false),
            Err(oneshot::error::TryRecvError::Empty) => None,
        }
    }
}

/// Counts a question as failed unless it was answered: also when the asker goes away.
struct Asked<'a> {
    cell: &'a Cell,
    answered: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.answered {
            self.cell.tally.ok(1);
        } else {
            self.cell.tally.error(1);
        }
    }
}

impl<A: Actor<Context = Context<A>>> Handle<A> {
    pub(crate) fn new(slot: Arc<Slot<A>>) -> Handle<A> {
        Handle { slot }
    }

    /// The child's name.
    pub fn id(&self) -> &'static str {
        self.slot.cell.id()
    }

    /// Where the child stands.
    pub fn phase(&self) -> Phase {
        self.slot.cell.standing().phase
    }

    /// Waits until the child runs, is given up or stops; tells which.
    pub async fn settled(&self) -> Phase {
        let mut watch = self.slot.cell.watch();
        let settled = watch.wait_for(|standing| standing.phase == Phase::Running || standing.phase.is_final()).await;
        settled.map_or(Phase::Stopped, |standing| standing.phase)
    }

    /// What became of the messages sent through this handle.
    pub fn tally(&self) -> TallyCounts {
        self.slot.counts()
    }

    /// Asks the actor and waits for the answer, at most for `deadline`.
    ///
    /// A message to an actor that is being restarted waits in its mailbox. If the deadline passes first the message
    /// is withdrawn, unless the actor has begun to handle it.
    pub async fn ask<M>(&self, message: M, deadline: Duration) -> Result<M::Result, AskError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let cell = &*self.slot.cell;
        let mut watch = cell.watch();
        let before = *watch.borrow_and_update();
        if before.phase.is_final() {
            return Err(AskError::Unavailable);
        }
        let sent = match &*self.slot.sender.load() {
            Some(sender) => sender.send(message),
            None => return Err(AskError::Unavailable),
        };
        let answer = match sent {
            Ok(answer) => answer,
            Err(SendError::Full(_)) => return Err(AskError::Busy),
            Err(SendError::Closed(_)) => return Err(AskError::Unavailable),
        };
        cell.tally.received(1);
        let mut asked = Asked { cell, answered: false };
        let gone = gone(&mut watch, before.instance);
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(answer) => {
                    asked.answered = true;
                    Ok(answer)
                }
                Err(_) => Err(AskError::Unavailable),
            },
            () = gone => Err(AskError::Unavailable),
            () = tokio::time::sleep(deadline) => match cell.standing().phase {
                Phase::Running => Err(AskError::TimedOut),
                Phase::Starting | Phase::Backoff | Phase::Failed | Phase::Stopped => Err(AskError::Unavailable),
            },
        }
    }

    /// Hands a message to the actor without waiting for anything.
    pub fn tell<M>(&self, message: M) -> Result<(), TellError>
    where
        A: Handler<M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        self.slot.sweep();
        let sender = self.slot.sender.load();
        let sender = sender.as_ref().ok_or(TellError::Closed)?;
        // under the lock, so that the order of `told` is the order of the mailbox
        let mut told = self.slot.told.lock();
        match sender.send(message) {
            Ok(outcome) => {
                self.slot.cell.tally.received(1);
                told.push_back(Box::new(outcome));
                Ok(())
            }
            Err(SendError::Full(_)) => Err(TellError::Full),
            Err(SendError::Closed(_)) => Err(TellError::Closed),
        }
    }
}

/// Ends when the instance that was asked can no longer answer.
async fn gone(watch: &mut watch::Receiver<Standing>, instance: u64) {
    // a plain value: what is borrowed from the watch must not live across the await
    let over = watch.wait_for(|standing| standing.instance != instance || standing.phase == Phase::Failed).await.is_err();
    if over {
        std::future::pending::<()>().await;
    }
}

impl<A, M> Inlet<M> for Handle<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn offer(&self, message: M) -> Result<(), TellError> {
        self.tell(message)
    }
}

impl<M> Inlet<M> for Recipient<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn offer(&self, message: M) -> Result<(), TellError> {
        self.try_send(message).map_err(|error| match error {
            SendError::Full(_) => TellError::Full,
            SendError::Closed(_) => TellError::Closed,
        })
    }
}
